"""What a worker does that does not see the results folder: it works in a folder of its own, with a store as any other.

What its work needs is fetched from a depot before; what the work saves is sent there meanwhile, and its results after.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tombola.errors import ClusterError, StoreError
from tombola.running.depots import RESULT, RUNNING, Depot, checkpoint_name, counted, next_count
from tombola.running.files import Damaged, is_locked, locked_file, remove
from tombola.running.options import RunOptions
from tombola.running.parcels import pack, signature, unpack
from tombola.running.remote import PROCESSES, Sender, on_node
from tombola.running.store import Store
from tombola.running.worker import Answer, failed
from tombola.work import item_from_json

LOOK = 5.0  # seconds between two looks whether work is still wanted; leases shorter than 30 seconds want more looks
PREFIX = "tombola-worker-"
ALIVE = "running"  # a file; the work of a command stops when it is deleted


@dataclass(frozen=True)
class Parent:
    """A result that work needs.

    Args:
        parcel: its name in the depot.
        folder: its name in a store.
    """

    parcel: str
    folder: str


@dataclass(frozen=True)
class Courier:
    """Makes calls of `tombola.running.execute.execute` for a worker that does not see the results folder.

    Args:
        depot: opens the depot on a worker.
        command: name of the command whose work it is.
        looks: whether a worker may fail to reach the depot: not where the engine that brings the call also leads there.
    """

    depot: Callable[[], Depot]
    command: str
    looks: bool = True

    def check(self, sender: Sender, call: bytes) -> Answer:
        """Make a call that needs no results, and look whether the depot can be reached."""
        try:
            if self.looks:
                self._look()
            with _FOLDERS.of(self.command) as folder:
                return on_node(replace(sender, file=str(folder / ALIVE)), call)
        except Exception as error:
            return failed(error)

    def _look(self) -> None:
        try:
            with closing(self.depot()) as depot:
                found = depot.has(f"{RUNNING}/{self.command}")
        except Exception as error:
            raise ClusterError(f"a worker on {socket.gethostname()} does not reach the store: {error}") from None
        if not found:
            raise ClusterError(
                f"a worker on {socket.gethostname()} sees another store than this command; give an address that means "
                "the same on all machines"
            )

    def __call__(self, sender: Sender, call: bytes) -> Answer:
        """Make a call of (execute, (items, options, what they need), {}); it answers (outcomes, stamp)."""
        function, (specs, options, parents), _ = pickle.loads(call)
        try:
            with _FOLDERS.of(self.command) as folder, closing(self.depot()) as depot:
                errand = _Errand(depot, self.command, folder, specs, options)
                try:
                    errand.fetch(parents)
                    return errand.made(sender, function)
                finally:
                    remove(errand.store.root)
        except Exception as error:
            return failed(error)


class _Errand:
    """One execution, in a store of its own.

    Args:
        depot: where parcels lie.
        command: whose work it is.
        folder: of this process.
        specs, options: as in `execute`.
    """

    def __init__(self, depot: Depot, command: str, folder: Path, specs: Sequence[dict[str, Any]], options: RunOptions):
        self._depot, self._command, self._folder = depot, command, folder
        self._items = [item_from_json(values) for values in specs]
        self._specs, self._options = specs, options
        self._stamp = uuid.uuid4().hex
        self.store = Store(folder / self._stamp, options.lease)
        self._counts: dict[str, int] = {}  # of the last checkpoints
        self._names: dict[str, str] = {}
        self._sent: dict[str, Any] = {}  # signature of what was sent last
        self._when = self._reached = time.monotonic()
        self._cut = False  # whether the depot does not answer any more

    def fetch(self, parents: dict[str, Parent]) -> None:
        """Fetch what the work needs, and what an earlier execution has saved."""
        self.store.create()
        for parent in parents.values():
            unpack(self._depot.get(parent.parcel), self.store.jobs / parent.folder)
        for item in self._items:
            names = self._depot.names(item.id)
            fetch_checkpoint(self._depot, self.store, item.id, names)
            self._counts[item.id] = next_count(names)
            self._sent[item.id] = signature(self.store.part(item.id))

    def made(self, sender: Sender, function: Any) -> Answer:
        """Let a process execute the work, and send what it makes."""
        alive = str(self._folder / ALIVE)
        arguments = self._specs, str(self.store.root), replace(self._options, stop_file=alive)
        answer = on_node(replace(sender, file=alive), pickle.dumps((function, arguments, {})), self._watch)
        if answer.traceback:
            with contextlib.suppress(StoreError):  # the error of the work says more
                self._send_checkpoints()
            return answer
        outcomes = [self._delivered(*each) for each in zip(self._items, pickle.loads(answer.content), strict=True)]
        return Answer(pickle.dumps((outcomes, self._stamp)))

    def _delivered(self, item: Any, outcome: str) -> str:
        folder = self.store.folder(item.id)
        if outcome in ("done", "diverged") and folder is not None:
            self._depot.put(f"{item.id}/{self._stamp}{RESULT}", pack(folder))
            return outcome
        if not self._cut:
            self._send_checkpoint(item.id)
        return "preempted" if self._cut else outcome

    def _watch(self, under_way: Future[Any]) -> None:
        """Send checkpoints, and stop the work when it is no longer wanted, until it is done."""
        look = min(LOOK, self._options.lease / 6)
        while wait([under_way], timeout=look).not_done:
            try:
                wanted = self._depot.has(f"{RUNNING}/{self._command}")
                if time.monotonic() - self._when >= self._options.checkpoint_every / 2:
                    self._send_checkpoints()
                self._reached = time.monotonic()
            except StoreError:  # it may answer again
                wanted = time.monotonic() - self._reached < self._options.lease
                self._cut = not wanted
            if not wanted:
                remove(self._folder / ALIVE)

    def _send_checkpoints(self) -> None:
        for item in self._items:
            self._send_checkpoint(item.id)

    def _send_checkpoint(self, work_id: str) -> None:
        part = self.store.part(work_id)
        mark = signature(part)
        if not mark or mark == self._sent.get(work_id):
            return
        try:
            content = pack(part)
        except OSError:  # a file has just gone; or the work is done, and its folder too
            return
        before, name = self._names.get(work_id), checkpoint_name(self._counts[work_id], self._stamp)
        self._depot.put(f"{work_id}/{name}", content)
        self._sent[work_id], self._names[work_id], self._when = mark, name, time.monotonic()
        self._counts[work_id] += 1
        if before is not None:
            self._depot.delete(f"{work_id}/{before}")


def fetch_checkpoint(depot: Depot, store: Store, work_id: str, names: list[str]) -> bool:
    """Put the latest of some checkpoints that is whole where a store's work continues from; return whether one was."""
    for name in counted(names):
        aside = store.jobs / f".{work_id}.{uuid.uuid4().hex[:8]}.adopted"
        try:
            unpack(depot.get(f"{work_id}/{name}"), aside)
        except (StoreError, Damaged):  # its execution has just replaced it
            remove(aside)
            continue
        remove(store.part(work_id))
        os.replace(aside, store.part(work_id))
        return True
    return False


