"""The smaller network inside a sparse one: dead units and channels removed, their constants folded onward.

A channel stays if one of its numbers varies with the example and can reach the output. The others are constants, or
have no say. What a constant adds to the next linear layer or convolution moves into its bias; where zero padding makes
that differ from place to place, into a map of biases. Channels that meet in a sum stay or go together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tombola.errors import InputError
from tombola.export import graph as g
from tombola.export.channels import constant_side, kept_channels
from tombola.export.check import check_same, examples_for, outputs_of, shape_of
from tombola.export.graph_run import apply
from tombola.export.graph_trace import trace
from tombola.export.liveness import Liveness, liveness
from tombola.export.paths import NoPath
from tombola.export.smaller import Compact, to_bytes
from tombola.export.write import write
from tombola.pruning.mask import Mask

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket


@dataclass(frozen=True)
class Reduced:
    """A graph without its dead channels.

    Args:
        graph: the smaller graph.
        kept: node name of the whole graph -> bool [channels].
        folded: name of a Linear or Conv -> float64 of its whole result's shape: what its dead inputs add.
    """

    graph: g.Graph
    kept: dict[str, Tensor]
    folded: dict[str, Tensor]


def reduce(whole: g.Graph) -> Reduced:
    """Return the smaller graph that computes the same, except for the rounding of sums.

    Raises:
        NoPath: the output is the same for every example.
    """
    live = liveness(whole)
    if not (live.varies[whole.output] & live.needed[whole.output]).any():
        raise NoPath
    kept = kept_channels(whole, live)
    folded = {
        node.name: _fold(node, kept[node.inputs[0]], live)
        for node in whole
        if isinstance(node, g.Linear | g.Conv) and not kept[node.inputs[0]].all()
    }
    return Reduced(_rebuild(whole, kept, folded, live), kept, folded)


def _fold(node: g.Linear | g.Conv, kept: Tensor, live: Liveness) -> Tensor:
    """Return what the constants of removed channels add to a layer's result."""
    constants = live.constants(node.inputs[0])
    gone = constants.clone()
    gone[kept] = 0.0
    return apply(replace(node, bias=None), [gone[None]])[0]


def is_uniform(added: Tensor) -> bool:
    """Return whether float32 numbers of each channel are the same everywhere, so that a bias can hold them."""
    flat = added.float().reshape(len(added), -1)
    return bool((flat == flat[:, :1]).all())


def _rebuild(whole: g.Graph, kept: dict[str, Tensor], folded: dict[str, Tensor], live: Liveness) -> g.Graph:
    nodes: list[g.Node] = []
    names: dict[str, str] = {}  # of the node that gives the same now
    for node in whole:
        for made in _smaller(node, whole, kept, folded, live):
            nodes.append(replace(made, inputs=tuple(names[name] for name in made.inputs)))
            names[node.name] = names[made.name] = made.name
    used, wanted = [], {names[whole.output]}
    for node in reversed(nodes):
        if node.name in wanted or isinstance(node, g.Input):
            used.append(node)
            wanted |= set(node.inputs)
    return g.Graph(tuple(reversed(used)), names[whole.output])


def _smaller(
    node: g.Node, whole: g.Graph, kept: dict[str, Tensor], folded: dict[str, Tensor], live: Liveness
) -> list[g.Node]:
    """Return a node without its dead channels: one node, or two where a map of biases follows it."""
    mine = kept[node.name]
    shape = (int(mine.sum()), *node.shape[1:]) if node.shape else ()
    changed: dict[str, Any] = {"shape": shape}
    if isinstance(node, g.Linear | g.Conv):
        return _smaller_layer(node, kept[node.inputs[0]], mine, folded.get(node.name), changed)
    if isinstance(node, g.Norm):
        changed |= {"scale": node.scale[mine], "shift": node.shift[mine], "names": {}}
    elif isinstance(node, g.Affine):
        changed |= {"scale": _part(node.scale, node, mine), "shift": _part(node.shift, node, mine)}
    elif isinstance(node, g.Slice) and node.axis == 0 and node.step == 1:
        start = int(kept[node.inputs[0]][: node.start].sum())
        changed |= {"start": start, "stop": start + shape[0]}
    elif isinstance(node, g.Pad):
        before = node.padding[0][0]
        after = len(mine) - node.padding[0][1]
        sides = int(mine[:before].sum()), int(mine[after:].sum())
        changed |= {"padding": (sides, *node.padding[1:])}
    elif isinstance(node, g.Binary) and (constant := constant_side(node, live)) is not None:
        return [_as_affine(node, constant, mine, shape, live)]
    return [replace(node, **changed)]


def _smaller_layer(
    node: g.Linear | g.Conv, inputs: Tensor, outputs: Tensor, added: Tensor | None, changed: dict[str, Any]
) -> list[g.Node]:
    weight = node.weight
    if isinstance(node, g.Conv) and node.groups > 1:
        if not outputs.all():  # depthwise: its groups are its channels
            changed["groups"] = int(outputs.sum())
        weight = weight[outputs]
    elif isinstance(node, g.Conv) or len(node.shape) == 1:
        weight = weight[outputs][:, inputs]
    bias = node.bias if node.bias is None or not _by_channel(node) else node.bias[outputs]
    made = replace(node, weight=weight, bias=bias, **changed)
    if added is None or not (added := added[outputs]).any():
        return [made]
    if is_uniform(added):
        constant = added.reshape(len(added), -1)[:, 0]
        total = constant if bias is None else bias.double() + constant
        return [replace(made, bias=total.float())]
    then = g.Affine(
        f"{node.name}.places", node.layer, (node.name,), made.shape, torch.ones((), dtype=torch.float64), added
    )
    return [made, then]


