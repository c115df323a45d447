"""One or more numbers for each example."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from tombola.data import Description, Part
from tombola.errors import InputError
from tombola.tasks.classification import kind_of
from tombola.tasks.metric import Metric
from tombola.tasks.task import Task, as_dtype, ratio, require_tensor

ROUNDING = 2.0**-46  # of a sum of squares in float64; float32 targets that differ at all have a larger share

RMSE, MAE, R2 = Metric("rmse", "lower"), Metric("mae", "lower"), Metric("r2", "higher")


class Regression(Task):
    """Numbers: mean squared error over all of them.

    The network returns as many numbers as the targets [N] or [N, ...] have; [N, 1] is also possible for [N].

    Args:
        metric: "rmse", the root of the mean squared error; "mae", the mean absolute error; or "r2", the coefficient
            of determination, as a mean over the numbers of an example.
        unit: of the targets, which is also that of rmse and mae; shown behind numbers.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (RMSE, MAE, R2)
    only_shown: ClassVar[tuple[str, ...]] = ("metric", "unit")

    metric: Literal["rmse", "mae", "r2"] = "rmse"
    unit: str = ""

    @property
    def primary(self) -> Metric:
        """The metric that decides."""
        if self.metric == "r2":
            return R2
        return Metric(self.metric, "lower", self.unit)

    def prepared(self, targets: Tensor) -> Tensor:
        """Return float32."""
        return as_dtype(targets, torch.float32)

    def outputs(self, data: Description) -> int | None:
        """Return how many numbers an example has."""
        shape = data.output_shape
        if shape is None or isinstance(shape, dict) or not all(isinstance(size, int) for size in shape):
            return None
        return math.prod(size for size in shape if isinstance(size, int))

    def loss(self, output: Tensor, batch: Part) -> Tensor:
        """Return the mean squared error."""
        return functional.mse_loss(_like(output, batch.targets), batch.targets)

    def sums(self, output: Tensor, batch: Part) -> Tensor:
        """Return float64 [1 + 4 K]: examples; squared and absolute errors, targets and squared targets, each [K]."""
        targets = batch.targets.double().flatten(1) if batch.targets.dim() > 1 else batch.targets.double()[:, None]
        errors = _like(output, batch.targets).double().reshape(targets.shape) - targets
        examples = targets.new_tensor([len(targets)])
        sums = [each.sum(0) for each in (errors.square(), errors.abs(), targets, targets.square())]
        return torch.cat([examples, *sums])

    def scores(self, sums: Sequence[float]) -> tuple[float, ...]:
        """Return loss, RMSE, MAE and R2; R2 is 0 where a target never varies."""
        examples, *rest = sums
        width = len(rest) // 4
        squared, absolute, total, squares = (rest[place * width : (place + 1) * width] for place in range(4))
        error = sum(squared) / (examples * width)
        spreads = [_spread(each, square, examples) for each, square in zip(total, squares, strict=True)]
        shares = [1 - ratio(one, spread, 1.0) for one, spread in zip(squared, spreads, strict=True)]
        return error, math.sqrt(error), sum(absolute) / (examples * width), sum(shares) / width

    def check_data(self, data: Description, source: str) -> None:
        """Check that the targets are numbers."""
        if not self.outputs(data):
            raise InputError(
                f"task: regression needs one array of numbers as targets, but {source} has {kind_of(data)}; choose "
                "another task, or give such targets"
            )

    def check_output(self, output: Any, batch: Part, data: Description, source: str) -> None:
        """Check that there is a number for each target: other shapes would be broadcast, and train on nonsense."""
        wanted = (
            f"as many numbers as there are targets, of shape {tuple(batch.targets.shape)} for {len(batch)} examples"
        )
        if _like(require_tensor(output, wanted), batch.targets).shape != batch.targets.shape:
            raise InputError(f"the network must return {wanted}; it returned {tuple(output.shape)}")

    def chance(self, data: Description) -> float | None:
        """Return 0 for R2, which is that of the mean; errors of a guess depend on the data."""
        return 0.0 if self.metric == "r2" else None


def _like(output: Tensor, targets: Tensor) -> Tensor:
    """Return [N, 1] as [N] where that is the targets' shape."""
    if output.dim() == 2 and targets.dim() == 1 and output.shape[1] == 1:
        return output.squeeze(1)
    return output


def _spread(total: float, squares: float, examples: float) -> float:
    """Return the sum of squared distances from the mean; 0 where nothing but rounding is left of it."""
    spread = squares - total * total / examples
    return spread if spread > ROUNDING * squares else 0.0
