"""A user's own data: the return value of `package.module:function`, as read-only arrays.

The function returns train and test, as a pair or as a map with these names. Each may be

- a pair (inputs, targets) of arrays: NumPy or PyTorch; inputs may be a tuple or a map of arrays, targets None;
- a pandas frame, a Hugging Face `Dataset`, or a map of columns, of which one holds the targets;
- a map-style `torch.utils.data.Dataset` of (input, target) pairs.

A map may also give `target`, the name of the column with the targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tombola.data.dataset import Arrays, Dataset, Dtype, each_array, first_array
from tombola.data.memory import check_fits
from tombola.errors import DataError, InputError
from tombola.registry import resolve

TARGETS = ("label", "labels", "target", "targets", "y")  # what the column is called if nothing says so
CHANNELS = (1, 3, 4)


def load(name: str, arguments: Mapping[str, Any]) -> Dataset:
    """Call a user's function and return its data, held in memory.

    Raises:
        InputError: the function does not exist, or it fails.
        DataError: the returned data can't be used for training.
    """
    returned = _called(name, arguments)
    target = None
    if _is_map(returned):
        unknown = [str(key) for key in returned if key not in ("train", "test", "target")]
        if unknown or "train" not in returned or "test" not in returned:
            keys = ", ".join(map(str, returned))
            raise DataError(f"{name} returned a map of {keys}; it must contain train and test, and may contain target")
        train, test, target = returned["train"], returned["test"], returned.get("target")
    elif isinstance(returned, tuple | list) and len(returned) == 2:
        train, test = returned
    else:
        raise DataError(f"{name} returned a {type(returned).__name__}; it must return (train, test)")
    inputs, targets = zip(*(_Part(name, which, part, target).read() for which, part in _both(train, test)), strict=True)
    _check_alike(name, "inputs", *inputs)
    _check_alike(name, "targets", *targets)
    targets, classes = _numbered(name, *targets)
    return Dataset(name, inputs[0], targets[0], inputs[1], targets[1], classes, _fingerprint(*inputs, *targets))


def check_same_again(first: Dataset, name: str, arguments: Mapping[str, Any]) -> Dataset:
    """Return data after another call of the function has shown that they are the same each time.

    Raises:
        InputError, DataError: as `load`; or the two calls differ.
    """
    second = load(name, arguments)
    for which in ("train", "test"):
        one, other = (len(first_array(getattr(data, f"{which}_inputs"))) for data in (first, second))
        if one != other:
            raise DataError(
                f"{name} returned {one:,} {which} examples on its first call and {other:,} on its second; it must "
                "return the same data each time: seed its random numbers"
            )
    if first.fingerprint != second.fingerprint:
        raise DataError(
            f"{name} returned other values on its second call, of as many examples; it must return the same data each "
            "time: seed its random numbers, and sort the files it reads"
        )
    return first


def _called(name: str, arguments: Mapping[str, Any]) -> Any:
    function = resolve(name, {}, "data source")
    try:
        return function(**arguments)
    except (InputError, DataError):
        raise
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise InputError(f"data.source: {name}({given}) failed: {type(error).__name__}: {error}") from error


def _both(train: Any, test: Any) -> tuple[tuple[str, Any], tuple[str, Any]]:
    return ("train", train), ("test", test)


class _Part:
    """One part of a function's return value, to convert to arrays."""

    def __init__(self, name: str, which: str, part: Any, target: str | None):
        self.where, self.part, self.target = f"{name}: {which}", part, target

    def read(self) -> tuple[Arrays, Arrays]:
        """Return inputs and targets."""
        part = self.part
        if isinstance(part, tuple | list) and len(part) == 2:
            inputs, targets = part
        elif _is_map(part) and "inputs" in part:
            inputs, targets = part["inputs"], part.get("targets")
        elif _is_map(part):
            inputs, targets = self._from_columns({str(key): part[key] for key in part})
        elif hasattr(part, "columns") and hasattr(part, "iloc"):
            inputs, targets = self._from_columns({str(key): part[key] for key in part.columns})
        elif hasattr(part, "column_names") and hasattr(part, "features"):
            as_numpy = part.with_format("numpy") if hasattr(part, "with_format") else part
            columns = as_numpy[:]
            inputs, targets = self._from_columns({key: columns[key] for key in part.column_names})
        elif hasattr(part, "__array__"):
            inputs, targets = part, None
        elif hasattr(part, "__len__") and hasattr(part, "__getitem__"):
            inputs, targets = self._from_items()
        elif hasattr(part, "__iter__"):
            raise DataError(
                f"{self.where} is a {type(part).__name__}, which can be read only from its start, so training could "
                "not resume or seed its order; give it a length and items by number (a map-style Dataset), or "
                "return arrays"
            )
        else:
            raise DataError(f"{self.where} is a {type(part).__name__}; docs/studies.md lists the supported types")
        inputs = each_of(lambda values: self._inputs(values), inputs)
        targets = each_of(lambda values: self._array(values, "targets"), targets)
        self._check_lengths(inputs, targets)
        return inputs, targets

    def _from_columns(self, columns: dict[str, Any]) -> tuple[Any, Any]:
        target = self.target
        if target is None:
            found = [column for column in TARGETS if column in columns]
            if len(found) != 1:
                raise DataError(
                    f"{self.where} has columns {', '.join(columns)}: name the column of targets: return "
                    '{"train": ..., "test": ..., "target": "name of the column"}'
                )
            (target,) = found
        if target not in columns:
            raise DataError(f"{self.where} has no column {target!r}; its columns are: {', '.join(columns)}")
        targets = columns.pop(target)
        if not columns:
            raise DataError(f"{self.where} has only the column {target!r}; add inputs")
        arrays = {column: self._array(values, f"column {column!r}") for column, values in columns.items()}
        if len(arrays) == 1 and (only := next(iter(arrays.values()))).ndim > 1:
            return only, targets
        if all(array.ndim == 1 for array in arrays.values()):  # a table: each column is a feature
            return np.stack([array.astype(np.float64) for array in arrays.values()], 1).astype(np.float32), targets
        return arrays, targets

    def _from_items(self) -> tuple[Any, Any]:
        size = len(self.part)
        if not size:
            raise DataError(f"{self.where} is empty")
        first = self._item(0)
        check_fits(self.where, size * sum(array.nbytes for array in _leaves(first)))
        items = [first, *(self._item(number) for number in range(1, size))]
        for number, item in enumerate(items):
            shapes = [array.shape for array in _leaves(item)]
            if shapes != (wanted := [array.shape for array in _leaves(first)]):
                raise DataError(
                    f"{self.where}: item {number} has arrays of shape {shapes}, item 0 of {wanted}; all items need "
                    "one shape: crop, resize or pad them"
                )
        return _stacked([item[0] for item in items]), _stacked([item[1] for item in items])

    def _item(self, number: int) -> tuple[Any, Any]:
        try:
            item = self.part[number]
        except Exception as error:
            raise DataError(f"{self.where}: item {number} can't be read: {type(error).__name__}: {error}") from error
        if _is_map(item):
            columns = {str(key): np.asarray(_numpy(item[key]))[None] for key in item}
            inputs, targets = self._from_columns(columns)
            return each_of(lambda array: array[0], inputs), np.asarray(targets)[0]
        if not (isinstance(item, tuple | list) and len(item) == 2):
            raise DataError(f"{self.where}: item {number} is a {type(item).__name__}; it must be (input, target)")
        return each_of(lambda value: np.asarray(_numpy(value)), item[0]), each_of(
            lambda value: np.asarray(_numpy(value)), item[1]
        )

    def _inputs(self, values: Any) -> np.ndarray:
        array = self._array(values, "inputs")
        if array.dtype == bool:
            array = array.astype(np.float32)
        if array.dtype.kind in "USO":
            raise DataError(
                f"{self.where}: inputs contain texts; convert them to numbers, such as token ids of type int64"
            )
        if array.ndim == 4 and array.shape[-1] in CHANNELS and array.shape[1] not in CHANNELS:
            raise DataError(
                f"{self.where}: inputs have shape {array.shape}, channels last; return array.transpose(0, 3, 1, 2)"
            )
        return array[:, None] if array.ndim == 3 and array.dtype == np.uint8 else array

    def _array(self, values: Any, what: str) -> np.ndarray:
        try:
            array = np.asarray(_numpy(values))
        except (ValueError, TypeError) as error:
            raise DataError(f"{self.where}: {what} is not an array: {error}") from None
        if array.dtype == object and all(isinstance(value, str) for value in array.flat):
            array = array.astype(str)
        if array.dtype.kind not in "biufUS" or not array.ndim:
            raise DataError(
                f"{self.where}: {what} is an array of {array.dtype} of shape {array.shape}; it must contain numbers, "
                "with one shape for all examples"
            )
        if what.startswith("column") and array.dtype.kind in "US":
            raise DataError(
                f"{self.where}: {what} contains texts; convert it to numbers (pandas.get_dummies), or remove it"
            )
        if array.dtype.kind == "f":
            flat = np.isfinite(array.reshape(len(array), -1)).all(1)
            if not flat.all():
                raise DataError(
                    f"{self.where}: {what} holds NaN or infinity in {int((~flat).sum()):,} of {len(array):,} examples, "
                    f"the first at number {int(flat.argmin())}; replace those values, or remove the examples"
                )
        return array

    def _check_lengths(self, inputs: Arrays, targets: Arrays) -> None:
        lengths = {len(array) for array in (*_leaves(inputs), *_leaves(targets))}
        if len(lengths) > 1 or 0 in lengths:
            raise DataError(
                f"{self.where} has arrays of {' and '.join(f'{length:,}' for length in sorted(lengths))} examples; "
                "each input needs one target, and at least one example must exist"
            )


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping)


