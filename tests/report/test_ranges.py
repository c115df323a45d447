"""The axes of figures in files and on pages: which values they show, which densities they name."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tombola.figures.ranges import Range, density_axis, from_zero, padded, worth_showing

NONE = np.array([])
CLOSE = np.array([97.0, 97.5, 98.0, 97.8, 97.2, 97.9, 97.6, 97.4])
values = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30).map(np.array)


def test_the_axis_hides_a_collapsed_control_and_nothing_else() -> None:
    found = worth_showing([CLOSE], np.array([96.9]), np.array([98.1]))
    assert (found.low, found.high) == (96.9, 98.1)
    found = worth_showing([np.append(CLOSE, 11.0)], NONE, NONE)
    assert 90 < found.low < 97
    assert found.whole_low == 11.0
    assert worth_showing([NONE], NONE, NONE) == Range(0.0, 1.0, 0.0, 1.0)


def test_where_lower_is_better_the_top_may_go() -> None:
    found = worth_showing([np.append(100 - CLOSE, 89.0)], NONE, NONE, better="lower")
    assert found.low == 2.0
    assert 3 < found.high < 10
    assert found.whole_high == 89.0


@given(values, values)
def test_lower_is_better_is_the_mirror_image(means: np.ndarray, halves: np.ndarray) -> None:
    half = np.abs(np.resize(halves, len(means)))
    up = worth_showing([means], means - half, means + half)
    down = worth_showing([-means], -means - half, -means + half, better="lower")
    assert (down.low, down.high, down.whole_low, down.whole_high) == (-up.high, -up.low, -up.whole_high, -up.whole_low)


@given(values)
def test_the_best_value_is_always_seen_and_half_of_all_too(means: np.ndarray) -> None:
    found = worth_showing([means], NONE, NONE)
    assert found.high == means.max()
    assert found.whole_low == means.min() <= found.low <= found.high
    assert (means >= found.low - 1e-9).mean() >= 0.5


def test_no_study_is_hidden_completely() -> None:
    worse = CLOSE - 60
    assert worth_showing([CLOSE, worse], NONE, NONE).low <= worse.max()
    assert worth_showing([np.concatenate([CLOSE] * 9 + [worse])], NONE, NONE).low > worse.max()


def test_the_intervals_of_two_trials_do_not_fill_the_plot() -> None:
    """A t interval of two trials is 12.7 standard errors to each side."""
    lows, highs = CLOSE - 0.1, CLOSE + 0.1
    lows[0], highs[0] = 60.0, 134.0
    found = worth_showing([CLOSE], lows, highs)
    assert 96 < found.low < 97.1
    assert 98 < found.high < 99
    assert worth_showing([CLOSE], CLOSE - 90, CLOSE + 90, bounds=(0.0, 100.0)).high <= 100
    assert from_zero(np.array([3000.0, 4000.0]), np.array([3100.0, 90_000.0])).high == 4000


def test_one_level_shows_its_bar() -> None:
    found = worth_showing([np.array([97.0])], np.array([95.0]), np.array([99.0]))
    assert (found.low, found.high) == (95.0, 99.0)


def test_rounding_does_not_hide_the_bar_of_one_level() -> None:
    """Of two trials, as shares in percent: about every second bar would miss its own length by the last bit."""
    for first, second in np.random.default_rng(0).integers(1, 1000, (200, 2)):
        low, high = 100 * min(first, second) / 1000, 100 * max(first, second) / 1000
        found = worth_showing([np.array([100 * np.mean([first / 1000, second / 1000])])], *np.array([[low], [high]]))
        assert (found.low, found.high) == (low, high)


@pytest.mark.parametrize("value", [0.0, 0.0123, 24.0, -3e-6, 5e9])
def test_a_flat_curve_has_an_axis_of_its_own_size(value: float) -> None:
    low, high = padded(value, value)
    assert low < value < high
    assert high - low <= max(0.1 * abs(value) * 1.001, 1.0 if value == 0 else 0.0)


def test_density_axis() -> None:
    axis = density_axis([0.8**level for level in range(25)], 0.1)
    assert axis is not None
    assert axis.labels[0] == "100"
    assert axis.labels[-1] == "0.47"
    assert len(axis.numbered) == len(axis.labels) < 12
    assert len(axis.numbered) + len(axis.bare) == 25
    logs = np.log(axis.numbered)
    assert (np.diff(logs) < 0).all()
    assert -np.diff(logs).max() >= 0.1 * math.log(1 / 0.8**24) - 1e-9
    assert axis.left > 100
    assert axis.right < 100 * 0.8**24
    round_ones = density_axis([1.0, 0.5, 0.013], 0.1, shared=True)
    assert round_ones is not None
    assert set(round_ones.labels) <= {"100", "50", "20", "10", "5", "2"}
    assert density_axis([0.0], 0.1) is None
    assert density_axis([1.0], 0.1).numbered == (100.0,)
