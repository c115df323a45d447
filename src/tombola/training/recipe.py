"""How a network is trained: optimiser, learning rate, budget."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tombola.data.augment import KINDS
from tombola.errors import InputError, nearest
from tombola.registry import code_fingerprint, named, names
from tombola.section import MOST_ITERATIONS, MOST_MILESTONES, Section
from tombola.training.schedules import onecycle, own_factor

# What each of our optimisers is called, and its class in torch.optim.
OPTIMIZERS = {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSprop", "muon": "Muon"}
WITH_MOMENTUM = ("sgd", "rmsprop")  # others have their own
SCHEDULES = ("constant", "step", "cosine", "linear", "onecycle")
# Options that a recipe has fields for, or that change where and how a step is computed.
NO_OPTIONS = ("params", "lr", "weight_decay", "fused", "foreach", "capturable", "differentiable", "maximize")
VANISHING = 1e-5  # of the peak rate: what training at so low a rate changes is not worth its name


class Recipe(Section):
    """The `training` section of a study.

    Args:
        optimizer: "adam" (beta 0.9 and 0.999, epsilon 1e-8), "sgd", "adamw", "rmsprop" or "muon" (weights with two
            dimensions by `torch.optim.Muon`, all others by AdamW); or `package.module:function`, called as
            `function(named_parameters, lr=..., **optimizer_options)`.
        optimizer_options: other arguments of the optimiser, such as `{betas: [0.9, 0.95], eps: 1e-6}`.
        lr: peak learning rate.
        momentum: of SGD and RMSprop.
        weight_decay: L2 penalty added to the gradient of every parameter, as `torch.optim` does it; adamw and muon
            shrink the weights themselves. A user's own optimiser takes it as an option.
        clip_norm: gradients of all parameters together are scaled down to this 2-norm where theirs is larger. Pruned
            weights do not count.
        clip_value: each gradient is cut off at plus and minus this value, before `clip_norm`.
        batch_size: examples a step.
        iterations, epochs: the budget; exactly one of them.
        evaluate_every: iterations between evaluations on validation and test, or "epoch"; also done before the first
            step and after the last.
        test_every: iterations between measurements on the test examples, each at the next evaluation; or "evaluation":
            at each. Without it, the test examples are measured only where tables need them: at early stop and at the
            end. It changes no weight and no table.
        train_every: the same of the training examples; without it, they are measured at the end alone, and learning
            curves have no training loss and no training metrics. It changes no weight and no table.
        patience: training ends early after that many evaluations in a row without a lower validation loss; None
            trains the whole budget, as the paper does.
        schedule: of the learning rate after warmup: "constant"; "step", multiplied by `gamma` at each milestone;
            "cosine" and "linear", down to 0 at the end of the budget; "onecycle", up from 1/25 over 30 % of the budget
            and down to 1/250,000, instead of warmup; or `package.module:function`, called as
            `function(iteration, budget)`, which returns the factor of `lr`.
        milestones: iterations at which "step" falls.
        gamma: factor of "step".
        warmup: iterations over which the learning rate first rises linearly from 0.
        augment: what is done to the images of each training batch, see `tombola.data.augment`: "flip", "crop"; and
            after those, in this order, each `package.module:function`, called as `function(inputs, generator)`.
        precision: "bfloat16" computes products and convolutions in that (weights, optimiser and loss stay float32):
            faster where the hardware has it, and other results to about two decimal digits of each product.
            "float64" computes everything in that, weights and optimiser included: slower, for checking.
    """

    optimizer: str = Field(default="adam", json_schema_extra=named(OPTIMIZERS, "optimizer"))
    optimizer_options: dict[str, Any] = Field(default_factory=dict)
    lr: float = Field(gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_norm: float | None = Field(default=None, gt=0)
    clip_value: float | None = Field(default=None, gt=0)
    batch_size: int = Field(ge=1, le=MOST_ITERATIONS)
    iterations: int | None = Field(default=None, ge=1, le=MOST_ITERATIONS)
    epochs: float | None = Field(default=None, gt=0, le=MOST_ITERATIONS)
    evaluate_every: Annotated[int, Field(ge=1, le=MOST_ITERATIONS)] | Literal["epoch"] = 100
    test_every: Annotated[int, Field(ge=1, le=MOST_ITERATIONS)] | Literal["evaluation"] | None = None
    train_every: Annotated[int, Field(ge=1, le=MOST_ITERATIONS)] | Literal["evaluation"] | None = None
    patience: int | None = Field(default=None, ge=1, le=MOST_ITERATIONS)
    schedule: str = Field(default="constant", json_schema_extra=named(SCHEDULES, "schedule"))
    milestones: tuple[Annotated[int, Field(le=MOST_ITERATIONS)], ...] = Field(default=(), max_length=MOST_MILESTONES)
    gamma: float = Field(default=0.1, gt=0, le=10)
    warmup: int = Field(default=0, ge=0, le=MOST_ITERATIONS)
    augment: tuple[str, ...] = Field(default=(), max_length=20, json_schema_extra=named(KINDS, "augmentation"))
    precision: Literal["float32", "bfloat16", "float64"] = "float32"

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        return _known(name, tuple(OPTIMIZERS), "optimizer")

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, name: str) -> str:
        return _known(name, SCHEDULES, "schedule")

    @field_validator("augment")
    @classmethod
    def _in_one_order(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        """The order in which ours are named makes no difference, so it must make none to a run's identity."""
        if len(set(kinds)) < len(kinds):
            raise ValueError("names one augmentation twice; name each once")
        own = tuple(_known(kind, KINDS, "augmentation") for kind in kinds if kind not in KINDS)
        return tuple(kind for kind in KINDS if kind in kinds) + own

    @model_validator(mode="after")
    def _check(self) -> Recipe:
        if (self.iterations is None) == (self.epochs is None):
            raise ValueError("set exactly one of iterations and epochs")
        if self.momentum and self.optimizer not in WITH_MOMENTUM:
            if self.knows_optimizer and self.optimizer != "muon":
                raise ValueError(f"momentum belongs to optimizer: sgd or rmsprop; {self.optimizer} has its own")
            raise ValueError(f"optimizer {self.optimizer!r} takes momentum as optimizer_options: {{momentum: ...}}")
        if self.weight_decay and not self.knows_optimizer:
            raise ValueError(
                f"optimizer {self.optimizer!r} takes weight_decay as optimizer_options: {{weight_decay: ...}}"
            )
        self._check_options()
        if (self.schedule == "step") != bool(self.milestones):
            raise ValueError("milestones and schedule: step need each other")
        if list(self.milestones) != sorted(set(self.milestones)) or any(m < 1 for m in self.milestones):
            raise ValueError("milestones are iterations above 0, rising")
        if self.schedule == "onecycle" and self.warmup:
            raise ValueError("schedule: onecycle has its own warmup; remove warmup")
        if self.iterations is not None and self.warmup > self.iterations:
            raise ValueError(f"warmup={self.warmup} is longer than the budget of {self.iterations} iterations")
        return self

    def _check_options(self) -> None:
        """Check the options of our optimisers, and leave out defaults: identity must not depend on them."""
        options = self.optimizer_options
        ours = [name for name in options if name in NO_OPTIONS and (self.knows_optimizer or name == "lr")]
        if self.knows_optimizer and "momentum" in options and self.optimizer in WITH_MOMENTUM:
            ours.append("momentum")
        if ours:
            remedy = "has a field of its own" if ours[0] in type(self).model_fields else "is not for a study to choose"
            raise ValueError(f"optimizer_options: {ours[0]} {remedy}; remove it")
        try:
            json.dumps(options, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError(f"optimizer_options: {options} may contain only numbers, texts, lists and maps") from None
        if not options or not self.knows_optimizer:
            return
        import torch  # slow to import, and seldom needed here

        made: Any = getattr(torch.optim, OPTIMIZERS[self.optimizer], None)
        if made is None:
            return  # said when the study is planned
        known = inspect.signature(made).parameters
        for name in options:
            if name not in known:
                close = nearest(name, known.keys() - {*NO_OPTIONS, "momentum"})
                raise ValueError(f"optimizer_options: {self.optimizer} has no option {name!r}{close}")
        arguments = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        fields = {"momentum": self.momentum} if self.optimizer in WITH_MOMENTUM else {}

        def fault(taken: Mapping[str, Any]) -> str:
            try:
                made([torch.zeros(1, 1, requires_grad=True)], lr=self.lr, **fields, **taken)
            except Exception as error:
                return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            return ""

        if together := fault(arguments):
            alone = ((name, fault({name: value})) for name, value in arguments.items())
            name, told = next(((name, told) for name, told in alone if told), ("", together))
            where = f"optimizer_options.{name}={options[name]!r}" if name else f"optimizer_options: {options}"
            raise ValueError(f"{where}: {self.optimizer} does not take this value ({told}); correct or remove it")
        beyond = {name: options[name] for name in options if arguments[name] != known[name].default}
        object.__setattr__(self, "optimizer_options", beyond)

    @property
    def test_interval(self) -> int | None:
        """Iterations between measurements on the test examples, 1 for each evaluation; None where no curve is asked."""
        return 1 if self.test_every == "evaluation" else self.test_every

    @property
    def train_interval(self) -> int | None:
        """Iterations between measurements on the training examples, as `test_interval`."""
        return 1 if self.train_every == "evaluation" else self.train_every

    @property
    def deciding(self) -> Recipe:
        """The recipe without what changes no weight."""
        return self.model_copy(update={"test_every": None, "train_every": None})

    @property
    def knows_optimizer(self) -> bool:
        """Whether the optimiser is one of tombola's names."""
        return self.optimizer in OPTIMIZERS

    @property
    def each_alone(self) -> bool:
        """Whether a step changes each weight by its own gradient and state alone, as long as `clip_norm` is unset."""
        return self.knows_optimizer and self.optimizer != "muon"

    @property
    def own_augment(self) -> tuple[str, ...]:
        """The user's own augmentations, in their order."""
        return tuple(kind for kind in self.augment if kind not in KINDS)

    def code(self) -> dict[str, str]:
        """Return the fingerprint of each function of the user's own that takes part, by its name.

        Raises:
            InputError: the function does not exist.
        """
        own = [(name, "augmentation") for name in self.own_augment]
        own += [(self.optimizer, "optimizer")] if not self.knows_optimizer else []
        own += [(self.schedule, "schedule")] if self.schedule not in SCHEDULES else []
        found = {name: code_fingerprint(name, {}, what) for name, what in sorted(own)}
        return {name: code for name, code in found.items() if code}  # a library's has none

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
        done = (iteration - self.warmup) / max(1, budget - self.warmup)
        if self.schedule == "cosine":
            return self.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        if self.schedule == "linear":
            return self.lr * (1 - min(1.0, done))
        if self.schedule == "onecycle":
            return self.lr * onecycle(iteration, budget)
        return self.lr if self.schedule == "constant" else self.lr * own_factor(self.schedule, iteration, budget)

    def check_budget(self, budget: int, where: str = "training") -> None:
        """Check that what is counted in iterations fits the budget, which may have been given in epochs.

        Args:
            budget: in iterations.
            where: the field that holds the recipe, for messages.

        Raises:
            InputError: warmup is longer than the budget, or a user's schedule fails.
        """
        if self.warmup > budget:
            asked = f"{self.epochs:g} epochs, " if self.epochs is not None else ""
            raise InputError(
                f"{where}.warmup={self.warmup} is longer than the budget of {asked}{budget} iterations; "
                f"give at most {budget}"
            )
        for iteration in {0, budget // 2, budget - 1}:
            self.learning_rate(iteration, budget)

    def beyond(self, budget: int) -> tuple[int, ...]:
        """Return the milestones that training never reaches."""
        return tuple(milestone for milestone in self.milestones if milestone >= budget)

    def ends_at_zero(self, budget: int) -> bool:
        """Return whether the schedule ends at a learning rate of practically 0."""
        # At the end itself, which a user's function is never asked for.
        last = budget if self.schedule in SCHEDULES else budget - 1
        return self.learning_rate(last, budget) < VANISHING * self.lr


def _known(name: str, ours: tuple[str, ...], what: str) -> str:
    """Return a name that is ours, an installed package's or a user's own; ValueError else. Nothing is imported."""
    if ":" in name or name in ours:
        return name
    known = names(dict.fromkeys(ours), what)  # of the names alone
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}{nearest(name, known)} (your own: package.module:function)")
    return name
