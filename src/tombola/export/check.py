"""Is what was exported the same network?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from tombola.errors import InputError

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket

EXAMPLES = 16
TOLERANCE = 1e-4
"""Largest difference that the order of float32 sums may make, relative to the largest output."""


def examples_for(ticket: Ticket, count: int = EXAMPLES) -> Tensor:
    """Return synthetic inputs of a ticket's network, always the same: float32 [count, ...], as normalised ones are."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *ticket.origin["input_shape"], generator=generator)


def outputs_of(module: nn.Module, inputs: Tensor) -> Tensor:
    """Return what a module gives in evaluation mode."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        result: Tensor = module.eval()(inputs)
    return result


def check_same(expected: Tensor, found: Tensor, what: str, tolerance: float = TOLERANCE) -> float:
    """Return the largest difference, relative to the largest expected output.

    Raises:
        InputError: it is larger than `tolerance`, or not a number.
    """
    largest = float((expected - found).abs().max())
    relative = largest / max(float(expected.abs().max()), 1e-30)
    if not relative <= tolerance:
        raise InputError(
            f"{what} does not match PyTorch: the largest difference is {largest:.3g}, {relative:.2%} of the largest "
            f"output, but at most {tolerance:.2%} is allowed; tombola wrote nothing"
        )
    return relative
