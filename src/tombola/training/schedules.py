"""Schedules of the learning rate: the factor of each iteration after warmup, as a pure function."""

from __future__ import annotations

import math
from collections.abc import Callable

from tombola.errors import InputError
from tombola.registry import resolve

Schedule = Callable[[int, int], float]  # (iteration, budget) -> factor of the peak rate

RISE, FIRST, LAST = 0.3, 1 / 25, 1e-4  # of onecycle: share that rises, first factor, last factor as a share of that


def onecycle(iteration: int, budget: int) -> float:
    """Return the factor of the one-cycle policy (Smith & Topin 2018), in two cosines as PyTorch's defaults have it.

    It rises from 1/25 to 1 over the first 30 % of the budget, then falls to 1/250,000. Momentum stays as it is.
    """
    top, end = RISE * budget - 1, budget - 1
    if top > 0 and iteration <= top:
        return _between(FIRST, 1.0, iteration / top)
    return _between(1.0, FIRST * LAST, min(1.0, (iteration - top) / max(1e-12, end - top)))


def _between(start: float, end: float, done: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * done))


def own_factor(name: str, iteration: int, budget: int) -> float:
    """Return the factor that a user's schedule gives for an iteration.

    Raises:
        InputError: the function does not exist, it fails, or it gives no finite number from 0.
    """
    where = f"training.schedule={name!r}"
    function = resolve(name, {}, "schedule")
    try:
        factor = float(function(iteration, budget))
    except Exception as error:
        raise InputError(
            f"{where} failed at iteration {iteration} of {budget}: {type(error).__name__}: {error}; tombola calls it "
            "as schedule(iteration, budget); it must return the factor of training.lr"
        ) from error
    if not (math.isfinite(factor) and factor >= 0):
        raise InputError(
            f"{where} gave {factor} at iteration {iteration} of {budget}; the factor must be a number of 0 or more"
        )
    return factor
