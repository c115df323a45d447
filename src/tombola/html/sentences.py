"""The findings in detail: short paragraphs with numbers from the tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any

import pandas as pd

from tombola.analysis.answer import STANDS
from tombola.analysis.measures import allowed_loss, early_of
from tombola.analysis.order import in_order
from tombola.analysis.rewinds import TWO_SIDED
from tombola.analysis.roles import main_arm_of, role_of, split
from tombola.analysis.rounds import Worth
from tombola.analysis.verdicts import INCONCLUSIVE, LOSING, MATCHING, WINNING
from tombola.formatting import counted, differences, margin_in_words, number, percent, plain, signed, typeset, with_unit
from tombola.tasks.metric import ACCURACY, Metric

FEW = 4  # arms that a sentence compares one by one
EQUAL = "equal in all trials: no interval"


def findings(
    statistics: pd.DataFrame,
    verdicts: pd.DataFrame,
    gains: pd.DataFrame,
    break_down: pd.DataFrame,
    margin: float,
    metric: Metric = ACCURACY,
    worth: Callable[[int | None], Worth | None] = lambda level: None,
    rewinds: pd.DataFrame | None = None,
    controls: Collection[str] | None = None,
) -> tuple[str, ...]:
    """Return the findings of one study: winning levels, later rewinds, gains over controls, break-down densities.

    Args:
        statistics: `tombola.analysis.level_statistics`.
        verdicts: `tombola.analysis.verdicts`, made with `margin`.
        gains: `tombola.analysis.paired_gains` of the ticket arm over each other arm.
        break_down: `tombola.analysis.break_down`.
        margin: the accepted loss, as a fraction.
        metric: of the study.
        worth: returns what `worth_of_rounds` says of a level.
        rewinds: `tombola.analysis.rewinds.later_rewinds`.
        controls: names of the arms that are controls; by default tombola's own.
    """
    if statistics.empty:
        return ("The study has no finished run yet.",)
    arm = main_arm_of(statistics)
    trials = int(statistics.loc[statistics["arm"] == arm, "n"].max())
    if trials == 0:
        return ("Every run so far diverged, so the page has no results to report.",)
    judged = verdicts[verdicts["arm"] == arm]
    compared = trials if judged.empty else int(judged["n"].max())
    if compared == 1:
        best = _best_of_one(judged, metric)
        at = _best_level(statistics, arm, metric) if best is None else int(best["level"])
        several = len(gains) > 0 and bool((gains.loc[gains["level"] == at, "n"] > 1).any())
        return (
            _alone(statistics, arm, trials, several),
            *_present(_best(best, statistics, arm, metric), *_gains(gains, arm, at, "", metric, controls)),
        )
    level, why = _telling_level(verdicts, statistics, arm, metric)
    told = _present(
        _winning(verdicts, arm, margin, metric),
        _rewinding(rewinds, arm, metric),
        *_gains(gains, arm, level, why, metric, controls),
        _rounds(worth(level), arm, _allowed(statistics, margin, metric), metric),
        _break_down(break_down, arm, margin, metric),
    )
    return told or ("No pruned network can be compared with a dense one.",)


def _alone(statistics: pd.DataFrame, arm: str, trials: int, several: bool) -> str:
    """Return how little one trial says; `several`: the gains over other arms are of several trials."""
    if trials > 1:
        alone = "Only one trial has both dense and pruned runs"
    else:
        alone = "The results contain one trial" if statistics["n"].max() == 1 else f"Arm {plain(arm)} has one trial"
    if several:
        return f"{alone}, so you can conclude nothing about how the difference from the dense network varies."
    return f"{alone}, so you can conclude nothing about variation. The page describes that trial, without intervals."


def _present(*sentences: str) -> tuple[str, ...]:
    return tuple(typeset(sentence) for sentence in sentences if sentence)


def _winning(verdicts: pd.DataFrame, arm: str, margin: float, metric: Metric) -> str:
    rows = verdicts[verdicts["arm"] == arm].sort_values("level")
    if rows.empty:
        return ""
    trials = _trials(rows)
    name, within = plain(arm), margin_in_words(margin, metric)
    no_worse = "no less accurate than" if metric == ACCURACY else f"no worse in {metric.words} than"
    won = rows[rows["verdict"] == WINNING]
    counts = rows["verdict"].value_counts()
    others = _listed([f"{counts[kind]} {kind}" for kind in (MATCHING, LOSING, INCONCLUSIVE) if kind in counts])
    if won.empty:
        return (
            f"Arm {name} has no confirmed winning ticket at its {counted(len(rows), 'level')} over {trials}: {others}."
        )
    stand = int((won["p_holm"] <= STANDS).sum())
    standing = "none stands" if stand == 0 else f"{stand} of them {'stands' if stand == 1 else 'stand'}"
    return (
        f"Arm {name} wins at {len(won)} of {counted(len(rows), 'level')}, with {_densities(won, rows)} % of the "
        "weights. "
        f"At these levels, it is {no_worse} the dense network (within {within}) and stops no later. The verdicts use "
        f"intervals over {trials}, for each level alone; {standing} after Holm's correction for the number of levels."
        + (f" The other levels: {others}." if others else "")
    )


def _densities(won: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Return the densities of the winning levels, three and more in a row as a range."""
    runs: list[list[float]] = []
    previous = False
    for level, density in zip(rows["level"], rows["density"], strict=True):
        wins = bool((won["level"] == level).any())
        if wins and previous:
            runs[-1].append(density)
        elif wins:
            runs.append([density])
        previous = wins
    parts = []
    for run in runs:
        parts += [f"{percent(run[0])} to {percent(run[-1])}"] if len(run) > 2 else [percent(each) for each in run]
    return _listed(parts)


