"""The sparse layouts of an exported file: which numbers the kernels read one after another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tombola.export.c import ops as o
from tombola.export.c.layout import LANES, up

CACHE = 6144
"""float32 of the input planes that a convolution works on at a time: 24 KiB of the 32 KiB of a first-level cache."""

BLOCK = 4096
"""float32 of the input that a product of many inputs works on at a time."""

INDEX = 1 << 16


@dataclass(frozen=True, eq=False)
class ConvLayout:
    """The tables of a convolution, as `struct convolution` in C describes them."""

    weights: np.ndarray
    offsets: np.ndarray
    counts: np.ndarray
    bases: np.ndarray


def conv_layout(op: o.Conv, sources: np.ndarray, planes: np.ndarray) -> ConvLayout:
    """Return the tables of a convolution.

    Args:
        op: the step.
        sources, planes: places in `work` that each weight reads, and of the plane that it is in.
    """
    groups, bases = _groups(op, sources, planes)
    order = np.lexsort((sources, op.rows, groups))
    outputs = len(op.bias)
    counts = np.bincount(groups * outputs + op.rows, minlength=len(bases) * outputs)
    offsets = (sources - bases[groups])[order] if len(order) else sources
    kind = np.uint16 if offsets.max(initial=0) < INDEX and counts.max(initial=0) < INDEX else np.uint32
    return ConvLayout(
        op.weights[order].astype(np.float32), offsets.astype(kind), counts.astype(kind), bases.astype(np.int32)
    )


def _groups(op: o.Conv, sources: np.ndarray, planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the group of each weight and the base of each group: planes whose tiles fit into the cache together."""
    if not len(sources):
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    starts, number = np.unique(planes, return_inverse=True)
    low, high = np.full(len(starts), np.iinfo(np.int64).max), np.zeros(len(starts), np.int64)
    np.minimum.at(low, number, sources)
    np.maximum.at(high, number, sources)
    group, used, base = np.zeros(len(starts), np.int64), 0, int(low[0])
    bases = [base]
    for plane in range(len(starts)):
        size = int(high[plane] - low[plane]) + op.tile
        if used and (used + size > CACHE or high[plane] - base >= INDEX or low[plane] < base):
            base, used = int(low[plane]), 0
            bases.append(base)
        used += size
        group[plane] = len(bases) - 1
    return group[number], np.array(bases)


@dataclass(frozen=True, eq=False)
class LinearLayout:
    """The tables of a product, as `struct product` in C describes them.

    Args:
        shared: whether the eight outputs of a group share their indices.
    """

    weights: np.ndarray
    index: np.ndarray
    steps: np.ndarray
    bases: np.ndarray
    bias: np.ndarray
    shared: bool


def linear_layout(op: o.Linear, sources: np.ndarray) -> LinearLayout:
    """Return the tables of a product; `sources` are the places of its columns, -1 for those without weights."""
    rows, columns = np.nonzero(op.matrix)
    weights, places = op.matrix[rows, columns], sources[columns]
    groups = up(len(op.matrix), LANES) // LANES
    blocks, bases = _blocks(places)
    order = np.lexsort((places, rows, blocks))
    blocks, rows, places, weights = blocks[order], rows[order], places[order], weights[order]
    bias = np.zeros(groups * LANES)
    bias[: len(op.bias)] = op.bias
    cells = blocks * groups + rows // LANES
    own = _steps_of_own(cells, rows % LANES, len(bases) * groups)
    common, place_in_common = _steps_of_shared(cells, places, len(bases) * groups)
    shared = _cost(own, LANES * 6, 0.75 * LANES) > _cost(common, LANES * 4 + 2, 1.0)
    if shared:
        steps, step = common, place_in_common
        index = np.zeros(steps.sum(), np.int64)
        index[step] = places - bases[blocks]
    else:
        steps, step = own, _step_of_own(cells, rows % LANES, own)
        index = np.zeros(steps.sum() * LANES, np.int64)
        index[step * LANES + rows % LANES] = places - bases[blocks]
    table = np.zeros(steps.sum() * LANES, np.float32)
    table[step * LANES + rows % LANES] = weights
    if steps.max(initial=0) >= INDEX:
        raise AssertionError("a block is never that wide")
    return LinearLayout(
        table,
        index.astype(np.uint16),
        steps.astype(np.uint16),
        bases.astype(np.int32),
        bias.astype(np.float32),
        shared,
    )


def _cost(steps: np.ndarray, size: int, cycles: float) -> float:
    """Return the cycles that a layout takes: of its steps, or of reading them from the memory behind the cache."""
    total = float(steps.sum())
    bytes_ = total * size
    return max(total * cycles, bytes_ / (32 if bytes_ < 2**19 else 12))


def _blocks(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the block of inputs that each weight is in, and where each block begins."""
    if not len(places):
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    lowest, highest = int(places.min()), int(places.max())
    if highest - lowest < 2 * BLOCK:
        return np.zeros(len(places), np.int64), np.array([lowest])
    blocks = (places - lowest) // BLOCK
    used, blocks = np.unique(blocks, return_inverse=True)
    return blocks, lowest + used * BLOCK


def _steps_of_own(cells: np.ndarray, lanes: np.ndarray, count: int) -> np.ndarray:
    """Return, for each block and group, the most weights that one of its outputs has."""
    each = np.bincount(cells * LANES + lanes, minlength=count * LANES)
    return each.reshape(count, LANES).max(1)


def _step_of_own(cells: np.ndarray, lanes: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Return the step of each weight, which are sorted by output within each block."""
    lane = cells * LANES + lanes
    first = np.flatnonzero(np.r_[True, lane[1:] != lane[:-1]]) if len(lane) else np.zeros(0, np.int64)
    lengths = np.diff(np.r_[first, len(lane)])
    within = np.arange(len(lane)) - np.repeat(first, lengths)
    return (np.cumsum(steps) - steps)[cells] + within


def _steps_of_shared(cells: np.ndarray, places: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each block and group, how many inputs its outputs read, and the step of each weight."""
    key = cells * (int(places.max(initial=0)) + 1) + places
    kinds, step = np.unique(key, return_inverse=True)
    steps = np.bincount(kinds // (int(places.max(initial=0)) + 1), minlength=count)
    return steps, step
