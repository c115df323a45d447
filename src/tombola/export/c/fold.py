"""Takes out of a graph what need not be computed: norms, constants, and what no output reads.

Everything here is exact in real numbers: only the order of additions changes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from tombola.export import graph as g
from tombola.export.c.layout import some
from tombola.export.graph_run import apply
from tombola.export.paths import NoPath

Weighted = g.Linear | g.Conv


@dataclass(frozen=True, eq=False)
class Folded:
    """A graph, and what each node's result is known to be.

    Args:
        graph: without norms that follow a linear layer or a convolution.
        weights, biases: float64 of each linear layer and convolution, without weights from constant inputs.
        needed: by node, bool of its shape: whether an output depends on that number.
    """

    graph: g.Graph
    weights: dict[str, np.ndarray]
    biases: dict[str, np.ndarray]
    needed: dict[str, np.ndarray]


def fold(graph: g.Graph) -> Folded:
    """Fold norms and constants into weights and biases, and note what the output depends on.

    Raises:
        NoPath: no path of weights leads from the input to the output.
    """
    graph = fold_norms(fold_scales(graph))
    weights = {node.name: node.weight.detach().double().numpy() for node in graph if isinstance(node, Weighted)}
    biases = {node.name: _bias(node) for node in graph if isinstance(node, Weighted)}
    _fold_constants(graph, weights, biases)
    return Folded(graph, weights, biases, _needed(graph, weights))


def _bias(node: Weighted) -> np.ndarray:
    bias = torch.zeros(len(node.weight)) if node.bias is None else node.bias.detach()
    return bias.double().clone().numpy()


def fold_norms(graph: g.Graph) -> g.Graph:
    """Return the graph without norms and constant scales after a linear layer or convolution that only they use."""
    users = graph.users()
    made: dict[str, g.Node] = {}
    names: dict[str, str] = {}
    for node in graph:
        node = replace(node, inputs=tuple(names.get(name, name) for name in node.inputs))
        before = made[node.inputs[0]] if node.inputs else None
        if isinstance(before, Weighted) and len(users[before.name]) == 1:
            scaled = _scaled(before, node)
            if scaled is not None:
                made[before.name] = scaled
                names[node.name] = before.name
                users[before.name] = users[node.name]
                continue
        made[node.name] = node
    return g.Graph(tuple(made.values()), names.get(graph.output, graph.output))


def fold_scales(graph: g.Graph) -> g.Graph:
    """Return the graph without constant scales of the example before linear layers, such as its normalisation."""
    made: dict[str, g.Node] = {}
    for node in graph:
        if isinstance(node, g.Linear) and len(node.shape) == 1:
            through, name = [], node.inputs[0]
            while isinstance(made[name], g.Reshape):
                through.append(name)
                name = made[name].inputs[0]
            before = made[name]
            if isinstance(before, g.Affine):
                node = _unscaled(node, before)
                if through:  # the same numbers as before, from before the scale
                    straight = replace(made[through[0]], name=f"{node.name}.input", inputs=before.inputs)
                    made[straight.name] = straight
                    node = replace(node, inputs=(straight.name,))
                else:
                    node = replace(node, inputs=before.inputs)
        made[node.name] = node
    return g.Graph(tuple(made.values()), graph.output)


def _unscaled(node: g.Linear, before: g.Affine) -> g.Linear:
    scale, shift = (each.expand(before.shape).reshape(-1) for each in (before.scale, before.shift))
    weight = node.weight.detach().double()
    bias = torch.zeros(len(weight)).double() if node.bias is None else node.bias.detach().double()
    return replace(node, weight=weight * scale, bias=bias + weight @ shift, weight_name="", bias_name="")


def _scaled(before: Weighted, node: g.Node) -> Weighted | None:
    """Return a layer that also does what `node` does; None where it can't."""
    outputs = len(before.weight)
    if isinstance(node, g.Norm):
        if isinstance(before, g.Linear) and len(before.shape) > 1:
            return None  # the layer's outputs are the last axis, the norm's channels the first
        scale, shift = node.scale, node.shift
    elif isinstance(node, g.Affine):
        channels = (
            (outputs, *[1] * (len(node.shape) - 1)) if isinstance(before, g.Conv) else (*node.shape[:-1], outputs)
        )
        try:
            scale, shift = (each.expand(channels) for each in (node.scale, node.shift))
        except RuntimeError:
            return None  # other constants at other places
        if isinstance(before, g.Linear) and len(before.shape) > 1:
            return None
        scale, shift = scale.reshape(-1), shift.reshape(-1)
    else:
        return None
    bias = torch.zeros(outputs).double() if before.bias is None else before.bias.detach().double()
    weight = before.weight.detach().double() * scale.reshape(-1, *[1] * (before.weight.dim() - 1))
    return replace(before, weight=weight, bias=bias * scale + shift, weight_name="", bias_name="")


def _fold_constants(graph: g.Graph, weights: dict[str, np.ndarray], biases: dict[str, np.ndarray]) -> None:
    """Move what constant inputs add from the weights into the biases.

    Every node is computed once with NaN for all that depends on the example: what is a number then is a constant.
    """
    known: dict[str, Tensor] = {}
    for node in graph:
        inputs = [known[name] for name in node.inputs]
        if isinstance(node, g.Input):
            known[node.name] = torch.full((1, *node.shape), torch.nan, dtype=torch.float64)
        elif isinstance(node, g.Linear):
            _fold_linear(node, inputs[0], weights, biases)
            known[node.name] = _without_weights(node, weights, biases)
        elif isinstance(node, g.Conv):
            _fold_conv(node, inputs[0], weights, biases)
            known[node.name] = _without_weights(node, weights, biases)
        else:
            known[node.name] = apply(node, inputs)
    if not known[graph.output].isnan().any():
        raise NoPath