def _trials(rows: pd.DataFrame) -> str:
    """Return the number of trials behind the verdicts of some levels, such as "2 to 5 trials"."""
    fewest, most = int(rows["n"].min()), int(rows["n"].max())
    return counted(most, "trial") if fewest == most else f"{fewest} to {counted(most, 'trial')}"


def _telling_level(
    verdicts: pd.DataFrame, statistics: pd.DataFrame, arm: str, metric: Metric
) -> tuple[int | None, str]:
    """Return the level at which to compare with the controls, and the reason for it.

    Not the level of the largest gain: at the sparsest levels controls collapse, and a gain over them says little.
    """
    rows = verdicts[verdicts["arm"] == arm]
    for verdict, why in ((WINNING, "the sparsest winning ticket"), (MATCHING, "the sparsest matching level")):
        found = rows[rows["verdict"] == verdict]
        if len(found):
            return int(found["level"].max()), f", {why}"
    return _best_level(
        statistics, arm, metric
    ), ", its most accurate level" if metric == ACCURACY else ", its best level"


def _best_level(statistics: pd.DataFrame, arm: str, metric: Metric) -> int | None:
    mine = (statistics["arm"] == arm) & (statistics["measure"] == early_of(metric)) & (statistics["level"] > 0)
    rows = statistics[mine].dropna(subset=["mean"])
    if rows.empty:
        return None
    best = rows["mean"].idxmax() if metric.better == "higher" else rows["mean"].idxmin()
    return int(rows.loc[best, "level"])


def _best_of_one(judged: pd.DataFrame, metric: Metric) -> dict[str, Any] | None:
    """Return the verdict's row of the best level of one trial; None where nothing is compared."""
    name = f"{metric.name}_difference"
    rows = judged.dropna(subset=[name]) if name in judged else judged.iloc[:0]
    if rows.empty:
        return None
    best = rows[name].idxmax() if metric.better == "higher" else rows[name].idxmin()
    return dict(rows.loc[best])


def _best(row: dict[str, Any] | None, statistics: pd.DataFrame, arm: str, metric: Metric) -> str:
    """Return the best level of one trial, compared with its dense network."""
    if row is None:
        return ""
    difference = float(row[f"{metric.name}_difference"])
    most = "most accurate" if metric == ACCURACY else f"best in {metric.words}"
    apart = f"{with_unit(signed(difference, metric), metric)} from the dense network"
    if values := _values_of_one(row["level"], difference, statistics, arm, metric):
        apart = f"{_shown(values[0], metric)}, {apart}'s {_shown(values[1], metric)}"
    density = percent(row["density"])
    return f"In this trial, {plain(arm)} is {most} at early stop with {density} % of the weights: {apart}."


