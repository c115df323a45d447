"""A graph as a plain module, and its file: safetensors with a description in JSON. No code runs on load."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import InputError
from tombola.export import graph as g
from tombola.export.graph_run import ACTIVATIONS, apply

FORMAT = "tombola-compact-1"
TENSORS = ("weight", "bias", "scale", "shift")
LEFT_OUT = ("weight_name", "bias_name", "names")  # of the network that the graph was made of
KINDS: dict[str, type[g.Node]] = {
    kind.__name__: kind
    for kind in (
        g.Input,
        g.Linear,
        g.Conv,
        g.Norm,
        g.Affine,
        g.Activation,
        g.Pool,
        g.AdaptivePool,
        g.Mean,
        g.Reshape,
        g.Permute,
        g.Slice,
        g.Pad,
        g.Concat,
        g.Binary,
        g.Softmax,
    )
}


class _Scale(nn.Module):
    """weight * x + bias, with constants of the example's axes: a batch norm in evaluation, or a map of biases."""

    def __init__(self, weight: Tensor, bias: Tensor):
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight + self.bias


class _Padded(nn.Module):
    """A convolution whose padding differs between the two sides of an axis."""

    def __init__(self, convolution: nn.Module, sides: list[int]):
        super().__init__()
        self.convolution, self.sides = convolution, sides

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(nn.functional.pad(x, self.sides))


