"""Mask-1 actions: what the kept weights of a layer are set to before they are trained.

Zhou et al. 2019 ("Deconstructing Lottery Tickets") rewind kept weights, draw them again, permute them, or
set them to a constant; each with and without the sign that a weight had at first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from tombola.pruning.controls import shuffled_weights, sign_preserving_redraw, with_sign
from tombola.pruning.mask import Mask

Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Kept:
    """What a redraw may look at.

    Args:
        weights: that the network would start from, under the mask.
        mask: which weights are kept.
        generator: for what is drawn.
        initial: returns the trial's own initialisation, with all weights.
        fresh: returns another initialisation.
    """

    weights: Weights
    mask: Mask
    generator: Generator
    initial: Callable[[], Weights]
    fresh: Callable[[], Weights]


def _replaced(kept: Kept, value: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """Return a copy of the weights; kept ones of each layer are `value(name, weight)`, of the layer's shape."""
    result = {name: tensor.detach().clone() for name, tensor in kept.weights.items()}
    for name, keep in kept.mask.items():
        result[name][keep] = value(name, result[name])[keep]
    return result


def signed_reinit(kept: Kept) -> dict[str, Tensor]:
    """Take magnitudes from another initialisation, and keep the signs (Zhou et al. 2019, mask-1 actions)."""
    fresh = kept.fresh()
    return _replaced(kept, lambda name, weight: with_sign(fresh[name].to(weight), weight))


def constant(kept: Kept) -> dict[str, Tensor]:
    """Set weights to plus or minus a constant, the sign drawn at random (Zhou et al. 2019, mask-1 actions)."""

    def value(name: str, weight: Tensor) -> Tensor:
        heads = torch.rand(weight.shape, generator=kept.generator) < 0.5
        return with_sign(_size(kept, name, weight), 0.5 - heads.to(weight))

    return _replaced(kept, value)


def random_signs(kept: Kept) -> dict[str, Tensor]:
    """Keep magnitudes and draw signs at random: the reverse of keeping signs (after Gadhikar & Burkholz 2024)."""

    def value(name: str, weight: Tensor) -> Tensor:
        heads = torch.rand(weight.shape, generator=kept.generator) < 0.5
        return torch.where(heads.to(weight.device), weight, -weight)

    return _replaced(kept, value)


def signed_constant(kept: Kept) -> dict[str, Tensor]:
    """Set weights to plus or minus a constant, and keep the signs (Zhou et al. 2019, mask-1 actions)."""
    return _replaced(kept, lambda name, weight: with_sign(_size(kept, name, weight), weight))


def _size(kept: Kept, name: str, weight: Tensor) -> Tensor:
    """Return the paper's constant: the standard deviation of the layer's initialisation, in the layer's shape."""
    return torch.full_like(weight, float(kept.initial()[name].double().std(correction=0)))


REDRAWS: dict[str, Callable[[Kept], dict[str, Tensor]]] = {
    "shuffled": lambda kept: shuffled_weights(kept.weights, kept.mask, kept.generator),
    "signs": lambda kept: sign_preserving_redraw(kept.weights, kept.mask, kept.generator),
    "reinit-signs": signed_reinit,
    "constant": constant,
    "constant-signs": signed_constant,
    "random-signs": random_signs,
}
