"""Confidence intervals and tests of means, for many small samples at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tombola.analysis import student
from tombola.analysis.bootstrap import bca_bounds
from tombola.errors import InputError

Method = Literal["t", "bootstrap"]
Alternative = Literal["two-sided", "less", "greater"]

RESAMPLES = 10_000
ROWS_AT_ONCE = 50  # of a bootstrap: 20 MB at five trials


@dataclass(frozen=True)
class Means:
    """Means of samples, with two-sided intervals.

    Args:
        n: size of each sample, int [samples].
        mean: NaN where n is 0; float [samples], as are the others.
        std: with ddof=1; NaN where n < 2.
        low, high: bounds of the interval; NaN where n < 2. Where all values of a sample are equal, both are the mean.
    """

    n: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    low: np.ndarray
    high: np.ndarray


def means(samples: Sequence[np.ndarray], confidence: float = 0.95, method: Method = "t") -> Means:
    """Return mean and interval of each sample.

    Arguments:
        samples: one vector each, without NaN; they may differ in size.
        confidence: of the two-sided interval.
        method: "t", Student's; or "bootstrap", bias-corrected and accelerated (Efron 1987, "Better bootstrap
            confidence intervals"), 10,000 resamples drawn with a fixed seed.

    Raises:
        InputError: `confidence` is not a number between 0 and 1, or `method` unknown.
    """
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence} must lie between 0 and 1, such as 0.95")
    if method not in ("t", "bootstrap"):
        raise InputError(f"unknown method {method!r} of an interval; known: t, bootstrap")
    sizes = np.array([len(sample) for sample in samples], dtype=int)
    mean = np.array([sample.mean() if len(sample) else np.nan for sample in samples], dtype=float)
    std = np.array([sample.std(ddof=1) if len(sample) > 1 else np.nan for sample in samples], dtype=float)
    flat = np.array([_is_flat(sample) for sample in samples], dtype=bool)
    std[flat & (sizes > 1)] = 0.0
    low, high = (np.where(flat & (sizes > 1), mean, np.nan) for _ in range(2))
    bounds = _t_bounds if method == "t" else _bootstrap_bounds
    for rows, matrix in _by_size(samples, flat):
        low[rows], high[rows] = bounds(matrix, confidence)
    return Means(sizes, mean, std, low, high)


def t_tests(samples: Sequence[np.ndarray], against: float = 0.0, alternative: Alternative = "two-sided") -> np.ndarray:
    """Return the p value of each sample's one-sample t test against a mean, float [samples].

    It is NaN where a sample has fewer than two values, or only equal ones: there is no variation to test against.
    """
    p = np.full(len(samples), np.nan)
    flat = np.array([_is_flat(sample) for sample in samples], dtype=bool)
    for rows, matrix in _by_size(samples, flat):
        mean, error = _standard_error(matrix)
        p[rows] = _p_value((mean - against) / error, matrix.shape[1] - 1, alternative)
    return p


def _p_value(t: np.ndarray, freedom: int, alternative: Alternative) -> np.ndarray:
    if alternative == "two-sided":
        return student.both_tails(t, freedom)
    return student.upper_tail(t if alternative == "greater" else -t, freedom)


def holm(p: np.ndarray) -> np.ndarray:
    """Return p values adjusted by Holm's method (1979) for a family of tests; NaN stays NaN and counts as no test."""
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known])]
    at_least = np.arange(len(order), 0, -1) * p[order]  # the smallest of m times m, the next times m - 1, ...
    adjusted[order] = np.minimum(np.maximum.accumulate(at_least), 1.0)
    return adjusted


def _is_flat(sample: np.ndarray) -> bool:
    """Return whether there is no variation in a sample beyond rounding."""
    return len(sample) < 2 or bool(np.ptp(sample) <= 1e-12 * np.abs(sample).max())


def _by_size(samples: Sequence[np.ndarray], flat: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (rows, matrix [rows, n]) for the samples of each size n that vary."""
    sizes = np.array([len(sample) for sample in samples], dtype=int)
    found = []
    for size in np.unique(sizes[~flat]):
        rows = np.flatnonzero((sizes == size) & ~flat)
        found.append((rows, np.stack([samples[int(row)] for row in rows])))
    return found


def _standard_error(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard error of the mean of each row."""
    return matrix.mean(axis=1), np.sqrt(matrix.var(axis=1, ddof=1) / matrix.shape[1])


def _t_bounds(matrix: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    mean, error = _standard_error(matrix)
    half = student.critical(matrix.shape[1] - 1, confidence) * error
    return mean - half, mean + half


def _bootstrap_bounds(matrix: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    starts = range(0, len(matrix), ROWS_AT_ONCE)
    pieces = [bca_bounds(matrix[start : start + ROWS_AT_ONCE], confidence, RESAMPLES) for start in starts]
    low, high = zip(*pieces, strict=True)
    return np.concatenate(low), np.concatenate(high)
