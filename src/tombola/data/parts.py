"""What training sees of a data set: three parts, whose tensors lie on the device with the examples first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, ClassVar, Protocol

import torch
from torch import Generator, Tensor

from tombola.data.dataset import Description, OneShape, Shape, Tokens, is_one_shape

AHEAD = 64  # iterations whose example numbers are drawn together

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

    def zeros(shape: OneShape, dtype: str, tokens: Any) -> Tensor:
        return torch.zeros(examples, *shape, dtype=getattr(torch, dtype))

    return made_of(zeros, data.input_shape, data.input_dtype, data.tokens)


def random_inputs(data: Description, examples: int, generator: Generator) -> Tensors:
    """Return random inputs of the shape and type of a data set's, on the CPU."""
    return random_tensors(data.input_shape, data.input_dtype, data.tokens, examples, generator)


def random_tensors(shape: Shape, dtype: Any, classes: Any, examples: int, generator: Generator) -> Tensors:
    """Return tensors [examples, *shape] on the CPU: whole numbers below `classes`, Gaussian ones of another type."""

    def drawn(shape: OneShape, dtype: str, classes: int | None) -> Tensor:
        if dtype in ("int64", "bool"):
            numbers = torch.randint(2 if dtype == "bool" else classes or 1, (examples, *shape), generator=generator)
            return numbers.bool() if dtype == "bool" else numbers
        return torch.randn(examples, *shape, generator=generator)

    return made_of(drawn, shape, dtype, classes)


def made_of(function: Callable[[OneShape, str, Any], Tensor], shape: Shape, dtype: Any, classes: Any) -> Tensors:
    """Return what a function makes of each (shape, dtype, number of classes), in the structure of the shapes."""
    if isinstance(shape, dict):
        return {name: function(each, _of(dtype, name), _of(classes, name)) for name, each in shape.items()}
    if not is_one_shape(shape):
        return tuple(function(each, _of(dtype, place), _of(classes, place)) for place, each in enumerate(shape))
    return function(shape, dtype, classes)


def _of(structure: Any, place: Any) -> Any:
    return structure[place] if isinstance(structure, dict | tuple) else structure


Order = Callable[[int, int], Tensor]  # (first, count) -> int64 [count, batch]: the examples of these iterations


class Examples(Protocol):
    """All examples of a part of the data: a `Part` that lies on the device, or a `StreamedPart` that is read.

    Attributes:
        streams: whether examples are read when they are needed; only a `Part` has them as tensors.
    """

    streams: ClassVar[bool]

    def __len__(self) -> int: ...

    @property
    def device(self) -> torch.device:
        """Where training gets its batches."""
        ...

    @property
    def targets(self) -> Tensors:
        """The targets of all examples."""
        ...

    @property
    def example(self) -> Part:
        """The first example, as a batch of one."""
        ...

    def select(self, rows: Tensor | slice) -> Part:
        """Return some examples: those that an int64 tensor names, or a slice."""
        ...

    def blocks(self, rows: Iterable[slice]) -> Iterator[Part]:
        """Yield the examples of each slice."""
        ...

    def batches(self, order: Order, first: int) -> Iterator[Part]:
        """Yield the batch of iteration `first`, and of all that follow."""
        ...

    def with_targets(self, function: Callable[[Tensors], Tensors]) -> Examples:
        """Return the examples with what a function makes of their targets."""
        ...

    def close(self) -> None:
        """End the processes that read."""
        ...


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
    streams: ClassVar[bool] = False

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

    @property
    def example(self) -> Part:
        """The first example, as a batch of one."""
        return self.select(slice(1))

    def blocks(self, rows: Iterable[slice]) -> Iterator[Part]:
        """Yield the examples of each slice, as views."""
        return map(self.select, rows)

    def batches(self, order: Order, first: int) -> Iterator[Part]:
        """Yield the batch of iteration `first`, and of all that follow."""
        for iteration in count(first, AHEAD):
            # Moved to the device together: a transfer takes longer than a small step.
            yield from map(self.select, order(iteration, AHEAD).to(self.device))

    def with_targets(self, function: Callable[[Tensors], Tensors]) -> Part:
        """Return the part with what a function makes of its targets."""
        return replace(self, targets=function(self.targets))

    def close(self) -> None:
        """Do nothing: no process reads a part that is in memory."""


def held(examples: Examples) -> Part:
    """Return examples that an engine needs as tensors.

    Raises:
        ValueError: they are streamed.
    """
    if not isinstance(examples, Part):
        raise ValueError("this engine needs its data in memory; the dense engine trains on streamed data")
    return examples


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

    train: Examples
    validation: Examples
    test: Examples
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int | None = None
    tokens: Tokens = None

    def with_targets(self, function: Callable[[Tensors], Tensors]) -> Splits:
        """Return the splits with what a function makes of each part's targets."""

        return replace(
            self,
            train=self.train.with_targets(function),
            validation=self.validation.with_targets(function),
            test=self.test.with_targets(function),
        )

    def close(self) -> None:
        """End the processes that read streamed data; the next use starts them again."""
        for part in (self.train, self.validation, self.test):
            part.close()

    @property
    def input_shape(self) -> Shape:
        """Shape of one example."""
        return each_tensor(_shape, self.train.example.inputs)

    @property
    def description(self) -> Description:
        """What a network and a task must know of the data, in the form of a data set that is not split."""
        example = self.train.example
        return Description(
            input_shape=self.input_shape,
            classes=self.classes,
            train=len(self.train) + len(self.validation),
            test=len(self.test),
            output_shape=each_tensor(_shape, example.targets),
            input_dtype=each_tensor(_dtype, example.inputs),
            target_dtype=each_tensor(_dtype, example.targets),
            tokens=self.tokens,
        )
