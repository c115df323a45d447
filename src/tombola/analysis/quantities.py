"""What the expression of a claim can ask of a study: one number for each trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from tombola.analysis.break_down import break_downs
from tombola.analysis.paired import DENSE
from tombola.analysis.spread import trial_means
from tombola.analysis.summary import MEASURES, diverged

EARLY, FINAL, STOP = "early_stop_test_accuracy", "final_test_accuracy", "early_stop_iteration"


class NotMeasured(Exception):
    """The results do not hold what is asked for; the message says what is missing."""


@dataclass(frozen=True)
class Evidence:
    """The results of one study.

    Args:
        levels: its rows of `Results.frame()`.
        nearest: how far the density of a level may be from the one asked for, as a ratio: 0.12 allows 12 % more or
            less.
    """

    levels: pd.DataFrame
    nearest: float

    def column(self, arm: str, measure: str, level: int) -> pd.Series:
        """Return the measure of each trial at a level, accuracies in percent; index trial."""
        known = self.levels[~diverged(self.levels)]
        if arm == DENSE:
            known = known[known["level"] == 0].assign(arm=DENSE)
        else:
            known = known[(known["arm"] == arm) & (known["level"] == level)]
        means = trial_means(known, ["arm"], [measure]).set_index("trial")[measure].dropna()
        return means * (100 if measure.endswith("accuracy") else 1)

    def levels_near(self, arm: str, first: float, last: float | None = None) -> list[int]:
        """Return the level whose density is nearest to `first`; or all levels from density `first` to `last`.

        Raises:
            NotMeasured: no level is near enough, or lies between them.
        """
        if arm == DENSE:
            return [0]
        rows = self.levels[self.levels["arm"] == arm]
        if rows.empty:
            raise NotMeasured(f"the study has no arm {arm!r}")
        densities = rows.groupby("level")["density"].mean()
        if last is None:
            ratio = (densities / first - 1).abs()
            if ratio.min() > self.nearest:
                near = densities[ratio.idxmin()]
                raise NotMeasured(f"{arm!r} has no level near density {first:g}: the nearest is {near:.3g}")
            return [int(ratio.idxmin())]
        low, high = sorted((first, last))
        slack = 1 + self.nearest / 2  # so that a level that is meant as the end belongs to the range
        within = densities[(densities >= low / slack) & (densities <= high * slack) & (densities.index > 0)]
        if within.empty:
            raise NotMeasured(f"{arm!r} has no level between densities {low:g} and {high:g}")
        return [int(level) for level in within.index]


def _over(evidence: Evidence, levels: list[int], of_level: Callable[[int], pd.Series]) -> pd.Series:
    """Return each trial's mean over levels; trials that lack one of them are left out."""
    table = pd.concat([of_level(level) for level in levels], axis=1)
    return table.mean(axis=1, skipna=False).dropna()


def value(evidence: Evidence, arm: str, measure: str, density: float, last: float | None = None) -> pd.Series:
    """Return a measure of an arm: accuracies in percent, early stopping in iterations."""
    levels = evidence.levels_near(arm, density, last)
    return _over(evidence, levels, lambda level: evidence.column(arm, measure, level))


def _compared(
    measure: str, of_both: Callable[[pd.Series, pd.Series], pd.Series]
) -> Callable[[Evidence, str, str, float, float | None], pd.Series]:
    def compare(evidence: Evidence, arm: str, other: str, density: float, last: float | None = None) -> pd.Series:
        levels = evidence.levels_near(arm, density, last)
        if other != DENSE:
            evidence.levels_near(other, density, last)  # it must have been measured as well
        return _over(
            evidence,
            levels,
            lambda level: of_both(evidence.column(arm, measure, level), evidence.column(other, measure, level)),
        )

    return compare


difference = _compared(EARLY, lambda mine, other: mine - other)
final_difference = _compared(FINAL, lambda mine, other: mine - other)
sooner = _compared(STOP, lambda mine, other: other / mine)


def gain(evidence: Evidence, arm: str, density: float, last: float | None = None) -> pd.Series:
    """Return percentage points of test accuracy over dense at early stop."""
    return difference(evidence, arm, DENSE, density, last)


def final_gain(evidence: Evidence, arm: str, density: float, last: float | None = None) -> pd.Series:
    """Return percentage points of test accuracy over dense at the end of training."""
    return final_difference(evidence, arm, DENSE, density, last)


def earlier(evidence: Evidence, arm: str, density: float, last: float | None = None) -> pd.Series:
    """Return 1 - early-stopping iteration / that of dense: 0.38 is 38 % earlier."""
    share = _compared(STOP, lambda mine, other: 1 - mine / other)
    return share(evidence, arm, DENSE, density, last)


def best(evidence: Evidence, arm: str, measure: str) -> pd.Series:
    """Return the best of a measure over all levels from 1: the highest accuracy, in percent, or the earliest stop."""
    rows = evidence.levels[(evidence.levels["arm"] == arm) & (evidence.levels["level"] > 0)]
    if rows.empty:
        raise NotMeasured(f"the study has no arm {arm!r}")
    table = pd.concat([evidence.column(arm, measure, level) for level in sorted(set(rows["level"]))], axis=1)
    return table.min(axis=1) if measure == STOP else table.max(axis=1)


def breaks(evidence: Evidence, arm: str, margin: float = 0.1) -> pd.Series:
    """Return the break-down density, from 0 to 1; `margin` is in percentage points."""
    trials = break_downs(evidence.levels, margin / 100)
    trials = trials[trials["arm"] == arm].set_index("trial")
    if trials.empty:
        raise NotMeasured(f"the study has no arm {arm!r}")
    if trials["censored"].any():
        still = f"{int(trials['censored'].sum())} of {len(trials)} trials"
        sparsest = trials["density"].min()
        raise NotMeasured(f"{arm!r} did not break down in {still}, down to density {sparsest:.3g}")
    return trials["density"]


# Each function's arguments after the evidence: what they are, and how many of them may be left out at the end.
FUNCTIONS: dict[str, tuple[Callable[..., pd.Series], tuple[str, ...], int]] = {
    "best": (best, ("arm", "measure"), 0),
    "breaks": (breaks, ("arm", "margin"), 1),
    "difference": (difference, ("arm", "arm", "density", "density"), 1),
    "earlier": (earlier, ("arm", "density", "density"), 1),
    "final_difference": (final_difference, ("arm", "arm", "density", "density"), 1),
    "final_gain": (final_gain, ("arm", "density", "density"), 1),
    "gain": (gain, ("arm", "density", "density"), 1),
    "sooner": (sooner, ("arm", "arm", "density", "density"), 1),
    "value": (value, ("arm", "measure", "density", "density"), 1),
}


def wanted_of(kind: str, argument: str | float | None) -> str | None:
    """Return what an argument of a function should be, where it is not that; None stands for what is no constant."""
    number = argument if isinstance(argument, float) else math.nan
    fits, wanted = {
        "arm": (isinstance(argument, str) and argument != "", 'an arm in quotes, such as "ticket"'),
        "measure": (argument in MEASURES, f"a measure in quotes: {', '.join(MEASURES)}"),
        "density": (0 < number <= 1, "a density above 0 and up to 1, such as 0.21"),
        "margin": (0 <= number < 100, "a margin in percentage points, such as 0.1"),
    }[kind]
    return None if fits else wanted
