"""Tickets whose outputs can't depend on their inputs: no format writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tombola.errors import InputError
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
    """Raise where a ticket's mask leaves no path; a forward pass that can't be followed passes.

    Raises:
        NoPath: there is none.
        InputError: the network's code is not what it was.
    """
    shape = ticket.origin["input_shape"]
    try:
        found = live_paths(ticket.build(), ticket.mask, shape if isinstance(shape, dict) else tuple(shape))
    except Untraceable:
        return
    if ticket.mask.total and not found.mask.remaining:
        raise NoPath
