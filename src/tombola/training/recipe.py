"""How a network is trained: optimiser, learning rate, budget."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tombola.data.augment import KINDS, Kind
from tombola.section import MOST_ITERATIONS, MOST_MILESTONES, Section


class Recipe(Section):
    """The `training` section of a study.

    Args:
        optimizer: "adam" (beta 0.9 and 0.999, epsilon 1e-8) or "sgd".
        lr: peak learning rate.
        momentum: of SGD.
        weight_decay: L2 penalty added to the gradient of every parameter, as `torch.optim` does it.
        batch_size: examples a step.
        iterations, epochs: the budget; exactly one of them.
        evaluate_every: iterations between evaluations on validation and test, or "epoch"; also done before the first
            step and after the last.
        patience: training ends early after that many evaluations in a row without a lower validation loss; None
            trains the whole budget, as the paper does.
        schedule: of the learning rate after warmup: "constant"; "step", multiplied by `gamma` at each milestone;
            "cosine", down to 0 at the end of the budget.
        milestones: iterations at which "step" falls.
        gamma: factor of "step".
        warmup: iterations over which the learning rate first rises linearly from 0.
        augment: what is done to the images of each training batch, see `tombola.data.augment`: "flip", "crop".
        precision: "bfloat16" computes products and convolutions in that (weights, optimiser and loss stay float32):
            faster where the hardware has it, and other results to about two decimal digits of each product.
    """

    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    batch_size: int = Field(ge=1, le=MOST_ITERATIONS)
    iterations: int | None = Field(default=None, ge=1, le=MOST_ITERATIONS)
    epochs: float | None = Field(default=None, gt=0, le=MOST_ITERATIONS)
    evaluate_every: Annotated[int, Field(ge=1, le=MOST_ITERATIONS)] | Literal["epoch"] = 100
    patience: int | None = Field(default=None, ge=1, le=MOST_ITERATIONS)
    schedule: Literal["constant", "step", "cosine"] = "constant"
    milestones: tuple[Annotated[int, Field(le=MOST_ITERATIONS)], ...] = Field(default=(), max_length=MOST_MILESTONES)
    gamma: float = Field(default=0.1, gt=0, le=10)
    warmup: int = Field(default=0, ge=0, le=MOST_ITERATIONS)
    augment: tuple[Kind, ...] = ()
    precision: Literal["float32", "bfloat16"] = "float32"

    @field_validator("augment")
    @classmethod
    def _in_one_order(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        """The order in which they are named makes no difference, so it must make none to a job's identity."""
        if len(set(kinds)) < len(kinds):
            raise ValueError("names one augmentation twice; each is done once")
        return tuple(kind for kind in KINDS if kind in kinds)

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if (self.iterations is None) == (self.epochs is None):
            raise ValueError("give the budget as iterations or as epochs: exactly one of them")
        if self.optimizer == "adam" and self.momentum:
            raise ValueError("momentum belongs to optimizer: sgd; adam has its own")
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError("milestones and schedule: step go together")
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError("milestones are iterations above 0, rising")
        if self.iterations is not None and self.warmup > self.iterations:
            raise ValueError(f"warmup={self.warmup} is longer than the budget of {self.iterations} iterations")
        return self

    def changed(self, fields: Mapping[str, Any]) -> Recipe:
        """Return the recipe with some fields replaced; a budget takes the place of the other kind's.

        Raises:
            ValidationError: they don't go together.
        """
        if not fields:
            return self
        settings = self.model_dump()
        for mine, other in (("iterations", "epochs"), ("epochs", "iterations")):
            if mine in fields:
                settings[other] = None
        return Recipe.model_validate(settings | dict(fields))

    def budget(self, epoch_length: int) -> int:
        """Return the number of iterations; `epoch_length` is in iterations."""
        if self.iterations is not None:
            return self.iterations
        assert self.epochs is not None
        return max(1, round(self.epochs * epoch_length))

    def interval(self, epoch_length: int) -> int:
        """Return the number of iterations between evaluations; `epoch_length` is in iterations."""
        return epoch_length if self.evaluate_every == "epoch" else self.evaluate_every

    def learning_rate(self, iteration: int, budget: int) -> float:
        """Return the learning rate of the step that leads from `iteration` to `iteration + 1`."""
        if iteration < self.warmup:
            return self.lr * (iteration + 1) / self.warmup
        if self.schedule == "step":
            return self.lr * self.gamma ** sum(iteration >= milestone for milestone in self.milestones)
        if self.schedule == "cosine":
            done = (iteration - self.warmup) / max(1, budget - self.warmup)
            return self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.lr
