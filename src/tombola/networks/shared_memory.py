"""Which parameters and buffers of two modules lie in the same memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from torch import Tensor, nn

Extent = tuple[str, int, int]  # device, first byte, byte after the last


def shared_memory(one: nn.Module, other: nn.Module) -> tuple[str, ...]:
    """Return the names in `other` of parameters and buffers whose memory overlaps that of a tensor of `one`.

    Tensors without memory of their own (meta, sparse, not yet initialised) count as not shared.
    """
    mine = [extent for _, extent in _extents(one)]
    return tuple(
        name
        for name, (device, first, end) in _extents(other)
        if any(device == where and first < last and start < end for where, start, last in mine)
    )


def _extents(module: nn.Module) -> Iterator[tuple[str, Extent]]:
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if (extent := _extent(tensor)) is not None:
            yield name, extent


def _extent(tensor: Tensor) -> Extent | None:
    try:
        if tensor.is_meta or not tensor.numel():
            return None
        span = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
        return str(tensor.device), tensor.data_ptr(), tensor.data_ptr() + span * tensor.element_size()
    except (RuntimeError, ValueError, NotImplementedError):
        return None
