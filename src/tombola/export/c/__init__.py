"""Export to C: one C99 file and a header, without dependencies, whose time and size follow the live weights.

What is supported: linear layers, convolutions of one and two axes (strided, dilated, grouped, depthwise), batch norm,
activations, pooling, sums and products such as residual ones, concatenation, reshaping, padding with constants and
softmax. Anything else is refused by the layer's name.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tombola.data.normalising import spread
from tombola.errors import InputError, nearest
from tombola.export import graph as g
from tombola.export.c.build import Compiled, compiler
from tombola.export.c.emit import Favour, Sources, emit
from tombola.export.c.fold import fold
from tombola.export.c.lower import lower
from tombola.export.check import check_same, examples_for, outputs_of
from tombola.export.graph_trace import trace_ticket
from tombola.export.write import write_together

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket

QUICK = ("-std=c99", "-O1")
"""Flags of the compiler where the code runs once."""

__all__ = ["INPUTS", "Sources", "export_c", "sources_of", "ticket_sources"]

INPUTS = {
    "normalised": "as Ticket.normalise returns them",
    "raw": "floats as in the data set; for uint8 data in units of 255",
    "bytes": "floats from 0 to 255, for uint8 data",
}
"""What the exported network takes."""


def sources_of(graph: g.Graph, name: str = "ticket", about: str = "", favour: Favour = "size") -> Sources:
    """Return a network as one C file and its header.

    Args:
        graph: the network.
        name: of the files, and the prefix of everything in them.
        about: lines for the comment at the top of the header.
        favour: "size" or "speed", of linear layers: indices of 8 bits are smaller, those of 16 bits a tenth faster.

    Raises:
        Unsupported: an operator that C code is not written for.
        InputError: `name` is not a C identifier, or no path of weights leads to the outputs.
    """
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
        raise InputError(
            f"name {name!r} is not a C identifier: use letters, digits and underscores, such as my_network"
        )
    if favour not in ("size", "speed"):
        raise InputError(f"favour {favour!r}: choose size or speed")
    return emit(lower(fold(graph)), name, graph.input.shape, about, favour)


def ticket_sources(
    ticket: Ticket,
    name: str = "ticket",
    weights: str = "trained",
    inputs: str = "normalised",
    favour: Favour = "size",
) -> Sources:
    """Return a ticket's network as one C file and its header.

    Args:
        ticket: the network and its weights.
        name: of the files, and the prefix of everything in them.
        weights: "trained", or "start" for the starting weights.
        inputs: what the C functions take, a key of `INPUTS`.
        favour: as in `sources_of`.

    Raises:
        InputError: as `sources_of`, or an argument that is none of those.
    """
    if weights not in ("trained", "start"):
        raise InputError(f"weights {weights!r}: choose trained or start")
    if inputs not in INPUTS:
        raise InputError(f"inputs {inputs!r}{nearest(inputs, INPUTS)}")
    graph = trace_ticket(ticket, weights == "trained")
    if inputs != "normalised":
        graph = _normalising(graph, ticket, 255.0 if inputs == "bytes" else 1.0)
    about = (
        f"Network {ticket.origin['network']['name']}, {ticket.mask.remaining:,} of {ticket.mask.total:,} weights "
        f"({ticket.mask.density:.2%}), from tombola.\nInputs: {inputs}, {INPUTS[inputs]}.\nNormalisation: "
        f"mean {_numbers(ticket.normalisation['mean'])}, std {_numbers(ticket.normalisation['std'])}."
    )
    return sources_of(graph, name, about, favour)


def _check(made: Sources, ticket: Ticket, trained: bool, inputs: str) -> None:
    """Run the C once, if there is a compiler for this machine.

    Raises:
        InputError: its outputs are not those of PyTorch, or the compiler fails.
    """
    if compiler() is None:
        return
    examples = taken = examples_for(ticket)
    if inputs != "normalised":
        raw = torch.rand(examples.shape, generator=torch.Generator().manual_seed(0))
        examples, taken = ticket.normalise(raw), raw * 255 if inputs == "bytes" else raw
    expected = outputs_of(ticket.build(trained), examples)
    try:
        compiled = Compiled(made, tuple(examples.shape[1:]), tuple(expected.shape[1:]), QUICK)
    except OSError:  # it compiles for another machine
        return
    except InputError as error:
        raise InputError(f"{error}, or CC=none to write the C without running it") from None
    check_same(expected, torch.from_numpy(compiled(taken.numpy())), "the C code")


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.7g}" for value in values)


def _normalising(graph: g.Graph, ticket: Ticket, unit: float) -> g.Graph:
    """Return the graph that normalises its examples first."""
    shape = graph.input.shape
    constants = ticket.normalisation
    if not constants["mean"]:  # inputs as they are
        constants = {"mean": [0.0], "std": [1.0]}
    single = [1] * len(shape)
    mean, std = (spread(constants[name], shape) for name in ("mean", "std"))
    mean, std = (each if each.dim() else each.reshape(single) for each in (mean, std))
    first = graph.input.name
    scaled = g.Affine(f"{first}.normalised", "", (first,), shape, 1 / (std * unit), -mean / std)
    others = (
        replace(node, inputs=tuple(scaled.name if name == first else name for name in node.inputs))
        for node in graph.nodes[1:]
    )
    return g.Graph((graph.input, scaled, *others), graph.output)


def export_c(
    ticket: Ticket,
    path: Path,
    weights: str = "trained",
    inputs: str = "normalised",
    name: str | None = None,
    favour: Favour = "size",
) -> None:
    """Write a ticket's network as a C99 file and, beside it, its header.

    Args:
        ticket: what to write.
        path: of the C file; the header has the same name with .h.
        weights, inputs, favour: as in `ticket_sources`.
        name: prefix of the functions, as in `NAME_run`; by default the file's name.

    Raises:
        InputError: the network can't be held in C, and the message names the layer; `path` is the header's; or a C
            compiler is there, and the compiled C gives other outputs than PyTorch.
        StoreError: the files can't be written; then both are as they were before.
    """
    path = Path(path)
    if path.suffix.lower() == ".h":
        raise InputError(f"{path.name!r} is the name of the header: give the path of the C file, {path.stem}.c")
    given = str(name or "") or re.sub("[^A-Za-z0-9_]", "_", path.stem)
    made = ticket_sources(ticket, given if name or given[:1].isalpha() else f"net_{given}", weights, inputs, favour)
    _check(made, ticket, weights == "trained", inputs)
    header = path.with_suffix(".h")
    code = made.code.replace(f'#include "{made.name}.h"', f'#include "{header.name}"', 1)
    write_together({header: made.header.encode(), path: code.encode()})
