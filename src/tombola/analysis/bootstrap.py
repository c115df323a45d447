"""Bias-corrected and accelerated bootstrap intervals of means (Efron 1987, "Better bootstrap confidence intervals")."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

NORMAL = NormalDist()


def bca_bounds(matrix: np.ndarray, confidence: float, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper bound of each row's mean, float64 [rows] each.

    A row's bounds depend on its values alone: every call draws the same resamples.

    Args:
        matrix: float64 [rows, n], a sample in each row; n is at least 2.
        confidence: of the two-sided interval.
        resamples: number of bootstrap resamples.

    Returns:
        the bounds; NaN in rows where all resampled means lie on one side of the sample's mean.
    """
    n = matrix.shape[1]
    drawn = np.random.default_rng(0).integers(0, n, (resamples, n))
    found = np.mean(matrix[:, drawn], axis=-1)  # [rows, resamples]
    low, high = np.full(len(matrix), np.nan), np.full(len(matrix), np.nan)
    outer = NORMAL.inv_cdf((1 - confidence) / 2)
    for row, (sample, means) in enumerate(zip(matrix, found, strict=True)):
        mean = sample.mean()
        below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * resamples)
        if not 0 < below < 1:
            continue
        bias, acceleration = NORMAL.inv_cdf(below), _acceleration(sample)
        shares = [_adjusted(bias, end, acceleration) for end in (outer, -outer)]
        low[row], high[row] = np.quantile(means, shares)
    return low, high


def _adjusted(bias: float, normal: float, acceleration: float) -> float:
    """Return the share of resampled means below a bound, from the standard normal quantile of that bound."""
    moved = bias + normal
    return 0.5 * math.erfc(-(bias + moved / (1 - acceleration * moved)) / math.sqrt(2))


def _acceleration(sample: np.ndarray) -> float:
    """Return a sixth of the skewness of the mean's influence values, by the jackknife."""
    n = len(sample)
    without = (sample.sum() - sample) / (n - 1)  # means of the sample without each of its values
    influence = without.mean() - without
    return float((influence**3).sum() / (6 * (influence**2).sum() ** 1.5))
