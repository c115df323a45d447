"""Barriers on the interpolations between runs, and which runs are stable to the noise of training.

Frankle, Dziugaite, Roy, Carbin 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", Section 2.
"""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from tombola.analysis.intervals import means
from tombola.errors import InputError
from tombola.training.loop import ROUNDING

LINE = ["study", "kind", "trial", "rewind", "level", "other_level", "copy", "other_copy", "line"]
GROUP = ["study", "kind", "rewind", "level"]
PARTS = ("test", "train")
ERROR, LOSS = "error", "loss"
BARRIER_COLUMNS = [*LINE, "density", *(f"{part}_{what}" for part in PARTS for what in ("barrier", "ends"))]
STATISTICS = ("mean", "low", "high", "std")
TABLE_COLUMNS = [
    *GROUP,
    "other_level",
    "density",
    "pairs",
    "trials",
    *(f"{part}_{statistic}" for part in PARTS for statistic in STATISTICS),
    "threshold",
    "stable",
]


def height_of(points: pd.DataFrame) -> str:
    """Return what barriers are measured in: "error", or "loss" for points of a task that has no error rate.

    Raises:
        InputError: the points are of studies that differ in this.
    """
    if points.empty or "test_error" not in points:
        return ERROR if points.empty else LOSS
    known = points.groupby("study", observed=True)["test_error"].count() > 0
    if known.nunique() > 1:
        names = " and ".join(str(study) for study in known.index)
        raise InputError(
            f"the barriers of {names} can't be compared: some are errors, others losses; show each study alone"
        )
    return ERROR if known.all() else LOSS


def barriers(points: pd.DataFrame) -> pd.DataFrame:
    """Return the barrier of each pair of runs: the highest error on their interpolation minus the mean of its two ends.

    For tasks without an error rate, the barrier is one in loss. The ends count as points, so two ends that differ give
    a barrier of half their difference even without a bump in between. The barrier is infinite where a point of the
    line has no finite value.

    Arguments:
        points: as returned by `Results.connectivity()`.

    Returns:
        A row for each line under each kind, in their order: LINE; `density` of the sparser run; `test_barrier` and
        `train_barrier`; `test_ends` and `train_ends`, the means of the ends. Errors are fractions.
    """
    if points.empty:
        return pd.DataFrame(columns=BARRIER_COLUMNS)
    height = height_of(points)
    lines = points.sort_values("position", kind="stable").groupby(LINE, sort=False)
    found = pd.DataFrame({"density": lines["density"].first()})
    for part in PARTS:
        name = f"{part}_{height}"
        error = lines[name]
        found[f"{part}_ends"] = (error.first() + error.last()) / 2
        found[f"{part}_barrier"] = error.max() - found[f"{part}_ends"]
        measured = points[name].notna().groupby(points["study"], observed=True).transform("any")
        broken = points[measured & ~np.isfinite(points[name].astype(float))]
        found.loc[pd.MultiIndex.from_frame(broken[LINE].drop_duplicates()), f"{part}_barrier"] = math.inf
    order = points.drop_duplicates(LINE)[LINE]
    return order.merge(found.reset_index(), on=LINE)[BARRIER_COLUMNS]


def barrier_statistics(points: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the barriers by kind, rewind iteration and level.

    Pairs of one trial are not independent: they share their start, and one copy takes part in several pairs. So they
    are averaged within the trial first, and each trial counts once.

    Arguments:
        points: as returned by `Results.connectivity()`.
        threshold: the highest barrier that is called stable, as a fraction (the paper's is 0.02, its Section 3) or in
            units of the loss, as `height_of` says.

    Returns:
        GROUP; `other_level`; `density`, mean over pairs; `pairs` and `trials`, how many; for the test and the training
        part `<part>_mean`, the barrier's mean over trials, its 95 % t interval `_low` to `_high` (NaN for one trial),
        and `_std` over all pairs (ddof=1; NaN for one pair); `threshold`, as given; and `stable`: whether `test_mean`
        is at most the threshold. The mean decides, not the interval and not single pairs.
    """
    pairs = barriers(points)
    if pairs.empty:
        return pd.DataFrame(columns=TABLE_COLUMNS)
    groups = pairs.groupby(GROUP, sort=False)
    table = groups.agg(
        other_level=("other_level", "first"),
        density=("density", "mean"),
        pairs=("line", "size"),
        trials=("trial", "nunique"),
        test_std=("test_barrier", "std"),
        train_std=("train_barrier", "std"),
    )
    columns = [f"{part}_barrier" for part in PARTS]
    means_of_trials = pairs.groupby([*GROUP, "trial"], sort=False)[columns].mean()  # an infinite barrier stays
    of_trials = means_of_trials.groupby(GROUP, sort=False)
    for part in PARTS:
        found = means([values.to_numpy() for _, values in of_trials[f"{part}_barrier"]])
        for statistic in ("mean", "low", "high"):
            table[f"{part}_{statistic}"] = getattr(found, statistic)
    table = table.reset_index().assign(threshold=threshold)
    table["stable"] = table["test_mean"] <= threshold + ROUNDING
    return table[TABLE_COLUMNS]
