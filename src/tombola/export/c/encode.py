"""The sparse layouts of an exported file: which numbers the kernels read one after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from tombola.export.c import ops as o
from tombola.export.c.layout import LANES, up

CACHE = 6144
"""float32 of the input planes that a convolution works on at a time: 24 KiB of the 32 KiB of a first-level cache."""

INDEX = 1 << 16

BLOCK = INDEX - 1
"""float32 of the input that a product works on at a time: an output takes no more steps than 16 bits count."""

SMALL = 2048
"""Weights of a layer whose size counts more than its time."""

MORE = 1.04
"""How many more steps 8-bit indices may take than 16-bit ones: they take 42 bytes each, not 48."""

WINDOW = 256
"""Inputs that an index of 8 bits reaches."""

MUCH = 2
"""How much faster shared indices must be: they take more memory."""


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


Kind = Literal["linear", "window", "delta", "shared"]


@dataclass(frozen=True, eq=False)
class LinearLayout:
    """The tables of a product, as `struct product` in C describes them.

    Args:
        kind: how indices are stored. "linear": one of 16 bits for each weight. "window": one of 8 bits, from a start
            that the weights of eight outputs share. "delta": one of 8 bits, from the same output's weight before.
            "shared": one of 16 bits for the weights of eight outputs.
    """

    kind: Kind
    weights: np.ndarray
    index: np.ndarray
    steps: np.ndarray
    starts: np.ndarray
    bases: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True, eq=False)
class _Entries:
    """Weights of a product in the order of block, output and input.

    Args:
        cells: number of the block and the group of eight outputs that each is in.
        lanes: which of the eight outputs it is of.
        inputs: what it reads, from its block's base. An output reads each once.
        weights: its value.
        count: number of cells.
    """

    cells: np.ndarray
    lanes: np.ndarray
    inputs: np.ndarray
    weights: np.ndarray
    count: int

    def lane(self) -> np.ndarray:
        """Return the number of each weight's cell and lane together."""
        return self.cells * LANES + self.lanes


def linear_layout(op: o.Linear, sources: np.ndarray, small: bool = True) -> LinearLayout:
    """Return the tables of a product.

    Args:
        op: the step.
        sources: places of its columns, each at most once; -1 for those without weights.
        small: take indices of 8 bits where they need few more steps. A step then takes a tenth longer.
    """
    rows, columns = np.nonzero(op.matrix)
    places = sources[columns]
    groups = up(len(op.matrix), LANES) // LANES
    blocks, bases = _blocks(places)
    order = np.lexsort((places, rows, blocks))
    blocks, rows, places = blocks[order], rows[order], places[order]
    entries = _Entries(
        blocks * groups + rows // LANES,
        rows % LANES,
        places - bases[blocks],
        op.matrix[op.matrix != 0][order],
        len(bases) * groups,
    )
    bias = np.zeros(groups * LANES)
    bias[: len(op.bias)] = op.bias
    kind, encoded = _cheapest(entries, small)
    if encoded.steps.max(initial=0) >= INDEX:
        raise AssertionError("a block is never that wide")
    return LinearLayout(
        kind,
        encoded.weights.astype(np.float32),
        encoded.index,
        encoded.steps.astype(np.uint16),
        encoded.starts,
        bases.astype(np.int32),
        bias.astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class _Encoded:
    """Tables of a product: see `LinearLayout`. `steps` are those of each cell."""

    weights: np.ndarray
    index: np.ndarray
    steps: np.ndarray
    starts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint16))


def _cheapest(entries: _Entries, small: bool) -> tuple[Kind, _Encoded]:
    own, shared = _own(entries), _shared(entries)
    tiny = len(entries.weights) < SMALL
    if _cost(own, 0.75 * LANES) > MUCH * _cost(shared, 1.0) and not (tiny and _bytes(shared) > _bytes(own)):
        return "shared", shared
    # Adding up differences takes a quarter longer: not where it counts.
    if tiny and len((delta := _delta(entries)).weights) <= 1.1 * len(own.weights):
        return "delta", delta
    if small:
        window = _window(entries)
        if len(window.weights) <= MORE * len(own.weights) and window.steps.max(initial=0) < INDEX:
            return "window", window
    return "linear", own


def _bytes(encoded: _Encoded) -> int:
    return 4 * encoded.weights.size + encoded.index.nbytes


def _cost(encoded: _Encoded, cycles: float) -> float:
    """Return the cycles that a layout takes: of its steps, or of reading them from the memory behind the cache."""
    size = _bytes(encoded)
    return max(float(encoded.steps.sum()) * cycles, size / (32 if size < 2**19 else 12))


