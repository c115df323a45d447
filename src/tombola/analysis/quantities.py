"""The quantities in the expression of a claim: one number per trial."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import get_args

import numpy as np
import pandas as pd

from tombola.analysis.break_down import break_downs
from tombola.analysis.connectivity import ERROR, barriers, height_of
from tombola.analysis.measures import (
    STOP,
    better_of,
    early_of,
    final_of,
    may_be_a_measure,
    measures_of,
    rounded,
    scale_of,
)
from tombola.analysis.paired import DENSE, dense_of
from tombola.analysis.spread import trial_means
from tombola.analysis.summary import diverged
from tombola.analysis.verdicts import allowed_losses
from tombola.formatting import counted
from tombola.studies.connectivity import Kind
from tombola.tasks.metric import Metric, metric_of
from tombola.training.loop import ROUNDING

BETWEEN: tuple[str, ...] = get_args(Kind)

Levels = Mapping[int, Sequence[int | None]]
"""Trial -> its levels; None stands for a level that the trial does not have."""


class NotMeasured(Exception):
    """The results lack a requested quantity; the message names it."""


@dataclass(frozen=True)
class Evidence:
    """The results of one study.

    Args:
        levels: its rows of `Results.frame()`, as `whole_stops` returns them.
        nearest: how far the density of a level may be from the one asked for, as a ratio: 0.12 allows 12 % more or
            less.
        lost: (arm, level, trial, repeat) of the diverged runs that were asked for and left out so far.
        points: its rows of `Results.connectivity()`.
    """

    levels: pd.DataFrame
    nearest: float
    lost: set[tuple[str, int, int, int]] = field(default_factory=set)
    points: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def metric(self) -> Metric:
        """The metric of the study."""
        return metric_of(self.levels)

    @cached_property
    def densities(self) -> dict[tuple[str, int], pd.Series]:
        """(arm, trial) -> the densities of its levels, by level; a round that removed nothing adds no level."""
        means = self.levels.groupby(["arm", "trial", "level"])["density"].mean()
        groups = means.groupby(level=["arm", "trial"])
        return {key: group.droplevel(["arm", "trial"]).drop_duplicates() for key, group in groups}

    def column(
        self, arm: str, measure: str, level: int, beside: str = DENSE, trials: Collection[int] | None = None
    ) -> pd.Series:
        """Return the measure of each trial at a level as a person sees it, such as accuracies in percent; index trial.

        Early-stopping iterations count the training behind trained starting weights, as verdicts do.

        Arguments:
            arm: whose level; of the dense network, DENSE.
            measure: one of `measures_of` the study's metric.
            level: of the arm.
            beside: the arm that the dense network is compared with, which may have a dense network of its own.
            trials: the trials that are asked for; None for all.

        Raises:
            NotMeasured: the study has another metric.
        """
        measures = measures_of(self.metric)
        if measure not in measures:
            raise NotMeasured(f"the study does not measure {measure!r}; its measures are {', '.join(measures)}")
        known = self.levels if trials is None else self.levels[self.levels["trial"].isin(trials)]
        known = known[(known["level"] == 0) if arm == DENSE else (known["arm"] == arm) & (known["level"] == level)]
        gone = diverged(known)
        lost = known.loc[gone, ["level", "trial", "repeat"]].itertuples(index=False)
        self.lost.update((arm, int(row[0]), int(row[1]), int(row[2])) for row in lost)
        known = known[~gone]
        means = trial_means(known, ["study", "arm", "level"], [measure])
        found = dense_of(means, beside, measure) if arm == DENSE else means.set_index(["study", "trial"])[measure]
        return found.droplevel("study").dropna() * scale_of(measure, self.metric)

    def barriers(self, arm: str, kind: str) -> pd.DataFrame:
        """Return the test barriers of one kind between the runs of an arm: index trial, a column for each level.

        A barrier is the mean over the pairs of a trial, in percentage points of error, or in units of the loss. Of two
        levels it stands at the sparser one.

        Raises:
            NotMeasured: the study has no such interpolations, or of several rewind iterations.
        """
        base, _, step = arm.partition("@")
        if base != "ticket":
            raise NotMeasured(f"interpolations join tickets and the dense network, not {arm!r}")
        scale = 100.0 if height_of(self.points) == ERROR else 1.0
        rows = barriers(self.points)
        rows = rows[rows["kind"] == kind]
        if step.isdigit():
            rows = rows[rows["rewind"] == int(step)]
        if rows.empty:
            raise NotMeasured(f"the study has no interpolations of kind {kind!r} for {arm!r}; see connectivity")
        if rows["rewind"].nunique() > 1:
            several = ", ".join(f"ticket@{step}" for step in sorted(set(rows["rewind"])))
            raise NotMeasured(f"the study has interpolations from several iterations; name one of {several}")
        return scale * rows.pivot_table(index="trial", columns="level", values="test_barrier", aggfunc="mean")

    def at(self, arm: str, measure: str, levels: Levels, beside: str = DENSE) -> dict[int, np.ndarray]:
        """Return a measure of each trial at its levels, as `column` does; NaN where the trial lacks it.

        Raises:
            NotMeasured: the study has another metric.
        """
        users: dict[int, list[int]] = {}
        for trial, of_trial in levels.items():
            for level in of_trial:
                if level is not None:
                    users.setdefault(level, []).append(trial)
        columns = {level: self.column(arm, measure, level, beside, trials) for level, trials in users.items()}
        return {
            trial: np.array([math.nan if level is None else columns[level].get(trial, math.nan) for level in of_trial])
            for trial, of_trial in levels.items()
        }

    def levels_near(self, arm: str, first: float, last: float | None = None) -> dict[int, list[int]]:
        """Return each trial's level whose density is nearest to `first`; or its levels from density `first` to `last`.

        Level 0 is near to density 1 alone: elsewhere it would be compared with itself. A trial without a near level
        is omitted.

        Raises:
            NotMeasured: no trial has a near level; or the levels between do not reach to both ends in each.
        """
        known = {trial: found for (name, trial), found in self.densities.items() if name == arm}
        if not known:
            raise NotMeasured(f"the study has no arm {arm!r}")
        if last is None:
            levels = {trial: self.nearest_level(arm, trial, first) for trial in known}
            if found := {trial: [level] for trial, level in levels.items() if level is not None}:
                return found
            every = pd.concat(list(known.values()))
            every = every[(every.index > 0) | (first >= 1)]
            near = f": the nearest is {every.iloc[(every / first - 1).abs().argmin()]:.3g}" if len(every) else ""
            raise NotMeasured(f"{arm!r} has no level near density {first:g}{near}")
        low, high = sorted((first, last))
        slack = 1 + self.nearest / 2  # so that a level that is meant as the end belongs to the range
        within = {
            trial: found[(found >= low / slack) & (found <= high * slack) & (found.index > 0)]
            for trial, found in known.items()
        }
        if all(found.empty for found in within.values()):
            raise NotMeasured(f"{arm!r} has no level between densities {low:g} and {high:g}")
        for end, reaches in (
            (high, lambda found: found.max() >= high * (1 - self.nearest)),  # False for a trial without levels
            (low, lambda found: found.min() <= low * (1 + self.nearest)),
        ):
            started = (trial for trial, found in known.items() if found.index.max() > 0)
            if short := [str(trial) for trial in started if not reaches(within[trial])]:
                trials = ", ".join(short)
                raise NotMeasured(f"{arm!r} has no level near density {end:g}, an end of the range, in trial {trials}")
        return {trial: [int(level) for level in found.index] for trial, found in within.items() if len(found)}

    def nearest_level(self, arm: str, trial: int, density: float) -> int | None:
        """Return the level of a trial whose density is nearest to one; None if none is near enough."""
        if arm == DENSE:
            return 0
        found = self.densities.get((arm, trial), pd.Series(dtype=float))
        found = found[(found.index > 0) | (density >= 1)]
        ratio = (found / density - 1).abs()
        return None if found.empty or ratio.min() > self.nearest else int(ratio.idxmin())

    def partners(self, arm: str, levels: Levels, other: str, density: float | None) -> Levels:
        """Return, for each level of an arm, the trial's level of another arm at the same density.

        Arms may differ in rate.

        Arguments:
            arm, levels: whose densities the other's have to be near to.
            other: the other arm, or dense.
            density: to be near to, in place of that of a single level.

        Raises:
            NotMeasured: the other arm has no such level in any trial.
        """
        if other != DENSE and all(name != other for name, _ in self.densities):
            raise NotMeasured(f"the study has no arm {other!r}")
        found = {
            trial: [
                self.nearest_level(other, trial, self.densities[arm, trial][level] if density is None else density)
                for level in of_trial
            ]
            for trial, of_trial in levels.items()
        }
        if all(None in of_trial for of_trial in found.values()):
            shown = next(self.densities[arm, trial].loc[list(of_trial)] for trial, of_trial in levels.items())
            sought = shown.iloc[0] if density is None else density
            raise NotMeasured(f"{other!r} has no level near density {sought:.3g}")
        return found


def _over(values: Mapping[int, np.ndarray]) -> pd.Series:
    """Return each trial's mean over its levels; trials that lack one of them are omitted."""
    means = {trial: each.mean() for trial, each in values.items()}
    return pd.Series(means, dtype=float).rename_axis("trial").dropna()


