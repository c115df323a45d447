"""A user's data that do not fit into memory: examples are read by number when training needs them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import count
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from tombola.data.dataset import Arrays, Description, Tokens, described, each_array
from tombola.data.normalising import Scaling
from tombola.data.parts import Order, Part, Tensors
from tombola.data.reading import Fetcher, Reader, Wanted
from tombola.data.streams import Stream
from tombola.registry import code_fingerprint

UNIT = 128  # examples of an evaluation that a process reads at a time


@dataclass(frozen=True, eq=False)
class StreamedPart:
    """Examples of one part, which are read when they are needed.

    Args:
        reader: reads them, and those of the trial's other parts.
        which: "train" or "test", where the user's function has them.
        rows: int64 [N], their numbers there.
        scaling: what makes raw inputs those that a network sees.
        device: where batches go.
        prepared: what a task makes of targets.
    """

    streams: ClassVar[bool] = True

    reader: Reader
    which: str
    rows: np.ndarray
    scaling: Scaling
    device: torch.device
    prepared: Callable[[Tensors], Tensors] = lambda targets: targets

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def example(self) -> Part:
        """The first example, as a batch of one."""
        return self.select(slice(1))

    @cached_property
    def targets(self) -> Tensors:
        """The targets of all examples: they are read once, with their inputs, and kept."""
        pieces = self.blocks(slice(first, first + UNIT) for first in range(0, len(self), UNIT))
        targets = [each_array(lambda tensor: tensor.cpu().numpy(), piece.targets) for piece in pieces]
        return each_array(lambda array: torch.from_numpy(array).to(self.device), _joined(targets))

    def select(self, rows: Tensor | slice) -> Part:
        """Return some examples, read in this process."""
        numbers = self.rows[rows if isinstance(rows, slice) else rows.cpu().numpy()]
        return self._part(*self.reader.fetcher.take(self._of(numbers)))

    def blocks(self, rows: Iterable[slice]) -> Iterator[Part]:
        """Yield the examples of each slice."""
        blocks = [np.split(numbers, range(UNIT, len(numbers), UNIT)) for numbers in map(self.rows.__getitem__, rows)]
        reading = self.reader.read(self._of(unit) for block in blocks for unit in block)
        for block in blocks:
            inputs, targets = zip(*(next(reading) for _ in block), strict=True)
            yield self._part(_joined(inputs), _joined(targets))

    def batches(self, order: Order, first: int) -> Iterator[Part]:
        """Yield the batch of iteration `first`, and of all that follow.

        Reading goes on where it was after examples have been read for something else, such as an evaluation.
        """
        reading = None
        for iteration in count(first):
            if reading is None or not reading.is_current:
                reading = self.reader.read(self._wanted(order, iteration))
            yield self._part(*next(reading))

    def with_targets(self, function: Callable[[Tensors], Tensors]) -> StreamedPart:
        """Return the examples with what a function makes of their targets."""
        before = self.prepared
        return replace(self, prepared=lambda targets: function(before(targets)))

    def close(self) -> None:
        """End the processes that read."""
        self.reader.close()

    def _wanted(self, order: Order, first: int) -> Iterator[Wanted]:
        for iteration in count(first):
            (rows,) = order(iteration, 1)
            yield self._of(self.rows[rows.numpy()])

    def _of(self, numbers: np.ndarray) -> Wanted:
        return Wanted(self.which, numbers, self.scaling)

    def _part(self, inputs: Arrays, targets: Arrays) -> Part:
        def moved(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array).to(self.device)

        return Part(each_array(moved, inputs), self.prepared(each_array(moved, targets)))


class Streamed:
    """A user's data set before it is split; none of it is held.

    Args:
        name, arguments: of the user's function.

    Raises:
        InputError: there is no such function, or it fails.
        DataError: what it returns can't be streamed.
    """

    is_copied = False

    def __init__(self, name: str, arguments: Mapping[str, Any]):
        self.name, self._arguments, self._stream = name, arguments, Stream(name, arguments)
        self._fetcher = Fetcher(name, arguments, self._stream)
        self._reader = Reader(self._fetcher, 0)

    @property
    def classes(self) -> int | None:
        """Number of classes, as the function says it."""
        return self._stream.classes

    @property
    def tokens(self) -> Tokens:
        """Number of token ids, structured as the inputs, as the function says it."""
        return self._stream.tokens

    @property
    def sample(self) -> Arrays:
        """Inputs of the first training example, [1, ...]."""
        return self._stream.sample[0]

    @property
    def examples(self) -> int:
        """Number of training examples, validation included."""
        return len(self._stream.rows["train"])

    @property
    def description(self) -> Description:
        """What a network must know of the data."""
        return described(*self._stream.sample, self.classes, self.tokens, self.examples, len(self._stream.rows["test"]))

    @cached_property
    def fingerprint(self) -> str:
        """What identifies the data without reading them all.

        A hash of the function's code, as far as it reaches in the user's project, of its arguments, and of `content`.
        """
        code = code_fingerprint(self.name, {}, "data source")
        found = [code, self._arguments, self._stream.said, *self._stream.content]
        return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()

    @cached_property
    def train_targets(self) -> Arrays:
        """The targets of all training examples, which are read once for it."""
        every = np.arange(self.examples)
        units = np.split(every, range(UNIT, len(every), UNIT))
        return _joined([self._stream.take("train", unit.tolist())[1] for unit in units])

    def opened(self, workers: int) -> Streamed:
        """Return the data set with processes of its own that read it, once they are needed."""
        opened = copy(self)
        opened._reader = Reader(self._fetcher, workers)
        return opened

    def close(self) -> None:
        """End the processes that read."""
        self._reader.close()

    def raw(self, rows: np.ndarray, step: int) -> Iterator[np.ndarray]:
        """Yield the inputs of some training examples, `step` at a time; of data with a single array of inputs."""
        blocks = np.split(rows, range(step, len(rows), step))
        return (inputs for inputs, _ in self._reader.read(Wanted("train", block) for block in blocks))

    def parts(
        self, kept: np.ndarray, aside: np.ndarray, scaling: Scaling, device: Any
    ) -> tuple[StreamedPart, StreamedPart, StreamedPart]:
        """Return the training, validation and test examples; nothing is read yet.

        Args:
            kept, aside: int64, numbers of the published training examples that become training and validation.
            scaling: what makes raw inputs those that a network sees.
            device: where batches go.
        """

        def part(which: str, rows: np.ndarray) -> StreamedPart:
            return StreamedPart(self._reader, which, rows, scaling, torch.device(device))

        every = np.arange(len(self._stream.rows["test"]))
        return part("train", kept), part("train", aside), part("test", every)


def _joined(pieces: Any) -> Arrays:
    """Return the arrays of several pieces one after another; a single piece as it is."""
    first = pieces[0]
    if len(pieces) == 1 or first is None:
        return first
    if isinstance(first, dict):
        return {name: np.concatenate([piece[name] for piece in pieces]) for name in first}
    return tuple(map(np.concatenate, zip(*pieces, strict=True))) if isinstance(first, tuple) else np.concatenate(pieces)
