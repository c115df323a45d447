"""Normalisation: which values of an example share a mean and a standard deviation, and where they stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tombola.data.dataset import Arrays, are_tokens, each_array
from tombola.errors import DataError

Normalise = Literal["default", "channel", "feature", "none"]
Layout = Literal["together", "channel", "feature", "step", "none"]


def layout_of(inputs: Arrays, normalise: Normalise = "default") -> Layout:
    """Return which values share their constants.

    "channel": all pixels of a channel. "feature": the values at one place of the examples. "step": one feature of a
    sequence [N, steps, features], over all steps. "together": all values. "none": inputs stay as they are, and so do
    token ids and several inputs always.

    Args:
        inputs: array [N, ...], or several.
        normalise: as in the `data` section. By default images are normalised by channel and feature vectors by
            feature, for the columns of a table may differ by orders of magnitude; sequences stay as they are.
    """
    if not isinstance(inputs, np.ndarray) or are_tokens(inputs) or normalise == "none":
        return "none"
    if normalise == "default":
        return {2: "feature", 3: "none", 4: "channel"}.get(inputs.ndim, "together")  # type: ignore[return-value]
    if normalise == "channel":
        return "channel" if inputs.ndim == 4 else "together"
    return "step" if inputs.ndim == 3 else "feature"


def grouped(examples: np.ndarray, layout: Layout) -> np.ndarray:
    """Return a view [examples, groups, values] of examples: each group shares its constants."""
    if layout == "step":
        return examples.swapaxes(1, 2)
    values = math.prod(examples.shape[1:])  # of an example; -1 would not do where there are no examples
    groups = {"together": 1, "channel": examples.shape[1], "feature": values}[layout]
    return examples.reshape(len(examples), groups, values // groups)


def as_floats(examples: np.ndarray, layout: Layout) -> np.ndarray:
    """Return float64 [examples, groups, values], uint8 scaled to 0..1."""
    values = grouped(examples, layout).astype(np.float64)
    return values / 255 if examples.dtype == np.uint8 else values


@dataclass(frozen=True, eq=False)
class Scaling:
    """What makes raw inputs those that a network sees.

    Args:
        layout: which values share their constants.
        mean, std: float64 [groups]; empty where inputs stay as they are.
    """

    layout: Layout = "none"
    mean: np.ndarray = field(default_factory=lambda: np.empty(0))
    std: np.ndarray = field(default_factory=lambda: np.empty(0))

    def apply(self, inputs: Arrays) -> Arrays:
        """Return float32 or int64 inputs, one array for each of `inputs`."""
        return each_array(self._scaled, inputs)

    def check(self, values: Arrays, source: str, what: str) -> None:
        """Check that what `apply` returned is finite.

        Raises:
            DataError: it is not; `what` of `source` is to blame.
        """
        if self.layout != "none" and not np.isfinite(values).all():
            raise DataError(
                f"{source}: after normalisation, {what} exceed the range of float32; look for "
                "outliers, or scale the inputs before you save them"
            )

    def _scaled(self, examples: np.ndarray) -> np.ndarray:
        if are_tokens(examples):
            return examples.astype(np.int64)
        if self.layout == "none":
            return examples.astype(np.float32) / (255 if examples.dtype == np.uint8 else 1)
        result = np.empty(examples.shape, dtype=np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # computed in float64, rounded once
            scaled = (as_floats(examples, self.layout) - self.mean[:, None]) / self.std[:, None]
            grouped(result, self.layout)[:] = scaled
        return result


def spread(constants: Sequence[float], shape: tuple[int, ...]) -> Tensor:
    """Return constants as float64, of a shape that broadcasts with examples of `shape`.

    How many they are says where they belong: one in all for "together", one a channel of an image, one a feature of
    a sequence, or one for each place.

    Raises:
        ValueError: they do not fit the shape.
    """
    values = torch.tensor(list(constants), dtype=torch.float64)
    if len(values) == 1:
        return values.reshape(())
    if len(values) == torch.Size(shape).numel():
        return values.reshape(shape)
    if len(shape) == 3 and len(values) == shape[0]:
        return values.reshape(-1, 1, 1)
    if len(shape) == 2 and len(values) == shape[1]:
        return values
    raise ValueError(f"{len(values)} constants do not fit examples of shape {shape}")
