"""Masks for controls: what a ticket's mask has to be better than."""

from __future__ import annotations

import torch

from tombola.pruning.mask import Mask


def shuffled(mask: Mask, generator: torch.Generator) -> Mask:
    """Return a mask with as many kept weights in each layer, their places drawn at random.

    The random sparse network of Frankle & Carbin 2019, Figure 1.
    """
    keep = {}
    for name, layer in mask.items():
        order = torch.randperm(layer.numel(), generator=generator)
        keep[name] = layer.flatten()[order].reshape(layer.shape)
    return Mask(keep)
