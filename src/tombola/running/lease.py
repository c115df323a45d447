"""One lease: its file, what it says, and how its holder beats and lets go."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import stat
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tombola.errors import InputError, StoreError
from tombola.paths import read_text

MAX_LEASE = 4096  # bytes of a lease's file


class Note(BaseModel):
    """What a lease's file says.

    Args:
        owner: a random name of this claim.
        machine: a digest of the machine's name and its start.
        node: name of the machine, for people.
        since: seconds since 1970, by the holder's clock: for people.
        lease: seconds without a change after which the holder has lost it.
        locked: whether the holder also has the operating system's lock.
        part: end of the name of the folder that the holder works in. It is new where an earlier holder was given up:
            that one may wake up and write into its own folder.
        free: whether the holder has let go.
        beat: how often the holder has changed the file.
    """

    model_config = ConfigDict(extra="ignore")

    owner: str = Field(max_length=64)
    machine: str = Field(max_length=200)
    node: str = Field(max_length=200)
    since: float = Field(ge=0, le=1e11, allow_inf_nan=False)
    lease: float = Field(gt=0, le=1e6, allow_inf_nan=False)
    locked: bool
    part: str = Field(default="", pattern="^[0-9a-f]{0,32}$")
    free: bool = False
    beat: int = Field(default=0, ge=0)

    def to_bytes(self) -> bytes:
        """Return the content of the lease's file; its length hardly ever changes."""
        return self.model_dump_json().encode().ljust(512)


@cache
def machine() -> str:
    """Return what tells this machine, as long as it runs, from all others. Its containers share its locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()[:100]
    except OSError:
        return f"{socket.gethostname()[:100]}/{uuid.getnode():x}"


@dataclass
class Lease:
    """A work item that this process holds.

    Args:
        folder: of the item's leases.
        number: the fencing token.
        note: what the file says.
        file: descriptor of the open file. Beats go to it and not to a name, which may have become another's.
        lock: the operating system's lock, where this process has it.
    """

    folder: Path
    number: int
    note: Note
    file: int
    lock: FileLock | None
    lost: bool = False
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def is_mine(self) -> bool:
        """Return whether no other process has taken the item over: asks the file system."""
        with self._guard:
            return self._look()

    def _look(self) -> bool:
        if self.file < 0:
            return False
        try:
            there = os.stat(self.folder / str(self.number))
            same = (there.st_dev, there.st_ino) == (os.fstat(self.file).st_dev, os.fstat(self.file).st_ino)
            self.lost = self.lost or not same or max(numbers_in(self.folder)) != self.number
        except (FileNotFoundError, ValueError):  # a successor has cleaned up
            self.lost = True
        except OSError as error:  # ESTALE: a successor has, as a file server says; else one that does not answer now
            self.lost = self.lost or error.errno == errno.ESTALE
        return not self.lost

    def beat(self) -> None:
        """Show others that the holder is alive."""
        with self._guard:
            if self._look():
                self.note.beat += 1
                self.write()

    def write(self) -> None:
        """Write the note into the file."""
        with contextlib.suppress(OSError):
            os.pwrite(self.file, self.note.to_bytes(), 0)
            os.close(os.dup(self.file))  # sends it to a file server, and costs nothing on a disk

    def let_go(self, finished: bool) -> None:
        """End the lease: of finished work nothing stays; of other work the number, which the next holder counts on."""
        try:
            with self._guard:
                self._end(finished)
        finally:
            if self.lock is not None:
                self.lock.release()

    def _end(self, finished: bool) -> None:
        try:
            if self._look() and finished:
                delete_lease(self.folder / str(self.number))
                with contextlib.suppress(OSError):
                    self.folder.rmdir()
            elif not self.lost:
                self.note.free = True
                self.write()
        finally:
            file, self.file = self.file, -1  # a late beat must not write into another file of this number
            os.close(file)


def numbers_in(folder: Path) -> list[int]:
    """Return the numbers of a work item's leases: regular files only."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_file(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [int(name) for name in names if name.isascii() and name.isdigit() and len(name) < 10]


def delete_lease(path: Path) -> None:
    """Delete a lease's file; nothing that is a folder."""
    with contextlib.suppress(OSError):
        path.unlink()


def check_folder(path: Path) -> None:
    """Check that nothing but a folder has this name. A link may lead to files that are not tombola's.

    Raises:
        StoreError: a link or a file has it.
    """
    _check(path, stat.S_ISDIR, "is a link or a file, and tombola needs a folder there")


def check_file(path: Path) -> None:
    """Check that nothing but a regular file has this name.

    Raises:
        StoreError: a link or a folder has it.
    """
    _check(path, stat.S_ISREG, "is a link or a folder, and tombola needs a file there")


def _check(path: Path, is_right: Callable[[int], bool], wrong: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if not is_right(path.lstat().st_mode):
            raise StoreError(f"{path} {wrong}; delete it")


def content_of(path: Path) -> str:
    """Return what a lease's file says; "" where it can't be read."""
    try:
        return read_text(path, MAX_LEASE).strip()
    except InputError:
        return ""


def read_note(content: str) -> Note | None:
    """Return the note in a lease's file, or None where it makes no sense."""
    try:
        return Note.model_validate(json.loads(content))
    except (ValueError, ValidationError, RecursionError):
        return None
