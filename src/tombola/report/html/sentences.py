"""What was found, in three sentences with numbers, made from the tables."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from tombola.analysis.verdicts import INCONCLUSIVE, LOSING, MATCHING, WINNING
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
            *_present(_best(statistics, arm), _controls(gains, arm, _most_accurate(statistics, arm), "")),
        )
    level, why = _telling_level(verdicts, statistics, arm)
    return _present(
        _winning(verdicts, arm, trials, margin),
        _controls(gains, arm, level, why),
        _break_down(break_down, arm, margin),
    )


def _present(*sentences: str) -> tuple[str, ...]:
    return tuple(sentence for sentence in sentences if sentence)


def _winning(verdicts: pd.DataFrame, arm: str, trials: int, margin: float) -> str:
    rows = verdicts[verdicts["arm"] == arm].sort_values("level")
    if rows.empty:
        return ""
    name, points = plain(arm), f"{100 * margin:g} points"
    won = rows[rows["verdict"] == WINNING]
    counts = rows["verdict"].value_counts()
    others = _listed([f"{counts[kind]} {kind}" for kind in (MATCHING, LOSING, INCONCLUSIVE) if kind in counts])
    if won.empty:
        return (
            f"None of the {counted(len(rows), 'level')} of {name} is shown to hold a winning ticket over "
            f"{counted(trials, 'trial')}: {others}."
        )
    densities = [percent(won["density"].max()), percent(won["density"].min())]
    where = f"with {densities[0]} %" if len(won) == 1 else f"between {densities[0]} % and {densities[1]} %"
    return (
        f"Winning tickets at {len(won)} of {counted(len(rows), 'level')}, {where} of the weights: there {name} is no "
        f"less accurate than the dense network (within {points}) and stops no later, on intervals over "
        f"{counted(trials, 'trial')}" + (f"; the others: {others}." if others else ".")
    )


def _telling_level(verdicts: pd.DataFrame, statistics: pd.DataFrame, arm: str) -> tuple[int | None, str]:
    """Return the level at which the controls are asked, and why it is that one.

    Not the level of the largest gain: at the sparsest levels controls collapse, and a gain over them says little.
    """
    rows = verdicts[verdicts["arm"] == arm]
    for verdict, why in ((WINNING, "the sparsest winning ticket"), (MATCHING, "the sparsest matching level")):
        found = rows[rows["verdict"] == verdict]
        if len(found):
            return int(found["level"].max()), f", {why}"
    return _most_accurate(statistics, arm), ", its most accurate level"


def _most_accurate(statistics: pd.DataFrame, arm: str) -> int | None:
    rows = statistics[(statistics["arm"] == arm) & (statistics["measure"] == ACCURACY) & (statistics["level"] > 0)]
    rows = rows.dropna(subset=["mean"])
    return None if rows.empty else int(rows.loc[rows["mean"].idxmax(), "level"])


def _best(statistics: pd.DataFrame, arm: str) -> str:
    """Return where one trial was most accurate, beside its dense network."""
    rows = statistics[(statistics["arm"] == arm) & (statistics["measure"] == ACCURACY)].set_index("level")
    level = _most_accurate(statistics, arm)
    if level is None or not math.isfinite(rows["mean"].get(0, math.nan)):
        return ""
    best, dense = 100 * rows.loc[level, "mean"], 100 * rows.loc[0, "mean"]
    density = percent(rows.loc[level, "density"])
    return (
        f"In it {plain(arm)} is most accurate at early stop with {density} % of the weights: "
        f"{best:.2f} %, {signed(best - dense)} points from the dense network's {dense:.2f} %."
    )


def _controls(gains: pd.DataFrame, arm: str, level: int | None, why: str) -> str:
    """Return the gain over each control at one level."""
    rows = gains[gains["level"] == level].dropna(subset=["mean"]) if len(gains) else gains
    if rows.empty:
        return ""
    order = in_order(rows["baseline"])
    parts = []
    for row in sorted(rows.to_dict("records"), key=lambda row: order.index(row["baseline"])):
        interval = f" ({signed(row['low'])} to {signed(row['high'])})" if math.isfinite(row["low"]) else ""
        parts.append(f"{signed(row['mean'])} over {plain(row['baseline'])}{interval}")
    return (
        f"With {percent(rows['density'].mean())} % of the weights{why}, {plain(arm)} gains in accuracy at early stop, "
        f"in percentage points: {_listed(parts)}."
    )


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
