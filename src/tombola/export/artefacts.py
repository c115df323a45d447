"""What a ticket is exported to, as `tombola measure` compares it: size, cost and a function that computes it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from tombola.errors import InputError
from tombola.export import graph as g
from tombola.export.c import ops as o
from tombola.export.c import ticket_sources
from tombola.export.c.build import Compiled, object_bytes
from tombola.export.c.fold import fold
from tombola.export.c.lower import lower
from tombola.export.check import shape_of
from tombola.export.graph_trace import trace, trace_ticket
from tombola.export.packed.ticket import load_packed
from tombola.export.rivals import Call, Contest
from tombola.export.sizes import distinct, held_bytes, pruned
from tombola.export.smaller import load_compact
from tombola.export.sparse_torch import export_pytorch, load

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket

SINGLE = ("-std=c99", "-O2", "-DTOMBOLA_SINGLE")
"""Flags that the size of C is measured with: what `NAME_run` needs, without the functions for batches."""

BLOCK = 1000
"""Examples that are computed at a time where the whole test set is."""


@dataclass(frozen=True, eq=False)
class Artefact:
    """One form of a network.

    Args:
        name: of the form.
        bytes: on the disk; of C, of object code and constant data; of the dense network, of its tensors.
        parameters: numbers that it holds: weights, biases, and what batch norm keeps. Tied weights count once.
        multiply_adds: for one example.
        memory: bytes of weights and working memory for one example, computed from the plan; the runtime's own memory
            is not in it.
        run: float32 [N, ...] -> outputs [N, ...].
        call: returns the function to time, None for a form that is timed as a rival.
    """

    name: str
    bytes: int
    parameters: int
    multiply_adds: int
    memory: int
    run: Callable[[np.ndarray], np.ndarray]
    call: Callable[[Contest], Call] | None


def in_blocks(module: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that computes a module for many examples.

    It raises InputError where the outputs lose the axis of the batch.
    """

    def run(examples: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            parts = [_by_example(module, part) for part in torch.from_numpy(examples).split(BLOCK)]
        return np.concatenate(parts)

    return run


def _by_example(module: nn.Module, examples: torch.Tensor) -> np.ndarray:
    outputs: np.ndarray = module(examples).numpy()
    if outputs.shape[:1] != examples.shape[:1]:
        raise InputError(
            f"the network's outputs for a batch of {len(examples)} have shape {outputs.shape}, without the axis of the "
            "batch: keep it, as squeeze(1) does where squeeze() does not"
        )
    return outputs


def dense(ticket: Ticket) -> Artefact:
    """Return the ticket's network with all weights, the pruned ones as zeros, as PyTorch computes it."""
    module = ticket.build(trained=True).eval()
    graph = trace_ticket(ticket)
    parameters = sum(each.numel() for each in distinct(module))
    adds = sum(node.weight.numel() * _uses(node) for node in graph if isinstance(node, g.Linear | g.Conv))
    memory = 4 * (parameters + _activations(graph))
    return Artefact("dense float32", held_bytes(module), parameters, adds, memory, in_blocks(module), None)


def _uses(node: g.Linear | g.Conv) -> int:
    """Return how often each weight is used for one example."""
    return prod(node.shape) // len(node.weight)


def _activations(graph: g.Graph) -> int:
    """Return the most float32 of results that wait for their use at a time."""
    last = {name: step for step, node in enumerate(graph) for name in (*node.inputs, node.name)}
    last[graph.output] = len(graph.nodes)
    most = 0
    for step in range(len(graph.nodes)):
        waiting = [node for number, node in enumerate(graph) if number <= step <= last[node.name]]
        most = max(most, sum(prod(node.shape) for node in waiting if not isinstance(node, g.Reshape)))
    return most


def c_artefact(ticket: Ticket) -> Artefact:
    """Return the ticket as C, compiled for this machine.

    Raises:
        InputError: there is no C compiler, or C can't hold the network.
    """
    sources = ticket_sources(ticket)
    graph = trace_ticket(ticket)
    shape = graph[graph.output].shape
    compiled = Compiled(sources, graph.input.shape, shape)
    parameters, adds = _counts(graph)
    size, work = object_bytes(sources, SINGLE)

    def call(contest: Contest) -> Call:
        examples = contest.inputs.numpy()
        if len(examples) == 1:
            return compiled.caller(examples, np.empty((1, *shape), np.float32))
        return lambda: compiled(examples, contest.threads)

    return Artefact("c", size, parameters, adds, size + work, compiled, call)


def _counts(graph: g.Graph) -> tuple[int, int]:
    """Return the parameters that the exported code holds, and its multiply-adds."""
    parameters = adds = 0
    for op in lower(fold(graph)).ops:
        if isinstance(op, o.Conv):
            parameters += len(op.weights) + len(op.bias)
            adds += len(op.weights) * op.target.height * op.target.width
        elif isinstance(op, o.Linear):
            live = int(np.count_nonzero(op.matrix))
            parameters += live + len(op.bias)
            adds += live * len(op.repeats)
    return parameters, adds


def pytorch_artefact(ticket: Ticket) -> Artefact:
    """Return the ticket as the module of the format pytorch, read back from its file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ticket.safetensors"
        export_pytorch(ticket, path)
        size, module = path.stat().st_size, load(path, trust=True, factory=ticket._factory)
    whole = dense(ticket)
    live = whole.parameters - pruned(ticket.build(trained=True), ticket.mask)
    adds = _counts(trace_ticket(ticket))[1]

    def call(contest: Contest) -> Call:
        def once() -> Any:
            module.threads = contest.threads
            with torch.inference_mode():
                return module(contest.inputs)

        return once

    name = f"pytorch ({module.backend})"
    return Artefact(name, size, live, adds, whole.memory, in_blocks(module), call)


def compact_artefact(ticket: Ticket) -> Artefact:
    """Return the ticket's network without dead units and channels, computed densely by PyTorch."""
    with tempfile.TemporaryDirectory() as folder:
        path = ticket.export("compact", Path(folder) / "ticket")
        size, module = path.stat().st_size, load_compact(path)
    graph = trace(module, shape_of(ticket))
    parameters = sum(each.numel() for each in module.state_dict().values() if each.is_floating_point())
    adds = sum(node.weight.numel() * _uses(node) for node in graph if isinstance(node, g.Linear | g.Conv))

    def call(contest: Contest) -> Call:
        def once() -> Any:
            with torch.inference_mode():
                return module(contest.inputs)

        return once

    memory = 4 * (parameters + _activations(graph))
    return Artefact("compact", size, parameters, adds, memory, in_blocks(module), call)


def packed_artefact(ticket: Ticket) -> Artefact:
    """Return the ticket packed with the format's own settings, as the decoded file computes it."""
    with tempfile.TemporaryDirectory() as folder:
        path = ticket.export("packed", Path(folder) / "ticket")
        size, module = path.stat().st_size, load_packed(path, trust=True, factory=ticket._factory)
    whole = dense(ticket)
    live = sum(int(each.count_nonzero()) for each in distinct(module))
    # Unpacked, it is computed as a dense network is: it has no latency of its own.
    return Artefact("packed", size, live, whole.multiply_adds, whole.memory, in_blocks(module), None)


ARTEFACTS: dict[str, Callable[[Ticket], Artefact]] = {
    "compact": compact_artefact,
    "packed": packed_artefact,
    "c": c_artefact,
    "pytorch": pytorch_artefact,
}
"""What a ticket is exported to and measured as, by name."""