def _values_of_one(
    level: int, difference: float, statistics: pd.DataFrame, arm: str, metric: Metric
) -> tuple[float, float] | None:
    """Return the values of an arm and of dense in the one trial that is compared, in shown units; None where unknown.

    Means over several trials are not of that trial: only a level that one trial has, or dense networks of one trial,
    give its values.
    """
    rows = statistics[statistics["measure"] == early_of(metric)]
    mine = rows[(rows["arm"] == arm) & (rows["level"] == level)]
    dense = rows[(rows["level"] == 0) & (rows["n"] > 0)]
    if (mine["n"] == 1).any():
        best = float(metric.scale * mine["mean"].iloc[0])
        return best, best - difference
    if (dense["n"] == 1).all() and dense["mean"].nunique() == 1:
        reference = float(metric.scale * dense["mean"].iloc[0])
        return reference + difference, reference
    return None


def _shown(value: float, metric: Metric) -> str:
    return f"{number(value, metric)} {metric.unit}".rstrip()


def _gains(
    gains: pd.DataFrame, arm: str, level: int | None, why: str, metric: Metric, controls: Collection[str] | None
) -> list[str]:
    """Return the gains over the controls at one level, and those over the other arms, of many the closest alone."""
    rows = gains[gains["level"] == level].dropna(subset=["mean"]) if len(gains) else gains
    if rows.empty:
        return []
    are_controls = rows["baseline"].map(lambda other: role_of(other, arm, controls) == "control").astype(bool)
    others = rows[~are_controls].sort_values("mean", kind="stable")
    closest = "" if len(others) <= FEW else f" Of {len(others)} other arms, this one comes closest."
    others = others if len(others) <= FEW else others.head(1)
    told = [_gain(rows[are_controls], arm, why, metric), _gain(others, arm, "", metric) + closest]
    return [sentence for sentence in told if sentence]


def _gain(rows: pd.DataFrame, arm: str, why: str, metric: Metric) -> str:
    """Return the gain over each of some arms, or the loss against it."""
    if rows.empty:
        return ""
    order = in_order(rows["baseline"])
    parts = []
    for row in sorted(rows.to_dict("records"), key=lambda row: order.index(row["baseline"])):
        size, low, high = differences([abs(row["mean"]), row["low"], row["high"]], metric)
        verb, than = ("loses", "against") if row["mean"] < 0 else ("gains", "over")
        interval = f" ({_interval(row['low'], row['high'], low, high)})" if math.isfinite(row["low"]) else ""
        parts.append(f"{verb} {size.lstrip('+')} {than} {plain(row['baseline'])}{interval}")
    unit = {"%": ", in percentage points", "": ""}.get(metric.unit, f", in {metric.unit}")
    lower = "" if metric.better == "higher" else " (lower is better)"
    return (
        f"With {percent(rows['density'].mean())} % of the weights{why}, {plain(arm)} {_listed(parts)} "
        f"in {metric.words} at early stop{lower}{unit}."
    )


def _interval(low: float, high: float, low_text: str, high_text: str) -> str:
    """Return "+0.06 to +0.67"; equal differences have no interval."""
    return f"{low_text} to {high_text}" if low < high else EQUAL


def _rewinding(rewinds: pd.DataFrame | None, arm: str, metric: Metric) -> str:
    """Return whether later rewinding helps: of all later rewinds and levels, how many gain over the first rewind."""
    rows = pd.DataFrame() if rewinds is None or rewinds.empty else rewinds[rewinds["low"].notna()]
    if rows.empty:
        return ""
    varied = rows[rows["low"] < rows["high"]]
    better, worse = varied[varied["low"] > 0], varied[varied["high"] < 0]
    stand = better[better["p_holm"] <= TWO_SIDED]
    best = (stand if len(stand) else rows).sort_values("mean", kind="stable").iloc[-1]
    if len(stand):
        head = f"Rewinding later helps: {len(stand)} of {counted(len(rows), 'comparison')} with {plain(arm)} stand"
        head += " after Holm's correction for their number."
    else:
        head = (
            f"These trials do not show that rewinding later helps. Of {counted(len(rows), 'comparison')} with "
            f"{plain(arm)}, each by itself, {len(better)} favour{'s' if len(better) == 1 else ''} the later rewind and "
            f"{len(worse)} the earlier one. After Holm's correction for their number, none favours the later one."
        )
    size, low, high = differences([best["mean"], best["low"], best["high"]], metric)
    rewind = split(str(best["arm"]))[1]
    return (
        f"{head} The largest gain is that of iteration {rewind:,}, with {percent(best['density'])} % of the weights: "
        f"{with_unit(size, metric)} ({_interval(best['low'], best['high'], low, high)})."
    )


