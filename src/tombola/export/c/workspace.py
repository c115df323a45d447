"""The memory that a graph is lowered into, and how its numbers are read from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tombola.export import graph as g
from tombola.export.c import ops as o
from tombola.export.c.fold import Folded
from tombola.export.c.layout import as_planes, canonical, filled, narrowed, some
from tombola.export.c.pads import Pads, pads


@dataclass(eq=False)
class Buffer:
    """Memory of one result.

    Args:
        size: float32 in it.
        planes: where planes lie in it, if it holds padded planes.
        head, tail: zeros before and after each plane that `Clear` writes.
    """

    size: int
    planes: o.Planes | None = None
    head: int = 0
    tail: int = 0
    cleared: bool = False


@dataclass(eq=False)
class Workspace:
    """Buffers, the steps that fill them, and where each node's numbers lie.

    Args:
        folded: the graph.
        ops: the steps so far.
        buffers: number 0 is the example.
    """

    folded: Folded
    ops: list[o.Op] = field(default_factory=list)
    buffers: list[Buffer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.graph = self.folded.graph
        self.users = self.graph.users()
        self.pads = pads(self.graph)
        self.where: dict[str, np.ndarray] = {}

    # -- memory -----------------------------------------------------------------------------------------------------

    def allocate(self, size: int, **more: Any) -> int:
        """Return the position of a new buffer."""
        self.buffers.append(Buffer(size, **more))
        return (len(self.buffers) - 1) * o.BUFFER

    def new_vector(self, size: int) -> np.ndarray:
        """Return the positions of a new buffer without gaps."""
        return self.allocate(size) + np.arange(size)

    def new_planes(self, node: g.Node, row: int | None = None, places: int = 0) -> o.Planes:
        """Return new planes for the channels of a node's result that are needed, with the padding they need."""
        _, height, width = canonical(node.shape)
        return self.new_padded(self.pads[node.name], self.channels(node), height, width, row, places)

    def new_padded(
        self, pad: Pads, live: np.ndarray, height: int, width: int, row: int | None = None, places: int = 0
    ) -> o.Planes:
        row = width + pad.gap if row is None else row
        head = pad.top * row + pad.left
        body = max(places, height * row)
        tail = max(body - height * row, pad.bottom * row + pad.right)
        # An odd number of cache lines, so that planes do not fall into the same cache sets.
        size = (-(-(head + height * row + tail) // 16) | 1) * 16
        starts = np.full(len(live), -1, np.int64)
        starts[live] = np.arange(live.sum()) * size + head
        position = self.allocate(size * int(live.sum()))
        planes = o.Planes(np.where(starts < 0, -1, starts + position), row, height, width)
        buffer = self.buffers[-1]
        buffer.planes, buffer.head, buffer.tail = planes, head, tail
        return planes

    def channels(self, node: g.Node) -> np.ndarray:
        """Return which channels of a node's result are needed."""
        needed = self.folded.needed[node.name].reshape(canonical(node.shape))
        return some(needed, (1, 2))

    # -- reading ----------------------------------------------------------------------------------------------------

    def planes_of(self, name: str, shape: g.Shape | None = None) -> o.Planes:
        """Return a node's result as planes, copied if it does not lie so."""
        node = self.graph[name]
        where = self.where[name].reshape(canonical(shape or node.shape))
        found = as_planes(where)
        return found if found is not None else self.repacked(node, where)

    def repacked(self, node: g.Node, where: np.ndarray) -> o.Planes:
        """Copy numbers that lie anywhere into planes without gaps."""
        live = some(where >= 0, (1, 2))
        source = filled(where[live].reshape(-1))
        target = self.new_vector(len(source))
        self.ops.append(o.Gather(node.layer, source, target))
        starts = np.full(len(live), -1, np.int64)
        starts[live] = target[0] + np.arange(live.sum()) * where[0].size
        return o.Planes(starts, where.shape[2], *where.shape[1:])

    def together(self, node: g.Node, where: np.ndarray) -> np.ndarray:
        """Return the positions of numbers in one piece and in order, copied unless they lie so."""
        flat = filled(where.reshape(-1))
        if flat[0] // o.BUFFER != o.EXAMPLE and (np.diff(flat) == 1).all():
            return flat
        target = self.new_vector(len(flat))
        self.ops.append(o.Gather(node.layer, flat, target))
        return target

    def padded(self, node: g.Conv, live: np.ndarray) -> o.Planes:
        """Return the input of a convolution of stride 1 with zeros around it, copied unless they are there already."""
        name = node.inputs[0]
        need = Pads.of(node, self.pads[node.name], self.graph[name].shape)
        planes = self.planes_of(name)
        if self._is_padded(planes, need, live):
            return planes
        if planes.starts.max() >= o.BUFFER and need.nothing and planes.row - planes.width >= need.gap:
            return planes
        made = self.new_padded(need, live & (planes.starts >= 0), planes.height, planes.width)
        held = made.starts >= 0
        self.ops.append(o.Copy(node.layer, narrowed(planes, held), narrowed(made, held)))
        self._clear(made)
        return made

    def _is_padded(self, planes: o.Planes, need: Pads, live: np.ndarray) -> bool:
        """Return whether planes have zeros enough around them; put them there if there is room."""
        starts = planes.starts[live & (planes.starts >= 0)]
        numbers = np.unique(starts // o.BUFFER)
        for number in numbers:
            buffer = self.buffers[number]
            own = buffer.planes
            if number == o.EXAMPLE or own is None:
                return False
            same = (own.row, own.height, own.width) == (planes.row, planes.height, planes.width)
            if not same or not np.isin(starts[starts // o.BUFFER == number], own.starts).all():
                return False
            room = own.row - own.width, buffer.head, buffer.tail
            wanted = need.gap, need.top * own.row + need.left, need.bottom * own.row + need.right
            if any(has < wants for has, wants in zip(room, wanted, strict=True)):
                return False
        for number in numbers:
            if not need.nothing and not self.buffers[number].cleared:
                self._clear(self.buffers[number].planes)
        return True

    def _clear(self, planes: o.Planes | None) -> None:
        assert planes is not None
        buffer = self.buffers[int(planes.starts.max()) // o.BUFFER]
        buffer.cleared = True
        live = planes.starts >= 0
        self.ops.append(o.Clear("", narrowed(planes, live), buffer.head, buffer.tail))