class _Folders:
    """The folders that this process works in, for each command its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, tuple[Path, contextlib.ExitStack]] = {}

    @contextmanager
    def of(self, command: str) -> Iterator[Path]:
        """Lend the folder of a command, in which the file `ALIVE` is; it stays until `end`."""
        with self._lock:
            if command not in self._open:
                self._open[command] = self._made()
            folder, _ = self._open[command]
            (folder / ALIVE).touch()
        yield folder

    def _made(self) -> tuple[Path, contextlib.ExitStack]:
        """Make a folder, after deleting those of processes that died."""
        for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError):
                if left.stat().st_uid == os.getuid() and not is_locked(left / "lock") and (left / "lock").exists():
                    shutil.rmtree(left, ignore_errors=True)
        stack = contextlib.ExitStack()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.enter_context(locked_file(folder / "lock"))
        return folder, stack

    def end(self, command: str) -> None:
        """Delete the folder of a command that has ended."""
        with self._lock:
            found = self._open.pop(command, None)
        if found is not None:
            found[1].close()

    def end_all(self) -> None:
        for command in list(self._open):
            self.end(command)


_FOLDERS = _Folders()
atexit.register(_FOLDERS.end_all)


def leave(command: str) -> None:
    """End what this worker keeps for a command that has ended: its folder, and the processes of all ended commands."""
    _FOLDERS.end(command)
    PROCESSES.release()
