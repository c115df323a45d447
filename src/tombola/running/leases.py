"""Leases: which process executes a work item, where several machines share a results folder.

A lease is a numbered file in `jobs/.leases/<id>/`. The file with the highest number counts. Its holder changes it every
few seconds. Whoever sees no change for long enough creates the file with the next number, by `O_EXCL`, and so takes the
item over. The number is the fencing token: a holder writes nothing once a higher number is there.

No clocks are compared: freshness is how long an observer's own monotonic clock has seen no change. On one machine, a
lock of the operating system shows at once that a holder is dead.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import os
import socket
import threading
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, SoftFileLock, Timeout

from tombola.errors import StoreError
from tombola.running.files import is_locked, remove
from tombola.running.lease import (
    Lease,
    Note,
    check_file,
    check_folder,
    content_of,
    delete_lease,
    machine,
    numbers_in,
    read_note,
)

LEASE = 60.0  # seconds without a change after which an item may be taken over
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)  # what file systems without locks say
BEATS = 6  # changes in that time; also the looks that an observer needs at least

# Without this, filelock makes a mere file where there are no locks. Older releases do not know the argument.
_PARAMETERS = inspect.signature(FileLock.__init__).parameters
_HARD: dict[str, Any] = {"fallback_to_soft": False} if "fallback_to_soft" in _PARAMETERS else {}


@dataclass
class _Sighting:
    mark: str
    last: float  # this process's monotonic clock at the last look
    unchanged: float = 0.0  # seconds
    expired: bool = False
    changed: bool = False  # since the first look


class _Keeper:
    """The thread that beats for all leases of this process."""

    def __init__(self) -> None:
        self._by_id: dict[int, Lease] = {}
        self._change = threading.Condition()
        self._process = 0

    def keep(self, lease: Lease) -> None:
        with self._change:
            if self._process != os.getpid():  # a forked child has no thread, and none of its parent's leases
                self._process, self._by_id = os.getpid(), {}
                threading.Thread(target=self._beat, daemon=True, name="leases").start()
            self._by_id[id(lease)] = lease
            self._change.notify()

    def drop(self, lease: Lease) -> None:
        with self._change:
            self._by_id.pop(id(lease), None)

    def _beat(self) -> None:
        last = time.monotonic()
        while True:
            with self._change:
                while (due := self._next(last)) is None or due > time.monotonic():
                    self._change.wait(None if due is None else due - time.monotonic())
                held = list(self._by_id.values())
            last = time.monotonic()
            for lease in held:
                lease.beat()

    def _next(self, last: float) -> float | None:
        """Return when to beat again, as the shortest lease needs it; None where there is none."""
        return last + min(lease.note.lease for lease in self._by_id.values()) / BEATS if self._by_id else None


_KEEPER = _Keeper()


class Leases:
    """The leases of a results folder, as one observer sees them.

    Args:
        jobs: the folder of results.
        seconds: without a change after which others may take over what this process holds.
    """

    def __init__(self, jobs: Path, seconds: float = LEASE):
        self._jobs, self.seconds = jobs, seconds
        self._seen: dict[str, _Sighting] = {}
        self._held: dict[str, Lease] = {}

    def claim(self, work_id: str, expired: str | None = None) -> bool:
        """Take a work item, if no other process has it.

        Args:
            work_id: its identity.
            expired: the mark that another observer has seen for too long: see `expired`.

        Raises:
            StoreError: the file system refuses, or a link has the name of a folder of tombola's.
        """
        for path in (self._lock_file(work_id).parent, self._folder(work_id).parent, self._folder(work_id)):
            check_folder(path)
        lock = self._lock(work_id)
        try:
            lease = self._taken(work_id, lock, expired)
        except (FileExistsError, FileNotFoundError):  # another process was first, or has just deleted the folder
            return False
        except OSError as error:
            raise StoreError(f"can't lock {self._folder(work_id)}: {error.strerror or error}") from error
        finally:
            if lock is not None and self._held.get(work_id) is None:
                lock.release()
        if lease is None:
            return False
        _KEEPER.keep(lease)
        return True

    def let_go(self, work_id: str, finished: bool) -> None:
        """Let go of a work item that `claim` took."""
        lease = self._held.pop(work_id)
        _KEEPER.drop(lease)
        lease.let_go(finished)

    def holding(self, work_id: str) -> str | None:
        """Return the name of the claim by which this process holds an item; None where it does not."""
        lease = self._held.get(work_id)
        return None if lease is None else lease.note.owner

    def is_lost(self, work_id: str) -> bool:
        """Return whether another process has taken over an item that this one held, as of the last beat."""
        lease = self._held.get(work_id)
        return lease is not None and lease.lost

    def may_write(self, work_id: str) -> bool:
        """Return whether this process may write of an item: it holds the item, or nobody ever claimed it here."""
        lease = self._held.get(work_id)
        return lease is None or lease.is_mine()

    def part(self, work_id: str) -> Path:
        """Return the folder that the item's present holder works in, or that its last one left."""
        held = self._held.get(work_id)
        note = held.note if held is not None else self.note(work_id)
        return self._part(work_id, "" if note is None else note.part)

    def _part(self, work_id: str, end: str) -> Path:
        return self._jobs / (f".{work_id}.{end}.part" if end else f".{work_id}.part")

    def note(self, work_id: str) -> Note | None:
        """Return what the item's present or last holder says, where that can be read."""
        numbers = numbers_in(self._folder(work_id))
        return read_note(content_of(self._folder(work_id) / str(max(numbers)))) if numbers else None

    def is_held(self, work_id: str) -> bool:
        """Return whether a living process has the item, as far as this observer can tell; nothing is written."""
        folder = self._folder(work_id)
        numbers = numbers_in(folder)
        if not numbers:
            return False
        content = content_of(folder / str(max(numbers)))
        note = read_note(content)
        if note is not None and (note.free or self._is_dead(work_id, note)):
            return False
        return not self._has_expired(work_id, f"{max(numbers)} {content}", note)

    def is_alive(self, work_id: str) -> bool:
        """Return whether the holder of an item has shown this observer that it lives."""
        note, seen = self.note(work_id), self._seen.get(work_id)
        if note is not None and self._same_lock(note):
            return not self._is_dead(work_id, note)
        return seen is not None and seen.changed

    def expired(self, work_id: str) -> str | None:
        """Return the mark of a lease that this observer has seen without a change for too long, or None."""
        seen = self._seen.get(work_id)
        return seen.mark if seen is not None and seen.expired else None

    def _taken(self, work_id: str, lock: FileLock | None, expired: str | None) -> Lease | None:
        folder = self._folder(work_id)
        folder.mkdir(parents=True, exist_ok=True)
        numbers = numbers_in(folder)
        number, part, given_up = max(numbers, default=0) + 1, "", False
        if numbers:
            content = content_of(folder / str(number - 1))
            note, mark = read_note(content), f"{number - 1} {content}"
            part = note.part if note is not None else ""
            if note is None or not (note.free or (lock is not None and self._same_lock(note))):
                if mark != expired and not self._has_expired(work_id, mark, note):
                    return None
                given_up = True
        about = Note(
            owner=uuid.uuid4().hex,
            machine=machine(),
            node=socket.gethostname()[:200],
            since=time.time(),
            lease=self.seconds,
            locked=lock is not None,
            part=uuid.uuid4().hex[:8] if given_up else part,
        )
        check_folder(self._part(work_id, part))
        check_file(folder / str(number))
        if not self._make(folder / str(number), about):
            return None
        file = os.open(folder / str(number), os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        lease = Lease(folder, number, about, file, lock)
        lease.write()
        if given_up:
            self._inherit(work_id, part, about.part)
        for other in numbers:
            delete_lease(folder / str(other))
        self._held[work_id] = lease
        self._seen.pop(work_id, None)
        return lease

    def _make(self, path: Path, note: Note) -> bool:
        """Make the file of a lease, unless it is there; return whether this process made it.

        A file that is written aside and linked has its content from the start, so that a holder that dies at once can
        be told from one of another machine.
        """
        aside = self._jobs / f".{path.parent.name}.{note.owner[:12]}.tmp"
        try:
            aside.write_bytes(note.to_bytes())
            os.link(aside, path)
        except FileExistsError:
            return aside.stat().st_nlink > 1  # a file server may answer a repeated request
        except OSError:  # no hard links, or no space
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
        finally:
            remove(aside)
        return True

    def _inherit(self, work_id: str, before: str, now: str) -> None:
        """Take over what a holder that was given up has saved: a rename, so that it can't change it any more."""
        found = self._jobs.glob(f".{work_id}*.part")
        left = sorted((path for path in found if path.is_dir() and not path.is_symlink()), key=lambda path: path.name)
        chosen = self._part(work_id, before)
        for path in sorted(left, key=lambda path: path == chosen):  # of several, the last holder's
            with contextlib.suppress(OSError):
                target = self._part(work_id, now)
                remove(target)
                os.replace(path, target)

    def _has_expired(self, work_id: str, mark: str, note: Note | None) -> bool:
        """Take note of what a lease says now; return whether it has said the same for too long.

        A gap between two looks counts little: this process may have been stopped, or the file server.
        """
        now, allowed = time.monotonic(), note.lease if note is not None else LEASE
        seen = self._seen.get(work_id)
        if seen is None or seen.mark != mark:
            self._seen[work_id] = _Sighting(mark, now, changed=seen is not None)
            return False
        seen.unchanged += min(now - seen.last, allowed / BEATS)
        seen.last = now
        seen.expired = seen.unchanged > allowed
        return seen.expired

    def _lock(self, work_id: str) -> FileLock | None:
        """Take the operating system's lock; None where another process of this machine has it, or there are no locks.

        The operating system lets go of the lock when its holder dies, however it dies.
        """
        lock = FileLock(self._lock_file(work_id), thread_local=False, **_HARD)  # another thread may let go
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        except NotImplementedError:  # an older filelock, where there are no locks
            return None
        except OSError as error:
            if error.errno in NO_LOCKS:
                return None
            raise StoreError(f"can't lock {lock.lock_file}: {error.strerror or error}") from error
        if isinstance(lock, SoftFileLock):  # a mere file, which stays when its holder dies
            lock.release()
            return None
        return lock

    def _is_dead(self, work_id: str, note: Note) -> bool:
        return self._same_lock(note) and not is_locked(self._lock_file(work_id))

    @staticmethod
    def _same_lock(note: Note) -> bool:
        """Return whether the operating system's lock tells of the life of a holder."""
        return note.locked and note.machine == machine()

    def _lock_file(self, work_id: str) -> Path:
        return self._jobs / ".locks" / work_id

    def _folder(self, work_id: str) -> Path:
        return self._jobs / ".leases" / work_id
