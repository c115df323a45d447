"""Which channels of each node stay: the live ones, and those that an operation ties to them."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.export import graph as g
from tombola.export.liveness import Liveness

BY_CHANNEL = (g.Activation, g.Norm, g.Affine, g.Pool, g.AdaptivePool)


def kept_channels(graph: g.Graph, live: Liveness) -> dict[str, Tensor]:
    """Return bool [channels] for each node: whether it stays.

    Every node keeps one channel at least. Inputs and outputs of the network keep all of theirs, as do operations that
    mix channels in a way of their own.
    """
    kept = {node.name: live.channels(node.name) for node in graph}
    for node in graph:
        if isinstance(node, g.Input) or node.name == graph.output:
            kept[node.name][:] = True
        elif not kept[node.name].any():
            kept[node.name][:1] = True
    before = -1
    while before != (now := sum(int(flags.sum()) for flags in kept.values())):  # flags are only ever set
        before = now
        for node in graph:
            _tie(node, kept, live)
    return kept


def _tie(node: g.Node, kept: dict[str, Tensor], live: Liveness) -> None:
    """Keep, in a node and its inputs, what the node ties together."""
    mine, inputs = kept[node.name], [kept[name] for name in node.inputs]
    if isinstance(node, g.Input) or _is_layer(node):
        return
    if isinstance(node, g.Binary):
        _tie_binary(node, mine, inputs, live)
    elif isinstance(node, g.Concat) and node.axis == 0:
        start = 0
        for flags in inputs:
            _same(mine[start : start + len(flags)], flags)
            start += len(flags)
    elif isinstance(node, g.Slice) and node.axis == 0 and node.step == 1:
        _same(mine, inputs[0][node.start : node.stop])
    elif isinstance(node, g.Pad) and node.padding:
        _same(mine[node.padding[0][0] : len(mine) - node.padding[0][1]], inputs[0])
    elif isinstance(node, g.Reshape):
        _tie_reshape(node, mine, inputs[0], live.varies[node.inputs[0]].shape)
    elif _keeps_channels(node):
        for flags in inputs:
            _same(mine, flags)
    else:
        _all(mine, *inputs)


def _is_layer(node: g.Node) -> bool:
    """Return whether a node makes each output channel of all input channels, so that it ties none."""
    return (isinstance(node, g.Linear) and len(node.shape) == 1) or (isinstance(node, g.Conv) and node.groups == 1)


def _keeps_channels(node: g.Node) -> bool:
    """Return whether each channel of the result is made of the same channel of the inputs alone."""
    if isinstance(node, g.Conv):
        return node.groups == len(node.weight) and node.weight.shape[1] == 1
    if isinstance(node, g.Permute):
        return node.axes[:1] == (0,)
    if isinstance(node, g.Mean):
        return 0 not in node.axes
    if isinstance(node, g.Slice | g.Concat | g.Softmax):
        return node.axis != 0
    return isinstance(node, BY_CHANNEL)


def _tie_binary(node: g.Binary, mine: Tensor, inputs: list[Tensor], live: Liveness) -> None:
    constant = constant_side(node, live)
    for side, flags in enumerate(inputs):
        if side == constant:
            continue  # it becomes a part of the node
        if live.varies[node.inputs[side]].dim() == len(node.shape) and len(flags) == len(mine):
            _same(mine, flags)
        else:  # it is spread over the channels
            flags[:] = True


def _tie_reshape(node: g.Reshape, mine: Tensor, flags: Tensor, before: torch.Size) -> None:
    if len(mine) == len(flags) and before.numel():
        _same(mine, flags)
    elif len(node.shape) == 1 and len(before) > 1:  # flattened: each channel becomes a run of units
        blocks = mine.view(len(flags), -1)
        flags |= blocks.any(1)
        blocks |= flags[:, None]
    else:
        _all(mine, flags)


def constant_side(node: g.Binary, live: Liveness) -> int | None:
    """Return which of two inputs is all constants while the other has the result's shape; None if neither is."""
    for side in (0, 1):
        other = node.inputs[1 - side]
        if not live.varies[node.inputs[side]].any() and live.varies[other].shape == torch.Size(node.shape):
            return side
    return None


def _same(one: Tensor, other: Tensor) -> None:
    both = one | other
    one |= both
    other |= both


def _all(*flags: Tensor) -> None:
    for each in flags:
        each[:] = True
