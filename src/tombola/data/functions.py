"""A user's own data: the return value of `package.module:function`, as read-only arrays.

The function returns train and test, as a pair or as a map with these names. Each may be

- a pair (inputs, targets) of arrays: NumPy or PyTorch; inputs may be a tuple or a map of arrays, targets None;
- a pandas frame, a Hugging Face `Dataset`, or a map of columns, of which one holds the targets;
- a map-style `torch.utils.data.Dataset` of (input, target) pairs.

A map may also give `target`, the name of the column with the targets; `classes` and `tokens`, how many there are; and
`channels`: "first" for inputs whose shape looks like channels last and is not.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tombola.data.columns import ColumnOrder, is_map
from tombola.data.dataset import Arrays, Dtype, Tokens, each_array
from tombola.data.forms import Form, leaves
from tombola.data.held import Dataset
from tombola.data.labels import label_fault
from tombola.errors import DataError, InputError, shown
from tombola.registry import resolve

KEYS = ("train", "test", "target", "classes", "tokens", "channels")  # of a map that a function returns
UNSAID = object()  # no number of classes, as opposed to None: there are no classes


@dataclass(frozen=True)
class Returned:
    """What a user's function returned.

    Args:
        name: of the function.
        train, test: the parts, each in one of the forms above.
        classes, tokens: as the function says them; UNSAID where it does not.
    """

    name: str
    train: Form
    test: Form
    classes: Any = UNSAID
    tokens: Any = UNSAID

    @property
    def said(self) -> dict[str, Any]:
        """What the function says of its data."""
        both = {"classes": self.classes, "tokens": self.tokens}
        return {what: value for what, value in both.items() if value is not UNSAID}

    @property
    def parts(self) -> dict[str, Form]:
        """The parts by name."""
        return {"train": self.train, "test": self.test}


def call(name: str, arguments: Mapping[str, Any]) -> Returned:
    """Call a user's function.

    Raises:
        InputError: the function does not exist, or it fails.
        DataError: it returns something else than train and test.
    """
    returned = _called(name, arguments)
    target, said, channels = None, {}, None
    if is_map(returned):
        unknown = [str(key) for key in returned if key not in KEYS]
        if unknown or "train" not in returned or "test" not in returned:
            keys = ", ".join(map(str, returned))
            raise DataError(
                f"{name} returned a map of {keys}; it must contain train and test; {', '.join(KEYS[2:])} are optional"
            )
        train, test, target = returned["train"], returned["test"], _column(name, returned.get("target"))
        said = {key: _plain(returned[key]) for key in ("classes", "tokens") if key in returned}
        channels = returned.get("channels")
        if channels not in (None, "first"):
            raise DataError(f"{name} returned channels={shown(channels)}; it must be 'first', or be left out")
    elif isinstance(returned, tuple | list) and len(returned) == 2:
        train, test = returned
    else:
        raise DataError(f"{name} returned a {type(returned).__name__}; it must return (train, test)")
    order = ColumnOrder()
    first = channels == "first"
    forms = (Form(name, which, part, target, order, first) for which, part in (("train", train), ("test", test)))
    return Returned(name, *forms, **said)


def _column(name: str, target: Any) -> str | None:
    """Return the name of the column of targets; frames may also have numbers as names."""
    if target is None:
        return None
    if isinstance(target, bool) or not isinstance(target, str | int):
        raise DataError(
            f"{name} returned target={shown(target)}; it must be the name of one column. For several targets, return "
            "pairs (inputs, targets) of arrays"
        )
    return str(target)


def load(name: str, arguments: Mapping[str, Any]) -> Dataset:
    """Call a user's function and return its data, held in memory.

    Raises:
        InputError: the function does not exist, or it fails.
        DataError: the returned data can't be used for training.
    """
    returned = call(name, arguments)
    inputs, targets = zip(*(part.read() for part in returned.parts.values()), strict=True)
    check_alike(name, "inputs", *inputs)
    check_alike(name, "targets", *targets)
    fault = label_fault(targets[0], targets[1], says_classes=returned.classes is not UNSAID)
    targets, classes = _numbered(name, *targets)
    if returned.classes is not UNSAID:
        if fault and returned.classes is not None:
            raise DataError(f"{name}: {fault}")
        classes = _said(name, "classes", returned.classes, classes)
    digest = digest_of(*inputs, *targets)
    dataset = Dataset(name, inputs[0], targets[0], inputs[1], targets[1], classes, digest, label_fault=fault)
    if returned.tokens is not UNSAID:
        dataset = replace(dataset, said_tokens=structured_like(name, returned.tokens, dataset.tokens))
    if returned.said:  # of an equal content, other outputs and tables would follow
        said = hashlib.sha256(f"{dataset.fingerprint}/{returned.said}".encode())
        dataset = replace(dataset, fingerprint=said.hexdigest())
    return dataset


def check_same_again(first: Any, second: Any) -> None:
    """Check that two calls of a function gave the same data; both are what `load` or `streams.load` returned.

    Raises:
        DataError: they differ.
    """
    name = first.name
    for which in ("train", "test"):
        one, other = (getattr(data.description, which) for data in (first, second))
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


def _called(name: str, arguments: Mapping[str, Any]) -> Any:
    function = resolve(name, {}, "data source")
    try:
        return function(**arguments)
    except (InputError, DataError):
        raise
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise InputError(f"data.source: {name}({given}) failed: {type(error).__name__}: {error}") from error


def kinds(arrays: Arrays) -> Dtype | None:
    """Return type and shape of an example of each array."""
    return each_array(lambda array: f"{array.dtype.kind} {tuple(array.shape[1:])}", arrays)


def check_alike(name: str, what: str, train: Arrays, test: Arrays) -> None:
    """Check that examples of both parts have one type and shape.

    Raises:
        DataError: they have not.
    """
    one, other = kinds(train), kinds(test)
    texts = str(one).startswith("U") and str(other).startswith("U")
    if one != other and not texts:
        remedy = "; return (train, test), each as (inputs, targets)" if what == "inputs" else ""
        raise DataError(
            f"{name}: {what} of train are {in_words(train)}, those of test {in_words(test)}; both need the same "
            f"structure, type and shape{remedy}"
        )


TYPES = {"f": "floating numbers", "i": "whole numbers", "u": "unsigned whole numbers", "b": "truth values"}


def in_words(arrays: Arrays) -> str:
    """Return the structure of arrays, their types and the shape of an example, for a person."""
    if arrays is None:
        return "missing"
    if isinstance(arrays, dict):
        return "a map of " + ", ".join(f"{name!r}: {in_words(array)}" for name, array in arrays.items())
    if isinstance(arrays, tuple):
        return f"a tuple of {len(arrays)}: " + ", ".join(map(in_words, arrays))
    shape = tuple(arrays.shape[1:])
    return f"{TYPES.get(arrays.dtype.kind, 'texts')}, " + (f"{shape} per example" if shape else "one per example")


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
        if highest >= 2**63:
            raise DataError(f"{name}: targets hold {highest}, which int64 can't; convert them to float64")
        classes = highest + 1 if lowest >= 0 and highest < 2**31 else None
        return (train.astype(np.int64), test.astype(np.int64)), classes
    if train.dtype.kind == "f":
        return (train.astype(np.float32), test.astype(np.float32)), None
    return (train, test), None


def _said(name: str, what: str, said: Any, least: int | None) -> int | None:
    """Return a number of classes or tokens that a function says, after a look at what the data hold."""
    if said is None:
        return None
    said = whole_number(name, what, said)
    if least is None or said < least:
        found = "hold no such numbers" if least is None else f"reach {least - 1}"
        raise DataError(f"{name} returned {what}={said}, and the data {found}; correct {what} or leave it out")
    return said


def whole_number(name: str, what: str, said: Any) -> int:
    """Return a number above 0 that a function says.

    Raises:
        DataError: it is something else.
    """
    if isinstance(said, bool) or not isinstance(said, int) or said < 1:
        raise DataError(f"{name} returned {what}={said!r}; it must be a whole number above 0")
    return said


def _plain(said: Any) -> Any:
    """Return what a function says, with whole numbers of NumPy and PyTorch, such as `y.max() + 1`, as Python's."""
    if isinstance(said, Mapping):
        return {key: _plain(each) for key, each in said.items()}
    if isinstance(said, tuple | list):
        return (tuple if isinstance(said, tuple) else list)(map(_plain, said))
    try:
        return said if isinstance(said, bool) else operator.index(said)
    except TypeError:
        return said


