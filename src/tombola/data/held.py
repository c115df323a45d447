"""A data set that is held in memory, as it was published or saved, before it is split and normalised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from tombola.data.dataset import (
    Arrays,
    Description,
    Tokens,
    are_tokens,
    described,
    each_array,
    each_leaf,
    first_array,
)
from tombola.data.normalising import Scaling
from tombola.data.parts import Part

BLOCK = 2**20  # values converted to float64 at a time: bounds the memory that a large data set takes beside its own


@dataclass(frozen=True, eq=False)
class Dataset:
    """Raw arrays, shared by everything in the process and therefore read-only.

    Args:
        name: for messages: the source, or the file it was read from.
        train_inputs, test_inputs: uint8 or floating, [N, channels, height, width] or [N, features]; or of an integer
            type, [N, ...], for token ids. A tuple or dict of such arrays where a network takes several inputs.
        train_targets, test_targets: int64 [N], class numbers from 0; or what else the task learns, [N, ...]. None
            where the task takes its targets from the inputs.
        classes: number of classes; None where the targets are not class numbers.
        fingerprint: identity of the content where the source's name doesn't say it, else "".
        said_tokens: number of token ids, structured as the inputs, where a user's function says it.
        label_fault: as in `Description`.
    """

    name: str
    train_inputs: Arrays
    train_targets: Arrays
    test_inputs: Arrays
    test_targets: Arrays
    classes: int | None
    fingerprint: str = ""
    said_tokens: Tokens = None
    label_fault: str = ""

    def __post_init__(self) -> None:
        for name in ("train_inputs", "train_targets", "test_inputs", "test_targets"):
            object.__setattr__(self, name, each_array(_read_only, getattr(self, name)))

    @cached_property
    def tokens(self) -> Tokens:
        """Number of token ids, structured as the inputs; None where an input is not of token ids."""
        if self.said_tokens is not None:
            return self.said_tokens
        if not isinstance(self.train_inputs, tuple | dict):
            return _tokens(self.train_inputs, self.test_inputs)
        if isinstance(self.train_inputs, tuple):
            return tuple(map(_tokens, self.train_inputs, self.test_inputs))
        return {name: _tokens(array, self.test_inputs[name]) for name, array in self.train_inputs.items()}

    @property
    def description(self) -> Description:
        """The same facts that `describe` gives without loading."""
        test = len(first_array(self.test_inputs))
        about = described(self.train_inputs, self.train_targets, self.classes, self.tokens, self.examples, test)
        return replace(about, label_fault=self.label_fault)

    @property
    def examples(self) -> int:
        """Number of training examples, validation included."""
        return len(first_array(self.train_inputs))

    @property
    def is_copied(self) -> bool:
        """Whether training holds the same floats once more, normalised."""
        return any(array.dtype.kind == "f" for array in each_leaf(self.train_inputs))

    @property
    def sample(self) -> Arrays:
        """Inputs of the first training example, [1, ...]."""
        return each_array(lambda array: array[:1], self.train_inputs)

    def opened(self, workers: int) -> Dataset:
        """Return the data set itself, which is in memory."""
        return self

    def close(self) -> None:
        """Do nothing: no process reads data in memory."""

    def raw(self, rows: np.ndarray, step: int) -> Iterator[np.ndarray]:
        """Yield the inputs of some training examples, `step` at a time; of data with a single array of inputs."""
        for start in range(0, len(rows), step):
            yield self.train_inputs[rows[start : start + step]]

    def parts(self, kept: np.ndarray, aside: np.ndarray, scaling: Scaling, device: Any) -> tuple[Part, Part, Part]:
        """Return the training, validation and test examples on a device, normalised.

        Args:
            kept, aside: int64, numbers of the published training examples that become training and validation.
            scaling: what makes raw inputs those that a network sees.
            device: where the tensors go.

        Raises:
            DataError: the values span a range that float32 can't hold.
        """

        def part(inputs: Arrays, targets: Arrays, rows: np.ndarray, name: str) -> Part:
            def scaled(array: np.ndarray) -> torch.Tensor:
                values = _in_blocks(scaling, array, rows)
                scaling.check(values, self.name, f"the {name} inputs")
                return torch.from_numpy(values).to(device)

            chosen = each_array(lambda array: torch.from_numpy(array[rows]).to(device), targets)
            return Part(each_array(scaled, inputs), chosen)

        train, every = (self.train_inputs, self.train_targets), np.arange(len(first_array(self.test_inputs)))
        return (
            part(*train, kept, "training"),
            part(*train, aside, "validation"),
            part(self.test_inputs, self.test_targets, every, "test"),
        )


def _in_blocks(scaling: Scaling, array: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return scaled examples; little more than the result is held at a time."""
    step = max(1, BLOCK // max(1, array[0].size))
    blocks = [slice(start, start + step) for start in range(0, max(1, len(rows)), step)]
    first = scaling.apply(array[rows[blocks[0]]])
    result = np.empty((len(rows), *first.shape[1:]), first.dtype)
    result[blocks[0]] = first
    for block in blocks[1:]:
        result[block] = scaling.apply(array[rows[block]])
    return result


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()  # the caller's own array stays as writeable as it was
    view.flags.writeable = False
    return view


def _tokens(train: np.ndarray, test: np.ndarray) -> int | None:
    return 1 + max(int(train.max()), int(test.max())) if are_tokens(train) else None
