"""What is known of a data set before it is split and normalised, and structures of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

OneShape = tuple[int, ...]
if TYPE_CHECKING:  # most data sets have a single array, and their code takes it to be one
    Shape = Any
else:  # pydantic reads it
    Shape = OneShape | tuple[OneShape, ...] | dict[str, OneShape]  # of a tensor, of a tuple or of a dict of tensors
Dtype = str | tuple[str, ...] | dict[str, str]
Tokens = int | None | tuple[int | None, ...] | dict[str, int | None]
CHANNELS = (1, 3, 4)  # of pictures
Arrays = Any  # an array [N, ...], or a tuple or dict of such arrays


def is_one_shape(shape: Any) -> bool:
    """Return whether a shape is that of a single tensor, rather than of several."""
    return isinstance(shape, tuple) and all(isinstance(size, int) for size in shape)


def float_inputs(dtype: Dtype) -> list[str]:
    """Return the names of those of several inputs that are numbers, not token ids; inputs without names are counted.

    Args:
        dtype: `input_dtype` of a `Description`.
    """
    named = dtype if isinstance(dtype, dict) else {f"input {place}": each for place, each in enumerate(dtype)}
    return [name for name, each in named.items() if each == "float32"]


def shape_from_json(written: Any) -> Any:
    """Return a shape, or several, from JSON, which has lists for tuples."""
    if isinstance(written, dict):
        return {name: shape_from_json(each) for name, each in written.items()}
    return tuple(map(shape_from_json, written)) if isinstance(written, list | tuple) else written


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
        label_fault: why whole-number targets, one for each example, are not the classes of a classification, and what
            to do; "" where they are, or where nobody has looked.
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
    label_fault: str = field(default="", compare=False)


def described(
    inputs: Arrays, targets: Arrays, classes: int | None, tokens: Tokens, train: int, test: int
) -> Description:
    """Return the description of a data set of which some examples are at hand.

    Args:
        inputs, targets: arrays [N, ...] of raw examples.
        classes, tokens, train, test: as in `Description`.
    """
    return Description(
        input_shape=each_array(_shape, inputs),
        classes=classes,
        train=train,
        test=test,
        output_shape=each_array(_shape, targets),
        input_dtype=each_array(_input_dtype, inputs),
        target_dtype=each_array(_target_dtype, targets),
        tokens=tokens,
    )


def looks_channels_last(shape: Sequence[int]) -> bool:
    """Return whether inputs of this shape [N, ...] seem to be pictures whose channels come last.

    They would train without complaint, on convolutions across the wrong axes.
    """
    if len(shape) != 4:
        return False
    _, first, second, last = shape
    return last in CHANNELS and first not in CHANNELS and last < min(first, second)


def are_tokens(array: np.ndarray) -> bool:
    """Return whether an array of inputs holds token ids, which are never normalised; uint8 counts as pixels."""
    return array.dtype.kind in "iu" and array.dtype != np.uint8


def _shape(array: np.ndarray) -> OneShape:
    return tuple(array.shape[1:])


def _input_dtype(array: np.ndarray) -> str:
    return "int64" if are_tokens(array) else "float32"


def _target_dtype(array: np.ndarray) -> str:
    return {"i": "int64", "u": "int64", "b": "bool"}.get(array.dtype.kind, "float32")
