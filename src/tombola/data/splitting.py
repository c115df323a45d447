"""Split a data set for one trial, normalise it, and put it on the device."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from tombola.data.dataset import Arrays, Dataset, are_tokens, each_array, first_array
from tombola.data.normalising import Layout, Normalise, grouped, layout_of
from tombola.data.parts import Part, Splits, Tensors
from tombola.errors import DataError, InputError
from tombola.registry import resolve
from tombola.seeds import Seeds

# Values converted to float64 at a time: bounds the memory that a large data set takes beside its own.
_BLOCK = 2**20


def split(
    dataset: Dataset,
    validation: int | float | str,
    seeds: Seeds,
    device: str | torch.device = "cpu",
    normalise: Normalise = "default",
) -> Splits:
    """Draw the validation examples, normalise all three parts and move them to the device.

    The normalisation is measured in float64 on the training examples that remain, so that neither validation nor
    test leaks into it; see `tombola.data.normalising.layout_of` for what is normalised together. uint8 is first divided
    by 255. A channel that never varies is only shifted, not scaled. Token ids stay as they are, and so do the inputs
    of a network that takes several.

    Args:
        dataset: what `load` gave.
        validation: as in the `data` section; at least one training example must be left.
        seeds: of the trial; purpose "split" decides which examples are drawn.
        device: where the tensors go.
        normalise: as in the `data` section of a study.

    Raises:
        InputError: `validation` doesn't fit the training set.
        DataError: the values span a range that float32 can't hold.
    """
    aside, kept = rows_of(dataset, validation, seeds)
    layout = layout_of(dataset.train_inputs, normalise)
    normalised = layout != "none"
    mean, std = _measure(dataset, kept, layout) if normalised else (np.empty(0), np.empty(0))

    def inputs_of(inputs: Arrays, rows: np.ndarray, which: str) -> Tensors:
        if not normalised:
            return each_array(lambda array: _as_is(array[rows]).to(device), inputs)
        values = _normalise(inputs, rows, mean, std, layout)
        if not np.isfinite(values).all():
            raise DataError(
                f"{dataset.name}: after normalisation, the {which} inputs exceed the range of float32; look for "
                "outliers, or scale the inputs before you save them"
            )
        return torch.from_numpy(values).to(device)

    def part(inputs: Arrays, targets: Arrays, rows: np.ndarray, which: str) -> Part:
        chosen = each_array(lambda array: torch.from_numpy(array[rows]).to(device), targets)
        return Part(inputs_of(inputs, rows, which), chosen)

    every = np.arange(len(first_array(dataset.test_inputs)))
    return Splits(
        train=part(dataset.train_inputs, dataset.train_targets, kept, "training"),
        validation=part(dataset.train_inputs, dataset.train_targets, aside, "validation"),
        test=part(dataset.test_inputs, dataset.test_targets, every, "test"),
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        classes=dataset.classes,
        tokens=dataset.tokens,
    )


def _as_is(array: np.ndarray) -> torch.Tensor:
    """Return int64 token ids, or float32 values: of uint8 from 0 to 1."""
    if are_tokens(array):
        return torch.from_numpy(array.astype(np.int64))
    return torch.from_numpy(array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1))


def rows_of(dataset: Dataset, validation: int | float | str, seeds: Seeds) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the published training examples a trial validates on, and which it trains on.

    Raises:
        InputError: `validation` doesn't fit the training set.
    """
    available = len(first_array(dataset.train_inputs))
    if isinstance(validation, str):
        aside = own_rows(dataset, validation, seeds)
        if (planned := len(own_rows(dataset, validation, Seeds(0, 0)))) != len(aside):
            raise InputError(
                f"data.validation={validation!r} set {planned} examples aside with one generator and {len(aside)} with "
                "another; each trial needs the same number"
            )
        return aside, np.setdiff1d(np.arange(available), aside)
    count = held_out(validation, available)
    if not 1 <= count < available:
        raise InputError(
            f"data.validation is {validation:,}, but {dataset.name} has {available:,} training examples: "
            f"give a number from 1 to {available - 1:,}"
        )
    return drawn_rows(available, count, seeds)


def held_out(validation: int | float, available: int) -> int:
    """Return how many of the training examples are set aside, of which a share may have been asked for."""
    return max(1, round(validation * available)) if isinstance(validation, float) else validation