class Compact(nn.Module):
    """A network that runs a graph; its layers are `nn.Linear`, `nn.Conv2d` and the like, under their old names.

    Args:
        graph: what to compute.
        about: anything of JSON that its file should carry.
    """

    def __init__(self, graph: g.Graph, about: Mapping[str, Any] | None = None):
        super().__init__()
        self.graph, self.about = _without_tensors(graph), dict(about or {})
        self.layers = nn.ModuleDict()
        self.places: dict[str, str] = {}
        for node in graph:
            if (layer := _layer(node, graph)) is not None:
                self.places[node.name] = _free_name(node, self.layers)
                self.layers[self.places[node.name]] = layer

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs [N, ...] of examples [N, ...]."""
        values: dict[str, Tensor] = {}
        for node in self.graph:
            inputs = [values[name] for name in node.inputs]
            if isinstance(node, g.Input):
                values[node.name] = x
            elif node.name in self.places:
                values[node.name] = self.layers[self.places[node.name]](*inputs)
            else:
                values[node.name] = apply(node, inputs)
        return values[self.graph.output]


def _without_tensors(graph: g.Graph) -> g.Graph:
    """Return the graph with empty tensors, which a module has parameters for."""
    nodes = []
    for node in graph:
        given = {field.name: getattr(node, field.name) for field in fields(node)}
        empty: dict[str, Any] = {name: torch.empty(0) for name in TENSORS if isinstance(given.get(name), Tensor)}
        nodes.append(replace(node, **empty))
    return g.Graph(tuple(nodes), graph.output)


def _free_name(node: g.Node, taken: nn.ModuleDict) -> str:
    base = (node.layer or node.name).replace(".", "_")
    base += "_places" if isinstance(node, g.Affine) and node.name.endswith(".places") else ""
    base += "_" if hasattr(nn.ModuleDict, base) else ""
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name


def _layer(node: g.Node, graph: g.Graph) -> nn.Module | None:
    """Return the module of a node that has tensors; None for the others."""
    if isinstance(node, g.Norm):
        shape = (-1, *[1] * (len(node.shape) - 1))
        return _Scale(node.scale.reshape(shape), node.shift.reshape(shape))
    if isinstance(node, g.Affine):
        return _Scale(node.scale, node.shift)
    if not isinstance(node, g.Linear | g.Conv):
        return None
    bias = node.bias is not None
    if isinstance(node, g.Linear):
        made: nn.Module = nn.utils.skip_init(nn.Linear, node.weight.shape[1], node.weight.shape[0], bias=bias)
    else:
        made = _convolution(node, bias)
    with torch.no_grad():
        made.get_parameter("weight").copy_(node.weight)
        if node.bias is not None:
            made.get_parameter("bias").copy_(node.bias)
    sides = [side for pair in reversed(node.padding) for side in pair] if isinstance(node, g.Conv) else []
    return _Padded(made, sides) if sides[::2] != sides[1::2] else made


def _convolution(node: g.Conv, bias: bool) -> nn.Module:
    kind: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(node.stride) - 1]
    even = all(before == after for before, after in node.padding)
    return nn.utils.skip_init(
        kind,
        node.weight.shape[1] * node.groups,
        node.weight.shape[0],
        tuple(node.weight.shape[2:]),
        node.stride,
        tuple(before for before, _ in node.padding) if even else 0,
        node.dilation,
        node.groups,
        bias,
    )


def to_bytes(network: Compact) -> bytes:
    """Return the file of a network."""
    from tombola.running.files import pack_tensors

    nodes = [_described(node) for node in network.graph]
    about = {"format": FORMAT, "nodes": nodes, "output": network.graph.output, "about": network.about}
    tensors = {
        f"{name}/{field}": tensor
        for name, place in network.places.items()
        for field, tensor in _tensors_of(network.layers[place]).items()
    }
    return pack_tensors(tensors, about)


def _tensors_of(layer: nn.Module) -> dict[str, Tensor]:
    inner: Any = layer.convolution if isinstance(layer, _Padded) else layer
    return {name: tensor.detach() for name, tensor in inner.named_parameters()}


def _described(node: g.Node) -> dict[str, Any]:
    given = {field.name: getattr(node, field.name) for field in fields(node)}
    plain = {name: value for name, value in given.items() if not isinstance(value, Tensor) and name not in LEFT_OUT}
    return {"node": type(node).__name__, **{name: _to_json(value) for name, value in plain.items()}}


def _to_json(value: Any) -> Any:
    """Return JSON of a field; infinities, which JSON lacks, are words."""
    if isinstance(value, tuple):
        return [_to_json(each) for each in value]
    return str(value) if isinstance(value, float) and value in (float("inf"), float("-inf")) else value


def load_compact(path: str | Path) -> Compact:
    """Read what `tombola export --to compact` wrote. No code runs but tombola's own.

    >>> network = load_compact("ticket.compact.safetensors")            # doctest: +SKIP
    >>> scores = network(ticket.normalise(images))                      # doctest: +SKIP

    Raises:
        InputError: the file is missing, damaged, or does not describe a network.
    """
    from tombola.running.files import Damaged, unpack_tensors

    if not Path(path).is_file():
        raise InputError(f"{str(path)!r} is not a file; create one with: tombola export --to compact")
    try:
        tensors, about = unpack_tensors(Path(path))
    except (Damaged, json.JSONDecodeError) as error:
        raise InputError(str(error)) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path} is not a compact network; create one with: tombola export --to compact")
    try:
        nodes = tuple(_node(each, tensors) for each in about["nodes"])
        network = Compact(g.Graph(nodes, about["output"]), about["about"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"{path} does not describe a network ({type(error).__name__}: {error})") from error
    return network.eval()


def _node(given: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> g.Node:
    """Return a node of its description."""
    kind, name = KINDS[given["node"]], given["name"]
    values: dict[str, Any] = {}
    for field in fields(kind):
        if field.name in TENSORS and field.name not in given:
            values[field.name] = tensors[f"{name}/{_stored(kind, field.name)}"]
        elif field.name in LEFT_OUT:
            values[field.name] = {} if field.name == "names" else ""
        else:
            values[field.name] = _from_json(given[field.name])
    if values.get("kind") is not None and kind is g.Activation and values["kind"] not in ACTIVATIONS:
        raise ValueError(f"an activation {values['kind']!r}")
    return kind(**values)


def _stored(kind: type[g.Node], field: str) -> str:
    """Return the parameter of the module that holds a field."""
    return {"scale": "weight", "shift": "bias"}[field] if kind in (g.Norm, g.Affine) else field


def _from_json(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_json(each) for each in value)
    return float(value) if value in ("inf", "-inf") else value
