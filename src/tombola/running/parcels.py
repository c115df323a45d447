"""Parcels: a folder as bytes, for workers that do not see the results folder."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tombola.running.files import Damaged, is_leftover

MAX_PARCEL = 1 << 36  # bytes that a parcel may unpack to
PASSING = ("progress.json", "progress.tmp")  # says how far work is, and changes all the time


def pack(folder: Path) -> bytes:
    """Return the files of a folder and of its subfolders, but no links, as bytes.

    Raises:
        OSError: they can't be read.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as parcel:
        for path in _files(folder):
            parcel.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())
    return content.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Write the files of a parcel into a new folder.

    Raises:
        Damaged: it is not a whole parcel, or one of its names leads out of the folder.
        OSError: they can't be written.
    """
    try:
        parcel = zipfile.ZipFile(io.BytesIO(content))
        if sum(entry.file_size for entry in parcel.infolist()) > MAX_PARCEL:
            raise Damaged(f"a parcel for {folder} is too large")
        for entry in parcel.infolist():
            path = folder.joinpath(*_parts(entry.filename))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(parcel.read(entry))
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError) as error:
        raise Damaged(f"a parcel for {folder} is not what was sent ({error})") from error


def signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return what changes when a parcel of the folder would; () where it has no files."""
    found = []
    for path in _files(folder):
        try:
            stat = path.stat()
        except OSError:  # it has just been replaced
            continue
        found.append((path.relative_to(folder).as_posix(), stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.name not in PASSING and not is_leftover(path):
            yield path


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(name.split("/"))
    if not all(parts) or {".", ".."} & set(parts) or "\\" in name or ":" in name:
        raise ValueError(f"name {name!r}")
    return parts
