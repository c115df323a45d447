"""Writes packed files: the other direction of `decode.py`."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tombola.export.packed import walk
from tombola.export.packed.decode import MAGIC, WORDS, Entry, Walkers
from tombola.export.packed.fast import compiled
from tombola.export.packed.share import Shared


@dataclass(frozen=True)
class Coded:
    """One tensor as it goes into a file.

    Args:
        entry: its line in the header.
        book: its part of the books.
        symbols: int64, flat: 0 for a pruned weight, else 1 + the number of its shared value; None for plain bytes.
    """

    entry: Entry
    book: bytes
    symbols: np.ndarray | None = None


def of_shared(
    name: str,
    values: np.ndarray,
    keep: np.ndarray,
    shared: Shared,
    masked: bool = True,
    width: int = 0,
    period: int = 1,
    symbols: np.ndarray | None = None,
) -> Coded:
    """Return a tensor of shared values.

    Args:
        values: float32, of the tensor's shape.
        keep: bool, of that shape: which of them are not zero.
        shared: what stands for its values.
        masked: whether `keep` is the mask of a weight, rather than the zeros of a bias or the like.
        width, period: as in `walk.code_matrix`.
        symbols: the number of each kept weight's shared value; the nearest one by default.
    """
    live = keep.reshape(-1)
    numbers = np.zeros(values.size, np.int64)
    numbers[live] = 1 + (shared.nearest(values.reshape(-1)[live]) if symbols is None else symbols)
    count = shared.count if live.any() else 0
    entry = Entry(name, shared.form, values.shape, count, masked, width, period)
    return Coded(entry, shared.book if count else b"", numbers)


def of_mask(name: str, keep: np.ndarray, width: int = 0, period: int = 1) -> Coded:
    """Return a mask without values."""
    numbers = keep.reshape(-1).astype(np.int64)
    return Coded(Entry(name, "bits", keep.shape, int(numbers.any()), True, width, period), b"", numbers)


def of_plain(name: str, values: np.ndarray) -> Coded:
    """Return a tensor that is stored as it is."""
    little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    return Coded(Entry(name, "plain", values.shape, width=little.dtype.str), little.tobytes())


def pack(tensors: list[Coded], about: Mapping[str, Any], walkers: Walkers | None = None) -> bytes:
    """Return the bytes of a packed file."""
    writer = Writer(walkers or compiled())
    for each in tensors:
        if each.symbols is not None:
            writer.matrix(each.entry, each.symbols)
    lines = [_line(each.entry) for each in tensors]
    text = json.dumps({"tensors": lines, "about": about}, separators=(",", ":"), allow_nan=False).encode()
    deflate = zlib.compressobj(9, zlib.DEFLATED, 15, 9, zlib.Z_DEFAULT_STRATEGY, WORDS)
    header = deflate.compress(text) + deflate.flush()
    rest = len(header).to_bytes(4, "little") + header + b"".join(each.book for each in tensors) + writer.finish()
    return MAGIC + hashlib.sha256(rest).digest()[:8] + rest


def _line(entry: Entry) -> list[Any]:
    if entry.form == "plain":
        return [entry.name, entry.form, list(entry.shape), entry.width]
    return [entry.name, entry.form, list(entry.shape), entry.count, int(entry.masked), entry.width, entry.period]


class Writer:
    """Encodes matrices one after another into one stream."""

    def __init__(self, walkers: Walkers):
        self.walkers = walkers
        self.coder = walkers[2]([0, 0xFFFFFFFF, 0, 0])
        self.done: list[bytes] = []

    def matrix(self, entry: Entry, symbols: np.ndarray) -> None:
        """Encode a tensor's symbols."""
        if not entry.count:
            return
        flags, matrix, hold = self.walkers
        memory = tuple(hold(part) for part in walk.fresh_memory(entry.columns))
        table = symbols.reshape(entry.rows, entry.columns)
        rows, columns = hold(table.any(1)), hold(table.any(0))
        # A decision takes at most -log2(LEAST / ONE) < 12 bits.
        decisions = entry.rows + entry.columns + entry.size + entry.bits * int((symbols > 0).sum())
        data = hold(np.zeros(2 * decisions + 16, np.int64))
        self.coder[3] = 0
        width = int(entry.width)
        flags(rows, 0, memory[0], self.coder, data, 1)
        flags(columns, width, memory[0], self.coder, data, 1)
        about = entry.columns, width, entry.period, entry.bits, rows, columns, hold(symbols)
        matrix(*about, hold(walk.SQUASH), hold(walk.STRETCH), memory, self.coder, data, 1)
        self.done.append(bytes(np.asarray(data[: self.coder[3]], dtype=np.uint8)))

    def finish(self) -> bytes:
        """Return the stream: what is written, and as many bytes as tell the last interval from all others."""
        low, high = int(self.coder[0]), int(self.coder[1])
        for length in range(5):
            shift = 32 - 8 * length
            number = (low + (1 << shift) - 1) >> shift << shift
            if number <= high:
                # Bytes that are missing at the end read as zeros.
                tail = (number >> shift).to_bytes(length, "big") if length else b""
                return b"".join([*self.done, tail]).rstrip(b"\0")
        raise AssertionError("an interval of the coder is empty")
