"""One class for each example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Generator, Tensor
from torch.nn import functional

from tombola.data import Description, Examples, Part, balanced
from tombola.data.dataset import Shape
from tombola.errors import InputError
from tombola.tasks.metric import ACCURACY, Metric
from tombola.tasks.task import Task


class Classification(Task):
    """One class for each example: mean cross-entropy in nats, and accuracy.

    The network returns [N, C] class scores, the data int64 [N] class numbers; C may be larger than the number of
    classes.

    Args:
        label_smoothing: share of the target that is spread evenly over all classes.
        class_weights: factor of each class's loss, in the order of class numbers; the mean loss is then the weighted
            mean.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY,)
    has_logits: ClassVar[bool] = True

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: tuple[float, ...] | None = None

    @field_validator("class_weights", mode="before")
    @classmethod
    def _list(cls, weights: Any) -> Any:
        if isinstance(weights, str):
            raise ValueError("must be a list of numbers, one for each class, such as [1.0, 3.5]")
        return weights

    @field_validator("class_weights")
    @classmethod
    def _positive(cls, weights: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if weights is not None and (not all(weight >= 0 for weight in weights) or not any(weights)):
            raise ValueError("must be 0 or more, and at least one above 0")
        return weights

    @property
    def plain_cross_entropy(self) -> bool:
        """Whether neither smoothing nor weights are asked for; never of a subclass, which may change anything."""
        return type(self) is Classification and not self.label_smoothing and self.class_weights is None

    def loss(self, output: Tensor, batch: Part) -> Tensor:
        """Return the mean cross-entropy."""
        return self._cross_entropy(output, batch.targets, "mean")

    def sums(self, output: Tensor, batch: Part) -> Tensor:
        """Return float64 [4]: summed loss, its summed weights, number of right answers, number of examples."""
        targets = batch.targets
        loss = self._cross_entropy(output, targets, "sum").double()
        right = (output.argmax(1) == targets).sum().double()
        examples = loss.new_tensor(len(targets))
        weight = examples if self.class_weights is None else self._weights(output)[targets].double().sum()
        return torch.stack([loss, weight, right, examples])

    def scores(self, sums: Sequence[float]) -> tuple[float, ...]:
        """Return loss and accuracy."""
        loss, weight, right, examples = sums
        return loss / weight if weight else math.nan, right / examples

    def _cross_entropy(self, output: Tensor, targets: Tensor, reduction: str) -> Tensor:
        weights = None if self.class_weights is None else self._weights(output)
        return functional.cross_entropy(
            output, targets, weight=weights, label_smoothing=self.label_smoothing, reduction=reduction
        )

    def _weights(self, output: Tensor) -> Tensor:
        """Return the weights of all C classes; of those that the data do not have it makes no difference."""
        assert self.class_weights is not None
        weights = torch.ones(output.shape[1], dtype=output.dtype, device=output.device)
        weights[: len(self.class_weights)] = weights.new_tensor(self.class_weights)
        return weights

    def check_data(self, data: Description, source: str) -> None:
        """Check that the targets are class numbers, and that each class has a training example."""
        if data.label_fault:
            raise InputError(f"{source}: {data.label_fault}")
        if data.classes is None or data.output_shape != ():
            raise InputError(
                f"task: classification needs one class number for each example, but {source} has {kind_of(data)}; "
                "choose another task, or give class numbers from 0 as int64 [N]"
            )
        if self.class_weights is not None and len(self.class_weights) != data.classes:
            raise InputError(
                f"task.class_weights lists {len(self.class_weights)} weights, but {source} has {data.classes} classes"
            )

    def check_output(self, output: Any, batch: Part, data: Description, source: str) -> None:
        """Check that there is a row of class scores for each example."""
        if not isinstance(output, Tensor) or output.dim() != 2 or len(output) != len(batch):
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise InputError(
                f"the network must return one row of class scores per example; for {len(batch)} examples it returned "
                f"{got}; change what forward returns"
            )
        if data.classes is not None and output.shape[1] < data.classes:
            raise InputError(
                f"the network returns {output.shape[1]} scores per example, but {source} has {data.classes} classes"
            )

    def chance(self, data: Description) -> float | None:
        """Return 1 / classes."""
        return None if data.classes is None else 1 / data.classes

    def made_up_targets(self, data: Description, examples: int, generator: Generator) -> Tensor:
        """Return class numbers, every class as often as the others."""
        return torch.arange(data.classes or 1).repeat(-(-examples // (data.classes or 1)))[:examples]

    def few(self, part: Examples, each: int, generator: Generator) -> Tensor:
        """Return as many examples of each class, in random order."""
        return balanced(part.targets, each, generator)

    def few_count(self, data: Description, each: int) -> int:
        """Return `each` times the number of classes."""
        return each * (data.classes or 1)


def kind_of(data: Description) -> str:
    """Return in words what the targets of a data set are."""
    if data.output_shape is None:
        return "no targets"
    if data.classes is not None and data.output_shape == ():
        return f"class numbers of {data.classes} classes"
    return f"targets of type {data.target_dtype} and shape {_with_examples(data.output_shape)}"


def _with_examples(shape: Shape) -> str:
    if isinstance(shape, dict) or (shape and isinstance(shape[0], tuple)):
        return str(shape)
    return f"({', '.join(['N', *map(str, shape)])}{',' if not shape else ''})"
