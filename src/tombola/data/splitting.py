"""Split a data set for one trial, normalise it, and put it on the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from tombola.data.dataset import Arrays, Dataset, are_tokens, each_array, first_array
from tombola.data.parts import Part, Splits, Tensors
from tombola.errors import DataError, InputError
from tombola.seeds import Seeds

# Values converted to float64 at a time: bounds the memory that a large data set takes beside its own.
_BLOCK = 2**20


def split(dataset: Dataset, validation: int, seeds: Seeds, device: str | torch.device = "cpu") -> Splits:
    """Draw the validation examples, normalise all three parts and move them to the device.

    The normalisation is measured in float64 on the training examples that remain, so that neither validation nor
    test leaks into it: per channel for images, and over all features together for feature vectors. uint8 is first
    divided by 255. A channel that never varies is only shifted, not scaled. Token ids stay as they are, and so do the
    inputs of a network that takes several.

    Args:
        dataset: what `load` gave.
        validation: examples to draw, at least 1; at least one training example must be left.
        seeds: of the trial; purpose "split" decides which examples are drawn.
        device: where the tensors go.

    Raises:
        InputError: `validation` doesn't fit the training set.
        DataError: the values span a range that float32 can't hold.
    """
    available = len(first_array(dataset.train_inputs))
    if not 1 <= validation < available:
        raise InputError(
            f"data.validation is {validation:,}, but {dataset.name} has {available:,} training examples: "
            f"give a number from 1 to {available - 1:,}"
        )
    held_out, kept = drawn_rows(available, validation, seeds)
    normalised = _is_normalised(dataset.train_inputs)
    mean, std = _measure(dataset, kept) if normalised else (np.empty(0), np.empty(0))

    def inputs_of(inputs: Arrays, rows: np.ndarray, which: str) -> Tensors:
        if not normalised:
            return each_array(lambda array: _as_is(array[rows]).to(device), inputs)
        values = _normalise(inputs, rows, mean, std)
        if not np.isfinite(values).all():
            raise DataError(
                f"{dataset.name}: once normalised, the {which} inputs exceed the range of float32; "
                "look for outliers in them, or scale them before they are saved"
            )
        return torch.from_numpy(values).to(device)

    def part(inputs: Arrays, targets: Arrays, rows: np.ndarray, which: str) -> Part:
        chosen = each_array(lambda array: torch.from_numpy(array[rows]).to(device), targets)
        return Part(inputs_of(inputs, rows, which), chosen)

    every = np.arange(len(first_array(dataset.test_inputs)))
    return Splits(
        train=part(dataset.train_inputs, dataset.train_targets, kept, "training"),
        validation=part(dataset.train_inputs, dataset.train_targets, held_out, "validation"),
        test=part(dataset.test_inputs, dataset.test_targets, every, "test"),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        classes=dataset.classes,
        tokens=dataset.tokens,
    )


def _is_normalised(inputs: Arrays) -> bool:
    return isinstance(inputs, np.ndarray) and not are_tokens(inputs)


def _as_is(array: np.ndarray) -> torch.Tensor:
    """Return int64 token ids, or float32 values: of uint8 from 0 to 1."""
    if are_tokens(array):
        return torch.from_numpy(array.astype(np.int64))
    return torch.from_numpy(array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1))


def drawn_rows(available: int, validation: int, seeds: Seeds) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the published training examples a trial validates on, and which it trains on."""
    drawn = torch.randperm(available, generator=seeds.generator("split")).numpy()
    # Ascending, because the order in which training sees the examples is another purpose's business.
    return np.sort(drawn[:validation]), np.sort(drawn[validation:])


def _measure(dataset: Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 mean and standard deviation, [channels] each, of those training examples."""
    channels = _channels(dataset.train_inputs)
    lowest, highest = np.full(channels, np.inf), np.full(channels, -np.inf)
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for _, block in _blocks(dataset.train_inputs, rows):
            total += block.sum(axis=(0, 2))
            count += block.shape[0] * block.shape[2]
            lowest = np.minimum(lowest, block.min(axis=(0, 2)))
            highest = np.maximum(highest, block.max(axis=(0, 2)))
        mean = total / count
        # A second pass: E[x^2] - E[x]^2 would lose every digit where the mean is large beside the spread.
        for _, block in _blocks(dataset.train_inputs, rows):
            squares += ((block - mean[:, None]) ** 2).sum(axis=(0, 2))
        std = np.sqrt(squares / count)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise DataError(
            f"{dataset.name}: the training inputs are too large to be normalised (up to {highest.max():.3g}, "
            f"down to {lowest.min():.3g}); scale them before they are saved"
        )
    # Compared exactly, not by std == 0: the mean of equal values is rounded, and what is left of them is noise.
    constant = lowest == highest
    mean = np.where(constant, lowest, mean)
    return mean, np.where(constant | (std == 0), 1.0, std)


def _normalise(inputs: np.ndarray, rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return float32 [rows, ...]: computed in float64, rounded once."""
    result = np.empty((len(rows), *inputs.shape[1:]), dtype=np.float32)
    flat = result.reshape(len(rows), len(mean), -1)
    with np.errstate(over="ignore", invalid="ignore"):
        for start, block in _blocks(inputs, rows):
            flat[start : start + len(block)] = (block - mean[:, None]) / std[:, None]
    return result


def _blocks(inputs: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (position in `rows`, float64 [examples, channels, values]), uint8 scaled to 0..1."""
    step = max(1, _BLOCK // max(1, inputs[0].size))
    for start in range(0, len(rows), step):
        chosen = inputs[rows[start : start + step]]
        block = chosen.reshape(len(chosen), _channels(inputs), -1).astype(np.float64)
        yield start, block / 255 if inputs.dtype == np.uint8 else block


def _channels(inputs: np.ndarray) -> int:
    return inputs.shape[1] if inputs.ndim == 4 else 1
