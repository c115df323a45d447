"""Tickets whose outputs can't depend on their inputs: no format writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from tombola.data import is_one_shape, shape_from_json
from tombola.errors import InputError
from tombola.export.graph_trace import trace
from tombola.export.liveness import liveness
from tombola.pruning.live_paths import Untraceable, live_paths

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket


class NoPath(InputError):
    """The output of a network is the same for every example."""

    def __init__(self) -> None:
        super().__init__(
            "no path of kept weights leads from an input to an output, so the network gives every example the same "
            "outputs; export a level with more weights"
        )


def require_path(ticket: Ticket) -> None:
    """Raise where a ticket's mask leaves no path.

    A forward pass whose paths can't be followed weight by weight is followed number by number; where that fails too,
    the ticket passes.

    Raises:
        NoPath: there is none.
        InputError: the network's code is not what it was.
    """
    shape: Any = shape_from_json(ticket.origin["input_shape"])
    try:
        found = live_paths(ticket.build(), ticket.mask, shape)
    except Untraceable:
        _require_varying(ticket.build(), shape)
        return
    if ticket.mask.total and not found.mask.remaining:
        raise NoPath


def _require_varying(module: nn.Module, shape: Any) -> None:
    """Raise where no output varies with the inputs; a network that no graph can hold passes."""
    if not is_one_shape(shape):
        return
    try:
        graph = trace(module, shape)
    except InputError:
        return
    if not liveness(graph).varies[graph.output].any():
        raise NoPath
