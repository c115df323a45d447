"""The contract of a task. A user's own task is a subclass of `Task`, named in a study as `package.module:Class`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from tombola.data import Description, Examples, Part, Tensors, each_tensor, random_inputs, random_tensors
from tombola.errors import InputError
from tombola.section import Section
from tombola.tasks.metric import Measures, Metric

EXAMPLES = 4  # in the batch that planning makes up


class Task(Section):
    """What is learned: how a batch becomes a loss, and which metrics there are.

    The fields of a subclass are the options that a study may set. A task holds no other state: all results follow from
    its options and its arguments.

    >>> class Distance(Task):
    ...     metrics: ClassVar = (Metric("distance", "lower", "cm"),)
    ...
    ...     def loss(self, output, batch):
    ...         return (output - batch.targets).norm(dim=1).mean()
    ...
    ...     def sums(self, output, batch):
    ...         distances = (output - batch.targets).norm(dim=1).double()
    ...         return torch.stack([distances.sum(), distances.new_tensor(len(batch))])
    ...
    ...     def scores(self, sums):
    ...         return sums[0] / sums[1], sums[0] / sums[1]

    Attributes:
        metrics: all that are measured. The first one decides, unless the field `metric` names another.
        example: what the mean loss is a mean over, as text.
        block: examples of an evaluation that are computed at a time.
        plain_cross_entropy: whether loss and metrics are exactly mean cross-entropy and accuracy: engines with a loss
            of their own serve such a task alone.
        has_logits: whether the output holds scores of a softmax or sigmoid, which a temperature may divide.
        only_shown: names of fields that change no result, such as the choice among metrics: no part of a run's
            identity. Of its own class only: a subclass may compute with a field that its parent only shows.
    """

    metrics: ClassVar[tuple[Metric, ...]]
    example: ClassVar[str] = "example"
    block: ClassVar[int] = 1000
    has_logits: ClassVar[bool] = False
    only_shown: ClassVar[tuple[str, ...]] = ()

    @property
    def plain_cross_entropy(self) -> bool:
        """Whether loss and metrics are exactly mean cross-entropy and accuracy."""
        return False

    @property
    def primary(self) -> Metric:
        """The metric that decides how good a run is."""
        return self.metrics[0]

    def measures(self, data: Description) -> Measures:
        """Return what readers of results must know."""
        return Measures(self.metrics, self.primary, self.chance(data), self.outputs(data))

    # What a subclass must define.

    def loss(self, output: Any, batch: Part) -> Tensor:
        """Return the mean loss of a batch, a scalar that can be differentiated."""
        raise _undefined("loss", "the mean loss of a batch")

    def sums(self, output: Any, batch: Part) -> Tensor:
        """Return float64 [k]: numbers which, added up over the blocks of a part, give its loss and metrics."""
        raise _undefined("sums", "sums from which its loss and metrics follow")

    def scores(self, sums: Sequence[float]) -> tuple[float, ...]:
        """Return the mean loss and the value of each of `metrics`, from the sums of a whole part."""
        raise _undefined("scores", "the loss and the metrics")

    # What a subclass may change.

    def forward(self, module: nn.Module, batch: Part) -> Any:
        """Return what the module makes of a batch: its class scores where it returns `logits` among other things."""
        return logits_in(call(module, batch.inputs))

    def tempered_loss(self, module: nn.Module, batch: Part, temperature: float = 1.0) -> Tensor:
        """Return the mean loss of a batch, class scores divided by a temperature; others stay as they are."""
        output = self.forward(module, batch)
        if self.has_logits and temperature != 1.0:
            output = output / temperature
        return self.loss(output, batch)

    def outputs(self, data: Description) -> int | None:
        """Return how many numbers the network should give for each example, or for each of its positions.

        Factories that take `classes` are given this number. None where nothing follows from the data.
        """
        return data.classes

    def prepared(self, targets: Tensors) -> Tensors:
        """Return the targets in the dtype that `loss` takes."""
        return targets

    def check_data(self, data: Description, source: str) -> None:
        """Check that this can be learned from the data.

        Args:
            data: what is known of them.
            source: their name, for messages.

        Raises:
            InputError: the inputs or targets are of the wrong kind.
        """

    def check_output(self, output: Any, batch: Part, data: Description, source: str) -> None:
        """Check that an output fits the data, before anything is trained.

        Args:
            output: what `forward` gave for a synthetic batch.
            batch: that batch, with synthetic targets.
            data: what is known of the data.
            source: their name, for messages.

        Raises:
            InputError: it does not.
        """

    def check_targets(self, targets: Tensors, source: str) -> None:
        """Check the targets of the data themselves.

        Args:
            targets: of examples, as `prepared` returned them.
            source: the data's name, for messages.

        Raises:
            InputError: some are not possible.
        """

    def checked(self, targets: Tensors, source: str) -> Tensors:
        """Return the targets of some examples as `prepared` makes them, once `check_targets` has seen them.

        Raises:
            InputError: some are not possible.
        """
        targets = self.prepared(targets)
        self.check_targets(targets, source)
        return targets

    def check_network(self, module: nn.Module, batch: Part) -> None:
        """Check what one output does not show, on a synthetic batch.

        Raises:
            InputError: the network is not one for this task.
        """

    def chance(self, data: Description) -> float | None:
        """Return the deciding metric of a guess; None where that is not known."""
        return None

    def made_up_targets(self, data: Description, examples: int, generator: Generator) -> Tensors:
        """Return random targets of the data's shape, on the CPU."""
        if data.output_shape is None:
            return None
        return self.prepared(random_tensors(data.output_shape, data.target_dtype, data.classes, examples, generator))

    def made_up(self, data: Description, examples: int = EXAMPLES, generator: Generator | None = None) -> Part:
        """Return random examples of the data's shape, on the CPU."""
        generator = generator or torch.Generator().manual_seed(0)
        inputs = random_inputs(data, examples, generator)
        return Part(inputs, self.made_up_targets(data, examples, generator))

    def few(self, part: Examples, each: int, generator: Generator) -> Tensor:
        """Return the places of a few examples, for methods that look at data once: int64 [N] on the CPU.

        Args:
            part: to choose from.
            each: number of examples of each class. Where the targets are not class numbers, ten times as many are drawn
                at random, or all examples where there are fewer.
            generator: draws them.

        Raises:
            InputError: there are too few.
        """
        return torch.randperm(len(part), generator=generator)[: 10 * each]

    def few_count(self, data: Description, each: int) -> int:
        """Return how many examples `few` chooses."""
        return min(10 * each, data.train)


