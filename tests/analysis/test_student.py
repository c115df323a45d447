"""Student's t distribution and the bootstrap against SciPy, and against integrals worked out with many digits."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from math import comb

import mpmath
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy import stats

from tombola.analysis.bootstrap import bca_bounds
from tombola.analysis.intervals import holm, means, t_tests
from tombola.analysis.overlap import chance
from tombola.analysis.student import both_tails, critical, density, upper_tail

FREEDOMS = [1, 2, 3, 4, 9, 29, 99, 1000]


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_the_tails_against_many_digits(freedom):
    values = 10.0 ** np.linspace(-6, 3, 19)
    with mpmath.workdps(40):
        half = mpmath.mpf(freedom) / 2
        expected = [
            float(mpmath.betainc(half, 0.5, 0, freedom / (freedom + mpmath.mpf(t) ** 2), regularized=True))
            for t in values
        ]
    expected = np.array(expected)
    far = expected < 1e-290
    np.testing.assert_allclose(both_tails(values, freedom)[~far], expected[~far], rtol=1e-11)
    assert (both_tails(values, freedom)[far] < 1e-280).all()
    np.testing.assert_array_equal(both_tails(-values, freedom), both_tails(values, freedom))


@example(3.7e-9, 1)  # where SciPy 1.17 returns exactly 0.5
@given(st.floats(-50, 50), st.integers(1, 200))
def test_one_tail_against_many_digits(t, freedom):
    with mpmath.workdps(40):
        x = freedom / (freedom + mpmath.mpf(t) ** 2)
        tail = mpmath.betainc(mpmath.mpf(freedom) / 2, 0.5, 0, x, regularized=True) / 2
        expected = float(tail if t > 0 else 1 - tail)
    assert float(upper_tail(np.array(t), freedom)) == pytest.approx(expected, rel=1e-10)


@given(st.integers(1, 300), st.floats(0.001, 0.9999))
def test_the_critical_value_against_scipy_and_back(freedom, confidence):
    t = critical(freedom, confidence)
    assert t == pytest.approx(stats.t.ppf((1 + confidence) / 2, freedom), rel=1e-9)
    assert 1 - float(both_tails(np.array(t), freedom)) == pytest.approx(confidence, rel=1e-9)


def test_values_at_the_edges():
    ends = both_tails(np.array([0.0, np.inf, -np.inf, np.nan, 1e200]), 4)
    np.testing.assert_array_equal(ends, [1.0, 0.0, 0.0, np.nan, 0.0])
    np.testing.assert_array_equal(upper_tail(np.array([0.0, np.inf, -np.inf]), 4), [0.5, 0.0, 1.0])
    assert critical(1, 0.5) == pytest.approx(1.0)  # the quartile of Cauchy's distribution
    assert critical(99, 1 - 1e-12) == pytest.approx(stats.t.isf(5e-13, 99), rel=1e-4)  # 1 - 1e-12 has few digits
    assert density(0.0, 1) == pytest.approx(1 / math.pi)


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
@pytest.mark.parametrize("n", [2, 3, 5, 10, 40])
def test_t_tests_and_intervals_against_scipy(n, alternative):
    samples = list(np.random.default_rng(n).normal(0.3, 1, (20, n)))
    expected = stats.ttest_1samp(np.stack(samples), 0.1, axis=1, alternative=alternative)
    np.testing.assert_allclose(t_tests(samples, 0.1, alternative), expected.pvalue, rtol=1e-10)
    interval = stats.ttest_1samp(np.stack(samples), 0.0, axis=1).confidence_interval(0.9)
    found = means(samples, 0.9)
    np.testing.assert_allclose(found.low, interval.low, rtol=1e-10)
    np.testing.assert_allclose(found.high, interval.high, rtol=1e-10)


@pytest.mark.parametrize("n", [2, 3, 5, 12])
def test_the_bootstrap_against_scipy(n):
    matrix = np.random.default_rng(n).lognormal(size=(8, n))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        expected = stats.bootstrap(
            (matrix,), np.mean, axis=1, vectorized=True, n_resamples=2_000, rng=np.random.default_rng(0)
        ).confidence_interval
    found = bca_bounds(matrix, 0.95, 2_000)
    np.testing.assert_allclose(found[0], expected.low, rtol=1e-9)
    np.testing.assert_allclose(found[1], expected.high, rtol=1e-9)


@given(st.lists(st.one_of(st.floats(0, 1), st.just(math.nan)), max_size=12))
def test_holm_by_its_definition(p):
    """In rising order, the adjusted j-th of m is the largest of (m - i + 1) p_i over all i up to j, at most 1."""
    known = sorted(value for value in p if not math.isnan(value))
    for value, found in zip(p, holm(np.array(p)), strict=True):
        if math.isnan(value):
            assert math.isnan(found)
            continue
        last = max(i for i, each in enumerate(known) if each == value)
        assert found == min(1.0, max((len(known) - i) * known[i] for i in range(last + 1)))


@given(st.integers(1, 60), st.data())
def test_the_chance_of_an_overlap_by_counting(size, data):
    kept, also = data.draw(st.integers(0, size)), data.draw(st.integers(0, size))
    numbers = range(max(0, kept + also - size), min(kept, also) + 1)
    expected = sum(
        Fraction(comb(kept, k) * comb(size - kept, also - k), comb(size, also)) * Fraction(k, kept + also - k)
        for k in numbers
        if kept + also
    )
    assert chance(kept, also, size) == pytest.approx(float(expected) if kept + also else 1.0, rel=1e-12)


@pytest.mark.parametrize(("kept", "also", "size"), [(30_000, 29_500, 100_000), (1_000_000, 1_000_000, 25_000_000)])
def test_the_chance_of_an_overlap_of_large_layers_against_scipy(kept, also, size):
    mean = kept * also / size
    numbers = np.arange(int(mean - 15 * mean**0.5), int(mean + 15 * mean**0.5))
    shares = stats.hypergeom(size, kept, also).pmf(numbers)
    assert chance(kept, also, size) == pytest.approx(
        float((shares * numbers / (kept + also - numbers)).sum()), rel=1e-6
    )
