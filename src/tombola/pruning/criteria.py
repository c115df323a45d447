"""Criteria: functions that score weights. The lowest scores go first; selection is another function's work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

State = Mapping[str, Tensor]


class SkipRound(Exception):
    """Raised by a criterion that has nothing to tell weights apart by: the round removes none; the text says why."""


def _unknown(*_: Any) -> Any:
    raise ValueError("this is not known here")


@dataclass(frozen=True)
class Goal:
    """What selection is about to leave, for a score that depends on it.

    Args:
        layers: that are pruned.
        keep: number of weights that they keep together.
        minimum: the least number of weights that each of them keeps.
    """

    layers: tuple[str, ...]
    keep: int
    minimum: int = 0


@dataclass(frozen=True)
class Snapshots:
    """What a criterion may look at: the prunable weights of a run by name, at four moments.

    Args:
        init: the original initialisation of the dense network.
        start: what this run started from (masked).
        best: at the lowest validation loss.
        final: after the last step.
        gradients: called without arguments, gives the gradient of the training loss with respect to `final`, on the
            batch that training would have seen next, not augmented, in float32 and evaluation mode; pruned weights
            included.
        generator: for a criterion that draws; each trial, run and level has its own.
        norms: called without arguments, gives for each weight the L2 norm of the inputs that it is multiplied by, on
            the same batch as `gradients`; see `tombola.pruning.activations`. A layer that is not pruned may be missing.
        goal: how much is to be kept.
        network: called without arguments, gives a fresh module with the weights `start`, in float32 and evaluation
            mode, on the CPU: of the dense run, the untrained network.
        examples: called without arguments, gives (inputs, targets) on the CPU: as many examples of each class, drawn
            from the trial's training examples, the same at each call. Known to methods at initialisation that use them.
        loss: called with a module and a temperature, gives the task's mean loss on `examples`, class scores being
            divided by the temperature first.
        input_shape: of one example; a tuple or dict of shapes where the network takes several inputs.
        kept: bool, which weights are left to choose among; a layer that is not named has all of them.
    """

    init: State
    start: State
    best: State
    final: State
    gradients: Callable[[], State] = _unknown
    generator: torch.Generator = field(default_factory=torch.Generator)
    norms: Callable[[], State] = _unknown
    goal: Goal = Goal((), 0)
    network: Callable[[], nn.Module] = _unknown
    examples: Callable[[], tuple[Any, Any]] = _unknown
    loss: Callable[[nn.Module, float], Tensor] = _unknown
    input_shape: Any = ()
    kept: State = field(default_factory=dict)


Criterion = Callable[[Snapshots], Mapping[str, Tensor]]


def magnitude(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score |w| after training (Han et al. 2015; Frankle & Carbin 2019, Section 1; "large final")."""
    return {name: weight.abs() for name, weight in snapshots.final.items()}


