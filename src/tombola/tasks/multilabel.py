"""Any number of labels for each example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Generator, Tensor
from torch.nn import functional

from tombola.data import Description, Part
from tombola.errors import InputError
from tombola.tasks.classification import kind_of
from tombola.tasks.metric import Metric
from tombola.tasks.task import Task, as_dtype, ratio, require_tensor

F1, EXACT = Metric("f1", "higher", "%"), Metric("exact_match", "higher", "%")


class Multilabel(Task):
    """Any number of K labels for each example: mean binary cross-entropy in nats over all labels.

    The network returns [N, K] scores, before a sigmoid; the data have [N, K] targets of 0 and 1.

    Args:
        metric: "f1", the mean over labels of the F1 score (macro F1; a label that the part neither has nor is
            predicted counts for nothing), or "exact_match", the share of examples whose labels are all right.
        threshold: probability from which a label is predicted.
        pos_weight: factor of the loss where a label is there: one for all labels, or a list.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (F1, EXACT)
    has_logits: ClassVar[bool] = True
    only_shown: ClassVar[tuple[str, ...]] = ("metric",)

    metric: Literal["f1", "exact_match"] = "f1"
    threshold: float = Field(default=0.5, gt=0, lt=1)
    pos_weight: float | tuple[float, ...] | None = None

    @field_validator("pos_weight")
    @classmethod
    def _positive(cls, weight: float | tuple[float, ...] | None) -> float | tuple[float, ...] | None:
        values = (weight,) if isinstance(weight, float) else weight or ()
        if not all(value > 0 for value in values):
            raise ValueError("must be above 0")
        return weight

    @property
    def primary(self) -> Metric:
        """The metric that decides."""
        return F1 if self.metric == "f1" else EXACT

    def prepared(self, targets: Tensor) -> Tensor:
        """Return float32."""
        return as_dtype(targets, torch.float32)

    def outputs(self, data: Description) -> int | None:
        """Return the number of labels."""
        shape = data.output_shape
        return shape[0] if isinstance(shape, tuple) and len(shape) == 1 and isinstance(shape[0], int) else None

    def loss(self, output: Tensor, batch: Part) -> Tensor:
        """Return the mean binary cross-entropy."""
        return self._cross_entropy(output, batch.targets, "mean")

    def sums(self, output: Tensor, batch: Part) -> Tensor:
        """Return float64 [4 + 3 K]: loss, its terms, exact matches, examples; true positives, predicted, there."""
        there = batch.targets > 0.5
        predicted = output > math.log(self.threshold / (1 - self.threshold))
        if self.threshold == 0.5:
            predicted = output > 0
        loss = self._cross_entropy(output, batch.targets, "sum").double()
        exact = (predicted == there).all(1).sum().double()
        counts = torch.stack([loss, loss.new_tensor(output.numel()), exact, loss.new_tensor(len(output))])
        return torch.cat([counts, (predicted & there).sum(0), predicted.sum(0), there.sum(0)])

    def scores(self, sums: Sequence[float]) -> tuple[float, ...]:
        """Return loss, macro F1 and the share of exact matches."""
        loss, terms, exact, examples, *counts = sums
        labels = len(counts) // 3
        both = zip(counts[:labels], counts[labels : 2 * labels], counts[2 * labels :], strict=True)
        known = [2 * hit / (predicted + there) for hit, predicted, there in both if predicted + there]
        return loss / terms, ratio(sum(known), len(known)), exact / examples

    def _cross_entropy(self, output: Tensor, targets: Tensor, reduction: str) -> Tensor:
        weight = None if self.pos_weight is None else output.new_tensor(self.pos_weight).expand(output.shape[1])
        return functional.binary_cross_entropy_with_logits(output, targets, pos_weight=weight, reduction=reduction)

    def check_data(self, data: Description, source: str) -> None:
        """Check that the targets are a row of labels for each example."""
        labels = self.outputs(data)
        if labels is None:
            raise InputError(
                f"task: multilabel needs targets of 0 and 1 of shape (N, labels), but {source} has {kind_of(data)}; "
                "choose another task, or save such targets"
            )
        if isinstance(self.pos_weight, tuple) and len(self.pos_weight) != labels:
            raise InputError(f"task.pos_weight lists {len(self.pos_weight)} weights, but {source} has {labels} labels")

    def check_output(self, output: Any, batch: Part, data: Description, source: str) -> None:
        """Check that there is a score for each label."""
        wanted = f"one score for each label, of shape {tuple(batch.targets.shape)} for {len(batch)} examples"
        if require_tensor(output, wanted).shape != batch.targets.shape:
            raise InputError(f"the network must return {wanted}; it returned {tuple(output.shape)}")

    def check_targets(self, targets: Tensor, source: str) -> None:
        """Check that all targets are 0 or 1."""
        if not bool(((targets == 0) | (targets == 1)).all()):
            wrong = targets[(targets != 0) & (targets != 1)][0].item()
            raise InputError(f"task: multilabel takes targets of 0 and 1, but {source} has the target {wrong:g}")

    def made_up_targets(self, data: Description, examples: int, generator: Generator) -> Tensor:
        """Return random labels."""
        return torch.randint(2, (examples, self.outputs(data) or 1), generator=generator).float()
