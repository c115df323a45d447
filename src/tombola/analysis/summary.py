"""The levels of a study, summed up over its trials."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tombola.analysis.measures import measures_of
from tombola.analysis.spread import STATISTICS, spread
from tombola.tasks.metric import metric_of

GROUP = ["study", "arm", "level"]


def summarise(levels: pd.DataFrame, measures: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row per (study, arm, level), with each measure's mean and spread over the trials.

    Each trial counts once: its repeats are averaged before the mean and the standard deviation are taken, while
    minimum and maximum are those of single runs. A run that diverged has no result to average; it is omitted
    of every statistic and counted, because how often an arm diverges is a result too.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level). A missing `status` column means that all went well.
        measures: the columns to describe; by default those of the study's metric.

    Returns:
        A table, sorted by level within each arm, arms in the order of their first appearance:
        `study`, `arm`, `level`;
        `density` and `remaining_weights`, means over all rows, diverged ones included;
        `n`, the trials behind the statistics, and `runs`, the rows behind them (more than n where an arm has
        repeats); `diverged`, the rows left out;
        and for each of `measures`: `_mean` and `_std` over the trials' means (ddof=1, NaN for n = 1), `_min` and
        `_max` over the runs.

    Raises:
        InputError: `measures` is not given, and the studies have different metrics.
    """
    measures = measures_of(metric_of(levels)) if measures is None else measures
    if levels.empty:
        return _empty(measures)
    lost = diverged(levels)
    sizes = levels[[*GROUP, "density", "remaining_weights"]].assign(diverged=lost)
    groups = sizes.groupby(GROUP, sort=False, observed=True)
    found = groups.agg(
        density=("density", "mean"),
        remaining_weights=("remaining_weights", "mean"),
        diverged=("diverged", "sum"),
    ).reset_index()

    result = found.merge(spread(levels[~lost], GROUP, measures), on=GROUP, how="left")
    counts = ["n", "runs", "diverged"]
    result[counts] = result[counts].fillna(0).astype(int)

    curves = list(zip(result["study"], result["arm"], strict=True))
    place = {curve: position for position, curve in enumerate(dict.fromkeys(curves))}
    result["place"] = [place[curve] for curve in curves]
    return result.sort_values(["place", "level"], ignore_index=True)[_columns(measures)]


def diverged(levels: pd.DataFrame) -> pd.Series:
    """Return which rows are of runs that diverged; a missing `status` column means that all went well."""
    return levels["status"].eq("diverged") if "status" in levels else pd.Series(False, index=levels.index)


def _columns(measures: Sequence[str]) -> list[str]:
    statistics = [f"{measure}_{statistic}" for measure in measures for statistic in STATISTICS]
    return [*GROUP, "density", "remaining_weights", "n", "runs", "diverged", *statistics]


def _empty(measures: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({column: pd.Series(dtype=float) for column in _columns(measures)})
