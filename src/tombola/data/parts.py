"""What training sees of a data set: three parts, whose tensors lie on the device with the examples first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tombola.data.dataset import Description, Shape, Tokens, is_one_shape

# A tensor, a tuple of tensors or a dict of tensors: `module(x)`, `module(*tuple)` or `module(**dict)`.
Tensors = Any


def each_tensor(function: Callable[[Tensor], Any], tensors: Tensors) -> Any:
    """Return what a function makes of each tensor, in the same structure; None stays None."""
    if tensors is None:
        return None
    if isinstance(tensors, dict):
        return {name: function(tensor) for name, tensor in tensors.items()}
    if isinstance(tensors, tuple):
        return tuple(function(tensor) for tensor in tensors)
    return function(tensors)


def first_tensor(tensors: Tensors) -> Tensor:
    """Return the first tensor of a structure."""
    if isinstance(tensors, dict):
        tensors = tuple(tensors.values())
    return tensors[0] if isinstance(tensors, tuple) else tensors


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[1:])


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def blank_inputs(data: Description, examples: int = 2) -> Tensors:
    """Return inputs of zeros, of the shape and type of a data set's: what a network is examined with."""

    def zeros(shape: Shape, dtype: Any) -> Any:
        if isinstance(shape, dict):
            return {name: zeros(each, dtype[name]) for name, each in shape.items()}
        if not is_one_shape(shape):
            return tuple(map(zeros, shape, dtype))
        return torch.zeros(examples, *shape, dtype=getattr(torch, dtype))

    return zeros(data.input_shape, data.input_dtype)


@dataclass(frozen=True)
class Part:
    """Examples that are used together: all of a part of the data, or a batch of it.

    Args:
        inputs: a tensor [N, ...], or a tuple or dict of such tensors for a network with several inputs. float32 and
            normalised, or int64 token ids as they are.
        targets: the same; class numbers are int64 [N]. None where the task takes its targets from the inputs.
    """

    inputs: Tensors
    targets: Tensors = None

    def __len__(self) -> int:
        return len(first_tensor(self.inputs))

    def select(self, rows: Tensor | slice) -> Part:
        """Return some examples: a copy of those that an int64 tensor names, or a view of a slice."""

        def chosen(tensor: Tensor) -> Tensor:
            return tensor[rows] if isinstance(rows, slice) else tensor.index_select(0, rows)

        return Part(each_tensor(chosen, self.inputs), each_tensor(chosen, self.targets))

    def to(self, device: torch.device | str) -> Part:
        """Return the part on a device."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device)

        return Part(each_tensor(moved, self.inputs), each_tensor(moved, self.targets))

    @property
    def device(self) -> torch.device:
        """Where the tensors lie."""
        return first_tensor(self.inputs).device


@dataclass(frozen=True)
class Splits:
    """A data set split for one trial.

    Args:
        train, validation, test: the parts. Validation is drawn from the training set; selection looks at it alone.
        mean, std: constants of the normalisation, one a channel or feature or one in all, measured on `train`, in units
            of the raw data / scale. Empty where inputs stay as they are.
        classes: number of classes; None where the targets are not class numbers.
        tokens: number of token ids, structured as the inputs; None where they are not token ids.
    """

    train: Part
    validation: Part
    test: Part
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int | None = None
    tokens: Tokens = None

    def with_targets(self, function: Callable[[Tensors], Tensors]) -> Splits:
        """Return the splits with what a function makes of each part's targets."""

        def changed(part: Part) -> Part:
            return replace(part, targets=function(part.targets))

        parts = {"train": changed(self.train), "validation": changed(self.validation), "test": changed(self.test)}
        return replace(self, **parts)  # type: ignore[arg-type]  # of three of the fields

    @property
    def input_shape(self) -> Shape:
        """Shape of one example."""
        return each_tensor(_shape, self.train.inputs)

    @property
    def description(self) -> Description:
        """What a network and a task must know of the data, in the form of a data set that is not split."""
        return Description(
            input_shape=self.input_shape,
            classes=self.classes,
            train=len(self.train) + len(self.validation),
            test=len(self.test),
            output_shape=each_tensor(_shape, self.train.targets),
            input_dtype=each_tensor(_dtype, self.train.inputs),
            target_dtype=each_tensor(_dtype, self.train.targets),
            tokens=self.tokens,
        )