def initial_magnitude(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score |w| at the initialisation ("large init"; Zhou et al. 2019, Section 2)."""
    return {name: weight.abs() for name, weight in snapshots.init.items()}


def small_final(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score -|w| after training ("small final"; Zhou et al. 2019, Section 2): the opposite of `magnitude`."""
    return {name: -weight.abs() for name, weight in snapshots.final.items()}


def small_init(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score -|w| at the initialisation ("small init"; Zhou et al. 2019, Section 2)."""
    return {name: -weight.abs() for name, weight in snapshots.init.items()}


def large_init_large_final(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score min(alpha |w_final|, |w_init|) (Zhou et al. 2019, Section 2).

    The paper chooses alpha so that either half alone would remove the same share of a layer. So both halves are
    compared by rank, within the layer and among the weights that are left, and the score is the lower of the two.
    """
    return _both(snapshots, 1.0)


def small_init_small_final(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score -max(alpha |w_final|, |w_init|), by ranks as in `large_init_large_final` (Zhou et al. 2019, Section 2)."""
    return _both(snapshots, -1.0)


def _both(snapshots: Snapshots, sign: float) -> Mapping[str, Tensor]:
    """Return the lower of two ranks: of sign |w_init| and of sign |w_final|, as shares of the layer."""

    def ranks(weight: Tensor, kept: Tensor) -> Tensor:
        result = torch.zeros(weight.shape, dtype=torch.float64, device=weight.device)
        order = torch.argsort(sign * weight[kept].abs(), stable=True)
        places = torch.empty(len(order), dtype=torch.float64, device=weight.device)
        places[order] = torch.arange(1, len(order) + 1, dtype=torch.float64, device=weight.device) / max(1, len(order))
        result[kept] = places
        return result

    found = {}
    for name, final in snapshots.final.items():
        kept = snapshots.kept.get(name, torch.ones_like(final, dtype=torch.bool)).to(final.device)
        found[name] = torch.minimum(ranks(snapshots.init[name], kept), ranks(final, kept))
    return found


def magnitude_increase(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score |w_final| - |w_init| (Zhou et al. 2019, Section 2)."""
    return {name: weight.abs() - snapshots.init[name].abs() for name, weight in snapshots.final.items()}


def movement(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score |w_final - w_init| ("movement"; Zhou et al. 2019, Section 2)."""
    return {name: (weight - snapshots.init[name]).abs() for name, weight in snapshots.final.items()}


def stability(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score -|w_best - w_final|: the weights that moved most after the lowest validation loss go first.

    This is the criterion of a public study of Conv-4 on CIFAR-10, the preset `conv4-cifar10-stability`.

    Raises:
        SkipRound: both are the same weights.
    """
    if all(torch.equal(weight, snapshots.best[name]) for name, weight in snapshots.final.items()):
        raise SkipRound("best and final weights are identical: the validation loss was lowest at the end of training")
    return {name: -(snapshots.best[name] - weight).abs() for name, weight in snapshots.final.items()}


def gradient(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score |w * dL/dw| at the end of training, on one batch (Molchanov et al. 2017, a first-order Taylor term)."""
    gradients = snapshots.gradients()
    return {name: (weight * gradients[name]).abs() for name, weight in snapshots.final.items()}


def wanda(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score |w| times the norm of its input, by rank within each output (Sun et al. 2023, "Wanda", Section 3).

    The paper compares the weights of one output with one another alone. So the score is the rank among those that are
    left, as a share: the lowest of a layer are then an equal share of each output.
    """
    found = {}
    for name, norms in snapshots.norms().items():
        weight = snapshots.final[name]
        products = weight.abs().double() * norms.to(weight.device)
        kept = snapshots.kept[name] if name in snapshots.kept else torch.ones_like(weight, dtype=torch.bool)
        # Pruned weights come last, behind all that are ranked.
        rows = products.masked_fill(~kept, torch.inf).reshape(len(weight), -1)
        ranks = rows.argsort(dim=1, stable=True).argsort(dim=1).double() + 1
        found[name] = (ranks / kept.reshape(len(weight), -1).sum(1, keepdim=True).clamp(min=1)).view_as(weight)
    return found


def random(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score at random: the control of every criterion."""
    return {name: torch.rand(weight.shape, generator=snapshots.generator) for name, weight in snapshots.final.items()}


def by_sign(criterion: Criterion, same: bool, snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score as `criterion` does, after all weights whose sign training changed (Zhou et al. 2019, Section 5).

    The paper gives those weights the score 0, and breaks ties at random; here they go first, the lowest scores among
    them before the others, so that no tie depends on a weight's place.

    Args:
        criterion: that orders the weights.
        same: keep weights whose sign is the same after training as at the initialisation; False keeps the others.
        snapshots: as for `criterion`.
    """
    scores = {name: score.double() for name, score in criterion(snapshots).items()}
    finite = torch.cat([score[score.isfinite()].flatten() for score in scores.values()])
    gap = float(finite.max() - finite.min()) + 1 if len(finite) else 1.0
    found = {}
    for name, score in scores.items():
        agree = snapshots.final[name].sign() == snapshots.init[name].sign()
        found[name] = torch.where(agree if same else ~agree, score, score - gap)
    return found


# The names of Zhou et al. 2019 for criteria that had one already.
SYNONYMS = {"large-final": "magnitude", "large-init": "initial-magnitude"}

_DECONSTRUCTED: dict[str, Criterion] = {
    "large-final": magnitude,
    "small-final": small_final,
    "large-init": initial_magnitude,
    "small-init": small_init,
    "large-init-large-final": large_init_large_final,
    "small-init-small-final": small_init_small_final,
    "magnitude-increase": magnitude_increase,
    "movement": movement,
}

CRITERIA: dict[str, Criterion] = {
    "magnitude": magnitude,
    "initial-magnitude": initial_magnitude,
    "stability": stability,
    "gradient": gradient,
    "random": random,
    "wanda": wanda,
    **{name: criterion for name, criterion in _DECONSTRUCTED.items() if name not in SYNONYMS},
    **{f"{name}-same-sign": partial(by_sign, criterion, True) for name, criterion in _DECONSTRUCTED.items()},
    **{f"{name}-diff-sign": partial(by_sign, criterion, False) for name, criterion in _DECONSTRUCTED.items()},
}
