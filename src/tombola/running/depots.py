"""Depots: where parcels lie on their way between the results folder and workers that do not see it.

    <identity of a work item>/<stamp>.result                  what an execution has made
    <identity of a work item>/<count>-<stamp>.checkpoint      what it has saved; the highest count is the latest
    running/<command>                                         is there while the command wants its work

Each execution has a stamp of its own, and each checkpoint a name of its own. So nothing is ever overwritten, and a
worker that comes back from the dead can't harm its successor: the command takes the result of the execution that
answered.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tombola.errors import InputError, StoreError
from tombola.running.files import write_whole

RUNNING = "running"
RESULT, CHECKPOINT = ".result", ".checkpoint"


class Depot(Protocol):
    """A place for parcels, by name: one folder, a slash, and a file name. All methods may raise `StoreError`."""

    def put(self, name: str, content: bytes) -> None:
        """Keep a parcel: wholly or not at all."""

    def get(self, name: str) -> bytes:
        """Return a parcel."""

    def names(self, folder: str) -> list[str]:
        """Return the names of a folder's parcels; of "", those of the folders."""

    def has(self, name: str) -> bool:
        """Return whether there is such a parcel."""

    def delete(self, name: str) -> None:
        """Delete a parcel or a folder of parcels, if it is there."""

    def close(self) -> None:
        """Leave the depot."""


class FolderDepot:
    """A folder of this machine."""

    def __init__(self, root: Path):
        self.root = root

    def put(self, name: str, content: bytes) -> None:
        """Keep a parcel."""
        with self._reached(name) as path:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)

    def get(self, name: str) -> bytes:
        """Return a parcel."""
        with self._reached(name) as path:
            return path.read_bytes()

    def names(self, folder: str) -> list[str]:
        """Return the names of a folder's parcels."""
        with self._reached(folder) as path:
            return [each.name for each in path.iterdir() if not each.name.startswith(".")] if path.is_dir() else []

    def has(self, name: str) -> bool:
        """Return whether there is such a parcel."""
        with self._reached(name) as path:
            return path.exists()

    def delete(self, name: str) -> None:
        """Delete a parcel or a folder of parcels."""
        with self._reached(name) as path, contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self) -> None:
        """Delete the folders in which nothing lies."""
        with contextlib.suppress(OSError):
            for path in (*self.root.iterdir(), self.root):
                with contextlib.suppress(OSError):
                    path.rmdir()

    @contextmanager
    def _reached(self, name: str) -> Iterator[Path]:
        parts = name.split("/") if name else []
        if len(parts) > 2 or any(part.startswith(".") or not part or "\\" in part for part in parts):
            raise StoreError(f"{name!r} is not the name of a parcel")
        try:
            yield self.root / name
        except OSError as error:
            raise StoreError(f"can't use {self.root / name}: {error.strerror or error}") from error


class AddressDepot:
    """An address that fsspec knows, such as s3://bucket/prefix.

    Args:
        address: of a folder or a prefix there; its bucket exists.

    Raises:
        InputError: fsspec does not know such addresses, or what it needs for them is not installed.
    """

    def __init__(self, address: str):
        from fsspec.core import url_to_fs

        self.address = address
        try:
            # A listing that is kept would hide what other machines have put there.
            self._system, self._root = url_to_fs(address, use_listings_cache=False)
        except ImportError as error:
            raise InputError(f"--store {address}: {error}; pip install it here and on the workers") from None
        except Exception as error:
            raise InputError(f"--store {address}: fsspec can't use this address ({error})") from None

    def put(self, name: str, content: bytes) -> None:
        """Keep a parcel."""
        path = self._path(name)
        with self._reached("written"):
            try:
                self._system.pipe_file(path, content)
            except FileNotFoundError:  # of file systems that have folders
                if not self._system.exists(self._root):
                    raise
                self._system.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._system.pipe_file(path, content)

    def get(self, name: str) -> bytes:
        """Return a parcel."""
        with self._reached("read"):
            content: bytes = self._system.cat_file(self._path(name))
            return content

    def names(self, folder: str) -> list[str]:
        """Return the names of a folder's parcels."""
        with self._reached("read"):
            try:
                found: list[Any] = self._system.ls(self._path(folder), detail=False)
            except FileNotFoundError:
                return []
            return [path.rstrip("/").rpartition("/")[2] for path in found]

    def has(self, name: str) -> bool:
        """Return whether there is such a parcel."""
        with self._reached("read"):
            return bool(self._system.exists(self._path(name)))

    def delete(self, name: str) -> None:
        """Delete a parcel or a folder of parcels."""
        with self._reached("changed"), contextlib.suppress(FileNotFoundError):
            self._system.rm(self._path(name), recursive=True)

    def close(self) -> None:
        """Leave the address as it is."""

    def _path(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}".rstrip("/")

    @contextmanager
    def _reached(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each file system has its own
            raise StoreError(
                f"the store {self.address} can't be {what} ({type(error).__name__}: {error}); check the address, and "
                "your rights there"
            ) from error


def counted(names: list[str]) -> list[str]:
    """Return the names of checkpoints among those of parcels, the latest first."""
    return sorted((name for name in names if name.endswith(CHECKPOINT) and _count(name) >= 0), key=_count, reverse=True)


def next_count(names: list[str]) -> int:
    """Return the count of the checkpoint that comes after these."""
    return max(map(_count, counted(names)), default=0) + 1


def checkpoint_name(count: int, stamp: str) -> str:
    """Return the name of a checkpoint's parcel."""
    return f"{count:08d}-{stamp}{CHECKPOINT}"


def _count(name: str) -> int:
    number = name.partition("-")[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 12 else -1