def own_rows(dataset: Dataset, name: str, seeds: Seeds) -> np.ndarray:
    """Return int64, ascending: the training examples that a user's function sets aside.

    Raises:
        InputError: the function does not exist, it fails, or it returns no such numbers.
    """
    where = f"data.validation={name!r}"
    function = resolve(name, {}, "validation split")
    available = len(first_array(dataset.train_inputs))
    try:
        rows = np.asarray(function(dataset.train_inputs, dataset.train_targets, seeds.generator("split")))
    except Exception as error:
        raise InputError(
            f"{where} failed: {type(error).__name__}: {error}; tombola calls it as function(inputs, targets, generator)"
        ) from error
    if rows.dtype == bool and rows.shape == (available,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or len(np.unique(rows)) != len(rows):
        raise InputError(
            f"{where} must return different numbers of examples as integers [n], or a mask [{available}]; it returned "
            f"{rows.dtype} of shape {rows.shape}"
        )
    if not 1 <= len(rows) < available or rows.min() < 0 or rows.max() >= available:
        raise InputError(
            f"{where} set {len(rows):,} of {available:,} training examples aside, by numbers that must lie from 0 to "
            f"{available - 1:,}; at least one example must be left on each side"
        )
    return np.sort(rows.astype(np.int64))


def drawn_rows(available: int, validation: int, seeds: Seeds) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the published training examples a trial validates on, and which it trains on."""
    drawn = torch.randperm(available, generator=seeds.generator("split")).numpy()
    # Ascending, because the order in which training sees the examples is another purpose's business.
    return np.sort(drawn[:validation]), np.sort(drawn[validation:])


def _measure(dataset: Dataset, rows: np.ndarray, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 mean and standard deviation, [groups] each, of those training examples."""
    channels = grouped(dataset.train_inputs[:1], layout).shape[1]
    lowest, highest = np.full(channels, np.inf), np.full(channels, -np.inf)
    total, squares, count = np.zeros(channels), np.zeros(channels), 0
    with np.errstate(over="ignore", invalid="ignore"):
        for _, block in _blocks(dataset.train_inputs, rows, layout):
            total += block.sum(axis=(0, 2))
            count += block.shape[0] * block.shape[2]
            lowest = np.minimum(lowest, block.min(axis=(0, 2)))
            highest = np.maximum(highest, block.max(axis=(0, 2)))
        mean = total / count
        # A second pass: E[x^2] - E[x]^2 would lose every digit where the mean is large beside the spread.
        for _, block in _blocks(dataset.train_inputs, rows, layout):
            squares += ((block - mean[:, None]) ** 2).sum(axis=(0, 2))
        std = np.sqrt(squares / count)
    if not (np.isfinite(mean).all() and np.isfinite(std).all()):
        raise DataError(
            f"{dataset.name}: the training inputs are too large to be normalised (up to {highest.max():.3g}, "
            f"down to {lowest.min():.3g}); scale them before you save them"
        )
    # Compared exactly, not by std == 0: the mean of equal values is rounded, and what is left of them is noise.
    constant = lowest == highest
    mean = np.where(constant, lowest, mean)
    return mean, np.where(constant | (std == 0), 1.0, std)


def _normalise(inputs: np.ndarray, rows: np.ndarray, mean: np.ndarray, std: np.ndarray, layout: Layout) -> np.ndarray:
    """Return float32 [rows, ...]: computed in float64, rounded once."""
    result = np.empty((len(rows), *inputs.shape[1:]), dtype=np.float32)
    flat = grouped(result, layout)
    with np.errstate(over="ignore", invalid="ignore"):
        for start, block in _blocks(inputs, rows, layout):
            flat[start : start + len(block)] = (block - mean[:, None]) / std[:, None]
    return result


def _blocks(inputs: np.ndarray, rows: np.ndarray, layout: Layout) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (position in `rows`, float64 [examples, groups, values]), uint8 scaled to 0..1."""
    step = max(1, _BLOCK // max(1, inputs[0].size))
    for start in range(0, len(rows), step):
        chosen = inputs[rows[start : start + step]]
        block = grouped(chosen, layout).astype(np.float64)
        yield start, block / 255 if inputs.dtype == np.uint8 else block
