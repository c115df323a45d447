"""Times several functions in turns, so that what else the machine does hits all of them alike."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

SHORTEST = 20e-6
"""Seconds that a sample lasts at least: several calls of a fast function make one sample."""

ROUND = 0.01
"""Seconds that a function is timed for in each round, or one call."""

WARM_UP = 3


@dataclass(frozen=True, eq=False)
class Timing:
    """How long a function takes.

    Args:
        samples: seconds of one call, in the order they were measured.
    """

    samples: np.ndarray

    @property
    def p50(self) -> float:
        """The median, in seconds."""
        return float(np.quantile(self.samples, 0.5))

    @property
    def p95(self) -> float:
        """The time that 95 % of the calls keep to, in seconds."""
        return float(np.quantile(self.samples, 0.95))

    @property
    def least(self) -> float:
        """The shortest, in seconds: what remains where other programs disturb the others."""
        return float(self.samples.min())


def interleave(calls: Mapping[str, Callable[[], Any]], rounds: int = 20) -> dict[str, Timing]:
    """Return how long each function takes. In each round every function is timed, one after another.

    Args:
        calls: functions by name.
        rounds: how many.
    """
    plans = {name: _plan(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            inner, count = plans[name]
            for _ in range(count):
                samples[name].append(_timed(call, inner))
    return {name: Timing(np.array(values)) for name, values in samples.items()}


def _plan(call: Callable[[], Any]) -> tuple[int, int]:
    """Return how many calls make a sample, and how many samples a round has."""
    for _ in range(WARM_UP):
        call()
    once = min(_timed(call, 1) for _ in range(WARM_UP))
    inner = max(1, round(SHORTEST / max(once, 1e-7)))
    return inner, max(1, min(200, int(ROUND / (inner * once))))


def _timed(call: Callable[[], Any], inner: int) -> float:
    begin = time.perf_counter()
    for _ in range(inner):
        call()
    return (time.perf_counter() - begin) / inner


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Have PyTorch use so many threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