def _blocks(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the block of inputs that each weight is in, and where each block begins."""
    if not len(places):
        return np.zeros(0, np.int64), np.zeros(1, np.int64)
    lowest, highest = int(places.min()), int(places.max())
    if highest - lowest < BLOCK:
        return np.zeros(len(places), np.int64), np.array([lowest])
    blocks = (places - lowest) // BLOCK
    used, blocks = np.unique(blocks, return_inverse=True)
    return blocks, lowest + used * BLOCK


def _within(lane: np.ndarray) -> np.ndarray:
    """Return the number of each weight among those of its lane; equal lanes stand together."""
    if not len(lane):
        return lane
    first = np.flatnonzero(np.r_[True, lane[1:] != lane[:-1]])
    within: np.ndarray = np.arange(len(lane)) - np.repeat(first, np.diff(np.r_[first, len(lane)]))
    return within


def _slots(entries: _Entries) -> tuple[np.ndarray, np.ndarray]:
    """Return the slot of each weight, eight to a step, and the steps of each cell: those of its longest lane."""
    lane = entries.lane()
    counts = np.bincount(lane, minlength=entries.count * LANES).reshape(-1, LANES)
    steps = counts.max(1)
    step = (np.cumsum(steps) - steps)[entries.cells] + _within(lane)
    return step * LANES + entries.lanes, steps


def _own(entries: _Entries) -> _Encoded:
    slots, steps = _slots(entries)
    weights, index = np.zeros(steps.sum() * LANES), np.zeros(steps.sum() * LANES, np.uint16)
    weights[slots], index[slots] = entries.weights, entries.inputs
    return _Encoded(weights, index, steps)


def _window(entries: _Entries) -> _Encoded:
    """Encode places in a window that moves on from step to step: it starts at the least input that still waits.

    An output whose next input lies behind the window waits, and takes a weight of 0 meanwhile.
    """
    lanes = entries.count * LANES
    left = np.bincount(entries.lane(), minlength=lanes)
    following = np.cumsum(left) - left  # number of each lane's next weight
    steps = np.zeros(entries.count, np.int64)
    taken: list[tuple[np.ndarray, ...]] = []  # cell, step, lane and number of weights, and the windows' starts
    while left.any():
        cells = np.flatnonzero(left.reshape(-1, LANES).any(1))
        mine = (cells[:, None] * LANES + np.arange(LANES)).reshape(-1)
        some = left[mine] > 0
        waiting = np.full(len(mine), np.iinfo(np.int64).max)
        waiting[some] = entries.inputs[following[mine[some]]]
        first = waiting.reshape(-1, LANES).min(1)
        goes = mine[waiting < np.repeat(first, LANES) + WINDOW]
        taken.append((goes, steps[goes // LANES], following[goes], cells, steps[cells], first))
        left[goes] -= 1
        following[goes] += 1
        steps[cells] += 1
    before = np.cumsum(steps) - steps
    weights, index = np.zeros(steps.sum() * LANES), np.zeros(steps.sum() * LANES, np.uint8)
    starts = np.zeros(steps.sum(), np.uint16)
    for goes, at, number, cells, when, first in taken:
        starts[before[cells] + when] = first
        slots = (before[goes // LANES] + at) * LANES + goes % LANES
        weights[slots] = entries.weights[number]
        index[slots] = entries.inputs[number] - starts[before[goes // LANES] + at]
    return _Encoded(weights, index, steps, starts)


def _delta(entries: _Entries) -> _Encoded:
    """Encode differences; one above 255 takes weights of 0 on the way."""
    within = _within(entries.lane())
    before = np.where(within > 0, np.roll(entries.inputs, 1), 0) if len(within) else within
    gaps = entries.inputs - before
    extra = np.maximum(gaps - 1, 0) // 255
    times = extra + 1
    last = np.cumsum(times) - 1  # place of each weight after those on the way
    weights, deltas = np.zeros(times.sum()), np.full(times.sum(), 255)
    weights[last], deltas[last] = entries.weights, gaps - 255 * extra
    cells, lanes = np.repeat(entries.cells, times), np.repeat(entries.lanes, times)
    slots, steps = _slots(_Entries(cells, lanes, deltas, weights, entries.count))
    table, index = np.zeros(steps.sum() * LANES), np.zeros(steps.sum() * LANES, np.uint8)
    table[slots] = weights
    # Lane l lies in byte 2 * (l % 4) + l // 4: the even and the odd bytes are added up as four numbers of 16 bits.
    lane = slots % LANES
    index[slots - lane + 2 * (lane % 4) + lane // 4] = deltas
    return _Encoded(table, index, steps)


def _shared(entries: _Entries) -> _Encoded:
    width = int(entries.inputs.max(initial=0)) + 1
    kinds, step = np.unique(entries.cells * width + entries.inputs, return_inverse=True)
    steps = np.bincount(kinds // width, minlength=entries.count)
    weights = np.zeros(len(kinds) * LANES)
    weights[step * LANES + entries.lanes] = entries.weights
    return _Encoded(weights, (kinds % width).astype(np.uint16), steps)
