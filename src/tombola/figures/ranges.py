"""Which values an axis shows, and which densities it names: the same rules for figures in files and on pages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tombola.formatting import percent
from tombola.tasks.metric import Direction

STEPS = tuple(digit * 10.0**power for power in range(2, -5, -1) for digit in (5, 2, 1))  # round percentages, falling


@dataclass(frozen=True)
class DensityAxis:
    """A logarithmic axis of weights remaining, which falls from left to right as in the paper.

    Args:
        left, right: its ends, in percent.
        numbered: the values that have a number, in percent, falling.
        bare: values that have a tick without a number.
        labels: the numbers, as texts.
    """

    left: float
    right: float
    numbered: tuple[float, ...]
    bare: tuple[float, ...]
    labels: tuple[str, ...]


def density_axis(densities: Iterable[float], label_width: float, shared: bool = False) -> DensityAxis | None:
    """Return the axis for some levels; None without a density above 0.

    Arguments:
        densities: of the levels, from 0 to 1. Ticks stand at these values.
        label_width: of one number with its gap, as a share of the axis.
        shared: curves of different densities meet here, so ticks stand at round percentages instead.
    """
    found = sorted({100 * float(density) for density in densities if density > 0}, reverse=True)
    if not found:
        return None
    span = max(math.log(found[0] / found[-1]), math.log(1.5))
    margin = math.exp(0.04 * span)
    left, right = found[0] * margin, found[-1] / margin
    if shared:
        found = [step for step in STEPS if right <= step <= left] or found[:1]
    numbered = _with_room(found, label_width * span)
    labels = tuple(f"{value:g}" if shared else percent(value / 100) for value in numbered)
    return DensityAxis(left, right, numbered, tuple(value for value in found if value not in numbered), labels)


def _with_room(falling: Sequence[float], distance: float) -> tuple[float, ...]:
    """Return the values at least `distance` apart on the logarithmic axis, both ends among them."""
    chosen, last = [falling[0]], falling[-1]
    for value in falling[1:-1]:
        if math.log(chosen[-1] / value) >= distance and math.log(value / last) >= distance:
            chosen.append(value)
    if len(falling) > 1 and math.log(chosen[-1] / last) >= distance:
        chosen.append(last)
    return tuple(chosen)


@dataclass(frozen=True)
class Range:
    """The range of an axis of values.

    Args:
        low, high: what is shown.
        whole_low, whole_high: what would be shown if no value were left out.
    """

    low: float
    high: float
    whole_low: float
    whole_high: float


def worth_showing(
    groups: Sequence[np.ndarray],
    lows: np.ndarray,
    highs: np.ndarray,
    better: Direction = "higher",
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Range:
    """Return the range of values that is worth its room.

    A collapsed control at 11 % accuracy would squeeze the half points that a study is about into one line. Where the
    worst values lie far beyond most others, the axis ends before them. It hides no group completely. The long intervals
    of few trials do not stretch the axis either.

    Arguments:
        groups: means of each study, in shown units; NaN counts as missing.
        lows, highs: ends of all bars; NaN where a mean has none.
        better: the end of the axis that always stays.
        bounds: that no value can exceed, though the interval of two trials can.
    """
    if better == "lower":
        found = worth_showing([-group for group in groups], -highs, -lows, bounds=(-bounds[1], -bounds[0]))
        return Range(-found.high, -found.low, -found.whole_high, -found.whole_low)
    groups = [known for group in groups if len(known := group[np.isfinite(group)])]
    if not groups:
        return Range(0.0, 1.0, 0.0, 1.0)
    means = np.concatenate(groups)
    reach = _reach(means, lows, highs)
    bottom = max(float(np.min([means.min(), *lows[lows >= means.min() - reach]])), bounds[0])
    top = min(float(np.max([means.max(), *highs[highs <= means.max() + reach]])), bounds[1])
    most = min(float(np.percentile(group, 20)) for group in groups)
    enough = max(3 * (top - most), 0.08 * (top - bottom))
    # Hiding values is worth it only where it gains much.
    low = top - enough if top - bottom > 1.6 * enough else bottom
    return Range(low, top, bottom, top)


def from_zero(means: np.ndarray, highs: np.ndarray) -> Range:
    """Return the range of counts, which begins at 0; the long intervals of few trials do not stretch it."""
    means = means[np.isfinite(means)]
    if not len(means):
        return Range(0.0, 1.0, 0.0, 1.0)
    reach = _reach(means, highs, highs)
    top = max(float(np.max([means.max(), *highs[highs <= means.max() + reach]])), 1.0)
    return Range(0.0, top, 0.0, top)


def _reach(means: np.ndarray, lows: np.ndarray, highs: np.ndarray) -> float:
    """Return how far beyond the outermost mean a bar may end and still decide the range."""
    lengths = np.concatenate([highs - lows, lows - highs]) / 2
    lengths = lengths[np.isfinite(lengths) & (lengths > 0)]
    typical = float(np.median(lengths)) if len(lengths) else 0.0
    spread = float(np.ptp(means))
    rounding = 1e-12 * float(np.abs(means).max())  # a bar of exactly this length must not miss it by its last bit
    return max(float(means.max() - np.median(means)), min(typical, 3 * spread) if spread else typical) + rounding


def beyond(values: np.ndarray, limit: Range) -> tuple[int, int]:
    """Return how many points lie below the axis and above it; their curve is seen to leave it."""
    low, high = padded(limit.low, limit.high)
    return int((values < low).sum()), int((values > high).sum())


def padded(low: float, high: float) -> tuple[float, float]:
    """Return the limits of an axis on which points at `low` and `high` are seen whole."""
    pad = 0.05 * (high - low) or min(0.5, 0.05 * abs(high)) or 0.5
    return low - pad, high + pad
