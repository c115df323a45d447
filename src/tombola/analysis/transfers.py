"""Transferred tickets against the target's own: is a ticket from elsewhere as good, and better than random places?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from tombola.analysis.measures import allowed_loss, early_of
from tombola.analysis.paired import at_equal_density, paired_gains
from tombola.analysis.spread import trial_means
from tombola.analysis.summary import biased, diverged
from tombola.tasks.metric import MARGIN, Metric, metric_of

AS_GOOD, WORSE, OPEN = "as good", "worse", "inconclusive"
COLUMNS = ["study", "arm", "source", "take", "level", "density", "n", "mean", "low", "high", "verdict", "over_random"]
OWN, RANDOM = "ticket", "random-mask"


def transfers(
    levels: pd.DataFrame,
    sources: Mapping[tuple[str, str], tuple[str, str]],
    margin: float | Mapping[str, float] = MARGIN,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return a row for each (study, transferred arm, level): its gain over the study's own ticket, paired by trial.

    With [low, high] the interval of the gain in the test metric at early stop, the verdict is `as good` where low lies
    above minus the margin, `worse` where high lies below it, else `inconclusive`; so it is with fewer than two trials,
    without variation between trials, and where a run of the level diverged or a trial of the arm lacks it, unless it is
    `worse`. Where the two tickets of a trial differ in density, nothing is compared, and the numbers are NaN.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level), as `Results.frame()` gives.
        sources: (study, arm) -> where its ticket was found, and what was taken.
        margin: the loss that still counts as none: 0.001 is 0.1 percentage points, or 0.1 % of another metric. Or such
            a number for each study.
        confidence: of the two-sided intervals.

    Returns:
        COLUMNS. `mean`, `low` and `high` are in shown units. `over_random`: whether the interval of the gain over the
        arm `random-mask` lies above 0; it is False where there is none, and where a run of the two is lost. Studies
        without an arm `ticket` are left out.
    """
    metric, rows = metric_of(levels), []
    lost = biased(levels)
    for (study, arm), (source, take) in sources.items():
        mine = levels[levels["study"] == study]
        if not {arm, OWN} <= set(mine["arm"]):
            continue
        found = paired_gains(mine, arm, OWN, early_of(metric), confidence)
        unequal = ~found.index.isin(at_equal_density(found, mine).index)
        found.loc[unequal, ["mean", "low", "high"]] = math.nan
        over_random = _above_random(mine, arm, metric, confidence)
        allowed = _allowed(mine, metric, margin[study] if isinstance(margin, Mapping) else margin)
        for row in found.to_dict("records"):
            level = row["level"]
            is_lost = {name: (study, name, level) in lost for name in (arm, OWN, RANDOM)}
            verdict = _verdict(row, allowed, is_lost[arm] or is_lost[OWN])
            better = level in over_random and not (is_lost[arm] or is_lost[RANDOM])
            place = {"study": study, "arm": arm, "source": source, "take": take, "verdict": verdict}
            rows.append({**row, **place, "over_random": better})
    return pd.DataFrame(rows, columns=COLUMNS)


def _verdict(row: Mapping[str, float], allowed: float, lost: bool) -> str:
    if row["n"] < 2 or row["low"] == row["high"] or math.isnan(row["mean"]):
        return OPEN
    if row["high"] < -allowed:
        return WORSE
    return AS_GOOD if row["low"] > -allowed and not lost else OPEN


def _above_random(levels: pd.DataFrame, arm: str, metric: Metric, confidence: float) -> set[int]:
    """Return the levels at which the interval of the gain over random places lies above 0."""
    if RANDOM not in set(levels["arm"]):
        return set()
    found = at_equal_density(paired_gains(levels, arm, RANDOM, early_of(metric), confidence), levels)
    return set(found.loc[(found["low"] > 0) & (found["low"] < found["high"]), "level"])


def _allowed(levels: pd.DataFrame, metric: Metric, margin: float) -> float:
    """Return the loss that still counts as none, in shown units."""
    if metric.unit == "%":
        return 100 * margin
    dense = levels[(levels["level"] == 0) & ~diverged(levels)]
    value = float(trial_means(dense, ["study"], [early_of(metric)])[early_of(metric)].mean())
    return metric.scale * allowed_loss(metric, margin, value)
