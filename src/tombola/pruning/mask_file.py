"""The file of a mask: packed bits in safetensors, with a checksum."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from tombola.errors import InputError, StoreError
from tombola.tensor_files import Damaged, pack_tensors, unpack_tensors

MOST_AXES = 32
LARGEST = 2**40  # weights of a layer, an empty axis counted as 1
Shapes = Mapping[str, tuple[int, ...]]


def write_mask(packed: Mapping[str, Tensor], shapes: Shapes, path: Path) -> None:
    """Write packed bits and the shapes of the layers.

    Raises:
        StoreError: the file can't be written.
    """
    try:
        path.write_bytes(pack_tensors(packed, {"mask": shapes}))
    except OSError as error:
        raise StoreError(
            f"can't write {path}: {error.strerror or error}; name an existing folder with free space"
        ) from error


def read_mask(path: Path, unchecked: bool = False) -> tuple[dict[str, Tensor], Shapes]:
    """Return packed bits, in the order of the layers, and shapes that fit them.

    Args:
        path: a file that `write_mask` wrote.
        unchecked: also read a file of tombola 0.1, which has no checksum.

    Raises:
        InputError: the file is missing, damaged, or holds no mask.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
        if "shapes" in metadata and "sha256" not in metadata:
            return _read_without_checksum(path, unchecked)
        if "about" not in metadata:
            raise _no_mask(path)
        packed, about = unpack_tensors(path)
    except Damaged as error:
        raise InputError(f"{error}; restore a copy of it, or create the mask again") from error
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} can't be read as a mask: {error}") from error
    return _ordered(path, packed, about.get("mask") if isinstance(about, dict) and about.keys() == {"mask"} else None)


def _read_without_checksum(path: Path, unchecked: bool) -> tuple[dict[str, Tensor], Shapes]:
    if not unchecked:
        raise InputError(
            f"{path} has no checksum (tombola 0.1 wrote none), so tombola could not detect damage; read it with "
            "Mask.load(path, unchecked=True), then save it again"
        )
    with safe_open(str(path), framework="pt") as file:
        packed = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        try:
            shapes = json.loads(file.metadata()["shapes"])
        except ValueError as error:
            raise _no_mask(path) from error
    return _ordered(path, packed, shapes)


def _ordered(path: Path, packed: Mapping[str, Tensor], shapes: Any) -> tuple[dict[str, Tensor], Shapes]:
    """Check what the file says of shapes: a stranger may have written it, checksum and all."""
    if not isinstance(shapes, dict) or shapes.keys() != packed.keys():
        raise _no_mask(path)
    for name, shape in shapes.items():
        if not isinstance(shape, list) or any(type(size) is not int or size < 0 for size in shape):
            raise InputError(f"{path} says that {name!r} has shape {shape!r}: it is damaged; create the mask again")
        if len(shape) > MOST_AXES or math.prod(max(1, size) for size in shape) > LARGEST:
            raise InputError(f"{path} says that {name!r} has shape {shape!r}: it is too large; create the mask again")
    return {name: packed[name] for name in shapes}, {name: tuple(shape) for name, shape in shapes.items()}


def _no_mask(path: Path) -> InputError:
    return InputError(f"{path} is not a file from Mask.save (for a ticket's file, use Ticket.load(...).mask)")
