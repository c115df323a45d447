"""SynFlow: how much flows through a weight, measured without any data."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tombola.errors import InputError
from tombola.pruning.at_init.weights import differentiable, times_gradient
from tombola.pruning.criteria import Goal, Snapshots
from tombola.pruning.mask import Mask
from tombola.pruning.select import select
from tombola.tasks import logits_in

ROUNDS = 100  # as in the paper


def synflow(snapshots: Snapshots, rounds: int = ROUNDS) -> Mapping[str, Tensor]:
    """Score in how many rounds a weight survives (Tanaka et al. 2020, "SynFlow", Algorithm 1).

    After round k of 100, keep^(k / 100) of the weights remain: those with the highest saliencies in a network in
    which the others are gone. Selection by these scores leaves exactly what the last round did.

    Raises:
        InputError: the network can't be run in double precision, or its saliencies overflow even that.
    """
    if not (isinstance(snapshots.input_shape, tuple) and all(isinstance(size, int) for size in snapshots.input_shape)):
        raise InputError(
            "synflow runs the network on a single input of ones, but this network takes several inputs; use snip or "
            "grasp instead"
        )
    example = torch.ones(1, *snapshots.input_shape, dtype=torch.float64)
    try:
        module = linearised(snapshots.network())
        return _survived(module, example, snapshots, rounds)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"synflow runs the network in double precision on an input of ones, which fails ({reason}); use snip or "
            "grasp instead"
        ) from error


def linearised(module: nn.Module) -> nn.Module:
    """Return the module, changed in place: in double precision, each number of its state replaced by its size.

    So a ReLU network is linear where all inputs are positive, and its saliencies are never negative.
    """
    module.double()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.abs_()
    return module


def saliencies(module: nn.Module, weights: Mapping[str, Tensor], example: Tensor) -> dict[str, Tensor]:
    """Return w * dR/dw by layer, R being the sum of the outputs of a linearised network.

    Without biases each layer's sum is the same, R itself (the paper's Theorem 2); no layer is drained before others.
    """
    with torch.enable_grad():
        flow = logits_in(module(example)).sum()
    found = times_gradient(weights, flow)
    if not all(bool(each.isfinite().all()) for each in found.values()):
        raise InputError(
            "synflow: the flow through this network exceeds the range of double precision; use another network.init, "
            "snip or grasp"
        )
    return found


def _survived(module: nn.Module, example: Tensor, snapshots: Snapshots, rounds: int) -> dict[str, Tensor]:
    goal = snapshots.goal
    weights = differentiable(module, snapshots.start)
    mask = Mask.full({name: tuple(weight.shape) for name, weight in weights.items()})
    survived = {name: torch.zeros(weight.shape) for name, weight in weights.items()}
    before = sum(weights[name].numel() for name in goal.layers)
    for keep in exponential(before, goal, rounds):
        rate = (before - keep) / before
        scores = saliencies(module, weights, example)
        mask = select(scores, mask, dict.fromkeys(goal.layers, rate), "global", goal.minimum)
        before = keep
        mask.apply_(module)
        for name, kept in mask.items():
            survived[name] += kept
    return survived


def exponential(weights: int, goal: Goal, rounds: int) -> list[int]:
    """Return how many of `weights` remain after each round: as many in proportion each time, exactly `goal.keep`."""
    share = goal.keep / weights
    return [max(goal.keep, round(weights * share ** (k / rounds))) for k in range(1, rounds)] + [goal.keep]