def _fold_linear(node: g.Linear, inputs: Tensor, weights: dict[str, np.ndarray], biases: dict[str, np.ndarray]) -> None:
    if len(node.shape) > 1:
        return
    values = inputs[0].numpy()
    constant = ~np.isnan(values)
    matrix = weights[node.name]
    biases[node.name] = biases[node.name] + matrix[:, constant] @ values[constant]
    weights[node.name] = np.where(constant, 0.0, matrix)


def _fold_conv(node: g.Conv, inputs: Tensor, weights: dict[str, np.ndarray], biases: dict[str, np.ndarray]) -> None:
    channels = inputs[0].flatten(1).numpy()
    constant = (channels == channels[:, :1]).all(1)
    if any(side for pair in node.padding for side in pair):
        constant &= channels[:, 0] == 0  # at the border a constant meets the padding's zeros
    kernel = weights[node.name].copy()
    outputs, fan = len(kernel) // node.groups, kernel.shape[1]
    for group in range(node.groups):
        rows = slice(group * outputs, (group + 1) * outputs)
        columns = np.flatnonzero(constant[group * fan : (group + 1) * fan])
        sums = kernel[rows, columns].sum(tuple(range(2, kernel.ndim)))
        biases[node.name][rows] += sums @ channels[group * fan + columns, 0]
        kernel[rows, columns] = 0.0
    weights[node.name] = kernel


def _without_weights(node: Weighted, weights: dict[str, np.ndarray], biases: dict[str, np.ndarray]) -> Tensor:
    """Return the bias of outputs that have no weights, NaN for the others."""
    matrix = weights[node.name]
    values = np.where((matrix != 0).reshape(len(matrix), -1).any(1), np.nan, biases[node.name])
    shape = (-1, *[1] * (len(node.shape) - 1)) if isinstance(node, g.Conv) else (-1,)
    return torch.from_numpy(np.broadcast_to(values.reshape(shape), node.shape).copy())[None]


def _needed(graph: g.Graph, weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    needed = {node.name: np.zeros(node.shape, bool) for node in graph}
    needed[graph.output][...] = True
    for node in reversed(graph.nodes):
        wanted = needed[node.name]
        shapes = [graph[name].shape for name in node.inputs]
        for name, part in zip(node.inputs, _needed_of(node, wanted, shapes, weights), strict=True):
            needed[name] |= part
    return needed


def _needed_of(
    node: g.Node, wanted: np.ndarray, shapes: list[g.Shape], weights: dict[str, np.ndarray]
) -> list[np.ndarray]:
    """Return, for each input of a node, which of its numbers the wanted ones depend on."""
    if isinstance(node, g.Input):
        return []
    if isinstance(node, g.Linear):
        return [wanted.astype(np.float32) @ (weights[node.name] != 0).astype(np.float32) > 0]
    if isinstance(node, g.Conv):
        return [_channels(_conv_inputs(node, wanted, weights[node.name]), shapes[0])]
    if isinstance(node, g.Pool | g.AdaptivePool | g.Norm):
        return [_channels(some(wanted.reshape(len(wanted), -1), (1,)), shapes[0])]
    if isinstance(node, g.Mean | g.Softmax):
        return [np.full(shapes[0], wanted.any())]
    if isinstance(node, g.Reshape):
        return [wanted.reshape(shapes[0])]
    if isinstance(node, g.Permute):
        return [wanted.transpose(np.argsort(node.axes))]
    if isinstance(node, g.Slice):
        part = np.zeros(shapes[0], bool)
        part[(slice(None),) * node.axis + (slice(node.start, node.stop, node.step),)] = wanted
        return [part]
    if isinstance(node, g.Pad):
        return [
            wanted[
                tuple(slice(before, before + size) for (before, _), size in zip(node.padding, shapes[0], strict=True))
            ]
        ]
    if isinstance(node, g.Concat):
        ends = np.cumsum([shape[node.axis] for shape in shapes])[:-1]
        return list(np.split(wanted, ends, node.axis))
    return [_unbroadcast(wanted, shape) for shape in shapes]


def _conv_inputs(node: g.Conv, wanted: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    outputs = some(wanted.reshape(len(wanted), -1), (1,))
    live = some((kernel != 0).reshape(*kernel.shape[:2], -1), (2,)) & outputs[:, None]
    return some(live.reshape(node.groups, -1, live.shape[1]), (1,)).reshape(-1)


def _channels(channels: np.ndarray, shape: g.Shape) -> np.ndarray:
    return np.broadcast_to(channels.reshape(-1, *[1] * (len(shape) - 1)), shape)


def _unbroadcast(wanted: np.ndarray, shape: g.Shape) -> np.ndarray:
    """Return which numbers of an input that was broadcast the wanted ones depend on."""
    extra = wanted.ndim - len(shape)
    part = some(wanted, tuple(range(extra))) if extra else wanted
    axes = tuple(axis for axis, size in enumerate(shape) if size == 1 and part.shape[axis] != 1)
    return some(part, axes).reshape(shape) if axes else part
