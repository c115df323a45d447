"""Where tensors lie in memory: tied weights and views share theirs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

Extent = tuple[str, int, int]  # device, first byte, byte after the last


def extent(tensor: Tensor) -> Extent | None:
    """Return the bytes that a tensor spans; None without memory of its own: empty, meta, sparse, not initialised."""
    try:
        if tensor.is_meta or tensor.layout != torch.strided or not tensor.numel():
            return None
        span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        return str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + span * tensor.element_size()
    except (RuntimeError, ValueError):
        return None


def overlap(one: Extent, other: Extent) -> bool:
    """Return whether two extents have a byte in common."""
    return one[0] == other[0] and one[1] < other[2] and other[1] < one[2]


def layout(tensor: Tensor) -> tuple[Any, ...]:
    """Return what all names of one tied weight have in common, and nothing else has: memory, shape and order."""
    found = extent(tensor)
    return (id(tensor),) if found is None else (*found, tensor.dtype, tuple(tensor.shape), tensor.stride())


def shared_memory(one: nn.Module, other: nn.Module) -> tuple[str, ...]:
    """Return the names in `other` of parameters and buffers whose memory overlaps that of a tensor of `one`."""
    mine = [each for _, each in _extents(one)]
    return tuple(name for name, each in _extents(other) if any(overlap(each, known) for known in mine))


def _extents(module: nn.Module) -> Iterator[tuple[str, Extent]]:
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if (found := extent(tensor)) is not None:
            yield name, found