def _by_channel(node: g.Linear | g.Conv) -> bool:
    return isinstance(node, g.Conv) or len(node.shape) == 1


def _part(constant: Tensor, node: g.Node, kept: Tensor) -> Tensor:
    """Return the kept channels of a constant that broadcasts to a node's shape."""
    has_channels = constant.dim() == len(node.shape) > 0 and constant.shape[0] == len(kept) > 1
    return constant[kept] if has_channels else constant


def _as_affine(node: g.Binary, side: int, kept: Tensor, shape: tuple[int, ...], live: Liveness) -> g.Node:
    """Return a sum, difference or product with a constant as scale and shift."""
    constant = live.values[node.inputs[side]]
    one, zero = torch.ones((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    if node.operator == "mul":
        scale, shift = _part(constant, node, kept), zero
    elif node.operator == "add":
        scale, shift = one, _part(constant, node, kept)
    else:
        scale, shift = (-one, _part(constant, node, kept)) if side == 0 else (one, -_part(constant, node, kept))
    return g.Affine(node.name, node.layer, (node.inputs[1 - side],), shape, scale, shift)


def compact(ticket: Ticket, weights: str = "trained") -> Compact:
    """Return a ticket's network without its dead units and channels.

    It computes what `ticket.build(trained=True)` computes. Only the order of float32 sums may differ, which is checked
    on synthetic examples: by at most 1e-4 of the largest output.

    Args:
        ticket: mask and weights.
        weights: "trained", or "start" for the starting weights.

    Raises:
        Unsupported: the network has an operator that can't be followed; the message names layer and operator.
        InputError: no path of kept weights leads from an input to an output.
    """
    module = ticket.build(is_trained(weights))
    smaller = reduce(trace(module, shape_of(ticket)))
    network = Compact(smaller.graph, {"origin": ticket.origin, "normalisation": ticket.normalisation}).eval()
    inputs = examples_for(ticket)
    check_same(outputs_of(module, inputs), outputs_of(network, inputs), "the compact network")
    return network


def is_trained(weights: str) -> bool:
    """Return whether the option `weights` asks for trained weights.

    Raises:
        InputError: it is neither "trained" nor "start".
    """
    if weights not in ("trained", "start"):
        raise InputError(f"weights {weights!r}: choose trained or start")
    return weights == "trained"


def export_compact(ticket: Ticket, path: Path, weights: str = "trained") -> None:
    """Write a ticket's compact network; `tombola.export.smaller.load_compact` reads it.

    Raises:
        InputError: as `compact`.
        StoreError: the file can't be written.
    """
    write(path, to_bytes(compact(ticket, weights)))


def fold_into(module: nn.Module, mask: Mask, input_shape: tuple[int, ...]) -> Mask:
    """Zero the dead units of a masked module and fold their constants into biases, in place; return the live mask.

    The module keeps its shapes and computes the same. Where a constant has no bias to go to, nothing changes.

    Raises:
        InputError: as `compact`.
    """
    whole = trace(module, input_shape)
    smaller = reduce(whole)
    parameters = dict(module.named_parameters())
    layers = [node for node in whole if isinstance(node, g.Linear | g.Conv)]
    names = [node.weight_name for node in layers]
    if any(names.count(name) > 1 or name not in parameters for name in names):
        return mask
    if not all(_has_bias_for(node, smaller, parameters) for node in layers):
        return mask
    live = {name: keep.clone() for name, keep in mask.items()}
    with torch.no_grad():
        for node in layers:
            alive = _alive(node, smaller.kept)
            parameters[node.weight_name].mul_(alive)
            if node.weight_name in live:
                live[node.weight_name] &= alive
            if node.bias_name:
                bias, outputs = parameters[node.bias_name], smaller.kept[node.name]
                if node.name in smaller.folded:
                    added = smaller.folded[node.name].reshape(len(outputs), -1)[:, 0]
                    bias.copy_((bias.double() + added).float())
                if _by_channel(node):
                    bias.mul_(outputs)
    return Mask(live)


def _has_bias_for(node: g.Linear | g.Conv, smaller: Reduced, parameters: dict[str, nn.Parameter]) -> bool:
    added = smaller.folded.get(node.name)
    if added is None or not added[smaller.kept[node.name]].any():
        return True
    return node.bias_name in parameters and is_uniform(added[smaller.kept[node.name]])


def _alive(node: g.Linear | g.Conv, kept: dict[str, Tensor]) -> Tensor:
    """Return bool of the weight's shape: which weights lead from a kept channel to a kept channel."""
    alive = torch.ones_like(node.weight, dtype=torch.bool)
    if not _by_channel(node):
        return alive
    alive[~kept[node.name]] = False
    if isinstance(node, g.Linear) or node.groups == 1:
        alive[:, ~kept[node.inputs[0]]] = False
    return alive
