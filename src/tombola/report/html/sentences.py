"""What was found, in three sentences with numbers, made from the tables."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from tombola.report.html.series import ticket_arm
from tombola.report.html.tables import signed
from tombola.report.words import counted, in_order, percent, plain

ACCURACY = "early_stop_test_accuracy"


def findings(
    statistics: pd.DataFrame,
    verdicts: pd.DataFrame,
    gains: pd.DataFrame,
    break_down: pd.DataFrame,
    margin: float,
) -> tuple[str, ...]:
    """Return what one study found: at which levels its tickets win, what the controls say, and down to where.

    Args:
        statistics: `tombola.analysis.level_statistics`.
        verdicts: `tombola.analysis.verdicts`, made with `margin`.
        gains: `tombola.analysis.paired_differences` of the ticket arm over each other arm.
        break_down: `tombola.analysis.break_down`.
        margin: by how much accuracy may be less, as a fraction.
    """
    if statistics.empty:
        return ("Nothing has been trained yet.",)
    arm = ticket_arm(in_order(statistics["arm"]))
    trials = int(statistics.loc[statistics["arm"] == arm, "n"].max())
    if trials == 0:
        return ("Every run so far has diverged: there is nothing to report.",)
    if trials == 1:
        return (
            "One trial has been run, so nothing can be concluded about variation: what follows describes that trial, "
            "without intervals.",
            *_present(_best(statistics, arm), _controls(gains, arm)),
        )
    return _present(
        _winning(verdicts, arm, trials, margin), _controls(gains, arm), _break_down(break_down, arm, margin)
    )


def _present(*sentences: str) -> tuple[str, ...]:
    return tuple(sentence for sentence in sentences if sentence)


def _winning(verdicts: pd.DataFrame, arm: str, trials: int, margin: float) -> str:
    rows = verdicts[verdicts["arm"] == arm].sort_values("level")
    if rows.empty:
        return ""
    name, points = plain(arm), f"{100 * margin:g} points"
    won = rows[rows["verdict"] == "winning ticket"]
    if won.empty:
        counts = rows["verdict"].value_counts()
        others = ", ".join(
            f"{kind} at {counts[kind]}" for kind in ("matching", "losing", "inconclusive") if kind in counts
        )
        return (
            f"None of the {counted(len(rows), 'level')} of {name} is shown to hold a winning ticket over "
            f"{counted(trials, 'trial')}: {others}."
        )
    sparsest = won["density"].min()
    densest = won["density"].max()
    span = (
        f"from {percent(densest)} % down to {percent(sparsest)} % of the weights"
        if len(won) > 1
        else f"with {percent(sparsest)} % of the weights"
    )
    return (
        f"Winning tickets: at {len(won)} of {counted(len(rows), 'level')}, {span}, {name} is no less accurate than the "
        f"dense network (within {points}) and stops no later, on intervals over {counted(trials, 'trial')}."
    )


def _best(statistics: pd.DataFrame, arm: str) -> str:
    """Return where one trial was most accurate, beside its dense network."""
    rows = statistics[(statistics["arm"] == arm) & (statistics["measure"] == ACCURACY)].dropna(subset=["mean"])
    dense, pruned = rows[rows["level"] == 0], rows[rows["level"] > 0]
    if dense.empty or pruned.empty:
        return ""
    best: Any = pruned.loc[pruned["mean"].idxmax()]
    baseline = float(dense["mean"].iloc[0])
    return (
        f"In it {plain(arm)} is most accurate at early stop with {percent(best['density'])} % of the weights: "
        f"{100 * best['mean']:.2f} %, {signed(100 * (best['mean'] - baseline))} points from the dense network's "
        f"{100 * baseline:.2f} %."
    )


def _controls(gains: pd.DataFrame, arm: str) -> str:
    """Return the largest gain over each control."""
    found: list[tuple[str, str]] = []
    for control in in_order(gains["baseline"]) if len(gains) else ():
        rows = gains[(gains["baseline"] == control) & (gains["level"] > 0)].dropna(subset=["mean"])
        if rows.empty:
            continue
        # Where intervals are known, the gain that is surest to be large, not one that happens to be.
        sure = rows["low"] if rows["low"].notna().any() else rows["mean"]
        best: Any = rows.loc[sure.idxmax()]
        interval = f" ({signed(best['low'])} to {signed(best['high'])})" if math.isfinite(best["low"]) else ""
        found.append((f"{signed(best['mean'])}{interval} over {plain(control)}", percent(best["density"])))
    if not found:
        return ""
    gains = "gain" if len(found) == 1 else "gains"
    start = f"The largest {gains} of {plain(arm)} over its controls, in points of accuracy at early stop"
    if len({density for _, density in found}) > 1:
        return f"{start}: {_listed([f'{part} with {density} % of the weights' for part, density in found])}."
    every = "all " if len(found) > 1 else ""
    return f"{start}, {every}with {found[0][1]} % of the weights: {_listed([part for part, _ in found])}."


def _break_down(break_down: pd.DataFrame, arm: str, margin: float) -> str:
    parts = []
    for name in [arm, *(each for each in in_order(break_down["arm"]) if each != arm)]:
        for row in break_down[break_down["arm"] == name].to_dict("records"):
            parts.append(_holds_down_to(plain(name), row))
    if not parts:
        return ""
    return f"Accuracy at early stop stays within {100 * margin:g} points of the dense network's {_listed(parts)}."


def _holds_down_to(name: str, row: dict[str, Any]) -> str:
    density = f"{percent(row['density'])} %"
    if row["censored"] == row["n"]:
        return f"down to the sparsest level, {density} of the weights, in {name}"
    if row["censored"]:
        return f"down to {density} or less in {name} ({row['censored']} of {row['n']} trials never broke down)"
    if row["density"] >= 1:
        return f"at no level in {name}"
    interval = f" ({percent(row['low'])} to {percent(row['high'])} %)" if math.isfinite(row["low"]) else ""
    return f"down to {density} in {name}{interval}"


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
