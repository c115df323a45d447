"""Export to C: one C99 file and a header, without dependencies, whose time and size follow the live weights.

What is supported: linear layers, convolutions of one and two axes (strided, dilated, grouped, depthwise), batch norm,
activations, pooling, sums and products such as residual ones, concatenation, reshaping, padding with constants and
softmax. Anything else is refused by the layer's name.
"""

from __future__ import annotations

import re

from tombola.errors import InputError
from tombola.export import graph as g
from tombola.export.c.emit import Sources, emit
from tombola.export.c.fold import fold
from tombola.export.c.lower import lower

__all__ = ["Sources", "sources_of"]


def sources_of(graph: g.Graph, name: str = "ticket", about: str = "") -> Sources:
    """Return a network as one C file and its header.

    Args:
        graph: the network.
        name: of the files, and the prefix of everything in them.
        about: lines for the comment at the top of the header.

    Raises:
        Unsupported: an operator that C code is not written for.
        InputError: `name` is no C identifier, or no path of weights leads to the outputs.
    """
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name):
        raise InputError(f"name {name!r} is no C identifier: use letters, digits and underscores, such as my_network")
    return emit(lower(fold(graph)), name, graph.input.shape, about)
