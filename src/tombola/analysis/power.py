"""How many trials a claim needs: the probability that its interval decides, from the spread of a pilot.

A claim is decided where the whole t interval of the mean lies inside or outside the expected range. Over samples of n
trials from a normal distribution, the mean and the standard deviation vary independently. The probability follows from
one integral over the standard deviation. For a comparison it is the power of the t test (Cohen 1988, Chapter 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tombola.analysis import student
from tombola.errors import InputError
from tombola.formatting import counted

if TYPE_CHECKING:
    from tombola.analysis.claims import Outcome

MOST_TRIALS = 1000
POINTS = 400  # of the integral
FEWEST = 3  # trials of a pilot: two say nothing of a spread
_ERF = np.vectorize(math.erf, otypes=[float])


@dataclass(frozen=True)
class Needed:
    """How many trials decide a claim.

    Args:
        outcome: of the pilot.
        if_claimed: trials that suffice if the expected value is the true mean; None for a comparison, which names no
            value.
        if_as_pilot: trials that suffice if the pilot's mean is the true mean: it depends on the pilot's outcome.

    Numbers beyond `MOST_TRIALS` are inf.
    """

    outcome: Outcome
    if_claimed: float | None
    if_as_pilot: float

    @property
    def trials(self) -> float:
        """The number to plan with: `if_claimed`, and `if_as_pilot` for a comparison."""
        return self.if_as_pilot if self.if_claimed is None else self.if_claimed


def trials_needed(outcome: Outcome, power: float = 0.9, confidence: float = 0.95) -> Needed | None:
    """Return how many trials decide a claim with a given probability.

    Args:
        outcome: of the pilot.
        power: the probability, between 0 and 1.
        confidence: of the interval.

    Returns:
        None where the pilot can't tell: see `untold`.

    Raises:
        InputError: `power` is not between 0 and 1.
    """
    if not 0 < power < 1:
        raise InputError(f"power={power}: give a number between 0 and 1")
    claim, std = outcome.claim, outcome.std
    if untold(outcome) or not std or outcome.measured is None:
        return None
    low, high = expected_range(outcome)
    smallest = max(2, claim.minimum)
    claimed = None
    if claim.expected is not None:
        claimed = _fewest(smallest, float(claim.expected), std, low, high, power, confidence)
    return Needed(outcome, claimed, _fewest(smallest, outcome.measured, std, low, high, power, confidence))


def untold(outcome: Outcome) -> str:
    """Return why a pilot can't tell how many trials decide a claim; "" if it can."""
    if outcome.measured is None or outcome.biased:
        return outcome.reason  # with a diverged run, no number of trials decides
    if outcome.n < FEWEST:
        return f"{counted(outcome.n, 'trial')}; a pilot needs {FEWEST}"
    return "" if outcome.std else f"the same value in all {outcome.n} trials"


def expected_range(outcome: Outcome) -> tuple[float, float]:
    """Return the ends of the range that a claim expects; one end of a comparison's is infinite."""
    claim = outcome.claim
    if claim.expected is not None and claim.tolerance is not None:
        return claim.expected - claim.tolerance, claim.expected + claim.tolerance
    bound = claim.parsed.bound or 0.0
    return (bound, math.inf) if claim.parsed.side == "greater" else (-math.inf, bound)


def decided(n: int, mean: float, std: float, low: float, high: float, confidence: float = 0.95) -> float:
    """Return the probability that the interval of n trials lies wholly inside or wholly outside a range.

    Args:
        n: trials, at least 2.
        mean, std: of the normal distribution that trials come from.
        low, high: ends of the range; may be infinite.
        confidence: of the t interval.
    """
    spreads, weights = _spreads(n - 1)
    error = std / math.sqrt(n)
    half = student.critical(n - 1, confidence) * error * spreads
    with np.errstate(invalid="ignore"):
        inside = _below((high - half - mean) / error) - _below((low + half - mean) / error)
        outside = _below((low - half - mean) / error) + 1 - _below((high + half - mean) / error)
    return float(((np.maximum(inside, 0) + outside) * weights).sum())


def _fewest(smallest: int, mean: float, std: float, low: float, high: float, power: float, confidence: float) -> float:
    """Return the smallest number of trials with this power; inf where it is above `MOST_TRIALS`."""
    if decided(MOST_TRIALS, mean, std, low, high, confidence) < power:
        return math.inf
    few, many = smallest - 1, MOST_TRIALS  # between them the power passes the one that is asked for
    if decided(smallest, mean, std, low, high, confidence) >= power:
        return smallest
    while many - few > 1:
        middle = (few + many) // 2
        if middle >= smallest and decided(middle, mean, std, low, high, confidence) >= power:
            many = middle
        else:
            few = middle
    return many


@lru_cache(maxsize=1024)
def _spreads(freedom: int) -> tuple[np.ndarray, np.ndarray]:
    """Return values of a sample's standard deviation over the true one, and their probabilities."""
    # Of chi-square / freedom, almost everything lies within nine standard deviations; its root is smooth to integrate.
    wide = 9 * math.sqrt(2 / freedom)
    top = math.sqrt(1 + wide + wide**2)
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    spreads = (nodes + 1) / 2 * top
    logs = (freedom - 1) * np.log(spreads) - freedom * spreads**2 / 2
    scale = math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)
    probabilities = np.exp(logs + scale) * weights * top / 2
    return spreads, probabilities / probabilities.sum()


def _below(x: np.ndarray) -> np.ndarray:
    """Return the normal distribution's probability below x."""
    return (1 + _ERF(x / math.sqrt(2))) / 2


def seconds_per_trial(levels: pd.DataFrame) -> float | None:
    """Return the mean seconds of computing that a trial's rows in a table took, each run once; None if unknown.

    A trial counts if it has as many rows as the fullest one; the others are not finished.
    """
    if "seconds" not in levels or levels.empty:
        return None
    rows = levels["trial"].map(levels["trial"].value_counts())
    whole = levels[rows == rows.max()]
    if whole["seconds"].isna().any():
        return None
    named = whole["job"].ne("") if "job" in whole else pd.Series(False, index=whole.index)
    again = whole.duplicated("job") if "job" in whole else named
    dense = (whole["level"] == 0) & whole.duplicated(["trial", "level"])  # one run, shown in each arm
    runs = whole[~np.where(named, again, dense)]
    return float(runs["seconds"].sum() / whole["trial"].nunique())


def as_row(outcome: Outcome, seconds: float | None) -> dict[str, Any]:
    """Return a flat mapping of JSON values; numbers of trials beyond `MOST_TRIALS`, or unknown, are None.

    Args:
        outcome: of the pilot.
        seconds: that a trial takes; None if unknown.
    """
    needed = trials_needed(outcome)
    more = math.inf if needed is None else needed.trials - outcome.n

    def finite(value: float | None) -> int | None:
        return None if value is None or math.isinf(value) else int(value)

    return {
        "study": outcome.study,
        "id": outcome.claim.id,
        "expected": outcome.claim.expectation,
        "outcome": outcome.outcome,
        "n": outcome.n,
        "mean": outcome.measured,
        "std": outcome.std,
        "needed_if_claimed": finite(None if needed is None else needed.if_claimed),
        "needed_if_as_pilot": finite(None if needed is None else needed.if_as_pilot),
        "hours_more": None if seconds is None or math.isinf(more) else max(0.0, more) * seconds / 3600,
        "reason": untold(outcome),
    }
