"""Edge-popup: a score for each weight is trained, and the weights themselves stay as they were drawn.

The forward pass sees, in each layer, the weights with the largest |score| (Ramanujan et al. 2020, "What's Hidden in a
Randomly Weighted Neural Network?", Section 3 and Algorithm 1; such masks are the supermasks of Zhou et al. 2019).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Generator, Tensor

from tombola.pruning.select import lowest
from tombola.section import Section

FrozenWeights = Literal["signed-constant", "init"]
ScoreTraining = Literal["largest", "sampled"]


class Popup(Section):
    """How a supermask is found.

    Args:
        counts: weight name -> how many weights of that layer the forward pass sees; layers that are not named are
            seen whole.
        weights: "signed-constant" gives every prunable weight the size that its layer's have on average, and keeps
            its sign (Ramanujan et al. 2020, Section 4: the better of the two); "init" leaves them as they were drawn.
        draw: which initial scores of the trial.
        method: "largest" shows the forward pass the largest |scores| (edge-popup); "sampled" shows each weight with
            probability sigmoid(score) while it trains (Zhou et al. 2019, Section 5).
    """

    counts: dict[str, int]
    weights: FrozenWeights = "signed-constant"
    draw: int = 0
    method: ScoreTraining = "largest"


def signed_constant(weight: Tensor) -> Tensor:
    """Return sign(w) times the standard deviation of the layer's weights, which are drawn around 0."""
    return weight.sign() * weight.square().mean().sqrt()


def initial_scores(shape: torch.Size, generator: Generator) -> Tensor:
    """Return scores drawn as in the paper's code: Kaiming uniform with a = sqrt(5), so within 1 / sqrt(fan in)."""
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return torch.empty(shape).uniform_(-bound, bound, generator=generator)


def seen(scores: Tensor, count: int) -> Tensor:
    """Return bool, of the shape of `scores`: the `count` largest |score|; of equal ones the last."""
    # A run that has diverged still has as many weights as it was asked for.
    sizes = scores.detach().abs().nan_to_num_().flatten()
    return ~lowest(sizes, len(sizes) - count).view(scores.shape)


def counts_of(sizes: Mapping[str, int], total: int, minimum: int = 0) -> dict[str, int]:
    """Return how many weights each layer has where all have the same share, and `total` together.

    Args:
        sizes: layer -> number of its weights.
        total: of all these layers.
        minimum: the least number that a layer keeps, if it has so many; the rest is shared out in proportion.
    """
    floor = {name: min(minimum, size) for name, size in sizes.items()}
    room = sum(sizes.values()) - sum(floor.values())
    share = (total - sum(floor.values())) / room if room else 0.0
    exact = {name: (size - floor[name]) * share for name, size in sizes.items()}
    counts = {name: floor[name] + math.floor(exact[name]) for name in sizes}
    # What is lost by rounding down goes to the largest remainders, the first of equals.
    owed = sorted(sizes, key=lambda name: math.floor(exact[name]) - exact[name])
    for name in owed[: total - sum(counts.values())]:
        counts[name] += 1
    return counts