def structured_like(name: str, said: Any, least: Tokens) -> Tokens:
    """Return numbers of tokens, structured as the inputs.

    Args:
        name: of the function.
        said: one number for all inputs of token ids, or a map or tuple of numbers.
        least: the smallest possible number of each input; None where it holds no token ids.

    Raises:
        DataError: a number is missing or too small.
    """

    def one(key: Any, least: int | None) -> int | None:
        if least is None:
            return None
        try:
            return _said(name, "tokens", said[key] if isinstance(said, Mapping | tuple | list) else said, least)
        except (KeyError, IndexError):
            raise DataError(f"{name} returned tokens={said!r}, which lacks {key!r}; give a number for it") from None

    if isinstance(least, dict):
        return {key: one(key, each) for key, each in least.items()}
    if isinstance(least, tuple):
        return tuple(one(place, each) for place, each in enumerate(least))
    return one("inputs", least)


def digest_of(*structures: Arrays) -> str:
    """Return a hash of all values, with their types, shapes and names."""
    digest = hashlib.sha256()
    for structure in structures:
        keys = list(structure) if isinstance(structure, dict) else type(structure).__name__
        digest.update(repr(keys).encode())
        for array in leaves(structure):
            digest.update(f"{array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data if array.size else b"")
    return digest.hexdigest()
