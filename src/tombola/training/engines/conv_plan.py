"""Turns a masked convolution into the taps that the compiled loops add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import llvmlite.binding
import numpy as np

from tombola.training.engines.conv_kernels import Taps
from tombola.training.engines.kernels import LINE

CACHE = 24 * 1024
"""Bytes of source rows that a group of channels may take: most of a first-level data cache of 32 KiB."""

FEWEST_TAPS = 10
"""Live weights an output channel should have in a group: its sums are loaded and stored once for each group."""

OVERHEAD = 2.5
"""What a tap costs beside its multiply-adds, in multiply-adds of a vector: its weight, its offset, the loop."""


def _tile_sizes() -> tuple[int, ...]:
    """Return how many vectors of `LINE` float32 a tile may have, so that it stays in the processor's registers."""
    try:
        wide = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))
    except RuntimeError:  # an unknown processor
        wide = False
    return (24, 16, 8) if wide else (6, 4, 2)


TILE_SIZES = _tile_sizes()


def tile_size(length: int) -> tuple[int, ...]:
    """Return the fastest tile for rows of `length` numbers, as the kernels take it: a tuple of so many zeros."""
    best = min(TILE_SIZES, key=lambda count: -(-length // (LINE * count)) * (count + OVERHEAD))
    return (0,) * best


@dataclass(frozen=True)
class Geometry:
    """How a two-dimensional convolution moves over an image: (vertical, horizontal) each.

    Args:
        channels, outputs: of the layer.
        kernel, stride, dilation: of the layer.
        padding: zeros before the first row and column.
        after: zeros after the last row and column.
        groups: the layer's.
    """

    channels: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int]
    after: tuple[int, int]
    groups: int

    def out_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Return (height, width) of the result for an image of that height and width.

        Raises:
            ValueError: the kernel does not fit the image.
        """
        result = []
        for axis in (0, 1):
            span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            room = size[axis] + self.padding[axis] + self.after[axis] - span
            if room < 0:
                raise ValueError(f"an image of {tuple(size)} is too small for a kernel that spans {span}")
            result.append(room // self.stride[axis] + 1)
        return result[0], result[1]

    def phases(self) -> list[tuple[int, int]]:
        """Return the (row, column) modulo the stride of all source positions that the kernel reads."""
        return [(y, x) for y in self._of_axis(0) for x in self._of_axis(1)]

    def _of_axis(self, axis: int) -> list[int]:
        reach = np.arange(self.kernel[axis]) * self.dilation[axis] - self.padding[axis]
        return sorted(set((reach % self.stride[axis]).tolist()))


class Pass:
    """One direction of a convolution: the taps of a `convolve`, and which live weight each belongs to.

    Args:
        source: int [weights], the channel that each live weight reads.
        output: int [weights], the channel that it is added to.
        dy, dx: int [weights], how far from the result's position it reads.
        channels, outputs: how many there are.
    """

    def __init__(
        self, source: np.ndarray, output: np.ndarray, dy: np.ndarray, dx: np.ndarray, channels: int, outputs: int
    ):
        self.source, self.output, self.dy, self.dx = source, output, dy, dx
        self.channels, self.outputs = channels, outputs
        self._made: dict[tuple[int, ...], tuple[np.ndarray, Taps, tuple[int, ...]]] = {}

    def taps(
        self, size: tuple[int, int], out_size: tuple[int, int], examples: int
    ) -> tuple[np.ndarray, Taps, tuple[int, ...]]:
        """Return the order of the live weights, the taps in that order, and the size of a tile."""
        key = (*size, *out_size, examples)
        if key not in self._made:
            self._made[key] = self._make(size, out_size, examples)
        return self._made[key]

    def _make(
        self, size: tuple[int, int], out_size: tuple[int, int], examples: int
    ) -> tuple[np.ndarray, Taps, tuple[int, ...]]:
        out_length = out_size[1] * examples
        tile = tile_size(out_length)
        weights = len(self.source)
        first, last = (int(self.dy.min()), int(self.dy.max())) if weights else (0, 0)
        rows = last - first + 1
        left = max(0, -int(self.dx.min()) * examples) if weights else 0
        right = max(0, int(self.dx.max()) * examples) if weights else 0
        pitch = -(-(left + LINE * len(tile) + right) // LINE) * LINE
        together = max(1, CACHE // (4 * rows * pitch))
        taps_of_channel = weights / max(1, self.channels * self.outputs)
        together = max(together, int(np.ceil(FEWEST_TAPS / max(taps_of_channel, 1e-6))))
        groups = max(1, -(-self.channels // together))
        part = self.source // together * self.outputs + self.output
        order = np.lexsort((self.dx, self.dy, self.source, part))
        counts = np.bincount(part, minlength=groups * self.outputs)
        rings = (np.arange(rows)[:, None] + (self.dy - first)[order]) % rows
        offsets = (self.source[order] * rows + rings) * pitch + left + self.dx[order] * examples
        taps = Taps(
            starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int32),
            offsets=offsets.astype(np.int32),
            channels=self.channels,
            height=size[0],
            length=size[1] * examples,
            outputs=self.outputs,
            out_height=out_size[0],
            out_length=out_length,
            first=first,
            rows=rows,
            left=left,
            pitch=pitch,
        )
        return order, taps, tile


class Plan:
    """The live weights of a convolution, and the two passes over them.

    Args:
        geometry: of the layer.
        keep: bool [outputs, channels / groups, kernel height, kernel width].
    """

    def __init__(self, geometry: Geometry, keep: np.ndarray):
        self.geometry = geometry
        self.positions = np.flatnonzero(keep)
        output, inner, row, column = np.unravel_index(self.positions, keep.shape)
        channel = output // (geometry.outputs // geometry.groups) * (geometry.channels // geometry.groups) + inner
        self.phases = geometry.phases()
        shifts, remainders = [], []
        for axis, tap in enumerate((row, column)):
            shift, remainder = np.divmod(tap * geometry.dilation[axis] - geometry.padding[axis], geometry.stride[axis])
            shifts.append(shift)
            remainders.append(remainder)
        numbers = np.zeros(geometry.stride, np.int64)
        for number, phase in enumerate(self.phases):
            numbers[phase] = number
        source = numbers[remainders[0], remainders[1]] * geometry.channels + channel
        self._taps = (source, output, shifts[0], shifts[1])

    @cached_property
    def forward(self) -> Pass:
        """From the source's phases to the result."""
        source, output, dy, dx = self._taps
        return Pass(source, output, dy, dx, len(self.phases) * self.geometry.channels, self.geometry.outputs)

    @cached_property
    def backward(self) -> Pass:
        """From the result's gradient to that of the source's phases."""
        source, output, dy, dx = self._taps
        return Pass(output, source, -dy, -dx, self.geometry.outputs, len(self.phases) * self.geometry.channels)

    def phase_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Return (height, width) of each phase of an image of that height and width."""
        return -(-size[0] // self.geometry.stride[0]), -(-size[1] // self.geometry.stride[1])
