"""Is what was exported the same network?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tombola.data import is_one_shape, shape_from_json
from tombola.errors import InputError

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket

EXAMPLES = 16
TOLERANCE = 1e-4
"""Largest difference that the order of float32 sums may make, relative to the largest output."""


def input_count(ticket: Ticket) -> int:
    """Return how many inputs a ticket's network takes."""
    shape: Any = shape_from_json(ticket.origin["input_shape"])
    return 1 if is_one_shape(shape) else len(shape)


def shape_of(ticket: Ticket) -> tuple[int, ...]:
    """Return the shape of one example of a ticket's network.

    Raises:
        InputError: the network takes several inputs.
    """
    shape: Any = shape_from_json(ticket.origin["input_shape"])
    if not is_one_shape(shape):
        raise InputError(
            f"the network takes several inputs ({len(shape)}), but this format supports one: choose packed or pytorch"
        )
    found: tuple[int, ...] = shape
    return found


def examples_for(ticket: Ticket, count: int = EXAMPLES) -> Tensor:
    """Return synthetic inputs of a ticket's network, always the same.

    They are float32 [count, ...], as normalised ones are, or int64 numbers of tokens.

    Raises:
        InputError: the network takes several inputs.
    """
    generator, shape = torch.Generator().manual_seed(0), shape_of(ticket)
    if (tokens := ticket.origin.get("tokens")) is not None:
        return torch.randint(tokens, (count, *shape), generator=generator)
    return torch.randn(count, *shape, generator=generator)


def one_tensor(result: Any) -> Tensor:
    """Return what a network returned.

    Raises:
        InputError: it is not a tensor.
    """
    if not isinstance(result, Tensor):
        raise InputError(f"the network must return one tensor that depends on its input, not a {type(result).__name__}")
    return result


def outputs_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a module gives in evaluation mode.

    Raises:
        InputError: it is not one tensor.
    """
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return one_tensor(module.eval()(inputs))


def check_same(
    expected: Tensor, found: Tensor, what: str, tolerance: float = TOLERANCE, remedy: str = "tombola wrote nothing"
) -> float:
    """Return the largest difference, relative to the largest expected output.

    Raises:
        InputError: it is larger than `tolerance`, or not a number.
    """
    largest = float((expected - found).abs().max())
    relative = largest / max(float(expected.abs().max()), 1e-30)
    if not relative <= tolerance:
        raise InputError(
            f"{what} does not match PyTorch: the largest difference is {largest:.3g}, {relative:.2%} of the largest "
            f"output, but at most {tolerance:.2%} is allowed; {remedy}"
        )
    return relative
