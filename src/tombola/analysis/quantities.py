"""The quantities in the expression of a claim: one number per trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import pandas as pd

from tombola.analysis.break_down import break_downs
from tombola.analysis.connectivity import ERROR, barriers, height_of
from tombola.analysis.measures import STOP, better_of, early_of, final_of, may_be_a_measure, measures_of, scale_of
from tombola.analysis.paired import DENSE, dense_of
from tombola.analysis.spread import trial_means
from tombola.analysis.summary import diverged
from tombola.analysis.verdicts import allowed_losses
from tombola.formatting import counted
from tombola.studies.connectivity import Kind
from tombola.tasks.metric import Metric, metric_of
from tombola.training.loop import ROUNDING

BETWEEN: tuple[str, ...] = get_args(Kind)


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

    def column(self, arm: str, measure: str, level: int, beside: str = DENSE) -> pd.Series:
        """Return the measure of each trial at a level as a person sees it, such as accuracies in percent; index trial.

        Early-stopping iterations count the training behind trained starting weights, as verdicts do.

        Arguments:
            arm: whose level; of the dense network, DENSE.
            measure: one of `measures_of` the study's metric.
            level: of the arm.
            beside: the arm that the dense network is compared with, which may have a dense network of its own.

        Raises:
            NotMeasured: the study has another metric.
        """
        measures = measures_of(self.metric)
        if measure not in measures:
            raise NotMeasured(f"the study does not measure {measure!r}; its measures are {', '.join(measures)}")
        known = self.levels
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

    def levels_near(self, arm: str, first: float, last: float | None = None) -> list[int]:
        """Return the level whose density is nearest to `first`; or all levels from density `first` to `last`.

        Level 0 is near to density 1 alone: elsewhere it would be compared with itself.

        Raises:
            NotMeasured: no level is near enough in each trial; or the levels between do not reach to both ends in each.
        """
        if arm == DENSE:
            return [0]
        rows = self.levels[self.levels["arm"] == arm]
        if rows.empty:
            raise NotMeasured(f"the study has no arm {arm!r}")
        densities = rows.groupby("level")["density"].mean()
        if last is None:
            densities = densities[(densities.index > 0) | (first >= 1)]
            ratio = (densities / first - 1).abs()
            if densities.empty or ratio.min() > self.nearest:
                near = f": the nearest is {densities[ratio.idxmin()]:.3g}" if len(densities) else ""
                raise NotMeasured(f"{arm!r} has no level near density {first:g}{near}")
            level = int(ratio.idxmin())
            of_trials = rows.loc[rows["level"] == level, "density"]
            if (off := (of_trials / first - 1).abs() > 2 * self.nearest).any():
                raise NotMeasured(
                    f"the level of {arm!r} near density {first:g} has {of_trials[off].iloc[0]:.3g} in some trial"
                )
            return [level]
        low, high = sorted((first, last))
        slack = 1 + self.nearest / 2  # so that a level that is meant as the end belongs to the range
        within = densities[(densities >= low / slack) & (densities <= high * slack) & (densities.index > 0)]
        if within.empty:
            raise NotMeasured(f"{arm!r} has no level between densities {low:g} and {high:g}")
        ends = rows[rows["level"].isin(within.index)].groupby("trial")["density"].agg(["min", "max"])
        ends = ends.reindex(sorted(set(rows.loc[rows["level"] > 0, "trial"])))  # NaN where a trial has none of them
        for end, reached in (
            (high, ends["max"] >= high * (1 - self.nearest)),
            (low, ends["min"] <= low * (1 + self.nearest)),
        ):
            if not reached.all():
                trials = ", ".join(str(trial) for trial in reached.index[~reached])
                raise NotMeasured(f"{arm!r} has no level near density {end:g}, an end of the range, in trial {trials}")
        return [int(level) for level in within.index]

    def partners(self, arm: str, levels: list[int], other: str, density: float | None) -> list[int]:
        """Return, for each level of an arm, the level of another arm at the same density: arms may differ in rate.

        Arguments:
            arm, levels: whose densities the other's have to be near to.
            other: the other arm, or dense.
            density: to be near to, in place of that of a single level.

        Raises:
            NotMeasured: the other arm has no such level.
        """
        rows = self.levels[self.levels["arm"] == arm]
        densities = rows.groupby("level")["density"].mean()
        return [self.levels_near(other, densities[level] if density is None else density)[0] for level in levels]


def _over(evidence: Evidence, levels: list[int], of_level: Callable[[int], pd.Series]) -> pd.Series:
    """Return each trial's mean over levels; trials that lack one of them are omitted."""
    table = pd.concat([of_level(level) for level in levels], axis=1)
    return table.mean(axis=1, skipna=False).dropna()


def value(evidence: Evidence, arm: str, measure: str, density: float, last: float | None = None) -> pd.Series:
    """Return a measure of an arm as a person sees it: percentages, the metric's unit, or iterations."""
    levels = evidence.levels_near(arm, density, last)
    return _over(evidence, levels, lambda level: evidence.column(arm, measure, level))


def _compared(
    measure: str, of_both: Callable[[pd.Series, pd.Series], pd.Series]
) -> Callable[[Evidence, str, str, float, float | None], pd.Series]:
    def compare(evidence: Evidence, arm: str, other: str, density: float, last: float | None = None) -> pd.Series:
        levels = evidence.levels_near(arm, density, last)
        partner = dict(
            zip(levels, evidence.partners(arm, levels, other, density if last is None else None), strict=True)
        )
        return _over(
            evidence,
            levels,
            lambda level: of_both(
                evidence.column(arm, measure, level), evidence.column(other, measure, partner[level], beside=arm)
            ),
        )

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
    levels = [level for level in evidence.levels_near(arm, density, last) if level in table]
    if not levels:
        raise NotMeasured(f"{arm!r} has no interpolation of kind {kind!r} at that density; see connectivity.levels")
    return table[levels].mean(axis=1, skipna=False).dropna()


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
