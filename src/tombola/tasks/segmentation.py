"""One class for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor
from torch.nn import functional

from tombola.data import Description, Part
from tombola.errors import InputError
from tombola.tasks.classification import kind_of
from tombola.tasks.metric import ACCURACY, Metric
from tombola.tasks.task import Task, ratio, require_tensor

IOU = Metric("iou", "higher", "%")


class Segmentation(Task):
    """One class for each pixel: mean cross-entropy in nats over pixels.

    The network returns [N, C, ...] class scores; the data have int64 [N, ...] class numbers, such as [N, H, W].

    Args:
        metric: "iou", the mean over classes of intersection / union (a class that the part neither has nor is
            predicted counts for nothing, nor does `ignore_index`), or "accuracy", the share of pixels that are right.
        ignore_index: class number of pixels that count for nothing.
        classes: number of classes, where it is not the largest class number of the data + 1.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (IOU, ACCURACY)
    example: ClassVar[str] = "pixel"
    block: ClassVar[int] = 50
    has_logits: ClassVar[bool] = True
    only_shown: ClassVar[tuple[str, ...]] = ("metric",)

    metric: Literal["iou", "accuracy"] = "iou"
    ignore_index: int | None = None
    classes: int | None = Field(default=None, ge=2)

    @property
    def primary(self) -> Metric:
        """The metric that decides."""
        return IOU if self.metric == "iou" else ACCURACY

    def prepared(self, targets: Tensor) -> Tensor:
        """Return int64."""
        return targets.long()

    def outputs(self, data: Description) -> int | None:
        """Return the number of classes."""
        return self.classes or data.classes

    def loss(self, output: Tensor, batch: Part) -> Tensor:
        """Return the mean cross-entropy of the pixels that count."""
        return cross_entropy(output, batch.targets, self.ignore_index)

    def sums(self, output: Tensor, batch: Part) -> Tensor:
        """Return float64 [3 + 3 C]: loss, pixels, right ones; and by class: both, predicted, there."""
        targets, classes = batch.targets, output.shape[1]
        counted = self._counted(targets)
        predicted, there = output.argmax(1)[counted], targets[counted]
        right = predicted[predicted == there]
        by_class = [torch.bincount(each, minlength=classes).double() for each in (right, predicted, there)]
        loss = cross_entropy(output, targets, self.ignore_index, "sum").double()
        pixels = loss.new_tensor([len(there), len(right)])
        return torch.cat([loss[None], pixels, *by_class])

    def scores(self, sums: Sequence[float]) -> tuple[float, ...]:
        """Return loss, mean IoU and accuracy."""
        loss, pixels, right, *counts = sums
        classes = len(counts) // 3
        both = zip(counts[:classes], counts[classes : 2 * classes], counts[2 * classes :], strict=True)
        unions = [(hit, predicted + there - hit) for hit, predicted, there in both]
        # No counted pixel is of the ignored class: one stray prediction would count as a class with IoU 0.
        known = [hit / union for place, (hit, union) in enumerate(unions) if union and place != self.ignore_index]
        return ratio(loss, pixels), ratio(sum(known), len(known)), ratio(right, pixels)

    def _counted(self, targets: Tensor) -> Tensor:
        """Return bool [N, ...]: which pixels count."""
        if self.ignore_index is None:
            return torch.ones_like(targets, dtype=torch.bool)
        return targets.ne(self.ignore_index)

    def check_data(self, data: Description, source: str) -> None:
        """Check that there is a class number for each pixel."""
        if data.target_dtype == "int64" and data.output_shape and not self.outputs(data):
            raise InputError(
                f"task: segmentation: {source} has class numbers below 0, so the data do not give the number of "
                "classes: set task.classes, and task.ignore_index to the number of pixels that count for nothing"
            )
        if data.target_dtype != "int64" or not data.output_shape:
            raise InputError(
                f"task: segmentation needs an integer class number for each pixel, as (N, height, width), but "
                f"{source} has {kind_of(data)}; choose another task, or save such targets"
            )
        ignored = self.ignore_index
        if self.classes is None and ignored is not None and ignored >= 0 and data.classes == ignored + 1:
            raise InputError(
                f"task.ignore_index={ignored} is the largest class number of {source}, so the data do not give the "
                "number of classes: set task.classes"
            )

    def check_output(self, output: Any, batch: Part, data: Description, source: str) -> None:
        """Check that there is a row of class scores for each pixel."""
        pixels, classes = tuple(batch.targets.shape[1:]), self.outputs(data) or 0
        wanted = f"class scores of shape {(len(batch), classes, *pixels)} for {len(batch)} examples"
        shape = tuple(require_tensor(output, wanted).shape)
        if len(shape) < 2 or shape[1] < classes or (shape[0], *shape[2:]) != (len(batch), *pixels):
            raise InputError(f"the network must return {wanted}; it returned {shape}")

    def check_targets(self, targets: Tensor, source: str) -> None:
        """Check that every pixel has a known class or is ignored."""
        if self.classes is None:
            return
        counted = targets[self._counted(targets)]
        if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < self.classes:
            wrong = int(counted.min()) if int(counted.min()) < 0 else int(counted.max())
            raise InputError(
                f"task.classes={self.classes}: {source} has the class number {wrong}; classes are numbered from 0 to "
                f"{self.classes - 1}"
            )

    def chance(self, data: Description) -> float | None:
        """Return 1 / classes for accuracy; the IoU of a guess depends on the data."""
        classes = self.outputs(data)
        return 1 / classes if classes and self.metric == "accuracy" else None

    def made_up_targets(self, data: Description, examples: int, generator: Generator) -> Tensor:
        """Return random class numbers."""
        assert isinstance(data.output_shape, tuple)
        return torch.randint(self.outputs(data) or 1, (examples, *data.output_shape), generator=generator)


def cross_entropy(scores: Tensor, targets: Tensor, ignore_index: int | None, reduction: str = "mean") -> Tensor:
    """Return the cross-entropy of positions that count: their sum, or their mean; 0 where none counts.

    Args:
        scores: [N, C, ...].
        targets: int64 [N, ...].
        ignore_index: class number of positions that do not count.
        reduction: "sum" or "mean".
    """
    ignored = -100 if ignore_index is None else ignore_index
    loss = functional.cross_entropy(scores, targets, ignore_index=ignored, reduction="sum")
    if reduction == "sum":
        return loss
    return loss / (targets != ignored).sum().clamp(min=1)
