"""Files that are either whole or not there, and that are noticed when they are altered."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from tombola.errors import StoreError
from tombola.tensor_files import Damaged, pack_tensors, unpack_tensors

__all__ = [
    "AGAIN",
    "SUMS",
    "Damaged",
    "check_sums",
    "pack_tensors",
    "under",
    "unpack_tensors",
    "write_json",
    "write_sums",
    "write_whole",
    "writing",
]

SUMS = "SHA256SUMS"  # in the format of `sha256sum`, so that a person can check too


AGAIN = "make room or give another --out, and run the same command again: what is done is kept"


@contextmanager
def writing(path: Path, remedy: str = AGAIN) -> Iterator[None]:
    """Turn a failed write into an error that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"can't write {path}: {error.strerror or error}; {remedy}") from error


def write_whole(path: Path, content: bytes, remedy: str = AGAIN) -> None:
    """Write a file aside, make sure that it is on the disk, and move it into place.

    Raises:
        StoreError: it can't be written; `remedy` is the end of the message.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path, remedy):
        try:
            with aside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except OSError:
            aside.unlink(missing_ok=True)
            raise


def write_json(path: Path, content: Any) -> None:
    """Write JSON; floats are exact, and NaN is written as NaN."""
    write_whole(path, json.dumps(content, indent=1).encode())


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with "prefix/", without it."""
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Write the checksums of these files of a folder into it."""
    lines = [f"{_file_digest(folder / name)}  {name}\n" for name in names]
    write_whole(folder / SUMS, "".join(lines).encode())


def check_sums(folder: Path) -> set[str]:
    """Check every file of a folder against its checksums, and return their names.

    Raises:
        Damaged: a file is missing, altered, or was never noted.
    """
    try:
        noted = dict(line.split("  ", 1)[::-1] for line in (folder / SUMS).read_text().splitlines())
        for name, digest in noted.items():
            if _file_digest(folder / name) != digest:
                raise Damaged(f"{folder / name} is not what was written: its checksum differs")
        return set(noted)
    except (OSError, UnicodeDecodeError) as error:
        raise Damaged(f"{folder} can't be read ({error})") from error
    except ValueError as error:
        raise Damaged(f"{folder / SUMS} is not a list of checksums") from error


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
