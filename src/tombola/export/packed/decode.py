"""Reads a packed file with NumPy alone: no PyTorch, no compiled code.

A file is, in this order:

    8 bytes   b"tombola" and the version of the format
    8 bytes   the first of the SHA-256 of everything after them
    4 bytes   length of the header, little-endian
    header    JSON, deflated with `WORDS` as dictionary: "about", and for each tensor [name, form, shape, ...]
    books     the shared values of each tensor, then the bytes of tensors that are stored as they are
    stream    one arithmetic code of all places and values: see `walk.py`

>>> packed = read("lenet.tombola")                                  # doctest: +SKIP
>>> packed.tensors["fc1.weight"].shape, packed.masks["fc1.weight"].mean()   # doctest: +SKIP
((300, 784), 0.035)
"""

from __future__ import annotations

import hashlib
import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tombola.errors import InputError
from tombola.export.packed import walk

MAGIC = b"tombola\x01"
PLAIN = len(MAGIC) + 8 + 4  # bytes before the header
WORDS = (
    b'"trained_from","seed","draw","digest","lenet-300-100","conv-2","conv-4","conv-6","resnet-20","vgg-19","float32",'
    b'"running_mean","running_var","num_batches_tracked","norm1","conv1","int64","plain","grid",.bias",.weight","book"'
    b'"tensors":[["fc1.weight","book",[300,784],8,4,28,1],["fc1.bias","book",[300],4,0,1],["fc2.weight","book",[100,'
    b'300],["fc2.bias","book",[100],["output.weight","book",[10,100],["output.bias","book",[10],4,0,1]],"about":{'
    b'"form":"values","weights":"trained","normalisation":{"mean":[0.1],"std":[0.3]},"origin":{"study":"lenet-mnist",'
    b'"arm":"ticket","trial":0,"repeat":0,"level":1,"rewind":0,"job":"","network":{"name":"lenet-300-100"},'
    b'"input_shape":[1,28,28],"classes":10,"seed":0}}}'
)  # a part of the format: it must never change within a version
LONGEST_HEADER = 1 << 24
MOST = 1 << 25  # numbers in all tensors together, unless the caller allows more

Walkers = tuple[Callable[..., None], Callable[..., None], Callable[[Any], Any]]


def _as_list(values: Any) -> Any:
    return [int(value) for value in values]


PLAIN_PYTHON: Walkers = (walk.code_flags, walk.code_matrix, _as_list)


@dataclass(frozen=True)
class Packed:
    """What a packed file holds.

    Args:
        tensors: name -> array, as in the network's state_dict; empty where only the mask is stored.
        masks: name -> bool array: which weights are kept.
        about: "form" ("values" or "recipe"), "origin" and "normalisation" of the ticket.
    """

    tensors: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    about: dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One tensor of the header.

    Args:
        form: "book": shared values are listed; "grid": they are evenly spaced; "bits": a mask without values; "plain":
            bytes of the type `width`.
        count: number of shared values, 0 to 256.
        masked: whether it is a weight with a mask.
        width, period: of `walk.code_matrix`.
    """

    name: str
    form: str
    shape: tuple[int, ...]
    count: int = 0
    masked: bool = False
    width: Any = 0
    period: int = 1

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def rows(self) -> int:
        """Output units; a vector is one row."""
        return self.shape[0] if len(self.shape) > 1 else 1

    @property
    def columns(self) -> int:
        return self.size // self.rows if self.rows else 0

    @property
    def bits(self) -> int:
        return (self.count - 1).bit_length() if self.count else 0

    @property
    def book_bytes(self) -> int:
        """Length of its part of the books."""
        if self.form == "plain":
            return self.size * np.dtype(self.width).itemsize
        return {"book": 4 + 2 * self.count, "grid": 8, "bits": 0}[self.form] if self.count else 0


def read(path: str | Path, most: int = MOST) -> Packed:
    """Read a packed file.

    Args:
        path: of the file.
        most: the largest number of values, over all tensors, that memory is taken for.

    Raises:
        InputError: the file is missing, is not a packed file, is damaged, or holds more than `most` values.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"can't read {path}: {error.strerror or error}") from error
    return unpack(content, str(path), most)


def unpack(content: bytes, what: str = "packed file", most: int = MOST, walkers: Walkers = PLAIN_PYTHON) -> Packed:
    """Return what the bytes of a packed file hold; errors are those of `read` and call it `what`."""
    entries, about, books, stream = _parts(content, what, most)
    tensors: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    reader = Reader(stream, walkers)
    for entry in entries:
        book, books = books[: entry.book_bytes], books[entry.book_bytes :]
        if entry.form == "plain":
            tensors[entry.name] = np.frombuffer(book, np.dtype(entry.width)).reshape(entry.shape).copy()
            continue
        symbols = reader.matrix(entry)
        if entry.masked:
            masks[entry.name] = (symbols > 0).reshape(entry.shape)
        if entry.form != "bits":
            values = np.concatenate([np.zeros(1, np.float32), shared_values(entry, book)])
            tensors[entry.name] = values[symbols].reshape(entry.shape)
    return Packed(tensors, masks, about)