def _numpy(value: Any) -> Any:
    """Return what NumPy can read: of a tensor its values, of a picture [channels, height, width]."""
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    if hasattr(value, "getbands"):  # of Pillow
        picture = np.asarray(value)
        return picture.transpose(2, 0, 1) if picture.ndim == 3 else picture
    return value.to_numpy() if hasattr(value, "to_numpy") else value


def each_of(function: Callable[[Any], Any], values: Any) -> Any:
    """Return what a function makes of each value of a tuple or map, or of the single value; None stays None."""
    if values is None:
        return None
    if _is_map(values):
        return {str(key): function(value) for key, value in values.items()}
    return tuple(map(function, values)) if isinstance(values, tuple) else function(values)


def _leaves(arrays: Any) -> list[np.ndarray]:
    if arrays is None:
        return []
    if isinstance(arrays, dict):
        arrays = tuple(arrays.values())
    if isinstance(arrays, tuple):
        return [leaf for each in arrays for leaf in _leaves(each)]
    return [arrays]


def _stacked(items: list[Any]) -> Any:
    first = items[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return {key: np.stack([item[key] for item in items]) for key in first}
    if isinstance(first, tuple):
        return tuple(np.stack(column) for column in zip(*items, strict=True))
    return np.stack(items)


def _kinds(arrays: Arrays) -> Dtype | None:
    return each_array(lambda array: f"{array.dtype.kind} {tuple(array.shape[1:])}", arrays)


def _check_alike(name: str, what: str, train: Arrays, test: Arrays) -> None:
    one, other = _kinds(train), _kinds(test)
    texts = str(one).startswith("U") and str(other).startswith("U")
    if one != other and not texts:
        raise DataError(f"{name}: {what} of train are {one}, of test {other}; both need the same type and shape")


def _numbered(name: str, train: Arrays, test: Arrays) -> tuple[tuple[Arrays, Arrays], int | None]:
    """Return targets as numbers, and the number of classes, None where they are not class numbers."""
    if not isinstance(train, np.ndarray):
        return (train, test), None
    if train.dtype.kind in "US":
        names = np.unique(train)
        if unknown := sorted(set(np.unique(test)) - set(names)):
            raise DataError(f"{name}: test has the class {str(unknown[0])!r}, which train lacks; remove those examples")
        return (np.searchsorted(names, train), np.searchsorted(names, test)), len(names)
    if train.dtype.kind in "iu":
        lowest, highest = (
            f(int(getattr(each, m)()) for each in (train, test)) for f, m in ((min, "min"), (max, "max"))
        )
        if highest >= 2**31:
            raise DataError(f"{name}: targets hold {highest}, which is not a class number")
        return (train.astype(np.int64), test.astype(np.int64)), highest + 1 if lowest >= 0 else None
    if train.dtype.kind == "f":
        return (train.astype(np.float32), test.astype(np.float32)), None
    return (train, test), None


def _fingerprint(*structures: Arrays) -> str:
    """Return a hash of all values, with their types, shapes and names."""
    digest = hashlib.sha256()
    for structure in structures:
        keys = list(structure) if isinstance(structure, dict) else type(structure).__name__
        digest.update(repr(keys).encode())
        for array in _leaves(structure):
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()
