"""The IDX format of MNIST: a magic number, the dimensions, then the bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib

import numpy as np

from tombola.errors import DataError

_UINT8 = 8


def parse(content: bytes, name: str, remedy: str) -> np.ndarray:
    """Return the uint8 array that an uncompressed IDX file holds, without copying it (and so read-only).

    Args:
        content: the whole file.
        name, remedy: for the message: the file, and what to do about it.

    Raises:
        DataError: another format, another type than uint8, or more or fewer bytes than its header announces.
    """
    if len(content) < 4:
        raise DataError(f"{name}: only {len(content)} bytes, not an IDX file; {remedy}")
    zero, kind, dimensions = struct.unpack(">HBB", content[:4])
    if zero != 0 or kind != _UINT8 or not 1 <= dimensions <= 4:
        raise DataError(
            f"{name}: begins with the bytes {content[:4].hex(' ')}, but an IDX file of uint8 begins with "
            f"00 00 08 and its number of dimensions; {remedy}"
        )
    start = 4 + 4 * dimensions
    if len(content) < start:
        raise DataError(f"{name}: truncated within its header; {remedy}")
    shape = struct.unpack(f">{dimensions}I", content[4:start])
    found, expected = len(content) - start, math.prod(shape)
    if found != expected:
        fault = "truncated" if found < expected else "too long"
        raise DataError(
            f"{name}: {fault}: {found:,} bytes of data, but its header announces {expected:,} {shape}; {remedy}"
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def unzip(content: bytes, name: str, remedy: str) -> bytes:
    """Return the content of a gzip file; DataError if it is damaged."""
    try:
        return gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name}: not a whole gzip file ({error}); {remedy}") from error
