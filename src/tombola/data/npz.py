"""Read a .npz archive without trusting it: sizes are checked before memory is taken, and nothing is unpickled."""

from __future__ import annotations

import hashlib
import io
import lzma
import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tombola.errors import DataError, InputError, nearest
from tombola.paths import regular_file

LARGE = 128 * 1024**2  # bytes of an array; compressed ones above this may not unfold by more than the next
LARGEST_RATIO = 200


@dataclass(frozen=True)
class Header:
    """What an array says of itself: its shape and its type."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Archive:
    """An open .npz file. Use `open_archive`."""

    def __init__(self, path: Path, file: io.BufferedReader, members: zipfile.ZipFile) -> None:
        self.path = path
        self._file = file
        self._members = members

    def names(self) -> list[str]:
        """Return the names of the arrays."""
        return [name.removesuffix(".npy") for name in self._members.namelist() if name.endswith(".npy")]

    def fingerprint(self) -> str:
        """Return the sha256 of the file's bytes."""
        with _damage(self.path, "the file"):
            self._file.seek(0)
            return hashlib.file_digest(self._file, "sha256").hexdigest()

    def header(self, name: str) -> Header:
        """Return the header of one array, once it agrees with the number of bytes that follow it."""
        if name not in self.names():
            hint = nearest(name, self.names()) or "; it contains no arrays"
            raise DataError(f"{self.path}: no array {name!r}{hint}")
        info = self._members.getinfo(name + ".npy")
        with _damage(self.path, name), self._members.open(info) as member:
            version = np.lib.format.read_magic(member)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"array format {version[0]}.{version[1]} is for structured arrays")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(member)
            start = member.tell()
        # An array of objects is a pickle of any length; it is refused by its type, not by its size.
        announced = start + math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or (not dtype.hasobject and announced != info.file_size):
            raise DataError(
                f"{self.path}: {name} announces {announced:,} bytes {shape} and has {info.file_size:,}; "
                "the file is damaged, make it again"
            )
        if info.file_size > LARGE and info.file_size > LARGEST_RATIO * max(1, info.compress_size):
            raise DataError(
                f"{self.path}: {name} unfolds from {info.compress_size:,} to {info.file_size:,} bytes, an implausible "
                "ratio; if the file is correct, save it with numpy.savez, which does not compress"
            )
        return Header(shape, dtype)

    def array(self, name: str) -> np.ndarray:
        """Return one array whole, contiguous, in the machine's byte order."""
        self.header(name)
        with _damage(self.path, name), self._members.open(name + ".npy") as member:
            array = np.lib.format.read_array(member, allow_pickle=False)
            member.read(1)  # reaches the end, where the checksum is compared
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


@contextmanager
def open_archive(path: Path) -> Iterator[Archive]:
    """Open an archive for reading.

    Raises:
        DataError: the file does not exist, can't be read, or is not an .npz archive.
    """
    try:
        regular_file(path)
        file = path.open("rb")
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: this file does not exist; set data.path to the .npz file of your arrays. If {path.name} lies in "
            "another folder, name that folder with --data or TOMBOLA_DATA"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error
    except InputError as error:
        raise DataError(f"data.path: {error}") from error
    with file:
        try:
            members = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{path}: not a .npz archive, or a truncated one ({error}); "
                "make it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...)"
            ) from error
        with members:
            yield Archive(path, file, members)


@contextmanager
def _damage(path: Path, what: str) -> Iterator[None]:
    """Turn what zipfile and numpy raise over a damaged file into a DataError.

    RuntimeError is zipfile's word for an encrypted member; NotImplementedError, for an unknown compression.
    """
    try:
        yield
    except MemoryError as error:
        raise DataError(f"{path}: {what} does not fit into memory") from error
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{path}: {what} can't be read ({error}); the file is damaged, make it again") from error
