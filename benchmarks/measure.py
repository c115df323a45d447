"""A row of the table that the benchmarks print."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Measure:
    """One row: what was measured, what it came to, and what it should come to.

    `value` is the median of the repeats, None where this machine can't measure it; `spread` is (lowest, highest).
    """

    measure: str
    value: float | None
    goal: str
    met: bool | None
    repeats: int
    spread: tuple[float, float] | None
    note: str = ""


def at_least(goal: float) -> Callable[[float], bool]:
    """Return a check that a value reaches `goal`."""
    return lambda value: value >= goal


def summed_up(
    name: str, values: list[float], goal: str, met: Callable[[float], bool | None], note: str = ""
) -> Measure:
    """Return the row for repeated measurements."""
    value = statistics.median(values)
    return Measure(
        name, round(value, 4), goal, met(value), len(values), (round(min(values), 4), round(max(values), 4)), note
    )
