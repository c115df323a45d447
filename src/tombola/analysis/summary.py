"""The levels of a study, summed up over its trials."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tombola.analysis.measures import STOP, measures_of
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
        repeats); `diverged`, the rows left out; `own_dense`, whether arms of the study have dense runs of their own
        instead of sharing them;
        and for each of `measures`: `_mean` and `_std` over the trials' means (ddof=1, NaN for n = 1), `_min` and
        `_max` over the runs, and `_n`, the trials with a value.

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
    result["own_dense"] = result["study"].isin(with_own_dense(levels, measures))
    counts = ["n", "runs", "diverged"]
    result[counts] = result[counts].fillna(0).astype(int)

    curves = list(zip(result["study"], result["arm"], strict=True))
    place = {curve: position for position, curve in enumerate(dict.fromkeys(curves))}
    result["place"] = [place[curve] for curve in curves]
    return result.sort_values(["place", "level"], ignore_index=True)[_columns(measures)]


def whole_stops(levels: pd.DataFrame) -> pd.DataFrame:
    """Return the rows with early-stopping iterations that count the training behind trained starting weights.

    An arm such as `fine-tune` stops later than its own curve says.
    """
    if "iterations_before" not in levels:
        return levels
    return levels.assign(**{STOP: levels[STOP] + levels["iterations_before"], "iterations_before": 0})


def absent(levels: pd.DataFrame) -> pd.Series:
    """Return how many trials of an arm have a denser pruned level and lack this one; index GROUP, levels from 1.

    They diverged earlier, `pruning.stop_margin` ended them, or they are not finished. The trials that are left may be
    the lucky ones.
    """
    rows = levels.loc[levels["level"] > 0, [*GROUP, "trial"]].drop_duplicates()
    rows["first"] = rows.groupby(["study", "arm", "trial"], observed=True)["level"].transform("min")
    found: dict[tuple[str, str, int], int] = {}
    for (study, arm), mine in rows.groupby(["study", "arm"], sort=False, observed=True):
        begun = mine.drop_duplicates("trial")["first"]
        for level, there in mine.groupby("level")["first"]:
            found[study, arm, level] = int((begun < level).sum() - (there < level).sum())
    index = pd.MultiIndex.from_tuples(found, names=GROUP) if found else pd.MultiIndex.from_arrays([[]] * 3, names=GROUP)
    return pd.Series(list(found.values()), index=index, dtype=int)


def biased(levels: pd.DataFrame) -> set[tuple[str, str, int]]:
    """Return the (study, arm, level >= 1) whose sound runs are a biased sample: a run diverged, or a trial lacks it."""
    lost = levels[diverged(levels) & (levels["level"] > 0)]
    gone = absent(levels)
    return {*lost.groupby(GROUP, observed=True).groups, *gone.index[gone > 0]}


def diverged(levels: pd.DataFrame) -> pd.Series:
    """Return which rows are of runs that diverged; a missing `status` column means that all went well."""
    return levels["status"].eq("diverged") if "status" in levels else pd.Series(False, index=levels.index)


def with_own_dense(levels: pd.DataFrame, measures: Sequence[str]) -> set[str]:
    """Return the studies whose arms differ in what the dense run of a trial measured, or in whether it diverged."""
    dense = levels[levels["level"] == 0]
    run = [name for name in ("study", "trial", "repeat") if name in dense]
    facts = dense[[*run, *(name for name in measures if name in dense)]].assign(lost=diverged(dense))
    differ = (facts.groupby(run, observed=True).nunique() > 1).any(axis=1)
    return set(differ.index.get_level_values("study")[differ])


def _columns(measures: Sequence[str]) -> list[str]:
    statistics = [f"{measure}_{statistic}" for measure in measures for statistic in STATISTICS]
    return [*GROUP, "density", "remaining_weights", "n", "runs", "diverged", "own_dense", *statistics]


def _empty(measures: Sequence[str]) -> pd.DataFrame:
    return pd.DataFrame({column: pd.Series(dtype=float) for column in _columns(measures)})
