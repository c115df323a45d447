"""The density at which an arm breaks down: how sparse it can be before it gets worse than dense."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from tombola.analysis.intervals import means
from tombola.analysis.measures import allowed_loss, early_of
from tombola.analysis.paired import dense_of
from tombola.analysis.spread import trial_means
from tombola.analysis.summary import diverged
from tombola.errors import InputError
from tombola.tasks.metric import MARGIN, Metric, metric_of


def break_down(levels: pd.DataFrame, margin: float = MARGIN, confidence: float = 0.95) -> pd.DataFrame:
    """Return, for each (study, arm), the sparsest density down to which the metric stays within the margin of dense.

    The mean and the interval (Student's t) are those of the trials' logarithms: levels lie evenly on that scale. The
    true break-down lies between the density given and that of the next level.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level), as returned by `Results.frame()`.
        margin: the accepted loss, as a fraction: 0.001 is 0.1 percentage points of a percentage, and
            0.1 % of the dense network's value of any other metric.
        confidence: of the interval.

    Returns:
        `study`, `arm`; `density`, the geometric mean over trials; `n`, the trials; `low` and `high`, NaN for n < 2 and
        where all trials are equal; `first` and `last`, the greatest and the least density of any trial;
        `censored`, the trials that never broke down. Where some did not, `density` is only an upper bound, made
        with their sparsest level, and there is no interval.

    Raises:
        InputError: `margin` or `confidence` is not between 0 and 1, or the studies have different metrics.
    """
    trials = break_downs(levels, margin)
    groups = list(trials.groupby(["study", "arm"], sort=False))
    found = means([np.log(group["density"].to_numpy()) for _, group in groups], confidence)
    table = pd.DataFrame([key for key, _ in groups], columns=["study", "arm"]).assign(
        density=np.exp(found.mean),
        n=found.n,
        low=np.exp(found.low),
        high=np.minimum(np.exp(found.high), 1.0),
        first=[group["density"].max() for _, group in groups],
        last=[group["density"].min() for _, group in groups],
        censored=[int(group["censored"].sum()) for _, group in groups],
    )
    table.loc[(table["censored"] > 0) | (found.std == 0), ["low", "high"]] = math.nan
    return table


def break_downs(levels: pd.DataFrame, margin: float = MARGIN) -> pd.DataFrame:
    """Return each trial's break-down: `study`, `arm`, `trial`, `density`, `censored`.

    A level is worse where its test metric at early stop is worse than the dense network's by more than the margin, or
    where a run of it diverged. A trial breaks down at its last level before the first two worse ones in a row; a worse
    last level of the arm counts as two, and so does one that diverged or collapsed. `censored` marks trials that do not
    break down so far as they go; their `density` is that of their sparsest level that is not worse, and an upper bound.
    Levels of the same density, of which a round removed nothing, count once. Trials without a dense run are omitted.

    Raises:
        InputError: `margin` is not between 0 and 1, or the studies have different metrics.
    """
    if not 0 <= margin < 1:
        raise InputError(f"margin={margin} must lie between 0 and 1, such as 0.001 for 0.1 percentage points")
    by = ["study", "arm", "level"]
    sizes = trial_means(levels, by, ["density"])
    metric = metric_of(levels)
    lost = diverged(levels)
    values = trial_means(levels[~lost], by, [early_of(metric)])
    ended = lost | (levels["status"] == "collapsed" if "status" in levels else False)
    gone = (
        levels.assign(lost=lost, ended=ended).groupby([*by, "trial"], sort=False)[["lost", "ended"]].any().reset_index()
    )
    table = sizes.merge(values, on=[*by, "trial"], how="left").merge(gone, on=[*by, "trial"])
    last = table.groupby(["study", "arm"])["level"].max()
    dense = {arm: dense_of(table, str(arm), early_of(metric)) for arm in table["arm"].unique()}
    rows = []
    for (study, arm, trial), group in table.groupby(["study", "arm", "trial"], sort=False):
        reference = dense[arm].get((study, trial), math.nan)
        group = group[group["level"] > 0].sort_values("level")
        if math.isnan(reference) or group.empty:
            continue
        at_end = bool(group["ended"].iloc[-1]) or group["level"].iloc[-1] == last[study, arm]
        group = group[group["density"] != group["density"].shift()]  # a round that removed nothing adds no level
        gone_there = group["lost"].to_numpy()
        below = _worse(group[early_of(metric)].to_numpy(), reference, metric, margin) | gone_there
        lasting = np.flatnonzero(below & np.append(below[1:], at_end))
        densities = np.append(1.0, group["density"].to_numpy())
        end = lasting[0] if len(lasting) else len(below) - int(below[-1])
        rows.append((study, arm, trial, densities[end], not len(lasting)))
    return pd.DataFrame(rows, columns=["study", "arm", "trial", "density", "censored"])


def _worse(values: np.ndarray, dense: float, metric: Metric, margin: float) -> np.ndarray:
    """Return which values are worse than the dense network's by more than the margin; NaN is."""
    gains = values - dense if metric.better == "higher" else dense - values
    allowed = allowed_loss(metric, margin, dense)
    # Rounded, so that a loss of exactly the margin is none in floating point too.
    scale = 1.0 if metric.unit == "%" else abs(dense) or 1.0
    return ~((gains / scale).round(12) >= -round(allowed / scale, 12))
