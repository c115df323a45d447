"""Computes a graph in PyTorch: slow and plain, the meaning of each node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tombola.export import graph as g

ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "leaky_relu": functional.leaky_relu,
    "elu": functional.elu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "hardsigmoid": functional.hardsigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "hardswish": functional.hardswish,
    "hardtanh": functional.hardtanh,
}


def run(graph: g.Graph, inputs: Tensor) -> Tensor:
    """Return the results [N, ...] of examples [N, ...], in the type of the examples."""
    values: dict[str, Tensor] = {}
    for node in graph:
        values[node.name] = inputs if isinstance(node, g.Input) else apply(node, [values[name] for name in node.inputs])
    return values[graph.output]


def apply(node: g.Node, inputs: list[Tensor]) -> Tensor:
    """Return the result of one node, [N, *node.shape]."""
    return _RUN[type(node)](node, inputs)


def _linear(node: g.Linear, x: Tensor) -> Tensor:
    bias = None if node.bias is None else node.bias.to(x)
    return functional.linear(x, node.weight.to(x), bias)


def _conv(node: g.Conv, x: Tensor) -> Tensor:
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(node.stride) - 1]
    sides = [side for pair in reversed(node.padding) for side in pair]
    bias = None if node.bias is None else node.bias.to(x)
    x = functional.pad(x, sides)
    return convolve(x, node.weight.to(x), bias, node.stride, 0, node.dilation, node.groups)


def _norm(node: g.Norm, x: Tensor) -> Tensor:
    shape = (-1, *[1] * (x.dim() - 2))
    return x * node.scale.to(x).reshape(shape) + node.shift.to(x).reshape(shape)


def _pool(node: g.Pool, x: Tensor) -> Any:
    kind = len(node.kernel) - 1
    spatial = x.shape[2:]
    ceil = any(
        node.shape[1 + axis] > (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        for axis, (size, kernel, stride, padding, dilation) in enumerate(
            zip(spatial, node.kernel, node.stride, node.padding, node.dilation, strict=True)
        )
    )
    if node.kind == "max":
        largest: Any = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[kind]
        return largest(x, node.kernel, node.stride, node.padding, node.dilation, ceil_mode=ceil)
    if isinstance(node.counts, int):
        # Only 2-D and 3-D pooling take a divisor; a 1-D one never has it.
        divided: Any = (None, functional.avg_pool2d, functional.avg_pool3d)[kind]
        return divided(x, node.kernel, node.stride, node.padding, ceil, True, node.counts)
    pool: Any = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[kind]
    return pool(x, node.kernel, node.stride, node.padding, ceil, node.counts == "padded")


def _adaptive(node: g.AdaptivePool, x: Tensor) -> Tensor:
    names = ("adaptive_max_pool{}d" if node.kind == "max" else "adaptive_avg_pool{}d").format(x.dim() - 2)
    result: Tensor = getattr(functional, names)(x, node.shape[1:])
    return result


def _slice(node: g.Slice, x: Tensor) -> Tensor:
    return x[(slice(None),) * (node.axis + 1) + (slice(node.start, node.stop, node.step),)]


def _pad(node: g.Pad, x: Tensor) -> Tensor:
    return functional.pad(x, [side for pair in reversed(node.padding) for side in pair], value=node.value)


def _aligned(node: g.Node, x: Tensor) -> Tensor:
    """Return x with axes of length 1 after the batch, so that it broadcasts to the node's result."""
    return x.reshape(x.shape[0], *[1] * (len(node.shape) + 1 - x.dim()), *x.shape[1:])


def _binary(node: g.Binary, inputs: list[Tensor]) -> Any:
    operator: Any = {"add": torch.add, "sub": torch.sub, "mul": torch.mul}[node.operator]
    one, other = (_aligned(node, x) for x in inputs)
    return operator(one, other)


def _softmax(node: g.Softmax, x: Tensor) -> Tensor:
    return (functional.log_softmax if node.log else functional.softmax)(x, node.axis + 1)


_RUN: dict[type[g.Node], Callable[[Any, list[Tensor]], Tensor]] = {
    g.Linear: lambda node, xs: _linear(node, *xs),
    g.Conv: lambda node, xs: _conv(node, *xs),
    g.Norm: lambda node, xs: _norm(node, *xs),
    g.Affine: lambda node, xs: xs[0] * node.scale.to(xs[0]) + node.shift.to(xs[0]),
    g.Activation: lambda node, xs: ACTIVATIONS[node.kind](*xs, *node.parameters),
    g.Pool: lambda node, xs: _pool(node, *xs),
    g.AdaptivePool: lambda node, xs: _adaptive(node, *xs),
    g.Mean: lambda node, xs: xs[0].mean([axis + 1 for axis in node.axes]).reshape(xs[0].shape[0], *node.shape),
    g.Reshape: lambda node, xs: xs[0].reshape(xs[0].shape[0], *node.shape),
    g.Permute: lambda node, xs: xs[0].permute(0, *(axis + 1 for axis in node.axes)),
    g.Slice: lambda node, xs: _slice(node, *xs),
    g.Pad: lambda node, xs: _pad(node, *xs),
    g.Concat: lambda node, xs: torch.cat(xs, node.axis + 1),
    g.Binary: _binary,
    g.Softmax: lambda node, xs: _softmax(node, *xs),
}
