"""Finds out whether a module is a multilayer perceptron: Flatten, Linear, ReLU, Linear, ..., Linear."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from tombola.seeds import draw_states, own_draws


@dataclass(frozen=True)
class LinearLayer:
    """One linear layer of an MLP.

    Args:
        weight, bias: names of its parameters; no bias is None.
        inputs, outputs: number of its features.
    """

    weight: str
    bias: str | None
    inputs: int
    outputs: int


@dataclass(frozen=True)
class Mlp:
    """Linear layers with a ReLU between each two.

    Args:
        layers: the layers, in order.
        flattens: whether an example may have any shape; else it must be a vector.
    """

    layers: tuple[LinearLayer, ...]
    flattens: bool


def mlp_of(module: nn.Module) -> Mlp | None:
    """Return the MLP that `module` computes in training and in evaluation; None if it computes anything else.

    It is None, too, wherever it is doubtful: hooks, shared or frozen parameters, parameters other than those of the
    MLP, subclasses of `nn.Linear`, and control flow that `torch.fx` can't follow.
    """
    if any(has_hooks(each) for each in module.modules()):
        return None
    mlp = _traced(module, training=True)
    if mlp is None or mlp != _traced(module, training=False):
        return None
    names = [name for layer in mlp.layers for name in (layer.weight, layer.bias) if name]
    parameters = dict(module.named_parameters())  # lists shared parameters once
    if sorted(names) != sorted(module.state_dict()) or sorted(names) != sorted(parameters):
        return None
    if any(not each.requires_grad or each.dtype != torch.float32 for each in parameters.values()):
        return None
    return mlp


def is_plain(layer: nn.Module) -> bool:
    """Return whether a layer without children may stand in a multilayer perceptron."""
    without = type(layer) is nn.Dropout and layer.p == 0
    return without or type(layer) in (nn.Linear, nn.ReLU, nn.Flatten, nn.Identity)


def has_hooks(module: nn.Module) -> bool:
    """Return whether anything runs before or after this module's own passes, or sees its parameters' gradients."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_state_dict_hooks")
    return any(getattr(module, kind, None) for kind in kinds) or hooks_gradients(module)


def hooks_gradients(module: nn.Module) -> bool:
    """Return whether a hook sees gradients of this module's own passes, or of its parameters."""
    kinds = ("_backward_hooks", "_backward_pre_hooks")
    of_parameters = ("_backward_hooks", "_post_accumulate_grad_hooks")
    return any(getattr(module, kind, None) for kind in kinds) or any(
        getattr(each, kind, None) for each in module.parameters(recurse=False) for kind in of_parameters
    )


def _traced(module: nn.Module, training: bool) -> Mlp | None:
    graph = graph_of(module, training, fx.Tracer())
    return None if graph is None else _Walk(module, graph).mlp()


def graph_of(module: nn.Module, training: bool, tracer: fx.Tracer) -> fx.Graph | None:
    """Return the graph of a module's forward pass, None where that is not the same graph each time.

    A forward pass that draws at random outside of a layer, makes a tensor of its own or changes an attribute would be
    frozen in a graph as it was at the time.
    """
    before = _state(module)
    with modes_kept(module), warnings.catch_warnings(), own_draws():
        warnings.simplefilter("ignore")
        module.train(training)
        draws = draw_states()
        try:
            graph = tracer.trace(module)
        except Exception:  # whatever a forward pass does that can't be traced
            return None
        same = draw_states() == draws
    constants = any(node.op == "get_attr" and "_tensor_constant" in str(node.target) for node in graph.nodes)
    return graph if same and not constants and before == _state(module) else None


def _state(module: nn.Module) -> list[dict[str, Any]]:
    """Return the plain attributes of a module and those within, except for their modes."""
    plain = (bool, int, float, str, type(None))
    return [
        {name: value for name, value in vars(each).items() if isinstance(value, plain) and name != "training"}
        for each in module.modules()
    ]


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    modes = [(each, each.training) for each in module.modules()]
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training


