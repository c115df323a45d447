"""The steps of an exported network: what each one reads, computes and writes.

All numbers lie in one array, `work`, except for those of the example itself. A *position* is an integer: a buffer's
number
times `BUFFER` plus a place in that buffer; buffer 0 is the example. Where buffers lie in `work` is settled last.

*Planes* are channels of height x width: channel c's number at (y, x) lies at starts[c] + y * row + x. Between the rows
and around the planes there may be zeros, which a convolution reads as its padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

BUFFER = 1 << 40
EXAMPLE = 0

INFINITY = float("inf")


@dataclass(eq=False)
class Planes:
    """Where planes lie.

    Args:
        starts: int64 [channels], position of each plane's first number; -1 for a channel that is not needed.
        row: distance of two rows.
        height, width: of each plane.
    """

    starts: np.ndarray
    row: int
    height: int
    width: int

    def positions(self) -> np.ndarray:
        """Return int64 [channels, height, width]; -1 for a channel that is not needed."""
        inside = np.arange(self.height)[:, None] * self.row + np.arange(self.width)
        return np.where(self.starts[:, None, None] < 0, -1, self.starts[:, None, None] + inside)


@dataclass(eq=False)
class Op:
    """A step.

    Args:
        layer: qualified name of the layer that it belongs to, "" for the network itself.
    """

    POSITIONS: ClassVar[tuple[str, ...]] = ()  # fields that hold positions, besides planes

    layer: str

    def buffers(self) -> set[int]:
        """Return the numbers of all buffers that the step reads or writes."""
        return {int(each) for values in self.positions() for each in np.unique(values[values >= 0] // BUFFER)}

    def positions(self) -> Iterator[np.ndarray]:
        """Return all positions of the step."""
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Planes):
                yield value.starts
            elif each.name in self.POSITIONS:
                yield value


@dataclass(eq=False)
class Copy(Op):
    """target[c, y, x] = source[c, top + y * stride[0], left + x * stride[1]], `fill` outside of the source."""

    source: Planes
    target: Planes
    top: int = 0
    left: int = 0
    stride: tuple[int, int] = (1, 1)
    fill: float = 0.0


@dataclass(eq=False)
class Gather(Op):
    """target[i] = the number at source[i]; both int64 [numbers], and the target without gaps."""

    POSITIONS = ("source", "target")

    source: np.ndarray
    target: np.ndarray


@dataclass(eq=False)
class Clear(Op):
    """Put zeros around the rows of planes: `head` before, the gaps between the rows, `tail` after."""

    planes: Planes
    head: int
    tail: int


@dataclass(eq=False)
class Conv(Op):
    """A sparse convolution of stride 1 over padded planes whose rows are as far apart as the result's.

    Args:
        target: the results.
        places: how many places of each plane are computed, gaps included; a multiple of the tile.
        tile: places that are computed side by side.
        sources: int64 [weights], position that each weight reads for the result's first number.
        rows: int64 [weights], which of the target's planes each weight is for.
        planes: int64 [weights], position of the first number of the plane that each weight reads.
        weights: float64 [weights].
        bias: float64 [channels of the target].
        around: planes that are added, as in a residual network; None for none.
        low, high: results outside are replaced by these.
    """

    POSITIONS = ("sources", "planes")

    target: Planes
    places: int
    tile: int
    sources: np.ndarray
    rows: np.ndarray
    planes: np.ndarray
    weights: np.ndarray
    bias: np.ndarray
    around: Planes | None = None
    low: float = -INFINITY
    high: float = INFINITY


@dataclass(eq=False)
class Linear(Op):
    """A sparse product: target[i] = bias[i] + sum of weights of row i times the numbers at `sources` of their columns.

    Args:
        sources: int64 [columns], for the first repeat: each once, or -1 where no row has a weight.
        target: int64 [rows].
        matrix: float64 [rows, columns].
        bias: float64 [rows].
        repeats: int64 [repeats], how far each repeat's inputs lie from the first's; its results follow the first's.
        low, high: results outside are replaced by these.
    """

    POSITIONS = ("sources", "target")

    sources: np.ndarray
    target: np.ndarray
    matrix: np.ndarray
    bias: np.ndarray
    repeats: np.ndarray
    low: float = -INFINITY
    high: float = INFINITY


@dataclass(eq=False)
class Pool(Op):
    """The maximum or the average of windows, as `tombola.export.graph.Pool`; counts -1: padded, 0: input."""

    source: Planes
    target: Planes
    average: bool
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    counts: int


@dataclass(eq=False)
class AdaptivePool(Op):
    """The maximum or the average of windows that divide the planes evenly."""

    source: Planes
    target: Planes
    average: bool


@dataclass(eq=False)
class Scale(Op):
    """target = scale * source + shift, float64 [channels] each, or [channels, height, width]."""

    source: Planes
    target: Planes
    scale: np.ndarray
    shift: np.ndarray


@dataclass(eq=False)
class Binary(Op):
    """target = one `operator` other. An input of height or width 1 is the same all along the target's."""

    operator: str
    one: Planes
    other: Planes
    target: Planes


@dataclass(eq=False)
class Activate(Op):
    """A function of each number, in place."""

    planes: Planes
    kind: str
    parameters: tuple[float, ...]


@dataclass(eq=False)
class Rows(Op):
    """The mean, softmax or logarithm of softmax of each row of float32 [rows, length] without gaps.

    Softmax is computed in place; the means are written to `target`.
    """

    POSITIONS = ("source", "target")

    kind: str
    length: int
    source: np.ndarray
    target: np.ndarray
