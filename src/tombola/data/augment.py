"""Augmentation of whole batches of images on the device: random flips and crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tombola.data.parts import Splits, first_tensor
from tombola.seeds import Seeds

Kind = Literal["flip", "crop"]
KINDS: tuple[Kind, ...] = ("flip", "crop")
PADDING = 4  # pixels on each side that a crop may reach beyond the image


class Augmentation:
    """What is drawn for the batches of one lane, as a pure function of the iteration.

    "flip" mirrors an image left to right with probability 1/2. "crop" moves it by -4 to 4 pixels down and across, as
    cropping it after padding by 4 pixels does (He et al. 2016, Section 4.2; Frankle & Carbin 2019, Appendix H). What
    comes in from outside the image is black - 0 before normalisation, as in the usual pipelines, which pad the raw
    image - and so another number than 0 after it.

    Draws are made on the CPU, from (study seed, trial, "augment", iteration): the same on every device, and the same
    flips with crops as without.

    Args:
        kinds: any of "flip" and "crop"; their order makes no difference.
        batch_size: examples in a batch.
        seeds: the trial's.
        splits: the trial's data, from whose normalisation it follows what black is.

    Attributes:
        black: float [channels], on the device of the data.
    """

    def __init__(self, kinds: Sequence[Kind], batch_size: int, seeds: Seeds, splits: Splits):
        self._kinds, self._batch_size, self._seeds = kinds, batch_size, seeds
        mean, std = torch.tensor(splits.mean, dtype=torch.float64), torch.tensor(splits.std, dtype=torch.float64)
        self.black = (-mean / std).to(first_tensor(splits.train.inputs))

    def draws(self, first: int, count: int) -> Tensor:
        """Return int64 [count, batch, 3] for iterations first, ..., first + count - 1: flip (0 or 1), down, across."""
        drawn = torch.zeros(count, self._batch_size, 3, dtype=torch.int64)
        for row, iteration in zip(drawn, range(first, first + count), strict=True):
            generator = self._seeds.generator("augment", iteration)
            flips = torch.randint(2, (self._batch_size,), generator=generator)
            moves = torch.randint(-PADDING, PADDING + 1, (self._batch_size, 2), generator=generator)
            if "flip" in self._kinds:
                row[:, 0] = flips
            if "crop" in self._kinds:
                row[:, 1:] = moves
        return drawn


def augment(images: Tensor, draws: Tensor, black: Tensor) -> Tensor:
    """Return a batch flipped and cropped as drawn; it shares no memory with `images`.

    Args:
        images: float [batch, channels, height, width], normalised.
        draws: int64 [batch, 3], as `Augmentation.draws` gives them, on the same device.
        black: float [channels] or [batch, channels]: what stands outside the images.
    """
    examples, channels, height, width = images.shape
    flip, down, across = draws[:, :, None].unbind(1)
    rows = torch.arange(height, device=images.device) + down
    columns = torch.arange(width, device=images.device)
    columns = torch.where(flip == 1, width - 1 - columns, columns) + across
    # Each image gets one black pixel more, which all places outside point to: then a single look-up does everything.
    places = rows[:, :, None] * width + columns[:, None, :]
    outside = ((rows < 0) | (rows >= height))[:, :, None] | ((columns < 0) | (columns >= width))[:, None, :]
    places = places.masked_fill(outside, height * width).flatten(1)
    pixels = torch.cat([images.flatten(2), black[..., None].expand(examples, channels, 1)], 2)
    return pixels.gather(2, places[:, None].expand(-1, channels, -1)).view(images.shape)
