"""How numbers lie in memory: planes, tiles and their sizes."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from tombola.export import graph as g
from tombola.export.c import ops as o

LANES = 8
"""Numbers in a vector of the exported code; hardware of narrower vectors takes two."""

TILES = range(1, 15)
"""Vectors that a convolution may compute side by side: with a weight and a constant they fit into 16 registers."""

OVERHEAD = 3
"""Cost of a weight beside its multiply-adds, in those of a vector."""


def canonical(shape: g.Shape) -> tuple[int, int, int]:
    """Return a shape as channels, height and width."""
    if len(shape) < 3:
        return (1, 1, prod(shape)) if len(shape) < 2 else (shape[0], 1, shape[1])
    return prod(shape[:-2]), shape[-2], shape[-1]


def channel_axes(shape: g.Shape) -> g.Shape:
    """Return the part of a shape that `canonical` makes channels of."""
    return shape[:-1] if len(shape) < 3 else shape[:-2]


def as_planes(where: np.ndarray) -> o.Planes | None:
    """Return positions [channels, height, width] as planes; None where they do not lie so."""
    live = (where >= 0).all((1, 2))
    if not live.any() or ((where >= 0).any((1, 2)) != live).any():
        return None
    first = where[np.argmax(live)]
    row = int(first[1, 0] - first[0, 0]) if len(first) > 1 else first.shape[1]
    made = o.Planes(np.where(live, where[:, 0, 0], -1), row, *first.shape)
    if row < first.shape[1] or len(np.unique(made.starts[live] // o.BUFFER == o.EXAMPLE)) > 1:
        return None
    return made if (made.positions() == where).all() else None


def filled(where: np.ndarray) -> np.ndarray:
    """Return positions with any of them instead of numbers that are not needed."""
    filled_: np.ndarray = np.where(where < 0, where.max(), where)
    return filled_


def narrowed(planes: o.Planes, live: np.ndarray) -> o.Planes:
    """Return some of the planes."""
    return o.Planes(planes.starts[live], planes.row, planes.height, planes.width)


def live_planes(planes: o.Planes) -> o.Planes:
    """Return the planes that are needed."""
    return narrowed(planes, planes.starts >= 0)


def narrowed_to(planes: o.Planes, other: o.Planes) -> o.Planes:
    """Return the planes of the needed channels of `other`."""
    return narrowed(planes, other.starts >= 0)


def clampable(op: o.Conv | o.Linear) -> bool:
    """Return whether no activation has been fused into a step yet."""
    return (op.low, op.high) == (-o.INFINITY, o.INFINITY)


def heaviest_first(matrix: np.ndarray, needed: np.ndarray) -> np.ndarray:
    """Return the needed rows by falling number of weights: rows of equal length are computed side by side."""
    counts = (matrix != 0).sum(1)
    order = np.argsort(-counts, kind="stable")
    return order[needed[order]]


def best_tile(places: int) -> int:
    """Return the tile that computes planes of so many places fastest."""
    return LANES * min(TILES, key=lambda tile: (up(places, tile * LANES) // (tile * LANES) * (tile + OVERHEAD), -tile))


def up(number: int, multiple: int) -> int:
    """Return the least multiple that is not below a number."""
    return -(-number // multiple) * multiple


def two(values: tuple[Any, ...], missing: Any) -> tuple[Any, Any]:
    """Return the values for height and width; one axis alone is the width."""
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])


def some(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return whether any of the values along these axes is true."""
    found: np.ndarray = np.asarray(values.any(axes))
    return found
