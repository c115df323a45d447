"""Schedules: which rates lead to the densities that are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tombola.errors import InputError
from tombola.pruning.select import Rates, Scope, after_round

STEPS = 60  # of the bisection: more than a float has bits


def constant_rate(
    sizes: Mapping[str, int],
    target: float,
    rounds: int,
    scope: Scope,
    minimum: int,
    rates_at: Callable[[float], Rates],
) -> float:
    """Return the rate that, the same in every round, leaves the density `target` after `rounds` of them.

    Args:
        sizes: layer -> number of weights.
        target: density of the whole network, 0 to 1.
        scope, minimum: as in `tombola.pruning.select`.
        rates_at: gives the rates of all pruned layers for a rate of those that have none of their own.

    Raises:
        InputError: layers that are excluded, or have rates or a minimum of their own, leave too much or too little.
    """

    def density(rate: float) -> float:
        left, rates = dict(sizes), rates_at(rate)
        for _ in range(rounds):
            left = after_round(left, rates, scope, sizes, minimum)
        return sum(left.values()) / sum(sizes.values())

    return _solve(density, target, "pruning.target")


def rates_to(
    sizes: Mapping[str, int],
    densities: Sequence[float],
    scope: Scope,
    minimum: int,
    rates_at: Callable[[int, float], Rates],
) -> list[float]:
    """Return the rate of each round that leads from one density to the next.

    Arguments and errors are those of `constant_rate`; `rates_at` is called with the round's number, from 0.
    """
    found: list[float] = []
    counts = dict(sizes)
    for level, wanted in enumerate(densities, start=1):

        def density(rate: float, before: Mapping[str, int] = counts, number: int = level - 1) -> float:
            left = after_round(before, rates_at(number, rate), scope, sizes, minimum)
            return sum(left.values()) / sum(sizes.values())

        rate = _solve(density, wanted, f"pruning.densities: level {level}")
        found.append(rate)
        counts = after_round(counts, rates_at(level - 1, rate), scope, sizes, minimum)
    return found


def _solve(density: Callable[[float], float], wanted: float, what: str) -> float:
    """Return the rate at which the falling function `density` comes to `wanted`, by bisection."""
    low, high = 0.0, 1.0
    most, least = density(low), density(high)
    if not least <= wanted <= most:
        raise InputError(
            f"{what}: a density of {wanted:g} can't be reached: excluded layers and layers with their own rates "
            f"allow {least:.4g} to {most:.4g} (under scope layer, the output layer has its own rate: half of the "
            "others', unless pruning.output_rate sets it)"
        )
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if density(middle) > wanted else (low, middle)
    return high
