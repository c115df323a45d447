"""The pickles in which CIFAR is published, without the danger of pickles: nothing that they name is imported.

They were written by Python 2: a dict of byte strings, lists of integers and one uint8 array. An array names three
things of numpy; what stands for those here can make a uint8 array and nothing else. Every other name is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from tombola.errors import DataError, shown


def parse(content: bytes, name: str, remedy: str) -> dict[bytes, Any]:
    """Return the dict that such a pickle holds.

    Args:
        content: the whole file, whose checksum has been verified.
        name, remedy: for the message: the file, and what to do about it.

    Raises:
        DataError: it names anything else, is damaged, or holds no dict.
    """
    try:
        _check_sizes(content)
        found = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{name}: can't be unpickled ({reason}); {remedy}") from error
    if not isinstance(found, dict):
        raise DataError(f"{name}: contains a {type(found).__name__} instead of a dict; {remedy}")
    return {key: value.content if type(value) is _Array else value for key, value in found.items()}


def _check_sizes(content: bytes) -> None:
    """Refuse numbers that memory would be taken for: lengths beyond the file's, and memo entries beyond its steps.

    Raises:
        ValueError: the file has such a number, or ends too early.
    """
    for steps, (step, argument, place) in enumerate(pickletools.genops(content)):
        if step.name.endswith("PUT") and int(argument or 0) > steps:
            raise ValueError(f"entry {argument} of its memo at byte {place}, step {steps:,}")


class _Array:
    """What stands for an array: uint8, from a shape and bytes that fit it. NumPy's own would believe any state."""

    content = np.empty(0, np.uint8)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if type(kind) is not _Uint8 or type(content) is not bytes or not all(type(size) is int for size in shape):
            raise pickle.UnpicklingError("an array that is none of uint8")
        self.content = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Uint8:
    """What stands for the type of an array."""

    def __init__(self, kind: bytes, *_arguments: object):
        if kind != b"u1":
            raise pickle.UnpicklingError(f"an array of {shown(kind)} instead of uint8")

    def __setstate__(self, state: Any) -> None:
        """Byte order and the like mean nothing to bytes."""


class _Name:
    """What a name in a pickle stands for: something to call, and nothing that can be changed."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]):
        self._make = make

    def __call__(self, *arguments: Any) -> Any:
        return self._make(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes what a name stands for")


def _array(*_arguments: object) -> _Array:
    return _Array()  # its shape and bytes follow as its state


def _nothing(*_arguments: object) -> None:
    raise pickle.UnpicklingError("it calls numpy.ndarray")


_STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _array,
    ("numpy", "ndarray"): _nothing,  # an argument of the former, which has no use for it
    ("numpy", "dtype"): _Uint8,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name; this is all that unpickling asks when it comes to one."""
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which the published file does not")
        return _Name(_STAND_INS[module, name])
