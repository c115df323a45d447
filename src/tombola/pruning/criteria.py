"""Criteria: functions that score weights. The lowest scores go first; selection is another function's work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class Snapshots:
    """What a criterion may look at: the prunable weights of a run by name, at four moments.

    Args:
        init: the original initialisation of the dense network.
        start: what this run started from (masked).
        best: at the lowest validation loss.
        final: after the last step.
    """

    init: State
    start: State
    best: State
    final: State


Criterion = Callable[[Snapshots], Mapping[str, Tensor]]


def magnitude(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score |w| after training (Frankle & Carbin 2019, Section 1)."""
    return {name: weight.abs() for name, weight in snapshots.final.items()}


CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
}
