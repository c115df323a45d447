"""Masks and weights for controls: what a ticket has to be better than."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor

from tombola.errors import InputError
from tombola.pruning.mask import Mask


def shuffled(mask: Mask, generator: Generator) -> Mask:
    """Return a mask with as many kept weights in each layer, their places drawn at random.

    The random sparse network of Frankle & Carbin 2019, Figure 1.
    """
    keep = {}
    for name, layer in mask.items():
        order = torch.randperm(layer.numel(), generator=generator)
        keep[name] = layer.flatten()[order].reshape(layer.shape)
    return Mask(keep)


def shuffled_weights(weights: Mapping[str, Tensor], mask: Mask, generator: Generator) -> dict[str, Tensor]:
    """Return a copy of `weights` in which the kept ones of each layer have changed places at random.

    A control where there is no second initialisation, such as of pretrained weights: the mask and the distribution of
    each layer stay, and which weight stands where does not. Pruned weights and other tensors keep their values.
    """
    return _redrawn(weights, mask, lambda kept: kept[_permutation(kept, generator)])


def sign_preserving_redraw(weights: Mapping[str, Tensor], mask: Mask, generator: Generator) -> dict[str, Tensor]:
    """Return a copy of `weights` in which the magnitudes of each layer's kept ones have changed places at random.

    Every place keeps its sign. Zhou et al. 2019 ("Deconstructing Lottery Tickets") find that a ticket on another
    initialisation trains as well as the ticket where the signs are kept; this control tells whether that holds.
    """
    return _redrawn(weights, mask, lambda kept: with_sign(kept.abs()[_permutation(kept, generator)], kept))


def with_sign(sizes: Tensor, signs: Tensor) -> Tensor:
    """Return the magnitudes of one tensor with the signs of another.

    Raises:
        InputError: they are complex.
    """
    if signs.is_complex():
        raise InputError("complex weights have no sign, so an arm can't keep or draw their signs; remove the arm")
    return torch.copysign(sizes, signs)


def _permutation(kept: Tensor, generator: Generator) -> Tensor:
    return torch.randperm(kept.numel(), generator=generator).to(kept.device)


def _redrawn(weights: Mapping[str, Tensor], mask: Mask, draw: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Return a copy of `weights`, the kept ones of each layer as `draw` returns them."""
    result = {name: tensor.detach().clone() for name, tensor in weights.items()}
    for name, keep in mask.items():
        here = keep.to(result[name].device)
        result[name][here] = draw(result[name][here])
    return result
