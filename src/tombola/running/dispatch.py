"""The side of the command, where workers do not see its results folder: see `tombola.running.courier`.

While a worker has work, this process holds the work's lease, so that other commands and `tombola status` see it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tombola.errors import StoreError
from tombola.running.courier import Parent, fetch_checkpoint
from tombola.running.depots import CHECKPOINT, RESULT, RUNNING, Depot, checkpoint_name
from tombola.running.executors import WorkExecutor
from tombola.running.files import Damaged
from tombola.running.lease import machine
from tombola.running.options import RunOptions
from tombola.running.parcels import pack
from tombola.running.remote import Remote
from tombola.running.store import Store
from tombola.studies.plan import Plan
from tombola.work import Item, item_from_json

AT_A_TIME = 8  # parcels that are packed or unpacked
LOOK = 0.3  # seconds between two looks whether the command is to stop


@dataclass
class _Call:
    """A call under way: the items that a worker has, and what became of the others."""

    items: list[Item]
    outcomes: dict[str, str]
    mine: list[Item]
    answer: Future[list[str]]


class Dispatch(WorkExecutor):
    """Sends calls of `execute` with what they need, and puts what comes back into the results folder.

    Args:
        remote: sends calls to workers, where a `Courier` makes them.
        depot: where parcels lie.
        plan: whose work it is.
        file: is there while the command wants its work; it lies in the folder of results.
        command: name of the command.
        lease: seconds, as in `Store`.
    """

    def __init__(self, remote: Remote, depot: Depot, plan: Plan, file: Path, command: str, lease: float):
        self._remote, self._depot, self._file, self._command = remote, depot, file, command
        self._store = Store(file.parent.parent, lease)
        self._pool = ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="parcels")
        self._children = Counter(parent for item in plan.work.values() for parent in item.needs)
        self._left = plan.work.keys() & set(depot.names(""))  # what a command that died has left there
        self._taken: set[str] = set()  # what this command has sent to workers
        self._offered: dict[str, Parent] = {}
        self._offering: dict[str, threading.Lock] = {parent: threading.Lock() for parent in self._children}
        self._under_way: set[Future[list[str]]] = set()
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="stop", daemon=True)
        self._watcher.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        """Send items to a worker; `arguments` are those of `execute`, with this store's address."""
        specs, _, options, expired = arguments
        answer: Future[list[str]] = Future()
        self._under_way.add(answer)
        answer.add_done_callback(self._under_way.discard)
        self._pool.submit(self._begin, function, specs, options, expired, answer)
        return answer

    def _begin(
        self,
        function: Callable[..., Any],
        specs: Sequence[dict[str, Any]],
        options: RunOptions,
        expired: Mapping[str, str],
        answer: Future[list[str]],
    ) -> None:
        call = _Call([item_from_json(values) for values in specs], {}, [], answer)
        try:
            for item in call.items:
                self._claim(call, item, expired.get(item.id))
            if not call.mine:
                self._finish(call)
                return
            wanted = [self._store.with_observations(item) for item in call.mine]
            parents = {parent: self._offer(parent) for item in wanted for parent in item.needs}
            sent = self._remote.submit(function, [item.as_json() for item in wanted], options, parents)
            sent.add_done_callback(lambda done: self._pool.submit(self._end, call, done))
        except BaseException as error:
            self._fail(call, error)

    def _claim(self, call: _Call, item: Item, expired: str | None) -> None:
        """Take an item's lease, and what a command that died has left of it in the depot."""
        store = self._store
        if not store.leases.claim(item.id, expired):
            call.outcomes[item.id] = "busy"
            return
        call.mine.append(item)
        self._taken.add(item.id)
        names = self._depot.names(item.id) if item.id in self._left else []
        for name in names:
            if name.endswith(RESULT) and not store.has(item):
                with contextlib.suppress(Damaged):  # it was not wholly sent
                    store.receive(item, self._depot.get(f"{item.id}/{name}"))
        if store.has(item):
            call.outcomes[item.id] = store.outcome(item.id)
            call.mine.remove(item)
            self._let_go(item)
            return
        self._pull(item, names)
        if store.part(item.id).is_dir():
            content, name = pack(store.part(item.id)), checkpoint_name(1, uuid.uuid4().hex)
            self._depot.put(f"{item.id}/{name}", content)

    def _pull(self, item: Item, names: list[str]) -> None:
        """Take over what a worker has saved of an item that it did not finish."""
        if self._store.leases.may_write(item.id):
            fetch_checkpoint(self._depot, self._store, item.id, names)
        for name in names:
            if name.endswith(CHECKPOINT):
                self._depot.delete(f"{item.id}/{name}")

    def _offer(self, work_id: str) -> Parent:
        """Return where workers find a result; put it into the depot first, if no worker has."""
        with self._offering[work_id]:
            if work_id not in self._offered:
                folder = self._store.folder(work_id)
                if folder is None:
                    raise Damaged(f"{self._store.jobs} has no result of run {work_id}")
                name = f"{work_id}/{uuid.uuid4().hex}{RESULT}"
                self._depot.put(name, pack(folder))
                self._offered[work_id] = Parent(name, folder.name)
            return self._offered[work_id]

    def _end(self, call: _Call, done: Future[Any]) -> None:
        """Put what a worker has made where it belongs."""
        try:
            error = None if done.cancelled() else done.exception()
            if done.cancelled() or error is not None:
                for item in call.mine:
                    with contextlib.suppress(StoreError):
                        self._pull(item, self._depot.names(item.id))
                raise error or StoreError("the call was taken back")
            outcomes, stamp = done.result()
            for item, outcome in zip(call.mine, outcomes, strict=True):
                call.outcomes[item.id] = outcome
                if outcome in ("done", "diverged"):
                    call.outcomes[item.id] = self._received(item, f"{item.id}/{stamp}{RESULT}")
                else:
                    self._pull(item, self._depot.names(item.id))
            self._finish(call)
        except BaseException as error:
            self._fail(call, error)

    def _received(self, item: Item, name: str) -> str:
        """Store a result; return what it came to, or "busy" where another command has taken the item over."""
        store = self._store
        store.receive(item, self._depot.get(name))
        folder = store.folder(item.id)
        if folder is None or not store.has(item):
            return "busy"
        if self._children[item.id]:
            self._offered[item.id] = Parent(name, folder.name)
        for other in self._depot.names(item.id):
            if not self._children[item.id] or f"{item.id}/{other}" != name:
                self._depot.delete(f"{item.id}/{other}")
        return store.outcome(item.id)

    def _finish(self, call: _Call) -> None:
        for item in call.mine:
            self._let_go(item)
        call.answer.set_result([call.outcomes[item.id] for item in call.items])

    def _fail(self, call: _Call, error: BaseException) -> None:
        for item in call.mine:
            with contextlib.suppress(Exception):  # the first error says what is wrong
                self._let_go(item)
        call.answer.set_exception(error)

    def _let_go(self, item: Item) -> None:
        if self._store.leases.holding(item.id):
            self._store.leases.let_go(item.id, finished=not self._store.part(item.id).exists())

    def _watch(self) -> None:
        """Tell workers when the command wants no more of its work."""
        while not self._ended.wait(LOOK):
            if not os.path.exists(self._file):
                break
        with contextlib.suppress(StoreError):
            self._depot.delete(f"{RUNNING}/{self._command}")

    def withdraw(self) -> None:
        """Take back what waits for a worker that may never come."""
        self._remote.withdraw()

    def kill(self) -> None:
        """Take back all calls."""
        self._remote.kill()
        self.shutdown()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Wait for what is under way, and leave nothing in the depot."""
        self._remote.shutdown(cancel_futures=cancel_futures)
        while pending := list(self._under_way):
            wait_for(pending)
        self._ended.set()
        self._watcher.join()
        self._pool.shutdown()
        late: set[str] = set()  # parcels of workers that woke up after others had done their work
        with contextlib.suppress(StoreError):
            late = {each for each in self._taken & set(self._depot.names("")) if self._store.folder(each) is not None}
        for work_id in self._offered.keys() | self._left | late:
            with contextlib.suppress(StoreError):
                self._depot.delete(work_id)
        self._depot.close()


def announce(depot: Depot, file: Path, command: str) -> None:
    """Say in a depot that a command wants its work; take that back for earlier commands of this folder that died.

    Raises:
        StoreError: the depot can't be reached.
    """
    here = f"{machine()} {file.parent.absolute()} "
    for name in depot.names(RUNNING):
        with contextlib.suppress(StoreError):  # it has just ended
            place, _, theirs = depot.get(f"{RUNNING}/{name}").decode(errors="replace").rpartition(" ")
            if f"{place} " == here and not (file.parent / theirs).exists():
                depot.delete(f"{RUNNING}/{name}")
    depot.put(f"{RUNNING}/{command}", f"{here}{file.name}".encode())
