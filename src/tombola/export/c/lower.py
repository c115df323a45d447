"""Turns a graph into steps over one array: fuses, chooses layouts, and leaves out unneeded parts.

Views - reshape, permute, slice, concatenate - cost nothing: they only say at which positions numbers lie.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from tombola.export import graph as g
from tombola.export.c import ops as o
from tombola.export.c.fold import Folded
from tombola.export.c.layout import (
    LANES,
    as_planes,
    best_tile,
    canonical,
    channel_axes,
    clampable,
    heaviest_first,
    live_planes,
    narrowed,
    narrowed_to,
    some,
    two,
    up,
)
from tombola.export.c.pads import Pads
from tombola.export.c.program import Program
from tombola.export.c.workspace import Buffer, Workspace

CLAMPS: dict[str, Callable[..., tuple[float, float]]] = {
    "relu": lambda: (0.0, o.INFINITY),
    "relu6": lambda: (0.0, 6.0),
    "hardtanh": lambda low, high: (low, high),
}
"""Activations that only replace what is too low or too high; producers do them on the way."""


def lower(folded: Folded) -> Program:
    """Return the steps that compute a graph.

    Raises:
        Unsupported: a node that C code is not written for.
    """
    return _Lowering(folded).program()


class _Lowering(Workspace):
    """Makes the steps of each node."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.producer: dict[str, o.Op] = {}  # of results that nothing else has changed yet

    def program(self) -> Program:
        for node in self.graph:
            if node.name != self.graph.input.name and not self.folded.needed[node.name].any():
                self.where[node.name] = np.full(node.shape, -1)
                continue
            self.where[node.name] = LOWER[type(node)](self, node).reshape(node.shape)
        return Program(self.ops, self.buffers, self.where[self.graph.output].reshape(-1))

    def input(self, node: g.Input) -> np.ndarray:
        self.buffers.append(Buffer(prod(node.shape)))
        return np.arange(prod(node.shape))

    def linear(self, node: g.Linear) -> np.ndarray:
        inputs, matrix = self.where[node.inputs[0]], self.folded.weights[node.name]
        needed = some(self.folded.needed[node.name].reshape(-1, len(matrix)), (0,))
        bias = self.folded.biases[node.name]
        lines = inputs.reshape(-1, matrix.shape[1])
        used = some(matrix[needed] != 0, (0,))
        apart = lines - lines[:1]
        if len(lines) > 1 and (apart[:, used] != apart[:, used][:, :1]).any():
            lines = self.together(node, lines).reshape(lines.shape)
        repeats = np.zeros(1, np.int64) if not used.any() else (lines - lines[:1])[:, np.argmax(used)]
        sources, matrix = _merged(np.where(used, lines[0], -1), matrix)
        order = heaviest_first(matrix, needed)
        width = up(len(order), LANES)
        place = self.allocate(width * len(lines))
        target = np.full(len(matrix), -1)
        target[order] = place + np.arange(len(order))
        op = o.Linear(node.layer, sources, place + np.arange(len(order)), matrix[order], bias[order], repeats)
        self.ops.append(op)
        self.producer[node.name] = op
        steps = np.arange(len(lines))[:, None] * width
        return np.where(target < 0, -1, target + steps)

    def conv(self, node: g.Conv) -> np.ndarray:
        if len(node.stride) > 2:
            raise g.Unsupported(node.layer, "a convolution over three axes", "the format c holds one and two axes")
        kernel, bias = self.folded.weights[node.name], self.folded.biases[node.name]
        live = self.channels(node)
        kernel = kernel * live.reshape(-1, *[1] * (kernel.ndim - 1))
        rows, fan, *place = np.nonzero(kernel.reshape(*kernel.shape[:2], *[1] * (4 - kernel.ndim), *kernel.shape[2:]))
        inputs = rows // (len(kernel) // node.groups) * kernel.shape[1] + fan
        used = np.zeros(self.graph[node.inputs[0]].shape[0], bool)
        used[inputs] = True
        _, height, width = canonical(node.shape)
        stride, dilation, padding = two(node.stride, 1), two(node.dilation, 1), two(node.padding, (0, 0))
        shifts = [each * step for each, step in zip(place, dilation, strict=True)]
        if not len(rows):  # biases alone: its input may be nowhere
            sources, planes_read, row = rows, rows, width + self.pads[node.name].gap
        elif stride == (1, 1):
            planes = self.padded(node, used)
            row = planes.row
            planes_read = planes.starts[inputs]
            sources = planes_read + (shifts[0] - padding[0][0]) * row + shifts[1] - padding[1][0]
        else:
            sources, planes_read, row = self._phases(node, inputs, shifts, stride, padding, used)
        tile = best_tile(height * row)
        places = up(height * row, tile)
        target = self.new_planes(node, row, places)
        live = target.starts >= 0
        number = np.cumsum(live) - 1  # of each channel among those that are needed
        op = o.Conv(
            node.layer,
            narrowed(target, live),
            places,
            tile,
            sources,
            number[rows],
            planes_read,
            kernel[kernel != 0],
            bias[live],
        )
        self.ops.append(op)
        self.producer[node.name] = op
        return target.positions()

    def _phases(
        self,
        node: g.Conv,
        inputs: np.ndarray,
        shifts: list[np.ndarray],
        stride: tuple[int, int],
        padding: tuple[tuple[int, int], ...],
        used: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Split the input into planes of every stride-th row and column.

        Return what each weight reads, in which plane that is, and the planes' row.

        On them the convolution has stride 1. The copies hold the padding too.
        """
        _, height, width = canonical(node.shape)
        planes = self.planes_of(node.inputs[0])
        reach = [int((shift // step).max(initial=0)) for shift, step in zip(shifts, stride, strict=True)]
        row = width + max(reach[1], self.pads[node.name].gap)
        sources, starts = np.zeros(len(inputs), np.int64), np.zeros(len(inputs), np.int64)
        for down in range(stride[0]):
            for right in range(stride[1]):
                mine = (shifts[0] % stride[0] == down) & (shifts[1] % stride[1] == right)
                if not mine.any():
                    continue
                live = np.zeros(len(used), bool)
                live[inputs[mine]] = True
                made = self.new_padded(Pads(), live, height + reach[0], width + reach[1], row)
                top, left = down - padding[0][0], right - padding[1][0]
                self.ops.append(o.Copy(node.layer, narrowed(planes, live), narrowed(made, live), top, left, stride))
                ahead = shifts[0][mine] // stride[0] * row + shifts[1][mine] // stride[1]
                starts[mine] = made.starts[inputs[mine]]
                sources[mine] = starts[mine] + ahead
        return sources, starts, row

    def activation(self, node: g.Activation) -> np.ndarray:
        name = node.inputs[0]
        producer = self.producer.get(name)
        alone = len(self.users[name]) == 1 and name != self.graph.output
        if producer is not None and alone:
            if isinstance(producer, o.Conv | o.Linear) and node.kind in CLAMPS and clampable(producer):
                producer.low, producer.high = CLAMPS[node.kind](*node.parameters)
            else:
                planes = as_planes(self.where[name].reshape(canonical(node.shape)))
                planes = planes if planes is not None else self._whole(producer)
                self.ops.append(o.Activate(node.layer, live_planes(planes), node.kind, node.parameters))
            return self.where[name]
        source, target = self.planes_of(name), self.new_planes(node)
        self.ops.append(o.Copy(node.layer, narrowed_to(source, target), live_planes(target)))
        self.ops.append(o.Activate(node.layer, live_planes(target), node.kind, node.parameters))
        return target.positions()

    def _whole(self, producer: o.Op) -> o.Planes:
        """Return the buffer of a linear layer's results as one plane: they lie in it in another order."""
        assert isinstance(producer, o.Linear)
        number = int(producer.target[0]) // o.BUFFER
        return o.Planes(np.array([number * o.BUFFER]), 0, 1, self.buffers[number].size)

    def pool(self, node: g.Pool) -> np.ndarray:
        if len(node.kernel) > 2:
            raise g.Unsupported(node.layer, "a pooling over three axes", "the format c holds one and two axes")
        counts = node.counts if isinstance(node.counts, int) else {"padded": -1, "input": 0}[node.counts]
        source, target = self._through(node)
        kernel, stride, dilation = two(node.kernel, 1), two(node.stride, 1), two(node.dilation, 1)
        average = node.kind == "average"
        self.ops.append(o.Pool(node.layer, *source, average, kernel, stride, two(node.padding, 0), dilation, counts))
        self.producer[node.name] = self.ops[-1]
        return target.positions()

    def _through(self, node: g.Node) -> tuple[tuple[o.Planes, o.Planes], o.Planes]:
        """Return the needed channels of a node's input and result, and the planes of its result."""
        target = self.new_planes(node)
        source = self.planes_of(node.inputs[0])
        return (narrowed_to(source, target), live_planes(target)), target

    def adaptive(self, node: g.AdaptivePool) -> np.ndarray:
        if len(node.shape) > 3:
            raise g.Unsupported(node.layer, "a pooling over three axes", "the format c holds one and two axes")
        pair, target = self._through(node)
        self.ops.append(o.AdaptivePool(node.layer, *pair, node.kind == "average"))
        self.producer[node.name] = self.ops[-1]
        return target.positions()

    def scale(self, node: g.Norm | g.Affine) -> np.ndarray:
        channels, height, width = canonical(node.shape)
        if isinstance(node, g.Norm):
            factors = [each.numpy().reshape(-1, *[1] * (len(node.shape) - 1)) for each in (node.scale, node.shift)]
        else:
            factors = [each.numpy() for each in (node.scale, node.shift)]
        tables = [np.broadcast_to(each, node.shape).reshape(channels, height, width) for each in factors]
        if all((table == table[:, :1, :1]).all() for table in tables):
            tables = [table[:, 0, 0] for table in tables]
        (source, made), target = self._through(node)
        live = target.starts >= 0
        self.ops.append(o.Scale(node.layer, source, made, tables[0][live], tables[1][live]))
        self.producer[node.name] = self.ops[-1]
        return target.positions()

    def mean(self, node: g.Mean) -> np.ndarray:
        shape = self.graph[node.inputs[0]].shape
        if len(shape) in (2, 3) and node.axes == tuple(range(1, len(shape))):
            source = self.planes_of(node.inputs[0])
            target = self.new_padded(Pads(), source.starts >= 0, 1, 1)
            self.ops.append(o.AdaptivePool(node.layer, live_planes(source), live_planes(target), True))
            return target.positions()
        others = [axis for axis in range(len(shape)) if axis not in node.axes]
        where = self.where[node.inputs[0]].transpose(*others, *node.axes)
        rows, length = prod(shape[axis] for axis in others), prod(shape[axis] for axis in node.axes)
        source_ = self.together(node, where)
        target_ = self.new_vector(rows)
        self.ops.append(o.Rows(node.layer, "mean", length, source_, target_))
        return target_

    def softmax(self, node: g.Softmax) -> np.ndarray:
        where = np.moveaxis(self.where[node.inputs[0]], node.axis, -1)
        target = self.new_vector(where.size)
        self.ops.append(o.Gather(node.layer, where.reshape(-1), target))
        kind = "log_softmax" if node.log else "softmax"
        self.ops.append(o.Rows(node.layer, kind, where.shape[-1], target, target))
        return np.moveaxis(target.reshape(where.shape), -1, node.axis)

    def binary(self, node: g.Binary) -> np.ndarray:
        if node.operator == "add" and (fused := self._fused(node)) is not None:
            return fused
        target = self.new_planes(node)
        pair = []
        for name in node.inputs:
            own = self.graph[name].shape
            aligned = (1,) * (len(node.shape) - len(own)) + own
            planes = self.planes_of(name, aligned)
            starts = np.broadcast_to(planes.starts.reshape(channel_axes(aligned)), channel_axes(node.shape)).reshape(-1)
            pair.append(o.Planes(starts[target.starts >= 0], planes.row, planes.height, planes.width))
        self.ops.append(o.Binary(node.layer, node.operator, pair[0], pair[1], live_planes(target)))
        self.producer[node.name] = self.ops[-1]
        return target.positions()

    def _fused(self, node: g.Binary) -> np.ndarray | None:
        """Let a convolution add the other input of a sum itself; return None where it can't."""
        if any(self.graph[name].shape != node.shape for name in node.inputs):
            return None
        for mine, other in (node.inputs, node.inputs[::-1]):
            op = self.producer.get(mine)
            around = as_planes(self.where[other].reshape(canonical(node.shape)))
            if not isinstance(op, o.Conv) or around is None or len(self.users[mine]) != 1 or mine == other:
                continue
            live = self.channels(self.graph[mine])
            outside = around.starts.max() < o.BUFFER or (around.starts[live] < 0).any()
            if op.around is not None or not clampable(op) or outside or around.row != op.target.row:
                continue
            op.around = narrowed(around, live)
            self.ops.remove(op)  # the other input may be computed after it
            self.ops.append(op)
            self.producer[node.name] = op
            return self.where[mine]
        return None

    def pad(self, node: g.Pad) -> np.ndarray:
        rank = len(node.shape)
        pairs = (*[(0, 0)] * (3 - rank), *node.padding) if rank != 2 else (node.padding[0], (0, 0), node.padding[1])
        if rank > 3 or any(pairs[0]):
            raise g.Unsupported(node.layer, "padding of channels", "the format c pads height and width")
        (source, made), target = self._through(node)
        top, left = -pairs[1][0], -pairs[2][0]
        self.ops.append(o.Copy(node.layer, source, made, top, left, (1, 1), node.value))
        self.producer[node.name] = self.ops[-1]
        return target.positions()

    def view(self, node: g.Node) -> np.ndarray:
        where = [self.where[name] for name in node.inputs]
        if isinstance(node, g.Permute):
            return where[0].transpose(node.axes)
        if isinstance(node, g.Slice):
            return where[0][(slice(None),) * node.axis + (slice(node.start, node.stop, node.step),)]
        if isinstance(node, g.Concat):
            return np.concatenate(self._in_work(node, where), node.axis)
        return where[0]

    def _in_work(self, node: g.Node, where: list[np.ndarray]) -> list[np.ndarray]:
        """Copy the example if it is concatenated with results, which lie in another array."""
        mine = [(each[each >= 0] < o.BUFFER).any() for each in where]
        if all(mine):
            return where
        return [
            self.together(node, each).reshape(each.shape) if raw else each
            for each, raw in zip(where, mine, strict=True)
        ]


def _merged(sources: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a product's columns with those that read the same number added up: a network may read it twice."""
    used = sources[sources >= 0]
    if len(np.unique(used)) == len(used):
        return sources, matrix
    distinct, column = np.unique(sources, return_inverse=True)
    merged = np.zeros((len(matrix), len(distinct)))
    np.add.at(merged.T, column, matrix.T)
    return distinct, merged


LOWER: dict[type[g.Node], Callable[[_Lowering, Any], np.ndarray]] = {
    g.Input: _Lowering.input,
    g.Linear: _Lowering.linear,
    g.Conv: _Lowering.conv,
    g.Norm: _Lowering.scale,
    g.Affine: _Lowering.scale,
    g.Activation: _Lowering.activation,
    g.Pool: _Lowering.pool,
    g.AdaptivePool: _Lowering.adaptive,
    g.Mean: _Lowering.mean,
    g.Softmax: _Lowering.softmax,
    g.Binary: _Lowering.binary,
    g.Pad: _Lowering.pad,
    g.Reshape: _Lowering.view,
    g.Permute: _Lowering.view,
    g.Slice: _Lowering.view,
    g.Concat: _Lowering.view,
}