def value(evidence: Evidence, arm: str, measure: str, density: float, last: float | None = None) -> pd.Series:
    """Return a measure of an arm as a person sees it: percentages, the metric's unit, or iterations."""
    if arm == DENSE:
        return evidence.column(arm, measure, 0)
    return _over(evidence.at(arm, measure, evidence.levels_near(arm, density, last)))


def _compared(
    measure: str, of_both: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> Callable[[Evidence, str, str, float, float | None], pd.Series]:
    def compare(evidence: Evidence, arm: str, other: str, density: float, last: float | None = None) -> pd.Series:
        levels = evidence.levels_near(arm, density, last)
        partners = evidence.partners(arm, levels, other, density if last is None else None)
        mine, others = evidence.at(arm, measure, levels), evidence.at(other, measure, partners, beside=arm)
        shown = [np.concatenate(list(each.values())) for each in (mine, others)]
        shown = [values[np.isfinite(values)] for values in shown]
        with np.errstate(divide="ignore", invalid="ignore"):  # of a run that stops at once; it is omitted
            found = {trial: of_both(mine[trial], others[trial]) for trial in levels}
        return _over({trial: rounded(values, shown, evidence.metric) for trial, values in found.items()})

    return compare


def _gained(
    measure_of: Callable[[Metric], str],
) -> Callable[[Evidence, str, str, float, float | None], pd.Series]:
    """Return the function that gives by how much one arm is better than another in the metric, in shown units."""

    def gained(evidence: Evidence, arm: str, other: str, density: float, last: float | None = None) -> pd.Series:
        higher = evidence.metric.better == "higher"
        compare = _compared(measure_of(evidence.metric), lambda a, b: a - b if higher else b - a)
        return compare(evidence, arm, other, density, last)

    return gained


difference = _gained(early_of)
final_difference = _gained(final_of)
sooner = _compared(STOP, lambda mine, other: other / mine)


def gain(evidence: Evidence, arm: str, density: float, last: float | None = None) -> pd.Series:
    """Return how much the test metric at early stop is better than that of dense; percentages in points."""
    return difference(evidence, arm, DENSE, density, last)


def final_gain(evidence: Evidence, arm: str, density: float, last: float | None = None) -> pd.Series:
    """Return how much the test metric at the end of training is better than that of dense."""
    return final_difference(evidence, arm, DENSE, density, last)


def earlier(evidence: Evidence, arm: str, density: float, last: float | None = None) -> pd.Series:
    """Return 1 - early-stopping iteration / that of dense: 0.38 is 38 % earlier."""
    share = _compared(STOP, lambda mine, other: 1 - mine / other)
    return share(evidence, arm, DENSE, density, last)


def best(evidence: Evidence, arm: str, measure: str) -> pd.Series:
    """Return the best of a measure over the levels from 1 that all trials have, by its direction; the earliest stop."""
    rows = evidence.levels[(evidence.levels["arm"] == arm) & (evidence.levels["level"] > 0)]
    if rows.empty:
        raise NotMeasured(f"the study has no arm {arm!r}")
    table = pd.concat([evidence.column(arm, measure, level) for level in sorted(set(rows["level"]))], axis=1)
    table = table.dropna(axis=1)  # the best of more levels would be better by chance alone
    return table.min(axis=1) if better_of(measure, evidence.metric) == "lower" else table.max(axis=1)


def breaks(evidence: Evidence, arm: str, margin: float = 0.1) -> pd.Series:
    """Return the break-down density, from 0 to 1; `margin` is 100 times that of `break_downs`."""
    trials = break_downs(evidence.levels, margin / 100)
    trials = trials[trials["arm"] == arm].set_index("trial")
    if trials.empty:
        raise NotMeasured(f"the study has no arm {arm!r}")
    if trials["censored"].any():
        still = f"{int(trials['censored'].sum())} of {counted(len(trials), 'trial')}"
        sparsest = trials["density"].min()
        raise NotMeasured(f"{arm!r} did not break down in {still}, down to density {sparsest:.3g}")
    return trials["density"]


def barrier(evidence: Evidence, arm: str, kind: str, density: float, last: float | None = None) -> pd.Series:
    """Return the mean error barrier of a kind of interpolation, in percentage points, or in units of the loss.

    With a second density it is the mean over those levels between the two that have interpolations.
    """
    table = evidence.barriers(arm, kind)
    near = evidence.levels_near(arm, density, last)
    levels = {trial: [level for level in of_trial if level in table] for trial, of_trial in near.items()}
    levels = {trial: of_trial for trial, of_trial in levels.items() if of_trial and trial in table.index}
    if not levels:
        raise NotMeasured(f"{arm!r} has no interpolation of kind {kind!r} at that density; see connectivity.levels")
    return _over({trial: table.loc[trial, of_trial].to_numpy() for trial, of_trial in levels.items()})


def connected_where_matching(evidence: Evidence, arm: str, highest: float = 2.0, margin: float = 0.1) -> pd.Series:
    """Return the share of levels, 0 to 1, where a ticket matches exactly where it is connected to the denser one.

    Paul et al. 2023 ("Unmasking the Lottery Ticket Hypothesis"): iterative pruning finds a matching ticket at a level
    if and only if it is linearly connected to the solution of the level before.

    Arguments:
        evidence: with interpolations between levels.
        arm: "ticket", or "ticket@k".
        highest: the error barrier, in percentage points, up to which two levels are connected.
        margin: the loss against the dense network up to which a level matches: percentage points, or % of the dense
            networks' mean of a metric without a scale of its own, as in `verdicts`.

    Raises:
        NotMeasured: an interpolation joins levels that are not successive rounds, or as `Evidence.barriers`.
    """
    table = evidence.barriers(arm, "levels")
    joined = evidence.points[evidence.points["kind"] == "levels"]
    if (apart := joined[(joined["level"] - joined["other_level"]).abs() != 1]).size:
        ends = f"{int(apart['other_level'].iloc[0])} and {int(apart['level'].iloc[0])}"
        raise NotMeasured(
            f"the study's interpolations join levels {ends}, which are not successive rounds; list every level in "
            "connectivity.levels"
        )
    allowed = next(iter(allowed_losses(evidence.levels, evidence.metric, margin / 100).values()), math.nan)
    found = {}
    for level in table:
        matches = difference_at(evidence, arm, int(level)) >= -allowed - ROUNDING
        connected = (table[level] <= highest + ROUNDING)[table[level].notna()]
        both = pd.concat([matches, connected], axis=1, join="inner")
        found[level] = (both.iloc[:, 0] == both.iloc[:, 1]).astype(float)
    return pd.DataFrame(found).mean(axis=1, skipna=False).dropna()


def difference_at(evidence: Evidence, arm: str, level: int) -> pd.Series:
    """Return how much the test metric at early stop of a level is better than that of dense, in shown units."""
    early = early_of(evidence.metric)
    mine, dense = evidence.column(arm, early, level), evidence.column(DENSE, early, 0, beside=arm)
    return (mine - dense if evidence.metric.better == "higher" else dense - mine).dropna()


MEASURES = f"{', '.join(measures_of())}, or the same of another metric"

# Each function's arguments after the evidence: what they are, and how many of them may be omitted at the end.
FUNCTIONS: dict[str, tuple[Callable[..., pd.Series], tuple[str, ...], int]] = {
    "barrier": (barrier, ("arm", "kind", "density", "density"), 1),
    "best": (best, ("arm", "measure"), 0),
    "breaks": (breaks, ("arm", "margin"), 1),
    "connected_where_matching": (connected_where_matching, ("arm", "margin", "margin"), 2),
    "difference": (difference, ("arm", "arm or dense", "density", "density"), 1),
    "earlier": (earlier, ("arm", "density", "density"), 1),
    "final_difference": (final_difference, ("arm", "arm or dense", "density", "density"), 1),
    "final_gain": (final_gain, ("arm", "density", "density"), 1),
    "gain": (gain, ("arm", "density", "density"), 1),
    "sooner": (sooner, ("arm", "arm or dense", "density", "density"), 1),
    "value": (value, ("arm or dense", "measure", "density", "density"), 1),
}


def wanted_of(kind: str, argument: str | float | None) -> str | None:
    """Return what an argument should be, where it is not that; None stands for an argument that is not a constant."""
    number = argument if isinstance(argument, float) else math.nan
    fits, wanted = {
        "arm": (
            isinstance(argument, str) and argument not in ("", DENSE),
            'an arm in quotes, such as "ticket"'
            + (" (dense can only be the arm to compare with)" * (argument == DENSE)),
        ),
        "arm or dense": (
            isinstance(argument, str) and argument != "",
            'an arm in quotes, such as "ticket", or "dense"',
        ),
        "kind": (argument in BETWEEN, f"one of {', '.join(map(repr, BETWEEN))}"),
        "measure": (may_be_a_measure(argument), f"a measure in quotes: {MEASURES}"),
        "density": (0 < number <= 1, "a density above 0 and up to 1, such as 0.21"),
        "margin": (0 <= number < 100, "a margin in percentage points (of other metrics, in % of dense), such as 0.1"),
    }[kind]
    return None if fits else wanted
