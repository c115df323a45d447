"""Augmentation of whole batches on the device: random flips and crops of images, and functions of the user's own.

A user's function is called as `function(inputs, generator)` and returns inputs of the same shape and type. The
generator is on the CPU, and seeded for each iteration: what it draws is the same on every device and after a resume.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tombola.data.parts import Splits, Tensors, each_tensor, first_tensor
from tombola.errors import InputError
from tombola.registry import resolve
from tombola.seeds import Seeds

KINDS = ("flip", "crop")
PADDING = 4  # pixels on each side that a crop may reach beyond the image


class Augmentation:
    """What is drawn for the batches of one replica, as a pure function of the iteration.

    "flip" mirrors an image left to right with probability 1/2. "crop" moves it by -4 to 4 pixels down and across, as
    cropping it after padding by 4 pixels does (He et al. 2016, Section 4.2; Frankle & Carbin 2019, Appendix H). What
    comes in from outside the image is black - 0 before normalisation, as in the usual pipelines, which pad the raw
    image - and so another number than 0 after it.

    Draws are made on the CPU, from (study seed, trial, "augment", iteration): the same on every device, and the same
    flips with crops as without.

    Args:
        kinds: any of "flip" and "crop", whose order makes no difference; and `package.module:function`s, called after
            them in their order.
        batch_size: examples in a batch.
        seeds: the trial's.
        splits: the trial's data, from whose normalisation it follows what black is.

    Attributes:
        black: float [channels], on the device of the data.
        kinds: "flip" and "crop", as far as they are asked for.
        own: the user's functions.
    """

    def __init__(self, kinds: Sequence[str], batch_size: int, seeds: Seeds, splits: Splits):
        self.kinds = tuple(kind for kind in kinds if kind in KINDS)
        self.own = {kind: resolve(kind, {}, "augmentation") for kind in kinds if kind not in KINDS}
        self._batch_size, self._seeds = batch_size, seeds
        mean, std = torch.tensor(splits.mean, dtype=torch.float64), torch.tensor(splits.std, dtype=torch.float64)
        if len(mean):
            self.black = (-mean / std).to(first_tensor(splits.train.example.inputs))
        else:  # inputs as they are
            images = first_tensor(splits.train.example.inputs)
            self.black = images.new_zeros(images.shape[1] if images.dim() == 4 else 0)

    def draws(self, first: int, count: int) -> Tensor:
        """Return int64 [count, batch, 3] for iterations first, ..., first + count - 1: flip (0 or 1), down, across."""
        drawn = torch.zeros(count, self._batch_size, 3, dtype=torch.int64)
        for row, iteration in zip(drawn, range(first, first + count), strict=True):
            generator = self._seeds.generator("augment", iteration)
            flips = torch.randint(2, (self._batch_size,), generator=generator)
            moves = torch.randint(-PADDING, PADDING + 1, (self._batch_size, 2), generator=generator)
            if "flip" in self.kinds:
                row[:, 0] = flips
            if "crop" in self.kinds:
                row[:, 1:] = moves
        return drawn

    def own_changes(self, inputs: Tensors, iteration: int) -> Tensors:
        """Return the inputs of an iteration's batch as the user's functions change them.

        Raises:
            InputError: a function fails, or returns something of another shape or type.
        """
        for name, function in self.own.items():
            generator = self._seeds.generator("augment", f"{name}/{iteration}")
            inputs = changed_by(name, function, inputs, generator)
        return inputs


def changed_by(name: str, function: Any, inputs: Tensors, generator: torch.Generator) -> Tensors:
    """Return a batch after a user's augmentation.

    Raises:
        InputError: it fails, or returns something of another shape or type.
    """
    where = f"training.augment={name!r}"
    try:
        # A copy: a function may well change its argument, which must not change the data.
        changed = function(each_tensor(torch.clone, inputs), generator)
    except Exception as error:
        raise InputError(
            f"{where} failed: {type(error).__name__}: {error}; tombola calls it as function(inputs, generator)"
        ) from error
    if _kinds_of(changed) != _kinds_of(inputs):
        raise InputError(f"{where} turned {_kinds_of(inputs)} into {_kinds_of(changed)}; it must keep shape and type")
    return changed


def _kinds_of(inputs: object) -> str:
    if not isinstance(inputs, Tensor | tuple | dict):
        return type(inputs).__name__
    return str(each_tensor(lambda each: (tuple(each.shape), str(each.dtype), each.device.type), inputs))


def augment(images: Tensor, draws: Tensor, black: Tensor) -> Tensor:
    """Return a batch flipped and cropped as drawn; it shares no memory with `images`.

    Args:
        images: float [batch, channels, height, width], normalised.
        draws: int64 [batch, 3], as returned by `Augmentation.draws`, on the same device.
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