def call(module: nn.Module, inputs: Tensors) -> Any:
    """Return `module(x)`, `module(*tuple)` or `module(**dict)`."""
    if isinstance(inputs, Mapping):
        return module(**inputs)
    return module(*inputs) if isinstance(inputs, tuple) else module(inputs)


def logits_in(returned: Any) -> Any:
    """Return the `logits` among what a module returned, or all of it if none exists."""
    if isinstance(returned, Tensor):
        return returned
    if isinstance(returned, Mapping):
        return returned.get("logits", returned)
    return getattr(returned, "logits", returned)


def require_tensor(output: Any, wanted: str) -> Tensor:
    """Return an output that must be a tensor.

    Raises:
        InputError: it is something else; `wanted` says what it must be.
    """
    if not isinstance(output, Tensor):
        raise InputError(f"the network must return {wanted}; it returned a {type(output).__name__}")
    return output


def exp(value: float) -> float:
    """Return e to that power; infinity where that is beyond a float."""
    return math.exp(value) if value < 700 else math.inf


def ratio(one: float, other: float, otherwise: float = math.nan) -> float:
    """Return one / other; `otherwise` where there is nothing to divide by."""
    return one / other if other else otherwise


def as_dtype(targets: Tensors, dtype: torch.dtype) -> Tensors:
    """Return the targets in another dtype."""
    return each_tensor(lambda tensor: tensor.to(dtype), targets)


def _undefined(name: str, what: str) -> NotImplementedError:
    return NotImplementedError(f"the class defines no `{name}`; it must return {what}")
