"""Shared values: a few numbers that stand for all weights of a tensor (Han et al. 2016, "Deep Compression", Section 3).

Shared values are rounded to what a packed file holds - a float32 scale times float16 multiples, or a float32 grid - at
once, so what is measured here is what a decoder gives back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from tombola.errors import InputError
from tombola.export.packed.decode import Entry, shared_values

Method = Literal["kmeans", "grid"]
METHODS = ("kmeans", "grid")
STEPS = 100  # of Lloyd's algorithm at most


@dataclass(frozen=True)
class Shared:
    """The shared values of a tensor.

    Args:
        form: "book" or "grid", as in `decode.Entry`.
        book: the bytes that a packed file holds of them.
        count: number of them.
    """

    form: str
    book: bytes
    count: int

    @property
    def values(self) -> np.ndarray:
        """float32 [count], rising."""
        return shared_values(Entry("", self.form, (), self.count), self.book)

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """Return the number of the shared value nearest to each of `values`; of two as near, the larger."""
        return _nearest(self.values.astype(np.float64), values)


def share(values: np.ndarray, bits: int, method: Method = "kmeans") -> Shared:
    """Return at most 2^bits numbers that stand for `values`.

    Args:
        values: float32 [n], finite.
        bits: 1 to 8.
        method: "kmeans" minimises the squared error (Lloyd 1982); "grid" spaces them
            evenly from the lowest to the highest value.

    Raises:
        InputError: `values` are not finite, or the options are unknown.
    """
    if method not in METHODS:
        raise InputError(f"values {method!r}: choose kmeans or grid")
    if not 1 <= bits <= 8:
        raise InputError(f"bits {bits}: a shared value has 1 to 8 bits")
    if not np.isfinite(values).all():
        raise InputError("a weight is not finite: this ticket can't be exported")
    if not len(values):
        return Shared("book", b"", 0)
    if method == "grid":
        low, high = float(values.min()), float(values.max())
        count = 2**bits if high > low else 1
        step = (high - low) / max(count - 1, 1)
        return Shared("grid", np.array([low, step], "<f4").tobytes(), count)
    return as_book(_kmeans(values.astype(np.float64), 2**bits))


def as_book(centres: np.ndarray) -> Shared:
    """Return these numbers as a packed file holds them: float16 multiples of their largest magnitude."""
    scale = np.float32(np.abs(centres).max())
    if not scale:
        return Shared("book", np.ones(1, "<f4").tobytes() + np.zeros(1, "<f2").tobytes(), 1)
    multiples = np.unique((centres / scale).astype("<f2"))
    return Shared("book", scale.astype("<f4").tobytes() + multiples.tobytes(), len(multiples))


def _kmeans(values: np.ndarray, count: int) -> np.ndarray:
    """Return the better of what Lloyd's algorithm makes of two starts: quantiles, and an even grid for the tails."""
    distinct = np.unique(values)
    if len(distinct) <= count:
        return distinct
    starts = (
        np.quantile(values, (np.arange(count) + 0.5) / count),
        np.linspace(values.min(), values.max(), count),
    )
    return min((_lloyd(values, start) for start in starts), key=lambda centres: _error(values, centres))


def _lloyd(values: np.ndarray, centres: np.ndarray) -> np.ndarray:
    for _ in range(STEPS):
        nearest = _nearest(centres, values)
        sizes = np.bincount(nearest, minlength=len(centres))
        sums = np.bincount(nearest, weights=values, minlength=len(centres))
        moved = np.sort(np.where(sizes > 0, sums / np.maximum(sizes, 1), centres))
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _nearest(centres: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values, side="right")


def _error(values: np.ndarray, centres: np.ndarray) -> float:
    return float(np.square(values - centres[_nearest(centres, values)]).sum())