def _allowed(statistics: pd.DataFrame, margin: float, metric: Metric) -> float:
    """Return the loss that still counts as none, in shown units."""
    rows = statistics[(statistics["measure"] == early_of(metric)) & (statistics["level"] == 0)]
    dense = float(rows["mean"].iloc[0]) if len(rows) else math.nan
    return metric.scale * allowed_loss(metric, margin, dense)


def _rounds(worth: Worth | None, arm: str, allowed: float, metric: Metric) -> str:
    """Return whether iterative pruning is worth its rounds; it is not where the gain is at most the margin."""
    if worth is None:
        return ""
    at = f"with {percent(worth.density)} % of the weights"
    if worth.low == worth.high:  # by chance: equal differences have no interval
        verdict = f"The trials do not decide whether iterative pruning is worth its rounds {at}"
    elif worth.low > 0:
        verdict = f"Iterative pruning is worth its rounds {at}"
    elif worth.high <= allowed:
        verdict = f"Iterative pruning is not worth its rounds {at}"
    else:
        verdict = f"The trials do not decide whether iterative pruning is worth its rounds {at}"
    best = "" if worth.others == 1 else f", the best of {worth.others} arms without rounds"
    verb, than = ("loses", "against") if worth.mean < 0 else ("gains", "over")
    size = with_unit(signed(abs(worth.mean), metric).lstrip("+"), metric)
    interval = _interval(worth.low, worth.high, signed(worth.low, metric), signed(worth.high, metric))
    return (
        f"{verdict}: {plain(arm)}{_priced(worth.cost)} {verb} {size} ({interval}) {than} "
        f"{plain(worth.baseline)}{_priced(worth.baseline_cost)}{best}."
    )


def _priced(cost: float) -> str:
    return f" (cost: {cost:.3g} dense runs)" if math.isfinite(cost) else ""


def _break_down(break_down: pd.DataFrame, arm: str, margin: float, metric: Metric) -> str:
    parts = []
    others = [each for each in in_order(break_down["arm"]) if each != arm]
    more = "" if len(others) <= FEW else f" break_down.csv below has the other {len(others)} arms."
    for name in [arm, *(others if not more else [])]:
        for row in break_down[break_down["arm"] == name].to_dict("records"):
            parts.append(_holds_down_to(plain(name), row))
    if not parts:
        return ""
    within = f"{100 * margin:g} {'points' if metric.unit == '%' else '%'}"
    return (
        f"Test {metric.words} at early stop stays within {within} of the dense network's {_listed(parts)}. "
        "Each density is the last one before two levels in a row, or the last level alone, leave that margin. "
        f"It is the geometric mean over trials.{more}"
    )


def _holds_down_to(name: str, row: dict[str, Any]) -> str:
    """Return the break-down density of one arm, with its range over trials."""
    first, last = percent(row["first"]), percent(row["last"])
    if row["censored"] == row["n"]:
        where = f"{first} %" if first == last else f"by trial {first} to {last} %"
        return f"down to the sparsest level in {name} ({where} of the weights)"
    if row["last"] >= 1:
        return f"at no level in {name}"
    if row["censored"]:
        return (
            f"down to the sparsest level in {row['censored']} of {counted(row['n'], 'trial')} of {name}, and at least "
            f"down to {first} % in the others"
        )
    if first == last:
        return f"down to {first} % in {name}"
    return f"down to {percent(row['density'])} % in {name} ({first} to {last} % by trial)"


def _listed(parts: list[str]) -> str:
    """Return "a, b and c"; "" for no parts."""
    if not parts:
        return ""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
