"""Writing exported files: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tombola.errors import StoreError

REMEDY = "name an existing folder with free space; tombola wrote nothing"


def write(path: Path, content: bytes) -> None:
    """Write a file aside and move it into place.

    Raises:
        StoreError: the folder does not exist, is full, or can't be written to.
    """
    write_together({path: content})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files of one folder aside, and move them into place once all are on the disk.

    Raises:
        StoreError: one of them can't be written; then all are as they were before.
    """
    asides: dict[Path, Path] = {}
    try:
        for path, content in files.items():
            if path.exists() and not path.is_file():
                raise StoreError(f"can't write {path}: it is not a regular file; {REMEDY}")
            asides[path] = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            try:
                with asides[path].open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise StoreError(f"can't write {path}: {error.strerror or error}; {REMEDY}") from error
        for path, aside in asides.items():
            os.replace(aside, path)
    finally:
        for aside in asides.values():
            with suppress(OSError):
                aside.unlink(missing_ok=True)
