"""Error barriers on the lines between runs, and which runs are stable to the noise of training.

Frankle, Dziugaite, Roy, Carbin 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis", Section 2.
"""

from __future__ import annotations

import pandas as pd

from tombola.analysis.intervals import means
from tombola.analysis.spread import trial_means
from tombola.training.loop import ROUNDING

LINE = ["study", "kind", "trial", "rewind", "level", "other_level", "copy", "other_copy", "line"]
GROUP = ["study", "kind", "rewind", "level"]
PARTS = ("test", "train")
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


def barriers(points: pd.DataFrame) -> pd.DataFrame:
    """Return the error barrier of each pair of runs: the highest error on the line less the mean of its two ends.

    The ends count as points of the line. So where they differ, half of the difference is a barrier already, though
    there is no bump in between: something to know of lines whose ends are not of one kind.

    Arguments:
        points: as `Results.connectivity()` gives them.

    Returns:
        A row for each line under each kind, in their order: LINE; `density` of the sparser run; `test_barrier` and
        `train_barrier`; `test_ends` and `train_ends`, the means of the ends. All are fractions.
    """
    if points.empty:
        return pd.DataFrame(columns=BARRIER_COLUMNS)
    lines = points.sort_values("position", kind="stable").groupby(LINE, sort=False)
    found = pd.DataFrame({"density": lines["density"].first()})
    for part in PARTS:
        error = lines[f"{part}_error"]
        found[f"{part}_ends"] = (error.first() + error.last()) / 2
        found[f"{part}_barrier"] = error.max() - found[f"{part}_ends"]
    order = points.drop_duplicates(LINE)[LINE]
    return order.merge(found.reset_index(), on=LINE)[BARRIER_COLUMNS]


def barrier_statistics(points: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """Return the barriers by kind, rewind iteration and level.

    The pairs of one trial share their start, and copies stand in several of them, so pairs are no independent
    evidence: they are averaged within the trial first, and the trial then counts once.

    Arguments:
        points: as `Results.connectivity()` gives them.
        threshold: the highest barrier that is called stable, as a fraction; the paper's is 0.02 (its Section 3).

    Returns:
        GROUP; `other_level`; `density`, mean over pairs; `pairs` and `trials`, how many; for the test and the training
        part `<part>_mean`, the barrier's mean over trials, its 95 % t interval `_low` to `_high` (NaN for one trial),
        and `_std` over all pairs (ddof=1; NaN for one pair); `threshold`, as given; and `stable`: whether `test_mean`
        is at or below it. It is the mean that decides, not the interval, nor each single pair. All barriers are
        fractions.
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
    of_trials = trial_means(pairs, GROUP, [f"{part}_barrier" for part in PARTS]).groupby(GROUP, sort=False)
    for part in PARTS:
        found = means([values.to_numpy() for _, values in of_trials[f"{part}_barrier"]])
        for statistic in ("mean", "low", "high"):
            table[f"{part}_{statistic}"] = getattr(found, statistic)
    table = table.reset_index().assign(threshold=threshold)
    table["stable"] = table["test_mean"] <= threshold + ROUNDING
    return table[TABLE_COLUMNS]
