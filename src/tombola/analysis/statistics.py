"""Each measure's mean at each level, with its confidence interval."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tombola.analysis.intervals import Method, means
from tombola.analysis.measures import measures_of
from tombola.analysis.spread import spread, trial_means
from tombola.analysis.summary import GROUP, diverged, summarise
from tombola.tasks.metric import metric_of


def level_statistics(
    levels: pd.DataFrame,
    measures: Sequence[str] | None = None,
    confidence: float = 0.95,
    method: Method = "t",
) -> pd.DataFrame:
    """Return one row per (study, arm, level, measure), with the interval of the mean over trials.

    Each trial counts once: its repeats are averaged first. Diverged runs are omitted.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level), as returned by `Results.frame()`.
        measures: columns of `levels` to describe; by default those of the study's metric.
        confidence: of the interval.
        method: "t", Student's; or "bootstrap", BCa with 10,000 resamples and a fixed seed. With few trials a
            bootstrap interval is too narrow: docs/statistics.md says by how much.

    Returns:
        `study`, `arm`, `level`, `measure`; `density`; `n`, the trials that have a value; `mean` and `std` (ddof=1)
        over their means; `min` and `max` over single runs; `low` and `high`, the interval: NaN for n < 2; and
        `confidence` and `method`, as given. Percentages and densities are shares from 0 to 1. Arms stand in the order
        of their first appearance, levels ascending.

    Raises:
        InputError: `confidence` is not between 0 and 1, `method` is unknown, or `measures` is not given and the studies
            have different metrics.
    """
    columns = [*GROUP, "measure", "density", "n", "mean", "std", "min", "max", "low", "high", "confidence", "method"]
    measures = measures_of(metric_of(levels)) if measures is None else measures
    if levels.empty or not measures:
        return pd.DataFrame(columns=columns)
    order = summarise(levels, measures)[[*GROUP, "density"]]
    sound = levels[~diverged(levels)]
    ranges, trials = spread(sound, GROUP, measures), trial_means(sound, GROUP, measures)
    pieces = []
    for measure in measures:
        known = trials.dropna(subset=[measure]).groupby(GROUP, sort=False, observed=True)[measure]
        samples = {key: values.to_numpy() for key, values in known}
        found = means(list(samples.values()), confidence, method)
        piece = pd.DataFrame(list(samples), columns=GROUP).assign(
            n=found.n, mean=found.mean, std=found.std, low=found.low, high=found.high
        )
        ends = ranges[[*GROUP, f"{measure}_min", f"{measure}_max"]].set_axis([*GROUP, "min", "max"], axis=1)
        piece = order.merge(piece, on=GROUP, how="left").merge(ends, on=GROUP, how="left")
        pieces.append(piece.assign(measure=measure, place=range(len(piece))))
    table = pd.concat(pieces, ignore_index=True).sort_values("place", kind="stable", ignore_index=True)
    table["n"] = table["n"].fillna(0).astype(int)
    return table.assign(confidence=confidence, method=method)[columns]
