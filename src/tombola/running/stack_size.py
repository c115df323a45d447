"""How many runs one stack holds: as many as fit, by what stacks of one and of two runs take."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Protocol, TypeVar

import torch

from tombola.training.engine import Engine, ReplicaState
from tombola.training.engines.repeated import PLAIN_STEPS
from tombola.training.recipe import Recipe

SHARE = 0.8  # of the memory that is free: blocks of other sizes leave gaps
HOST_SHARE = 0.25  # of the host's memory that weights of stacked runs may take
COPIES = 4  # of a run's weights on the host, besides snapshots: at start, at the best, at the end, in a checkpoint
Each = TypeVar("Each")


class Memory(Protocol):
    """The memory of a device."""

    def free(self) -> int:
        """Return the bytes that are free."""
        ...

    def peak(self, action: Callable[[], object]) -> int:
        """Return the bytes that an action takes at most, beyond those taken before."""
        ...


class GpuMemory:
    """The memory of a GPU, as PyTorch reserves it.

    Args:
        device: the GPU.
    """

    def __init__(self, device: torch.device):
        self._device = device

    def free(self) -> int:
        """Return the bytes that are free, or reserved but not in use."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)

    def peak(self, action: Callable[[], object]) -> int:
        """Return the bytes that are reserved for an action; a CUDA graph's own are among them."""
        torch.cuda.empty_cache()
        before = torch.cuda.memory_reserved(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        action()
        return torch.cuda.max_memory_reserved(self._device) - before


def memory_of(device: torch.device) -> Memory | None:
    """Return the memory that limits stacks on a device; None on the CPU, where nothing is stacked to be fast."""
    return GpuMemory(device) if device.type == "cuda" else None


class StackSize:
    """The most runs of one network and recipe that a device can train together.

    Args:
        memory: of the device.
        make: makes the engine of some starts.
        starts: two runs, which are not changed.

    Raises:
        torch.OutOfMemoryError: two do not fit.
    """

    def __init__(
        self, memory: Memory, make: Callable[[Sequence[ReplicaState]], Engine], starts: Sequence[ReplicaState]
    ):
        self._memory = memory
        # From the beginning: a run near its end has too few steps left for the measurement.
        starts = [replace(start, iteration=0, optimizer={}) for start in starts]
        one, two = (memory.peak(partial(_use, make, starts[:count])) for count in (1, 2))
        self._each = max(0, two - one)
        self._shared = max(0, one - self._each)

    def most(self) -> int | None:
        """Return how many runs fit into the memory that is free now, at least 1; None where one run takes nothing."""
        if not self._each:
            return None
        return max(1, int((SHARE * self._memory.free() - self._shared) // self._each))


_SIZES: dict[tuple[object, ...], StackSize] = {}  # each is measured once


def most_together(
    starts: Sequence[ReplicaState],
    snapshots: int,
    recipe: Recipe,
    make: Callable[[Sequence[ReplicaState]], Engine],
    device: torch.device,
) -> int:
    """Return how many of some runs to train together.

    Args:
        starts: of one network.
        snapshots: that a run takes at most while it trains.
        recipe: of all of them.
        make: makes the engine of some starts.
        device: where they train.

    Raises:
        torch.OutOfMemoryError: two do not fit.
    """
    memory, first = memory_of(device), starts[0]
    if memory is None or len(starts) < 3:
        return len(starts)
    shapes = tuple((name, tuple(tensor.shape)) for name, tensor in first.weights.items())
    key = (str(device), shapes, first.splits.input_shape, recipe.model_dump_json())
    if key not in _SIZES:
        _SIZES[key] = StackSize(memory, make, starts[:2])
    return min(_SIZES[key].most() or len(starts), most_on_host(first, snapshots), len(starts))


def _use(make: Callable[[Sequence[ReplicaState]], Engine], starts: Sequence[ReplicaState]) -> None:
    """Do what takes the most memory: plain steps, the recorded one, and an evaluation."""
    engine = make(starts)
    engine.advance(PLAIN_STEPS + 1)
    splits = starts[0].splits  # a part may be empty, or smaller than a block of examples that go through together
    engine.evaluate(max(("train", "validation", "test"), key=lambda part: len(getattr(splits, part))))


def most_on_host(start: ReplicaState, snapshots: int) -> int:
    """Return for how many runs the host has memory, at least 1.

    Args:
        start: one of them.
        snapshots: that each takes while it trains.
    """
    bytes_each = (COPIES + snapshots) * sum(tensor.nbytes for tensor in start.weights.values())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(1, int(HOST_SHARE * memory // max(1, bytes_each)))


def evenly(items: Sequence[Each], most: int) -> list[Sequence[Each]]:
    """Return the items in as few parts as possible, of at most `most` items each and of nearly the same size.

    >>> [len(part) for part in evenly(range(65), 64)]
    [33, 32]
    """
    parts = max(1, math.ceil(len(items) / most))
    ends = [round(part * len(items) / parts) for part in range(parts + 1)]
    return [items[begin:end] for begin, end in pairwise(ends)]
