"""The contract of an engine: a means of training one or more jobs in lockstep.

Engines differ in how they compute, never in what: each agrees with the plain masked PyTorch loop to float32 rounding.
A *lane* is one job inside an engine; most engines have one lane. All lanes share network and recipe, and differ in
weights, mask, seeds and data split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from tombola.data.parts import Splits
from tombola.pruning.mask import Mask
from tombola.seeds import Seeds
from tombola.tasks import CLASSIFICATION, Task
from tombola.training.popup import Popup

Weights = dict[str, Tensor]  # a state_dict on the CPU: parameters and buffers


class Score(NamedTuple):
    """How well weights do on a part.

    Args:
        loss: the task's mean loss.
        metric: the first of the task's metrics.
        others: its other metrics, in their order.
    """

    loss: float
    metric: float
    others: tuple[float, ...] = ()

    @property
    def values(self) -> tuple[float, ...]:
        """The loss and all metrics."""
        return (self.loss, self.metric, *self.others)


@dataclass(frozen=True)
class Start:
    """Where one lane begins.

    Args:
        weights: the whole state_dict; pruned weights are exactly 0.0 already.
        mask: which weights may live.
        seeds: the trial's seeds, from which the data order follows.
        splits: the trial's data, on the training device.
        iteration: how many iterations lie behind `weights`; schedule and data order go on from there.
        optimizer: the optimiser's tensors as `Engine.optimizer_state` gave them; empty for a fresh optimiser.
        popup: that scores are to be trained, and the weights to stay as they are.
        task: what is learned.
    """

    weights: Weights
    mask: Mask
    seeds: Seeds
    splits: Splits
    iteration: int = 0
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    popup: Popup | None = None
    task: Task = CLASSIFICATION


class Engine(Protocol):
    """Trains lanes from their starts. Every tensor it returns is an independent copy on the CPU."""

    name: str
    lanes: int
    iteration: int

    def advance(self, iterations: int) -> list[float]:
        """Train each lane for that many iterations; return the last batch's training loss of each lane."""
        ...

    def evaluate(self, part: str, check: Callable[[], None] = ...) -> list[Score]:
        """Return each lane's score on all examples of its "train", "validation" or "test" part.

        `check` is called now and then; what it raises ends the evaluation and leaves the training state untouched.
        """
        ...

    def weights(self, lane: int = 0) -> Weights:
        """Return the whole state_dict of a lane; pruned weights are exactly 0.0."""
        ...

    def optimizer_state(self, lane: int = 0) -> dict[str, Tensor]:
        """Return all that a `Start` needs, beside weights and iteration, to go on as if never interrupted."""
        ...


NetworkFactory = Callable[[], nn.Module]
