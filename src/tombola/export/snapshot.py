"""Is a network still what it was when something was made of it?"""

from __future__ import annotations

import copy
from itertools import chain
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module

TABLES = ("_modules", "_parameters", "_buffers", "_forward_hooks", "_forward_pre_hooks")
"""What decides on a layer's forward pass, besides its code and its mode."""

EVERYWHERE = (every_module._global_forward_hooks, every_module._global_forward_pre_hooks)
"""Hooks of every network."""

_mode, _version, _requires_grad = (attrgetter(name) for name in ("training", "_version", "requires_grad"))


class Snapshot:
    """A network's layers, hooks, modes and weights as they are now.

    It holds all of them, so that no `id` and no address is given to another one. PyTorch does not count changes in
    place through `tensor.data` or NumPy: they are not seen.

    Args:
        module: the network.
    """

    def __init__(self, module: nn.Module):
        self._module = module
        self._layers = [*module.modules()]
        self._tensors: list[Tensor] = [*module.parameters(), *module.buffers()]
        self._tables: list[dict[Any, Any]] = [getattr(layer, name) for layer in self._layers for name in TABLES]
        self._tables += EVERYWHERE
        self._filled = [table for table in self._tables if table]
        self._holds = [*chain.from_iterable(map(dict.values, self._filled)), *(each.detach() for each in self._tensors)]
        self._first = self._read()

    def __deepcopy__(self, memo: dict[int, Any]) -> Snapshot | None:
        """Return one of the copied network; None if the network has changed, or PyTorch does not count changes."""
        counted = not torch.is_inference_mode_enabled()
        return Snapshot(copy.deepcopy(self._module, memo)) if counted and self.unchanged() else None

    def unchanged(self) -> bool:
        """Return whether the network is as it was."""
        return self._read() == self._first

    def requires_grad(self) -> bool:
        """Return whether any weight of the unchanged network takes gradients."""
        return any(map(_requires_grad, self._tensors))

    def _read(self) -> tuple[list[Any], ...]:
        """Return what is compared. Small networks spend more time here than on numbers: loops are Python's own."""
        return (
            [*map(len, self._tables)],
            [*map(id, chain.from_iterable(map(dict.values, self._filled)))],
            [*map(_mode, self._layers)],
            [*map(_version, self._tensors)],
            [*map(Tensor.data_ptr, self._tensors)],
        )
