"""Split a data set for one trial, normalise it, and put it on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import torch

from tombola.data.dataset import Arrays, Description, Tokens
from tombola.data.held import BLOCK, Dataset
from tombola.data.normalising import Layout, Normalise, Scaling, as_floats, grouped, layout_of
from tombola.data.parts import Examples, Splits
from tombola.errors import DataError, InputError
from tombola.registry import resolve
from tombola.seeds import Seeds


class AnyDataset(Protocol):
    """A data set before it is split: `Dataset`, in memory, or `Streamed`."""

    @property
    def name(self) -> str:
        """For messages."""

    @property
    def fingerprint(self) -> str:
        """Identity of the content; "" where the name suffices."""

    @property
    def classes(self) -> int | None:
        """Number of classes; None where the targets are not class numbers."""

    @property
    def tokens(self) -> Tokens:
        """Number of token ids, structured as the inputs."""

    @property
    def description(self) -> Description:
        """What a network must know of the data."""

    @property
    def examples(self) -> int:
        """Number of training examples, validation included."""

    @property
    def is_copied(self) -> bool:
        """Whether training holds the same floats once more, normalised."""

    @property
    def train_targets(self) -> Arrays:
        """The targets of all training examples."""

    @property
    def sample(self) -> Arrays:
        """Inputs of the first training example, [1, ...]."""

    def opened(self, workers: int) -> AnyDataset:
        """Return the data set ready to be read, of streamed data by so many processes."""

    def close(self) -> None:
        """End the processes that read."""

    def raw(self, rows: np.ndarray, step: int) -> Iterator[np.ndarray]:
        """Yield the inputs of some training examples, `step` at a time; of data with a single array of inputs."""

    def parts(
        self, kept: np.ndarray, aside: np.ndarray, scaling: Scaling, device: Any
    ) -> tuple[Examples, Examples, Examples]:
        """Return the training, validation and test examples, normalised and for a device.

        Args:
            kept, aside: int64, numbers of the published training examples that become training and validation.
            scaling: what makes raw inputs those that a network sees.
            device: where training gets its batches.

        Raises:
            DataError: the values span a range that float32 can't hold.
        """


def split(
    dataset: AnyDataset,
    validation: int | float | str,
    seeds: Seeds,
    device: str | torch.device = "cpu",
    normalise: Normalise = "default",
    workers: int = 0,
    check: Callable[[], None] = lambda: None,
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
        workers: processes that read streamed data; data in memory need none.
        check: called now and then while the normalisation is measured; may raise to stop.

    Raises:
        InputError: `validation` doesn't fit the training set.
        DataError: the values span a range that float32 can't hold.
    """
    aside, kept = rows_of(dataset, validation, seeds)
    layout, opened = layout_of(dataset.sample, normalise), dataset.opened(workers)
    try:
        scaling = Scaling() if layout == "none" else _measured(opened, kept, layout, check)
        train, chosen, test = opened.parts(kept, aside, scaling, device)
    except BaseException:
        opened.close()
        raise
    return Splits(
        train=train,
        validation=chosen,
        test=test,
        mean=tuple(scaling.mean.tolist()),
        std=tuple(scaling.std.tolist()),
        classes=dataset.classes,
        tokens=dataset.tokens,
    )


def rows_of(dataset: AnyDataset, validation: int | float | str, seeds: Seeds) -> tuple[np.ndarray, np.ndarray]:
    """Return which of the published training examples a trial validates on, and which it trains on.

    Raises:
        InputError: `validation` doesn't fit the training set.
    """
    available = dataset.examples
    if isinstance(validation, str):
        assert isinstance(dataset, Dataset)  # `DataSettings` has seen to that
        aside = own_rows(dataset, validation, seeds)
        if (planned := len(own_rows(dataset, validation, Seeds(0, 0)))) != len(aside):
            raise InputError(
                f"data.validation={validation!r} set {planned} examples aside with one generator and {len(aside)} with "
                "another; each trial needs the same number"
            )
        return aside, np.setdiff1d(np.arange(available), aside)
    count = held_out(validation, available)
    if not 0 <= count < available:
        raise InputError(
            f"data.validation is {validation:,}, but {dataset.name} has {available:,} training examples: "
            f"give a number from 0 to {available - 1:,}"
        )
    return drawn_rows(available, count, seeds)


def held_out(validation: int | float, available: int) -> int:
    """Return how many of the training examples are set aside, of which a share may have been asked for."""
    return max(1, round(validation * available)) if isinstance(validation, float) else validation


def check_rows_again(dataset: Dataset, name: str, rows: np.ndarray) -> None:
    """Check that a user's function sets the same training examples aside again.

    Raises:
        InputError: it draws from elsewhere than its generator.
    """
    if not np.array_equal(rows, own_rows(dataset, name, Seeds(0, 0))):
        raise InputError(
            f"data.validation={name!r} set other examples aside when it was called again with an equal generator; draw "
            "only from the generator that it receives"
        )


def own_rows(dataset: Dataset, name: str, seeds: Seeds) -> np.ndarray:
    """Return int64, ascending: the training examples that a user's function sets aside.

    Raises:
        InputError: the function does not exist, it fails, or it returns no such numbers.
    """
    where = f"data.validation={name!r}"
    function = resolve(name, {}, "validation split")
    available = dataset.examples
    try:
        rows = np.asarray(function(dataset.train_inputs, dataset.train_targets, seeds.generator("split")))
    except Exception as error:
        raise InputError(
            f"{where} failed: {type(error).__name__}: {error}; tombola calls it as function(inputs, targets, generator)"
        ) from error
    if rows.dtype == bool and rows.shape == (available,):
        rows = np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(
            f"{where} must return numbers of examples as integers [n], or a mask [{available}]; it returned "
            f"{rows.dtype} of shape {rows.shape}"
        )
    numbers, times = np.unique(rows, return_counts=True)
    if len(numbers) != len(rows):
        raise InputError(
            f"{where} returned {len(rows):,} numbers of examples, of which {len(rows) - len(numbers):,} repeat others, "
            f"such as {numbers[times.argmax()]}; return each number once"
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


def _measured(dataset: AnyDataset, rows: np.ndarray, layout: Layout, check: Callable[[], None]) -> Scaling:
    """Return the scaling of those training examples: mean 0 and standard deviation 1 in each group of values."""
    sample = dataset.sample
    groups, step = grouped(sample, layout).shape[1], max(1, BLOCK // max(1, sample[0].size))

    lowest, highest = np.full(groups, np.inf), np.full(groups, -np.inf)
    total, squares, count = np.zeros(groups), np.zeros(groups), 0

    def blocks() -> Iterator[np.ndarray]:
        for block in dataset.raw(rows, step):
            check()
            yield as_floats(block, layout)

    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks():
            total += block.sum(axis=(0, 2))
            count += block.shape[0] * block.shape[2]
            lowest = np.minimum(lowest, block.min(axis=(0, 2)))
            highest = np.maximum(highest, block.max(axis=(0, 2)))
        mean = total / count
        # A second pass: E[x^2] - E[x]^2 would lose every digit where the mean is large beside the spread.
        for block in blocks():
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
    return Scaling(layout, mean, np.where(constant | (std == 0), 1.0, std))
