"""The contract of an engine, which trains one or more runs in lockstep.

Engines differ in speed, not in results: each agrees with the plain masked PyTorch loop up to float32 rounding.
A *replica* is one run inside an engine. Most engines have one replica. All replicas share network and recipe. They
differ in weights, mask, seeds and data split.
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
from tombola.training.moving import Moving
from tombola.training.popup import Popup

Weights = dict[str, Tensor]  # a state_dict on the CPU: parameters and buffers


class Score(NamedTuple):
    """Loss and metrics of weights on one part of the data.

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
class ReplicaState:
    """The state from which an engine starts a replica.

    Args:
        weights: the whole state_dict; pruned weights are exactly 0.0 already.
        mask: which weights may live.
        seeds: the trial's seeds, from which the data order follows.
        splits: the trial's data, on the training device.
        iteration: the number of iterations behind `weights`; schedule and data order continue from there.
        optimizer: the optimiser's tensors from `Engine.optimizer_state`; empty for a fresh optimiser.
        popup: set to train scores and keep the weights.
        moving: set to move the mask while the network trains.
        task: the task to learn.
        frozen: set to keep the values that `weights` gives to pruned weights, instead of 0.0.
    """

    weights: Weights
    mask: Mask
    seeds: Seeds
    splits: Splits
    iteration: int = 0
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    popup: Popup | None = None
    task: Task = CLASSIFICATION
    frozen: bool = False
    moving: Moving | None = None


class Engine(Protocol):
    """Trains replicas from their initial states. Every returned tensor is an independent copy on the CPU.

    An engine may have an attribute `facts`: a dict of what a result should say of how it was trained.
    """

    name: str
    replicas: int
    iteration: int

    def advance(self, iterations: int) -> list[float]:
        """Train each replica for that many iterations; return the last batch's training loss of each replica."""
        ...

    def evaluate(self, part: str, check: Callable[[], None] = ...) -> list[Score]:
        """Return each replica's score on all examples of its "train", "validation" or "test" part.

        `check` is called from time to time; what it raises ends the evaluation and leaves the training state untouched.
        """
        ...

    def weights(self, replica: int = 0) -> Weights:
        """Return the whole state_dict of a replica; pruned weights are exactly 0.0."""
        ...

    def optimizer_state(self, replica: int = 0) -> dict[str, Tensor]:
        """Return the optimiser's tensors: with weights and iteration, a `ReplicaState` resumes as if never
        interrupted."""
        ...


NetworkFactory = Callable[[], nn.Module]
