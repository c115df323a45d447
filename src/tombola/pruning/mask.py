"""Which weights of which parameters are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tombola.errors import InputError


class Mask(Mapping[str, Tensor]):
    """A map from parameter name to a bool tensor of its shape: True where the weight is kept.

    Nothing here changes a mask once it is made; do not change the tensors that it hands out either.

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
        """Return the mask of a dense network: everything kept."""
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
        """Return the Jaccard index: kept in both / kept in either; 1 where neither keeps anything."""
        self._require_same_layers(other)
        either = sum(int((self[name] | other[name]).sum()) for name in self)
        return (self & other).remaining / either if either else 1.0

    def apply(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return a copy of `weights` in which every pruned weight is exactly 0.0; other tensors are copied as is."""
        return {
            name: tensor.detach().masked_fill(~self[name].to(tensor.device), 0.0)
            if name in self
            else tensor.detach().clone()
            for name, tensor in weights.items()
        }

    def apply_(self, module: nn.Module) -> None:
        """Set the pruned weights of `module` to exactly 0.0, in place.

        Raises:
            InputError: the mask is of another network.
        """
        parameters = dict(module.named_parameters())
        for name, keep in self.items():
            found = tuple(parameters[name].shape) if name in parameters else "no parameter of that name"
            if found != tuple(keep.shape):
                raise InputError(f"the mask has {name!r} of shape {tuple(keep.shape)}, and this module {found}")
        with torch.no_grad():
            for name, keep in self.items():
                parameters[name].masked_fill_(~keep.to(parameters[name].device), 0.0)

    def hold_(self, module: nn.Module) -> list[RemovableHandle]:
        """Prune `module` in place and keep it so while anyone's loop trains it, under any optimiser of `torch.optim`.

        Gradients of pruned weights become zero, so an optimiser that starts fresh leaves them at exactly 0.0.
        Returns the handles of the hooks; `handle.remove()` lets go.

        Raises:
            InputError: the mask is of another network.
        """
        self.apply_(module)
        parameters = dict(module.named_parameters())
        return [
            parameters[name].register_hook(partial(torch.mul, keep.to(parameters[name])))
            for name, keep in self.items()
            if parameters[name].requires_grad  # a frozen weight stays at zero by itself
        ]

    def pack(self) -> dict[str, Tensor]:
        """Return each layer's mask as uint8 bits, eight weights a byte, row-major."""
        return {name: torch.from_numpy(np.packbits(keep.numpy())) for name, keep in self.items()}

    @classmethod
    def unpack(cls, packed: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Mask:
        """Return the mask that `pack` gave `packed` for; `shapes` has the shape of each layer."""
        keep = {}
        for name, bits in packed.items():
            size = int(np.prod(shapes[name]))
            flat = np.unpackbits(bits.numpy(), count=size).astype(bool)
            keep[name] = torch.from_numpy(flat).reshape(tuple(shapes[name]))
        return cls(keep)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each layer."""
        return {name: tuple(keep.shape) for name, keep in self.items()}

    def save(self, path: str | Path) -> None:
        """Write the mask as a safetensors file of packed bits."""
        save_file(self.pack(), str(path), metadata={"shapes": json.dumps(self.shapes())})

    @classmethod
    def load(cls, path: str | Path) -> Mask:
        """Read what `save` wrote.

        Raises:
            InputError: the file is not there, or holds no mask.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                shapes = json.loads((file.metadata() or {})["shapes"])
                return cls.unpack({name: file.get_tensor(name) for name in shapes}, shapes)
        except KeyError as error:
            raise InputError(
                f"{path} holds no mask that `Mask.save` wrote (of a ticket: Ticket.load(...).mask)"
            ) from error
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} can't be read as a mask: {error}") from error

    def _require_same_layers(self, other: Mask) -> None:
        if self.shapes() != other.shapes():
            raise ValueError(f"masks of different layers: {self.shapes()} and {other.shapes()}")
