"""The pickles in which CIFAR is published, without the danger of pickles: nothing that they name is imported.

They were written by Python 2: a dict of byte strings, lists of integers and one uint8 array. An array names three
things of numpy; what stands for those here can make a uint8 array and nothing else. Every other name is refused.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import Any

import numpy as np

from tombola.errors import DataError


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
    return found


def _check_sizes(content: bytes) -> None:
    """Refuse numbers that memory would be taken for: lengths beyond the file's, and memo entries beyond its steps.

    Raises:
        ValueError: the file has such a number, or ends too early.
    """
    for steps, (step, argument, place) in enumerate(pickletools.genops(content)):
        if step.name.endswith("PUT") and int(argument or 0) > steps:
            raise ValueError(f"entry {argument} of its memo at byte {place}, step {steps:,}")


def _empty(*_arguments: object) -> np.ndarray:
    return np.empty(0, np.uint8)  # its shape and bytes follow as its state


def _uint8(kind: bytes, *_arguments: object) -> np.dtype:
    if kind != b"u1":
        raise pickle.UnpicklingError(f"an array of {kind!r} instead of uint8")
    # A copy, because the state that follows is set on it, and numpy's own is one for all.
    return np.dtype(np.uint8, copy=True)


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _empty,
    ("numpy", "ndarray"): "ndarray",  # an argument of the former, which has no use for it
    ("numpy", "dtype"): _uint8,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name; this is all that unpickling asks when it comes to one."""
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which the published file does not")
        return _STAND_INS[module, name]
