"""Compiled loops of batch norm for images with the examples last in memory.

Each channel is one stretch of numbers, read three times while it lies in the cache. Sums run in float32 over pieces
and in float64 over the pieces.

These functions are in one file because Numba's cache notices changes of the file of a function, no others.
"""

from __future__ import annotations

import numpy as np

from tombola.training.engines.kernels import compiled

PIECE = 2048


@compiled
def statistics(source, means, variances):  # type: ignore[no-untyped-def]
    """Fill float32 [channels] with the mean and the biased variance of each row of float32 [channels, numbers]."""
    channels, count = source.shape
    for channel in range(channels):
        row = source[channel]
        total = 0.0
        for begin in range(0, count, PIECE):
            piece, part = row[begin : begin + PIECE], np.float32(0.0)
            for j in range(len(piece)):
                part += piece[j]
            total += part
        mean = np.float32(total / count)
        total = 0.0
        for begin in range(0, count, PIECE):
            piece, part = row[begin : begin + PIECE], np.float32(0.0)
            for j in range(len(piece)):
                part += (piece[j] - mean) * (piece[j] - mean)
            total += part
        means[channel] = mean
        variances[channel] = np.float32(total / count)


@compiled
def normalise(source, means, scales, shifts, rectify, result):  # type: ignore[no-untyped-def]
    """Fill `result` with (source - mean) * scale + shift, float32 [channels, numbers], then a ReLU if asked for."""
    channels, count = source.shape
    for channel in range(channels):
        row, there = source[channel], result[channel]
        mean, scale, shift = means[channel], scales[channel], shifts[channel]
        if rectify:
            for j in range(count):
                value = (row[j] - mean) * scale + shift
                there[j] = np.float32(0.0) if value < np.float32(0.0) else value
        else:
            for j in range(count):
                there[j] = (row[j] - mean) * scale + shift


@compiled
def normalise_backward(slopes, source, result, means, inverses, factors, batch, back, for_factors, for_shifts):  # type: ignore[no-untyped-def]
    """Fill the gradients of batch norm with respect to its input, its factors and its shifts.

    Args:
        slopes, source: float32 [channels, numbers].
        result: as `source`; where it is not above 0 the slopes count as 0. Of no channels: there was no ReLU.
        means, inverses: float32 [channels]; inverses are 1 / standard deviation.
        factors: float32 [channels], the weights of the layer.
        batch: whether means and inverses are those of `source`, so that gradients go through them too.
        back: float32 [channels, numbers]; filled.
        for_factors, for_shifts: float32 [channels]; filled.
    """
    channels, count = source.shape
    for channel in range(channels):
        row, slope, there = source[channel], slopes[channel], back[channel]
        mean, inverse = means[channel], inverses[channel]
        if len(result) > 0:
            shown = result[channel]
            for j in range(count):
                there[j] = slope[j] if shown[j] > np.float32(0.0) else np.float32(0.0)
            slope = there
        plain, scaled = 0.0, 0.0
        for begin in range(0, count, PIECE):
            one, other = np.float32(0.0), np.float32(0.0)
            piece, beside = slope[begin : begin + PIECE], row[begin : begin + PIECE]
            for j in range(len(piece)):
                one += piece[j]
                other += piece[j] * (beside[j] - mean)
            plain += one
            scaled += other
        for_shifts[channel] = plain
        for_factors[channel] = scaled * inverse
        factor = factors[channel] * inverse
        offset, lean = np.float32(0.0), np.float32(0.0)
        if batch:
            offset = np.float32(plain / count)
            lean = np.float32(scaled * inverse * inverse / count)
        for j in range(count):
            there[j] = factor * (slope[j] - offset - lean * (row[j] - mean))
