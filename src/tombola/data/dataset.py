"""A data set as it was published or saved, before it is split and normalised."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

OneShape = tuple[int, ...]
if TYPE_CHECKING:  # most data sets have a single array, and their code takes it to be one
    Shape = Any
else:  # pydantic reads it
    Shape = OneShape | tuple[OneShape, ...] | dict[str, OneShape]  # of a tensor, of a tuple or of a dict of tensors
Dtype = str | tuple[str, ...] | dict[str, str]
Tokens = int | None | tuple[int | None, ...] | dict[str, int | None]
Arrays = Any  # an array [N, ...], or a tuple or dict of such arrays


def is_one_shape(shape: Any) -> bool:
    """Return whether a shape is that of a single tensor, rather than of several."""
    return isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)


def first_array(arrays: Arrays) -> np.ndarray:
    """Return the first array of a structure."""
    if isinstance(arrays, dict):
        arrays = tuple(arrays.values())
    return arrays[0] if isinstance(arrays, tuple) else arrays


def each_array(function: Any, arrays: Arrays) -> Any:
    """Return what a function makes of each array, in the same structure; None stays None."""
    if arrays is None:
        return None
    if isinstance(arrays, dict):
        return {name: function(array) for name, array in arrays.items()}
    return tuple(map(function, arrays)) if isinstance(arrays, tuple) else function(arrays)


def each_leaf(arrays: Arrays) -> list[np.ndarray]:
    """Return all arrays of a structure."""
    if isinstance(arrays, dict):
        return list(arrays.values())
    return list(arrays) if isinstance(arrays, tuple) else [arrays]


@dataclass(frozen=True)
class Description:
    """What a network, a task and a plan must know of a data set before it is loaded.

    Args:
        input_shape: of one example: (channels, height, width), (features,), (tokens,) or any other. A tuple or dict of
            such shapes where a network takes several inputs.
        classes: number of classes; None where the targets are not class numbers.
        train, test: number of examples as published; validation is still part of `train`.
        output_shape: of one example's targets: () for a class number. None: the task takes its targets from the inputs.
        input_dtype: as networks see it: "float32", or "int64" for token ids; structured as `input_shape`.
        target_dtype: "int64", "float32" or another; structured as `output_shape`.
        tokens: number of token ids, where the inputs are token ids, else None; structured as `input_shape`.
        validation: how many of the training examples the study sets aside; 0 if unknown.
    """

    input_shape: Shape
    classes: int | None
    train: int
    test: int
    output_shape: Shape | None = ()
    input_dtype: Dtype = "float32"
    target_dtype: Dtype | None = "int64"
    tokens: Tokens = None
    validation: int = field(default=0, compare=False)


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
    """

    name: str
    train_inputs: Arrays
    train_targets: Arrays
    test_inputs: Arrays
    test_targets: Arrays
    classes: int | None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        for name in ("train_inputs", "train_targets", "test_inputs", "test_targets"):
            object.__setattr__(self, name, each_array(_read_only, getattr(self, name)))

    @cached_property
    def tokens(self) -> Tokens:
        """Number of token ids, structured as the inputs; None where an input is not of token ids."""
        if not isinstance(self.train_inputs, tuple | dict):
            return _tokens(self.train_inputs, self.test_inputs)
        if isinstance(self.train_inputs, tuple):
            return tuple(map(_tokens, self.train_inputs, self.test_inputs))
        return {name: _tokens(array, self.test_inputs[name]) for name, array in self.train_inputs.items()}

    @property
    def description(self) -> Description:
        """The same facts that `describe` gives without loading."""
        return Description(
            input_shape=each_array(_shape, self.train_inputs),
            classes=self.classes,
            train=len(first_array(self.train_inputs)),
            test=len(first_array(self.test_inputs)),
            output_shape=each_array(_shape, self.train_targets),
            input_dtype=each_array(_input_dtype, self.train_inputs),
            target_dtype=each_array(_target_dtype, self.train_targets),
            tokens=self.tokens,
        )


def are_tokens(array: np.ndarray) -> bool:
    """Return whether an array of inputs holds token ids, which are never normalised; uint8 counts as pixels."""
    return array.dtype.kind in "iu" and array.dtype != np.uint8


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()  # the caller's own array stays as writeable as it was
    view.flags.writeable = False
    return view


def _shape(array: np.ndarray) -> OneShape:
    return tuple(array.shape[1:])


def _input_dtype(array: np.ndarray) -> str:
    return "int64" if are_tokens(array) else "float32"


def _target_dtype(array: np.ndarray) -> str:
    return {"i": "int64", "u": "int64", "b": "bool"}.get(array.dtype.kind, "float32")


def _tokens(train: np.ndarray, test: np.ndarray) -> int | None:
    return 1 + max(int(train.max()), int(test.max())) if are_tokens(train) else None
