"""Which numbers of a graph vary with the example, and which of them can reach the output.

Both are found number by number, places included, so that a dead channel that is padded with zeros, and therefore
differs at the border, is known as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tombola.export import graph as g
from tombola.export.graph_run import apply


@dataclass(frozen=True)
class Liveness:
    """What each node's result for one example is made of.

    Args:
        varies: node name -> bool: whether a number depends on the example.
        needed: node name -> bool: whether the output depends on the number, if it varies.
        values: node name -> float64: the numbers that do not vary; of the others, those of an example of zeros.
    """

    varies: dict[str, Tensor]
    needed: dict[str, Tensor]
    values: dict[str, Tensor]

    def channels(self, name: str) -> Tensor:
        """Return bool [channels]: whether a channel has a number that varies and is needed."""
        live = self.varies[name] & self.needed[name]
        return live.reshape(len(live), -1).any(1) if live.dim() else live.reshape(1)

    def constants(self, name: str) -> Tensor:
        """Return the numbers that do not vary, and 0 for the others."""
        return self.values[name].masked_fill(self.varies[name], 0.0)


def liveness(graph: g.Graph) -> Liveness:
    """Return the liveness of every node of a graph."""
    values: dict[str, Tensor] = {}
    varies: dict[str, Tensor] = {}
    for node in graph:
        if isinstance(node, g.Input):
            values[node.name] = torch.zeros(1, *node.shape, dtype=torch.float64)
            varies[node.name] = torch.ones(1, *node.shape, dtype=torch.float64)
        else:
            inputs = [values[name] for name in node.inputs]
            flags = [varies[name] for name in node.inputs]
            values[node.name] = apply(node, inputs)
            varies[node.name] = (_spread(node, flags, inputs) > 0).double()
    needed = {name: torch.zeros_like(flags) for name, flags in varies.items()}
    needed[graph.output] = torch.ones_like(varies[graph.output])
    for node in reversed(graph.nodes):
        if isinstance(node, g.Input):
            continue
        wanted = needed[node.name] * varies[node.name]
        for name, found in zip(node.inputs, _sources(node, wanted, varies, values), strict=True):
            needed[name] = torch.maximum(needed[name], found)
    return Liveness(
        {name: flags[0] > 0 for name, flags in varies.items()},
        {name: flags[0] > 0 for name, flags in needed.items()},
        {name: value[0] for name, value in values.items()},
    )


def _spread(node: g.Node, flags: list[Tensor], values: list[Tensor]) -> Tensor:
    """Return numbers that are positive where the result varies, differentiable except for maxima."""
    if isinstance(node, g.Linear | g.Conv):
        return apply(replace(node, weight=(node.weight != 0).double(), bias=None), flags)
    if isinstance(node, g.Norm):
        return apply(replace(node, scale=(node.scale != 0).double(), shift=torch.zeros_like(node.shift)), flags)
    if isinstance(node, g.Affine):
        return flags[0] * (node.scale != 0).double()
    if isinstance(node, g.Pool | g.AdaptivePool):
        return apply(replace(node, kind="max"), flags)
    if isinstance(node, g.Pad):
        return apply(replace(node, value=0.0), flags)
    if isinstance(node, g.Binary):
        return _spread_binary(node, flags, values)
    if isinstance(node, g.Softmax):
        return flags[0].amax(node.axis + 1, keepdim=True).expand(flags[0].shape)
    if isinstance(node, g.Activation):
        return flags[0]
    return apply(node, flags)  # moves numbers or takes their mean


def _spread_binary(node: g.Binary, flags: list[Tensor], values: list[Tensor]) -> Tensor:
    if node.operator == "mul":  # a constant zero hides what it is multiplied with
        one, other = (((flag + (value != 0).double()) > 0).double() for flag, value in zip(flags, values, strict=True))
        total: Any = apply(node, [flags[0], other]) + apply(node, [one, flags[1]])
        return total
    return apply(replace(node, operator="add"), flags)


def _sources(node: g.Node, wanted: Tensor, varies: dict[str, Tensor], values: dict[str, Tensor]) -> list[Tensor]:
    """Return, for each input of a node, which of its numbers the wanted results depend on."""
    flags = [torch.ones_like(varies[name]) for name in node.inputs]
    if isinstance(node, g.Pool | g.AdaptivePool):  # a whole channel: finer would save nothing
        channels = wanted.flatten(2).amax(2).reshape(*wanted.shape[:2], *[1] * (wanted.dim() - 2))
        return [channels.expand(flags[0].shape)]
    if isinstance(node, g.Softmax):
        return [wanted.amax(node.axis + 1, keepdim=True).expand(flags[0].shape)]
    inputs = [flag.requires_grad_() for flag in flags]
    # A constant zero in a product hides the other factor; what varies can be anything.
    given = [values[name] * (1 - varies[name]) + varies[name] for name in node.inputs]
    result = _spread(node, inputs, given)
    found = torch.autograd.grad(result, inputs, wanted, allow_unused=True)
    return [
        torch.zeros_like(flag) if each is None else (each > 0).double() for flag, each in zip(flags, found, strict=True)
    ]
