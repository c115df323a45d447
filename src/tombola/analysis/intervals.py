"""Confidence intervals and tests of means, for many small samples at once. All formulas are SciPy's.

SciPy's and statsmodels' tests take a second to import, so only what computes with them waits for it.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

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
        InputError: `confidence` is no number between 0 and 1, or `method` unknown.
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
    from scipy import stats

    p = np.full(len(samples), np.nan)
    flat = np.array([_is_flat(sample) for sample in samples], dtype=bool)
    for rows, matrix in _by_size(samples, flat):
        p[rows] = stats.ttest_1samp(matrix, against, axis=1, alternative=alternative).pvalue
    return p


def holm(p: np.ndarray) -> np.ndarray:
    """Return p values adjusted by Holm's method (1979) for being looked at together; NaN stays, and counts for none."""
    from statsmodels.stats.multitest import multipletests

    adjusted = np.full(len(p), np.nan)
    known = ~np.isnan(p)
    if known.any():
        gc.freeze()  # multipletests collects garbage at each call, which beside PyTorch takes longer than the rest
        try:
            adjusted[known] = multipletests(p[known], method="holm")[1]
        finally:
            gc.unfreeze()
    return adjusted


def _is_flat(sample: np.ndarray) -> bool:
    """Return whether there is no variation in a sample beyond rounding."""
    return len(sample) < 2 or bool(np.ptp(sample) <= 1e-12 * np.abs(sample).max())


def _by_size(samples: Sequence[np.ndarray], flat: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (rows, matrix [rows, n]) for the samples of each size n that vary: SciPy works on matrices."""
    sizes = np.array([len(sample) for sample in samples], dtype=int)
    found = []
    for size in np.unique(sizes[~flat]):
        rows = np.flatnonzero((sizes == size) & ~flat)
        found.append((rows, np.stack([samples[int(row)] for row in rows])))
    return found


def _t_bounds(matrix: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy import stats

    interval = stats.ttest_1samp(matrix, 0.0, axis=1).confidence_interval(confidence)
    return interval.low, interval.high


def _bootstrap_bounds(matrix: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy import stats

    mean: Callable[..., np.ndarray] = np.mean
    pieces = []
    for start in range(0, len(matrix), ROWS_AT_ONCE):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # such bounds are NaN, which says it
            interval = stats.bootstrap(
                (matrix[start : start + ROWS_AT_ONCE],),
                mean,
                axis=1,
                vectorized=True,
                confidence_level=confidence,
                n_resamples=RESAMPLES,
                method="BCa",
                rng=np.random.default_rng(0),  # anew each time, so that a cell's bounds depend on its values alone
            ).confidence_interval
        pieces.append((interval.low, interval.high))
    low, high = zip(*pieces, strict=True)
    return np.concatenate(low), np.concatenate(high)