def shared_values(entry: Entry, book: bytes) -> np.ndarray:
    """Return the shared values of a tensor, float32 and rising.

    Raises:
        InputError: one of them is not finite.
    """
    if not entry.count:
        return np.zeros(0, np.float32)
    with np.errstate(all="ignore"):
        if entry.form == "grid":
            low, step = np.frombuffer(book, "<f4")
            found = (low + np.arange(entry.count, dtype=np.float32) * step).astype(np.float32)
        else:
            scale = np.frombuffer(book[:4], "<f4")[0]
            found = np.frombuffer(book[4:], "<f2").astype(np.float32) * scale
    if not np.isfinite(found).all():
        raise InputError(f"{entry.name}: a shared value is not a finite number; export it again")
    return found


@dataclass
class Reader:
    """Decodes matrices one after another from one stream."""

    stream: bytes
    walkers: Walkers = PLAIN_PYTHON
    coder: Any = field(init=False)
    data: Any = field(init=False)

    def __post_init__(self) -> None:
        hold = self.walkers[2]
        first = int.from_bytes(self.stream[:4].ljust(4, b"\0"), "big")
        self.coder, self.data = hold([0, 0xFFFFFFFF, first, 4]), hold(np.frombuffer(self.stream, np.uint8))

    def matrix(self, entry: Entry) -> np.ndarray:
        """Return the next tensor's symbols, flat: 0 for a pruned weight, else 1 + the number of its shared value."""
        flags, matrix, hold = self.walkers
        memory = tuple(hold(part) for part in walk.fresh_memory(entry.columns))
        rows, columns = hold(np.zeros(entry.rows, np.int64)), hold(np.zeros(entry.columns, np.int64))
        symbols = hold(np.zeros(entry.size, np.int64))
        width = int(entry.width)
        if entry.count:
            flags(rows, 0, memory[0], self.coder, self.data, 0)
            flags(columns, width, memory[0], self.coder, self.data, 0)
            tables = hold(walk.SQUASH), hold(walk.STRETCH)
            about = entry.columns, width, entry.period, entry.bits, rows, columns, symbols
            matrix(*about, *tables, memory, self.coder, self.data, 0)
        found = np.asarray(symbols, dtype=np.int64)
        if found.size and found.max() > entry.count:
            raise InputError(f"{entry.name}: it refers to a shared value that the file lacks")
        return found


def _parts(content: bytes, what: str, most: int) -> tuple[list[Entry], dict[str, Any], bytes, bytes]:
    """Return tensors, "about", books and stream of a file whose checksum and sizes are right."""
    if content[: len(MAGIC) - 1] != MAGIC[:-1]:
        raise InputError(f"{what} is not a packed file: `tombola export --to packed` writes one")
    damaged = InputError(f"{what} is damaged: its checksum differs; export it again")
    if len(content) < PLAIN:
        raise damaged
    if content[: len(MAGIC)] != MAGIC:
        raise InputError(
            f"{what} has version {content[len(MAGIC) - 1]} of the packed format, but this decoder reads version 1"
        )
    if hashlib.sha256(content[16:]).digest()[:8] != content[8:16]:
        raise damaged
    length = int.from_bytes(content[16:PLAIN], "little")
    try:
        header = _inflate(content[PLAIN : PLAIN + length])
        entries = [_entry(each) for each in header["tensors"]]
        about = dict(header["about"])
    except (KeyError, TypeError, ValueError, zlib.error) as error:
        raise InputError(f"{what} has an unreadable header ({error}); export it again") from error
    # An empty matrix may have rows or columns, which take memory too.
    size = sum(entry.size or entry.rows + entry.columns for entry in entries)
    if size > most:
        raise InputError(f"{what} holds {size:,} values, more than the {most:,} allowed; give read(..., most={size})")
    books = sum(entry.book_bytes for entry in entries)
    begin = PLAIN + length
    if begin + books > len(content):
        raise damaged
    return entries, about, content[begin : begin + books], content[begin + books :]


def _inflate(header: bytes) -> dict[str, Any]:
    stream = zlib.decompressobj(zdict=WORDS)
    text = stream.decompress(header, LONGEST_HEADER)
    if not stream.eof:
        raise ValueError("it is longer than 16 MiB, or incomplete")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def _entry(given: Any) -> Entry:
    """Return a tensor of the header, every field checked.

    Raises:
        ValueError: a field is of another type or out of range.
    """
    name, form, shape, *others = given
    sizes = tuple(shape)
    if not isinstance(name, str) or any(type(size) is not int or size < 0 for size in sizes) or len(sizes) > 8:
        raise ValueError(f"tensor {name!r} of shape {shape!r}")
    if form == "plain":
        (kind,) = others
        if np.dtype(kind).kind not in "fiub":
            raise ValueError(f"tensor {name!r} of type {kind!r}")
        return Entry(name, form, sizes, width=str(kind))
    count, masked, width, period = others
    if form not in ("book", "grid", "bits") or any(type(each) is not int for each in others):
        raise ValueError(f"tensor {name!r} of form {form!r}")
    if not 0 <= count <= 256 or width < 0 or period < 1:
        raise ValueError(f"tensor {name!r} with {count} values, width {width} and period {period}")
    return Entry(name, form, sizes, count, bool(masked), width, period)
