"""Masks: the kept weights of each parameter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tombola.errors import InputError
from tombola.memory import layout
from tombola.pruning import mask_formats as formats
from tombola.pruning.holding import Hold, held, hold
from tombola.pruning.mask_file import read_mask, write_mask
from tombola.pruning.mask_table import mask_table
from tombola.pruning.parameters import matching_parameters, unwrapped


class Mask(Mapping[str, Tensor]):
    """A map from parameter name to a bool tensor of its shape: True for kept weights.

    A mask never changes. Do not change the tensors that it returns.

    >>> mask = Mask({"fc.weight": torch.tensor([[True, False], [True, True]])})
    >>> mask.remaining, mask.total, mask.density
    (3, 4, 0.75)
    """

    def __init__(self, keep: Mapping[str, Tensor]):
        for name, tensor in keep.items():
            if tensor.dtype != torch.bool:
                raise TypeError(f"mask of {name!r} is {tensor.dtype}, not torch.bool")
        # Copied, so that nobody can change a mask behind its back.
        self._keep = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in keep.items()
        }

    @classmethod
    def full(cls, shapes: Mapping[str, tuple[int, ...]]) -> Mask:
        """Return the mask of a dense network, which keeps all weights."""
        return cls({name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()})

    def __getitem__(self, name: str) -> Tensor:
        return self._keep[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._keep)

    def __len__(self) -> int:
        return len(self._keep)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return self.keys() == other.keys() and all(torch.equal(self[name], other[name]) for name in self)

    __hash__ = None  # type: ignore[assignment]  # compared by content, and too large to hash by it

    def __repr__(self) -> str:
        return f"Mask({self.remaining:,} of {self.total:,} weights, {self.density:.2%})"

    @property
    def total(self) -> int:
        """Number of prunable weights."""
        return sum(keep.numel() for keep in self.values())

    @property
    def remaining(self) -> int:
        """Number of kept weights."""
        return sum(self.counts().values())

    @property
    def density(self) -> float:
        """Kept / prunable, from 0 to 1 (the paper's Pm divided by 100)."""
        return self.remaining / self.total if self.total else 1.0

    @property
    def is_full(self) -> bool:
        """Whether nothing is pruned."""
        return self.remaining == self.total

    def counts(self) -> dict[str, int]:
        """Return the number of kept weights of each layer."""
        return {name: int(keep.sum()) for name, keep in self.items()}

    def densities(self) -> dict[str, float]:
        """Return kept / prunable of each layer, from 0 to 1."""
        return {name: count / self[name].numel() if count else 0.0 for name, count in self.counts().items()}

    def __and__(self, other: Mask) -> Mask:
        self._require_same_layers(other)
        return Mask({name: self[name] & other[name] for name in self})

    def __le__(self, other: Mask) -> bool:
        """Return whether every weight kept here is also kept in `other`."""
        self._require_same_layers(other)
        return all(bool((self[name] <= other[name]).all()) for name in self)

    def overlap(self, other: Mask) -> float:
        """Return the Jaccard index: kept in both / kept in either; 1 if neither keeps a weight."""
        self._require_same_layers(other)
        either = sum(int((self[name] | other[name]).sum()) for name in self)
        return (self & other).remaining / either if either else 1.0

    def apply(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a copy of `weights` with exactly 0.0 for every pruned weight. Other tensors are copied unchanged.

        A tied weight is pruned under each of its names, if these share their memory, as in a module's `state_dict()`.
        """
        keep_at = {layout(weights[name]): keep for name, keep in self.items() if name in weights}
        found = {}
        for name, tensor in weights.items():
            keep = self.get(name, keep_at.get(layout(tensor)))
            copied = tensor.detach().clone()
            found[name] = copied if keep is None else copied.masked_fill_(~keep.to(tensor.device), 0.0)
        return found

    def apply_(self, module: nn.Module) -> None:
        """Set the pruned weights of `module` to exactly 0.0, in place, once.

        Raises:
            InputError: the mask is of another network.
        """
        parameters = matching_parameters(self, unwrapped(self, module))
        with torch.no_grad():
            for name, keep in self.items():
                parameters[name].masked_fill_(~keep.to(parameters[name].device), 0.0)

    def hold_(self, module: nn.Module, optimizer: Optimizer | None = None, reset_state: bool = False) -> Hold:
        """Prune `module` in place, and keep it pruned while any loop trains it, under any optimiser.

        Pruned weights are exactly 0.0 after each step and in each forward. Copies of the module hold the mask too. A
        second call replaces the mask. `tombola.pruning.holding` explains the hooks, and docs/api.md lists the
        exceptions.

        >>> model = nn.Linear(2, 1)
        >>> hold = Mask({"weight": torch.tensor([[True, False]])}).hold_(model)
        >>> model.weight[0, 1].item()
        0.0
        >>> hold.release()

        Args:
            module: the network, also inside torch.compile's or DDP's wrapper.
            optimizer: the optimiser to check now. Without it, `hold_` checks each optimiser before its first step.
            reset_state: clear the state of `optimizer` at pruned places instead of refusing it.

        Returns:
            a handle: `release()` lets the weights train again, `apply()` sets them to zero after a change that no hook
            sees, and `revived()` counts those that are not zero.

        Raises:
            InputError: the mask is of another network, a parameter can't be held, the optimiser has state at pruned
                places or trains other weights, or the processes of a DDP module have different masks.
        """
        return hold(self, module, optimizer, reset_state)

    @classmethod
    def held(cls, module: nn.Module) -> Mask:
        """Return the mask that holds `module`; a mask without layers if none does."""
        return cls(held(module))

    def pack(self) -> dict[str, Tensor]:
        """Return each layer's mask as uint8 bits, eight weights per byte, row-major."""
        return {name: torch.from_numpy(np.packbits(keep.numpy())) for name, keep in self.items()}

    @classmethod
    def unpack(cls, packed: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Mask:
        """Return the mask from the output of `pack`; `shapes` has the shape of each layer.

        Raises:
            ValueError: the number of bits of a layer does not fit its shape.
        """
        keep = {}
        for name, bits in packed.items():
            size = math.prod(shapes[name])
            if bits.dtype != torch.uint8 or bits.dim() != 1 or bits.numel() != -(-size // 8):
                raise ValueError(
                    f"{name!r} of shape {tuple(shapes[name])} is not packed in {tuple(bits.shape)} {bits.dtype}"
                )
            flat = np.unpackbits(bits.numpy(), count=size).astype(bool)
            keep[name] = torch.from_numpy(flat).reshape(tuple(shapes[name]))
        return cls(keep)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each layer."""
        return {name: tuple(keep.shape) for name, keep in self.items()}

    def save(self, path: str | Path) -> None:
        """Write the mask as a safetensors file of packed bits, with a checksum.

        Raises:
            StoreError: the file can't be written.
        """
        write_mask(self.pack(), self.shapes(), Path(path))

    @classmethod
    def load(cls, path: str | Path, unchecked: bool = False) -> Mask:
        """Read a file from `save`.

        Args:
            path: the file.
            unchecked: also read a file of tombola 0.1, which has no checksum. An altered file then loads as another
                mask.

        Raises:
            InputError: the file is missing, damaged, or not a mask.
        """
        packed, shapes = read_mask(Path(path), unchecked)
        try:
            return cls.unpack(packed, shapes)
        except ValueError as error:
            raise InputError(f"{path} is damaged: {error}; create the mask again") from error

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor], names: Iterable[str] | None = None) -> Mask:
        """Return the mask of a plain state_dict: its zeros are the pruned weights.

        Args:
            weights: tensors by name.
            names: the layers of the mask; by default all tensors of floats with two or more dimensions.

        Raises:
            InputError: `weights` has no such name.
        """
        return cls(formats.from_weights(weights, names))

    @classmethod
    def from_prune(cls, source: nn.Module | Mapping[str, Tensor]) -> Mask:
        """Return the mask of a module that `torch.nn.utils.prune` has pruned, or of its state_dict.

        Raises:
            InputError: it has no pruned parameter, or a mask does not fit its weights or has values other than 0 and 1.
        """
        return cls(formats.from_prune(source))

    def to_prune_(self, module: nn.Module) -> None:
        """Prune `module` by `torch.nn.utils.prune`: `weight` becomes `weight_orig` times `weight_mask`.

        Raises:
            InputError: the mask is of another network, or a mask holds the module.
        """
        formats.to_prune_(self, module)

    def to_prune_state(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a copy of a plain state_dict in the form of a module pruned by `torch.nn.utils.prune`.

        Raises:
            InputError: the state_dict lacks a layer, or has another shape.
        """
        return formats.to_prune_state(self, weights)

    @classmethod
    def from_openlth(cls, path: str | Path) -> Mask:
        """Read the `mask.pth` of OpenLTH: the file, or the folder of a level. It runs no code of the file.

        Raises:
            InputError: the file is missing, damaged, or not a mask.
        """
        return cls(formats.from_openlth(Path(path)))

    def to_openlth(self, path: str | Path, weights: Mapping[str, Tensor] | None = None) -> None:
        """Write the `mask.pth` and `sparsity_report.json` of OpenLTH into a folder.

        Args:
            path: the folder; it is created if missing.
            weights: a state_dict to write as `model.pth`; `tombola.pruning.weights_from_openlth` reads it.

        Raises:
            StoreError: they can't be written.
        """
        formats.to_openlth(self, Path(path), weights)

    def _repr_html_(self) -> str:
        """Return a table for notebooks: each layer's shape, kept weights and density."""
        return mask_table(self)

    def _require_same_layers(self, other: Mask) -> None:
        if self.shapes() != other.shapes():
            raise ValueError(f"masks of different layers: {self.shapes()} and {other.shapes()}")
