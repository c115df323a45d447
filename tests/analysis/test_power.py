"""How many trials a claim needs, against SciPy's noncentral t and against simulated studies."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tombola.analysis import student
from tombola.analysis.claims import Claim, Outcome
from tombola.analysis.power import decided, seconds_per_trial, trials_needed
from tombola.errors import InputError


@pytest.mark.parametrize("n", [2, 3, 5, 20, 200])
@pytest.mark.parametrize("effect", [0.0, 0.1, 0.5, 2.0, -1.0])
def test_of_a_comparison_it_is_the_power_of_the_t_test(n: int, effect: float) -> None:
    shift = effect * math.sqrt(n)
    limit = student.critical(n - 1, 0.95)
    power = stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift)
    assert decided(n, 3 + 2 * effect, 2, 3, math.inf) == pytest.approx(power, abs=2e-6)
    assert decided(n, 3 + 2 * effect, 2, -math.inf, 3) == pytest.approx(power, abs=2e-6)


@pytest.mark.parametrize(("n", "mean", "tolerance"), [(3, 0.0, 3.0), (6, 0.4, 1.0), (12, 1.5, 1.0), (30, -0.1, 0.6)])
def test_of_a_range_it_is_how_often_simulated_intervals_decide(n: int, mean: float, tolerance: float) -> None:
    samples = np.random.default_rng(0).normal(mean, 1.0, (40_000, n))
    half = student.critical(n - 1, 0.95) * samples.std(axis=1, ddof=1) / math.sqrt(n)
    low, high = samples.mean(axis=1) - half, samples.mean(axis=1) + half
    often = ((low >= -tolerance) & (high <= tolerance) | (high < -tolerance) | (low > tolerance)).mean()
    assert decided(n, mean, 1.0, -tolerance, tolerance) == pytest.approx(often, abs=0.01)


def outcome(values: list[float], **fields: object) -> Outcome:
    settings = {"id": "a", "source": "s", "sentence": "x", "expression": 'gain("ticket", 0.2) > 0', **fields}
    mean, std = float(np.mean(values)), float(np.std(values, ddof=1))
    return Outcome("study", Claim.model_validate(settings), "inconclusive", "", len(values), mean, 0.0, 1.0, std=std)


def test_the_smallest_number_is_the_smallest() -> None:
    pilot = outcome([0.1, 0.5, 0.2, 0.4, 0.05])
    found = trials_needed(pilot)
    assert found is not None
    assert found.if_claimed is None  # a comparison names no value
    needed = int(found.if_as_pilot)
    assert pilot.measured is not None
    assert pilot.std is not None
    powers = [decided(n, pilot.measured, pilot.std, 0, math.inf) for n in (needed - 1, needed)]
    assert powers[0] < 0.9 <= powers[1]


def test_what_follows_from_the_spread_alone_does_not_change_with_the_mean() -> None:
    claim = {"expression": 'gain("ticket", 0.2)', "expected": 1.0, "tolerance": 0.3}
    numbers = set()
    for shift in (0.0, 0.25, 5.0):
        found = trials_needed(outcome([shift, shift + 0.4, shift + 0.8], **claim))
        assert found is not None
        numbers.add((found.if_claimed, found.trials))
    ((claimed, trials),) = numbers
    assert claimed == trials
    assert claimed is not None
    assert decided(int(claimed), 1.0, 0.4, 0.7, 1.3) >= 0.9 > decided(int(claimed) - 1, 1.0, 0.4, 0.7, 1.3)


def test_a_claim_on_the_edge_is_never_decided() -> None:
    found = trials_needed(outcome([-1.0, 0.0, 1.0]))
    assert found is not None
    assert math.isinf(found.if_as_pilot)


def test_a_pilot_that_says_nothing() -> None:
    assert trials_needed(outcome([0.1, 0.2])) is None
    assert trials_needed(outcome([0.5, 0.5, 0.5])) is None
    with pytest.raises(InputError, match="power=1"):
        trials_needed(outcome([0.1, 0.5, 0.2]), power=1)


def test_no_fewer_trials_than_the_claim_asks_for() -> None:
    found = trials_needed(outcome([5.0, 5.1, 5.2], minimum=7))
    assert found is not None
    assert found.if_as_pilot == 7


def test_the_seconds_of_a_trial_count_each_run_once() -> None:
    rows = [(0, 0, "dense", 10.0), (0, 1, "a", 4.0), (0, 0, "dense", 10.0), (1, 0, "dense-1", 12.0), (1, 1, "b", 2.0)]
    levels = pd.DataFrame(rows, columns=["trial", "level", "job", "seconds"])
    assert seconds_per_trial(levels) == 14.0
    assert seconds_per_trial(levels.assign(job="")) == 14.0  # a table of one's own
    assert seconds_per_trial(levels.assign(seconds=math.nan)) is None
    assert seconds_per_trial(levels.drop(columns="seconds")) is None


def test_trials_that_are_not_finished_do_not_make_a_trial_cheaper() -> None:
    rows = [(0, 0, "a", 1.0), (0, 1, "b", 9.0), (1, 0, "c", 3.0), (1, 1, "d", 7.0), (2, 0, "e", 2.0)]
    levels = pd.DataFrame(rows, columns=["trial", "level", "job", "seconds"])
    assert seconds_per_trial(levels) == 10.0
    assert seconds_per_trial(levels.assign(seconds=[1.0, 9.0, 3.0, 7.0, math.nan])) == 10.0
    assert seconds_per_trial(levels.assign(seconds=[1.0, math.nan, 3.0, 7.0, 2.0])) is None
