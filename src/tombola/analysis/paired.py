"""Differences between arms, paired by trial."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from tombola.analysis.intervals import holm, means, t_tests
from tombola.analysis.measures import better_of, measures_of, rounded, scale_of, unit_of
from tombola.analysis.spread import trial_means
from tombola.analysis.summary import GROUP, biased, diverged
from tombola.errors import InputError, nearest
from tombola.tasks.metric import metric_of

NEAR = 0.05
"""Largest relative difference of two densities that count as equal: whole groups can't reach every density."""

DENSE = "dense"  # the baseline that level 0 of the same trial is
PLACE = ["study", "level"]
COLUMNS = ["study", "arm", "baseline", "measure", "unit", "level", "density", "baseline_density"]
COLUMNS += ["n", "mean", "low", "high", "p", "p_holm"]


def paired_differences(
    levels: pd.DataFrame, arm: str, baseline: str, measure: str, confidence: float = 0.95
) -> pd.DataFrame:
    """Return one row per (study, level >= 1) of `arm`: how it differs from `baseline` in the same trials.

    Trials share initialisation and data order between arms, so differences between trials cancel. The test is the
    two-sided paired t test; `p_holm` is its p value adjusted for the number of levels of
    the study (Holm 1979). Level 0 is the same run in all arms and is omitted. Studies without `arm` are omitted.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level), as returned by `Results.frame()`.
        arm: the arm to compare.
        baseline: another arm, compared at the same level; or "dense": the arm's own level 0 of the same trial, or that
            of the other arms where it has none.
        measure: one of `measures_of` the study's metric.
        confidence: of each level's interval.

    Returns:
        `study`, `arm`, `baseline`, `measure`; `unit`: "iterations", "points" for percentages, or the metric's own;
        `level`; `density` and `baseline_density`, means over trials: arms may differ in density at a level; `n`, the
        trials that have both; `mean` of arm minus baseline; its interval `low` and
        `high`; `p` and `p_holm`. For n = 1 only `mean` is a number. Where all differences are equal, the interval has
        no width and p is NaN: there is no variation to test against.

    Raises:
        InputError: an arm or the measure is unknown, `confidence` is not between 0 and 1, or the studies have different
            metrics.
    """
    _require_arm(levels, arm)
    if baseline != DENSE:
        _require_arm(levels, baseline)
    places = levels[(levels["arm"] == arm) & (levels["level"] > 0)].groupby(PLACE, sort=False)["density"].mean()
    known = by_level(differences(levels, arm, baseline, measure))
    samples = [known.get(place, np.empty(0)) for place in places.index]
    found = means(samples, confidence)
    table = places.reset_index().assign(
        arm=arm,
        baseline=baseline,
        measure=measure,
        unit=unit_of(measure, metric_of(levels)),
        n=found.n,
        mean=found.mean,
        low=found.low,
        high=found.high,
        p=t_tests(samples),
    )
    other = levels[levels["level"] == 0] if baseline == DENSE else levels[levels["arm"] == baseline]
    by = ["study"] if baseline == DENSE else PLACE
    table = table.join(other.groupby(by)["density"].mean().rename("baseline_density"), on=by)
    table["p_holm"] = holm_by(table, ["study"])
    place = {study: number for number, study in enumerate(dict.fromkeys(table["study"]))}
    table = table.assign(place=table["study"].map(place)).sort_values(["place", "level"], ignore_index=True)
    return table[COLUMNS]


def paired_gains(levels: pd.DataFrame, arm: str, baseline: str, measure: str, confidence: float = 0.95) -> pd.DataFrame:
    """Return `paired_differences` with the signs that make a positive number an improvement of `arm` over `baseline`.

    Of a metric of which lower is better, and of iterations, that is baseline minus arm.
    """
    table = paired_differences(levels, arm, baseline, measure, confidence)
    if better_of(measure, metric_of(levels)) == "higher":
        return table
    return table.assign(mean=-table["mean"], low=-table["high"], high=-table["low"])