class _Walk:
    """Follows a graph from its input to its output, as long as each step is one that an MLP may have."""

    def __init__(self, module: nn.Module, graph: fx.Graph):
        self.modules = dict(module.named_modules())
        self.nodes = list(graph.nodes)

    def mlp(self) -> Mlp | None:
        # What the example looks like so far: "any" shape, "flat", out of a "linear" layer, or out of a "relu".
        state = "any"
        layers: list[LinearLayer] = []
        flattens = False
        sizes: set[fx.Node] = set()  # nodes whose value is the number of examples
        shapes: set[fx.Node] = set()  # nodes whose value is the shape of the input
        source, *steps = self.nodes
        if source.op != "placeholder" or not steps:
            return None
        current = source
        for node in steps:
            if node.op == "output":
                done = node.args[0] is current and state == "linear"
                return Mlp(tuple(layers), flattens) if done else None
            if self._is_shape(node, source):
                shapes.add(node)
            elif self._is_examples(node, source, shapes):
                sizes.add(node)
            elif not node.args or node.args[0] is not current:
                return None
            elif self._is_identity(node):
                current = node
            elif state == "any" and self._is_flatten(node, sizes):
                current, state, flattens = node, "flat", True
            elif state == "linear" and self._is_relu(node):
                current, state = node, "relu"
            elif state != "linear" and (layer := self._layer(node)) is not None:
                layers.append(layer)
                current, state = node, "linear"
            else:
                return None
        return None

    def _module(self, node: fx.Node) -> nn.Module | None:
        # Nothing but the one input may be given.
        plain = node.op == "call_module" and len(node.args) == 1 and not node.kwargs
        return self.modules[str(node.target)] if plain else None

    def _layer(self, node: fx.Node) -> LinearLayer | None:
        layer = self._module(node)
        if type(layer) is not nn.Linear:  # a subclass may do anything
            return None
        bias = None if layer.bias is None else f"{node.target}.bias"
        return LinearLayer(f"{node.target}.weight", bias, layer.in_features, layer.out_features)

    def _is_relu(self, node: fx.Node) -> bool:
        functions = (functional.relu, torch.relu, torch.relu_, functional.relu_)
        called = node.op == "call_function" and node.target in functions
        method = node.op == "call_method" and node.target in ("relu", "relu_")
        plain = len(node.args) == 1 and node.kwargs.keys() <= {"inplace"}
        return type(self._module(node)) is nn.ReLU or ((called or method) and plain)

    def _is_identity(self, node: fx.Node) -> bool:
        layer = self._module(node)
        return type(layer) is nn.Identity or (type(layer) is nn.Dropout and layer.p == 0)

    def _is_flatten(self, node: fx.Node, sizes: set[fx.Node]) -> bool:
        layer = self._module(node)
        if type(layer) is nn.Flatten:
            return (layer.start_dim, layer.end_dim) == (1, -1)
        arguments = node.args[1:]
        if (node.op, node.target) in (("call_function", torch.flatten), ("call_method", "flatten")):
            given = dict(zip(("start_dim", "end_dim"), arguments, strict=False)) | node.kwargs
            return given in ({"start_dim": 1}, {"start_dim": 1, "end_dim": -1})
        called = node.op == "call_function" and node.target is torch.reshape
        method = node.op == "call_method" and node.target in ("view", "reshape")
        if not (called or method) or node.kwargs:
            return False
        shape = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], (tuple, list)) else arguments
        if len(shape) != 2:
            return False
        features = next((layer.inputs for layer in map(self._layer, self.nodes) if layer), None)
        if isinstance(shape[0], fx.Node):
            return shape[0] in sizes and shape[1] in (-1, features)
        return bool(shape[0] == -1 and shape[1] == features)

    @staticmethod
    def _is_shape(node: fx.Node, source: fx.Node) -> bool:
        attribute = node.op == "call_function" and node.target is getattr and node.args == (source, "shape")
        method = node.op == "call_method" and node.target == "size" and node.args == (source,)
        return bool(attribute or method)

    @staticmethod
    def _is_examples(node: fx.Node, source: fx.Node, shapes: set[fx.Node]) -> bool:
        if node.op == "call_method" and node.target == "size":
            return (*node.args, *node.kwargs.values()) == (source, 0)
        item = node.op == "call_function" and node.target is operator.getitem
        return bool(item and node.args[0] in shapes and node.args[1] == 0)
