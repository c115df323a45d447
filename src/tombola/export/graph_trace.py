"""Makes a graph of a module: `torch.export` follows its forward pass, and each of its operators becomes a node.

The graph is compared with the module on synthetic examples before it is returned, so that no operator is silently read
as another one.
"""

from __future__ import annotations

import operator
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from tombola.errors import InputError
from tombola.export import graph as g
from tombola.export.check import one_tensor, shape_of
from tombola.export.following import followed, layer_of
from tombola.export.graph_operators import AS_IS, HANDLERS
from tombola.export.graph_run import run
from tombola.export.graph_step import Step
from tombola.formatting import plain

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket

EXAMPLES = 2
"""Examples that a module is traced with: a forward pass that mixes them shows in the shapes."""

OTHER_EXAMPLES = (1, 3)
"""Numbers of examples that it is compared on: a forward pass that reads their number shows in the outputs."""

TOLERANCE = 1e-4
"""Largest difference between the graph and the module, relative to the largest output."""


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> g.Graph:
    """Return what `module` computes in evaluation for examples of a shape. The module stays as it is.

    >>> graph = trace(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), (3,))
    >>> [type(node).__name__ for node in graph]
    ['Input', 'Linear', 'Activation']

    Raises:
        Unsupported: it uses an operator that no node stands for.
        InputError: `torch.export` can't follow its forward pass, or it does not map one tensor to one tensor.
    """
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        with warnings.catch_warnings(), torch.no_grad(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            examples = torch.randn(EXAMPLES, *input_shape)
            graph = _Reader(followed(module, examples), module).graph()
            for count in OTHER_EXAMPLES:
                _compare(graph, module, torch.randn(count, *input_shape))
    finally:
        for each, training in modes:
            each.training = training
    return graph


def trace_ticket(ticket: Ticket, trained: bool = True) -> g.Graph:
    """Return what a ticket's network computes; pruned weights are exactly 0.0 in it.

    Args:
        ticket: mask and weights.
        trained: take the weights after training, not the starting weights.

    Raises:
        InputError: as `trace`, and where the network's code has changed.
    """
    return trace(ticket.build(trained), shape_of(ticket))


def _compare(graph: g.Graph, module: nn.Module, examples: Tensor) -> None:
    """Raise if the graph does not compute what the module does."""
    count = len(examples)
    try:
        expected = one_tensor(module(examples))
    except InputError:
        raise
    except Exception as error:  # whatever a user's forward pass raises
        said = plain(str(error), 200) or type(error).__name__
        raise InputError(
            f"the network's forward pass fails on a batch of {count} ({said}); let it take batches of any size"
        ) from error
    found = run(graph, examples)
    scale = float(expected.abs().max()) + 1e-6
    if not expected.isfinite().all():
        raise InputError("the network's outputs on random inputs are not finite: its weights can't be exported")
    if count == 1:  # a network that squeezes its result loses the axis of the batch, but no number
        expected, found = expected.flatten(), found.flatten()
    if expected.shape != found.shape or float((expected - found).abs().max()) > TOLERANCE * scale:
        raise InputError(
            "the network's forward pass computes different outputs in two calls, depends on the number of examples, or "
            "changes tensors in place in a way that can't be traced; make it a function of its input and parameters"
        )


class _Reader:
    """Reads the operators of an exported program one by one."""

    def __init__(self, program: torch.export.ExportedProgram, module: nn.Module):
        self.program = program
        self.nodes: list[g.Node] = []
        # What each operator's result is: a tensor that does not depend on the example, or the name of a node.
        self.constants: dict[fx.Node, Any] = {}
        self.names: dict[fx.Node, str] = {}
        self.stale: set[fx.Node] = set()  # changed in place through another name
        self.parameters: dict[fx.Node, str] = {}
        self.tensors = {
            **dict(module.named_parameters(remove_duplicate=False)),
            **dict(module.named_buffers(remove_duplicate=False)),
        }

    def graph(self) -> g.Graph:
        for node in self.program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "output":
                return self._finish(node)
            elif node.op == "call_function":
                self._call(node)
            else:
                raise g.Unsupported(layer_of(node), f"{node.op} {node.target}")
        raise AssertionError("torch.export gave a graph without an output")

    def _placeholder(self, node: fx.Node) -> None:
        signature = self.program.graph_signature
        for table in (signature.inputs_to_parameters, signature.inputs_to_buffers):
            if (name := table.get(node.name)) is not None:
                tensor = self.tensors.get(name, self.program.constants.get(name))
                self.constants[node], self.parameters[node] = tensor.detach(), name
                return
        if (name := signature.inputs_to_lifted_tensor_constants.get(node.name)) is not None:
            self.constants[node] = self.program.constants[name]
            return
        if self.nodes:
            raise InputError("the network takes several inputs, but export supports only networks with one input")
        self._add(node, g.Input(node.name, "", (), _shape(node)))

    def _add(self, node: fx.Node, made: g.Node) -> None:
        self.nodes.append(made)
        self.names[node] = made.name

    def _call(self, node: fx.Node) -> None:
        step = Step(node, layer_of(node), _shape(node), self.constants, self.names, self.parameters)
        self._forget(node)
        if not any(each in self.names for each in node.all_input_nodes):
            if not isinstance(node.target, torch._ops.OpOverload) and node.target is not operator.getitem:
                raise g.Unsupported(step.layer, str(node.target))
            values: Any = fx.node.map_arg((node.args, node.kwargs), lambda each: self.constants[each])
            target: Any = node.target
            self.constants[node] = target(*values[0], **values[1])
            return
        kind = operator_name(node)
        if node.target is operator.getitem:
            kind = "getitem"
        if kind in AS_IS:
            self.names[node] = self.names[step.source()]
            return
        if kind not in HANDLERS:
            raise g.Unsupported(step.layer, f"the operator {kind!r}")
        made = HANDLERS[kind](step)
        if made is None:  # several results, which are read one by one
            self.names[node] = self.names[step.source()]
            return
        if _examples(node) not in (EXAMPLES, None):
            raise g.Unsupported(step.layer, f"the operator {kind!r} across examples")
        self._add(node, made)

    def _forget(self, node: fx.Node) -> None:
        """Refuse what reads a tensor by a name under which it has been changed in place since."""
        if any(each in self.stale for each in node.all_input_nodes):
            raise g.Unsupported(
                layer_of(node), "a tensor that was changed in place through a view", "write it without in-place changes"
            )
        if not _in_place(node):
            return
        changed = node.all_input_nodes[0]
        root, later = _root(changed), False
        for each in self.program.graph.nodes:
            later = later or each is node
            if not later and _root(each) is root:
                self.stale.add(each)

    def _finish(self, node: fx.Node) -> g.Graph:
        given: Any = node.args[0]
        results = given if isinstance(given, tuple | list) else (given,)
        if len(results) != 1 or results[0] not in self.names:
            raise InputError("the network must return one tensor that depends on its input")
        if results[0] in self.stale:
            raise g.Unsupported("", "a tensor that was changed in place through a view", "return the changed tensor")
        return _pruned(g.Graph(tuple(self.nodes), self.names[results[0]]))


def _pruned(graph: g.Graph) -> g.Graph:
    """Return the graph without nodes that its output does not depend on."""
    wanted = {graph.output, graph.input.name}
    for node in reversed(graph.nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
    return g.Graph(tuple(node for node in graph if node.name in wanted), graph.output)


_VIEWS = (
    "view reshape flatten unflatten squeeze unsqueeze permute transpose t slice select chunk split split_with_sizes "
    "getitem narrow expand contiguous alias detach view_as reshape_as dropout identity to"
)
VIEWS = frozenset(_VIEWS.split())


def _root(node: fx.Node) -> fx.Node:
    """Return the operator whose memory this one's result may share."""
    while node.op == "call_function" and operator_name(node) in VIEWS and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return node


def _in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable) and operator_name(node) != "batch_norm"


def operator_name(node: fx.Node) -> str:
    """Return "conv2d" of aten.conv2d.default; in-place operators lose their underscore."""
    if node.target is operator.getitem:
        return "getitem"
    target: Any = node.target
    name = str(getattr(getattr(target, "overloadpacket", target), "__name__", target))
    return name.rstrip("_") if not name.startswith("_") else name


def _shape(node: fx.Node) -> tuple[int, ...]:
    value = node.meta.get("val")
    return tuple(int(size) for size in value.shape[1:]) if isinstance(value, Tensor) else ()


def _examples(node: fx.Node) -> int | None:
    """Return the length of the first axis of a result, which is the batch."""
    value = node.meta.get("val")
    return int(value.shape[0]) if isinstance(value, Tensor) and value.dim() else None