def at_equal_density(table: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `paired_differences` whose two arms have the same density in each trial, to within 5 %.

    Levels of one number can differ in density: an arm may stop at the floor of its pattern, back off, or skip a round.

    Arguments:
        table: as returned by `paired_differences` of two arms.
        levels: what it was made of.
    """
    if table.empty:
        return table
    by_arm = levels.groupby([*PLACE, "trial", "arm"])["density"].mean().unstack("arm")
    apart = {
        (arm, baseline): (by_arm[arm] / by_arm[baseline] - 1).abs().groupby(level=PLACE).max()
        for arm, baseline in set(zip(table["arm"], table["baseline"], strict=True))
    }
    rows = zip(table["arm"], table["baseline"], table["study"], table["level"], strict=True)
    return table[[apart[arm, other].get((study, level), math.nan) <= NEAR for arm, other, study, level in rows]]


def of_whole_levels(table: pd.DataFrame, levels: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `paired_differences` where neither arm lacks a run of the level: see `biased`."""
    if table.empty:
        return table
    lost = biased(levels)
    places = zip(table["study"], table["arm"], table["baseline"], table["level"], strict=True)
    whole = [not {(study, arm, level), (study, other, level)} & lost for study, arm, other, level in places]
    return table[whole]


def differences(levels: pd.DataFrame, arm: str, baseline: str, measure: str) -> pd.DataFrame:
    """Return arm minus baseline of each trial that has both: `study`, `level`, `trial`, `difference`.

    Arguments are those of `paired_differences`, and differences have its units. Repeats of a trial are averaged first;
    diverged runs are omitted.

    Raises:
        InputError: the measure is unknown, or the studies have different metrics.
    """
    metric = metric_of(levels)
    if measure not in measures_of(metric):
        raise InputError(f"unknown measure {measure!r}{nearest(measure, measures_of(metric))}")
    trials = trial_means(levels[~diverged(levels)], GROUP, [measure]).dropna()
    mine = trials[(trials["arm"] == arm) & (trials["level"] > 0)]
    if baseline == DENSE:
        by = ["study", "trial"]
        other = dense_of(trials, arm, measure).reset_index()
    else:
        by = [*PLACE, "trial"]
        other = trials.loc[trials["arm"] == baseline, [*by, measure]]
    pairs = mine.merge(other, on=by, suffixes=("", "_of_baseline"))
    scale = scale_of(measure, metric)
    both = [pairs[column].to_numpy() for column in (measure, f"{measure}_of_baseline")]
    difference = rounded(scale * (both[0] - both[1]), [scale * values for values in both], metric)
    return pairs[[*PLACE, "trial"]].assign(difference=difference)


def dense_of(rows: pd.DataFrame, arm: str, column: str) -> pd.Series:
    """Return a column of the dense networks that an arm is compared with; index (study, trial).

    They are the arm's own rows of level 0. Where it has none, they are those of the other arms: of a study of tombola
    it is the same run in all of them, but arms of another table may have dense networks of their own.
    """
    by = ["study", "trial"]
    dense = rows[rows["level"] == 0]
    own, all_arms = (each.groupby(by)[column].mean() for each in (dense[dense["arm"] == arm], dense))
    return own.combine_first(all_arms)


def by_level(pairs: pd.DataFrame) -> dict[tuple[Any, Any], np.ndarray]:
    """Return (study, level) -> the differences of its trials."""
    values = pairs["difference"].to_numpy()
    return {place: values[rows] for place, rows in pairs.groupby(PLACE).indices.items()}


def holm_by(table: pd.DataFrame, by: list[str]) -> pd.Series:
    """Return the column `p` of a table, adjusted by Holm's method within each group."""
    adjusted = pd.Series(np.nan, index=table.index)
    for _, group in table.groupby(by, sort=False):
        adjusted[group.index] = holm(group["p"].to_numpy())
    return adjusted


def _require_arm(levels: pd.DataFrame, arm: str) -> None:
    arms = list(dict.fromkeys(levels["arm"]))
    if arm not in arms:
        raise InputError(f"the results have no arm {arm!r}{nearest(arm, arms)}")
