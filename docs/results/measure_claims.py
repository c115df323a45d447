"""Print what a `lenet-mnist` results table says about the paper's claims L1 to L5, as Markdown.

python docs/results/measure_claims.py results/lenet-mnist/results.csv
"""

from __future__ import annotations

import sys

import pandas as pd

STOP, EARLY, FINAL = "early_stop_iteration", "early_stop_test_accuracy", "final_test_accuracy"


def per_trial(table: pd.DataFrame, arm: str, column: str) -> pd.DataFrame:
    """Return one arm's values, a row per trial and a column per level, repeats of one trial averaged."""
    rows = table[(table.arm == arm) & (table.status == "ok")]
    return rows.pivot_table(index="trial", columns="level", values=column)


def spread(values: pd.Series, unit: str, digits: int = 1) -> str:
    """Return mean ± standard deviation and n."""
    deviation = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}{unit} (n = {len(values)})"


def main() -> None:
    """Read the table and print one row a claim."""
    table = pd.read_csv(sys.argv[1])
    pm = (100 * table[table.arm == "ticket"].groupby("level").density.mean()).round(1)
    arms = set(table.arm)

    def at(percent: float) -> int:
        return int((pm - percent).abs().idxmin())

    def levels(frame: pd.DataFrame, good: pd.Series) -> str:
        chosen = [level for level in frame.columns if level and bool(good[level])]
        if not chosen:
            return "no level"
        gaps = [level for level in range(chosen[0], chosen[-1]) if level not in chosen]
        exceptions = f", but for {', '.join(f'{pm[level]:g}' for level in gaps)}" if gaps else ""
        return f"{pm[chosen[0]]:g} >= Pm >= {pm[chosen[-1]]:g}{exceptions}"

    def first_below(arm: str, column: str) -> str:
        values = per_trial(table, arm, column).mean()
        below = [level for level in values.index if values[level] < values[0]]
        # The first level from which it stays below.
        lasting = [level for level in below if all(later in below for later in values.index if later > level)]
        return f"Pm {pm[lasting[0]]:g}" if lasting else "at no level"

    stop, early, final = (per_trial(table, "ticket", column) for column in (STOP, EARLY, FINAL))
    training = per_trial(table, "ticket", "final_train_accuracy").mean()
    level = at(21.1)
    gain, final_gain = (early.sub(early[0], axis=0) * 100, final.sub(final[0], axis=0) * 100)
    best, final_best = int(gain.mean().idxmax()), int(final_gain.mean().idxmax())
    back = [level for level in early.columns if level and early[level].mean() >= early[0].mean()]
    fastest = int(stop.mean().idxmin())
    full = [level for level in training.index if training[level] >= 0.995]
    rows = [
        (
            "L1 early stop at Pm 21 against dense",
            "38 % earlier",
            spread(100 * (1 - stop[level] / stop[0]), " % earlier at Pm " + f"{pm[level]:g}")
            + f"; earliest mean at Pm {pm[fastest]:g}: {stop[fastest].mean():,.0f} against {stop[0].mean():,.0f}",
        ),
        (
            "L2 accuracy at early stop rises",
            "> 0.3 points, best at Pm 13.5; dense level again at Pm 3.6",
            spread(gain[best], " points", 2) + f" at Pm {pm[best]:g}; last level not below dense: Pm {pm[back[-1]]:g}"
            if back
            else "never above dense",
        ),
        (
            "L3 accuracy at the end of training",
            "up to +0.35 points; training accuracy about 100 % for Pm >= 2 to 5",
            spread(final_gain[final_best], " points", 2)
            + f" at Pm {pm[final_best]:g}; training accuracy >= 99.5 % down to Pm {pm[full[-1]]:g}",
        ),
    ]
    if "reinit" in arms:
        other_stop, other = (per_trial(table, "reinit", column) for column in (STOP, EARLY))
        rows += [
            (
                "L4 below dense at early stop from",
                "reinit Pm 21.1; ticket Pm 2.9",
                f"reinit {first_below('reinit', EARLY)}; ticket {first_below('ticket', EARLY)}",
            ),
            (
                "L4 reinit against ticket at Pm 21",
                "2.51x later; half a point worse",
                spread(other_stop[level] / stop[level], "x later", 2)
                + "; "
                + spread(100 * (early[level] - other[level]), " points worse", 2),
            ),
        ]
    if "one-shot" in arms:
        shot_stop, shot = (per_trial(table, "one-shot", column) for column in (STOP, EARLY))
        rows += [
            (
                "L5 one-shot stops earlier than dense for",
                "67.5 >= Pm >= 17.6",
                levels(shot_stop, shot_stop.mean() < shot_stop[0].mean()),
            ),
            (
                "L5 one-shot more accurate than dense for",
                "95.0 >= Pm >= 5.17",
                levels(shot, shot.mean() > shot[0].mean()),
            ),
            (
                "L5 iterative better than one-shot at small sizes",
                "yes",
                f"at Pm {pm.iloc[-1]:g}: " + spread(100 * (early - shot).iloc[:, -1], " points better", 2),
            ),
        ]
    print("| claim | paper | measured |\n|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
