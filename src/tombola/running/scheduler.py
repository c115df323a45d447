"""The scheduler: which work is next, on what it runs, and what happens when some of it fails."""

from __future__ import annotations

import contextlib
import math
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tombola.errors import ClusterError, StoreError, TombolaError
from tombola.running.ends import Ends
from tombola.running.execute import execute
from tombola.running.executors import StillBorn, end, withdraw
from tombola.running.files import Damaged
from tombola.running.options import RunOptions
from tombola.running.store import Store
from tombola.running.waiting import Waiting
from tombola.studies.plan import Plan
from tombola.work import Item, kind_named

MAX_DEATHS = 3  # of workers, while they ran the same work item, before that work item is given up
BOUNCE = 0.5  # seconds in which more presses of Ctrl-C count as one: shells and `timeout` pass a signal on twice
TICK = 0.2  # seconds between two looks at what is under way
PATIENCE = 1.0  # seconds until a work item that another run holds is asked for again


class Listener(Protocol):
    """Is told what happens: a progress display, or a log."""

    def begin(self, waiting: Sequence[Item]) -> None:
        """These items are still to be done; the others of the plan are done."""

    def started(self, item: Item) -> None:
        """A worker has been given the item."""

    def finished(self, item: Item, outcome: str) -> None:
        """The item is "done", "diverged" or "failed", or "skipped" because work that it needs has no result."""

    def note(self, message: str) -> None:
        """Something that a person should know."""

    def tick(self, running: list[Item]) -> None:
        """Called a few times a second."""


class Stop:
    """A stop request shared between processes: workers stop when the file is deleted.

    Deleting works on a full disk, too.
    """

    def __init__(self, path: Path):
        self.path = path
        self.asked = False
        self.at_once = False  # without waiting until the workers have saved
        self.number = signal.SIGINT  # the signal that asked for it
        self._when = 0.0

    def hear(self, number: int) -> bool:
        """Take in a signal: the first asks to save and end, a later Ctrl-C to end at once.

        Returns:
            Whether it is this one that ends all at once.
        """
        if not self.asked:
            self.number, self._when = signal.Signals(number), time.monotonic()
            self.ask()
        elif number == signal.SIGINT and not self.at_once and time.monotonic() - self._when > BOUNCE:
            self.at_once = True
            return True
        return False

    def ask(self) -> None:
        """Ask all workers to save and end."""
        self.asked = True
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass
class Tally:
    """What came of the work, by identity; `failed` holds the reasons."""

    done: set[str] = field(default_factory=set)
    diverged: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)  # left out: their arm collapsed at an earlier level


def run_plan(
    plan: Plan,
    store: Store,
    options: RunOptions,
    workers: int,
    make_executor: Callable[[], Executor],
    listener: Listener,
    stop: Stop,
) -> Tally:
    """Execute all work of a plan that the store does not have yet.

    Of the items that can start, the one with the longest chain of others behind it goes first, so that no worker is
    idle at the end. An item that fails ends with what needs it; all else is done.

    Args:
        workers: calls at a time.
        make_executor: makes what executes the work. A future whose worker died raises `BrokenProcessPool`, and the
            others continue.
        stop: once it is requested, nothing more is started; work under way saves itself and ends.

    Raises:
        StoreError: one that would meet all work, such as a full disk.
        KeyboardInterrupt: it is to stop at once; all workers have been ended.
    """
    return _Scheduler(plan, store, options, workers, make_executor, listener, stop).run()


@dataclass
class _Scheduler:
    plan: Plan
    store: Store
    options: RunOptions
    workers: int
    make_executor: Callable[[], Executor]
    listener: Listener
    stop: Stop
    tally: Tally = field(default_factory=Tally)
    running: dict[Future[list[str]], list[Item]] = field(default_factory=dict)
    busy: set[str] = field(default_factory=set)  # items that another run has held
    deaths: Counter[str] = field(default_factory=Counter)  # of workers, while they ran nothing but that item
    stillborn: int = 0  # workers in a row that died before they took an item
    saved: Counter[str] = field(default_factory=Counter)  # iteration of an item's checkpoint when a worker last died
    unsure: set[str] = field(default_factory=set)  # done, if what they were made from comes out as before
    single: set[str] = field(default_factory=set)  # items of a stack that failed, or whose worker died

    def __post_init__(self) -> None:
        self.ends = Ends(self.plan)
        self.waiting = Waiting([])

    def run(self) -> Tally:
        self._take_stock()
        self.listener.begin([item for item in self.waiting if item.id not in self.unsure])
        if not self.waiting:
            return self.tally
        self.executor = self.make_executor()
        try:
            while (self.waiting and not self.stop.asked) or self.running:
                if not self.stop.asked:
                    self._submit()
                if self.stop.at_once:
                    raise KeyboardInterrupt
                self._collect()
                self.listener.tick([item for items in self.running.values() for item in items])
        except BaseException:
            self.stop.ask()  # or leaving would wait until the workers have trained to the end
            raise
        finally:
            while not self.stop.at_once and wait(self.running, timeout=TICK).not_done:
                withdraw(self.executor)  # it can still be told to end at once
            end(self.executor, self.stop.at_once)
        return self.tally

    def _take_stock(self) -> None:
        """Find out what is done."""
        damaged: list[str] = []
        done, again = [], set()
        for item in self.plan.work.values():
            if not self.store.has(item, damaged):
                if self.store.folder(item.id) is not None:
                    again.add(item.id)
            elif again & set(item.needs):
                again.add(item.id)
                self.unsure.add(item.id)
            else:
                done.append(item)
        known = {item.id for item in done}
        self.waiting = Waiting([item for item in self.plan.work.values() if item.id not in known])
        for item in done:
            self._count(item, self.store.outcome(item.id))
        for message in damaged:
            self.listener.note(f"{message}; tombola runs that item again")

    def _count(self, item: Item, outcome: str) -> None:
        if outcome == "diverged":
            self.tally.diverged.add(item.id)
            self._lose(item)
            return
        self.tally.done.add(item.id)
        self.waiting.done(item.id)
        if self.ends.asked_for and self.ends.note(item.id, self.store.facts(item.id)):
            self.listener.note(f"{item.label} is hardly better than guessing; tombola skips its sparser levels")

    def _lose(self, item: Item) -> None:
        """Skip what needs an item that has no result."""
        for other in self.waiting.without(item.id):
            self.tally.skipped.add(other.id)
            self.listener.finished(other, "skipped")

    def _leave_out(self) -> None:
        """Leave out the levels behind an end, and skip what needs them."""
        for item in self.waiting.leave_out(self.ends.left_out):
            self.tally.ended.add(item.id)
            self._lose(item)

    def _keep_what_holds(self) -> None:
        """Count those as done whose result is of what they need as it is now, after that was made again."""
        now = time.monotonic()
        while self.unsure and (found := [item for item in self.waiting.ready(now) if item.id in self.unsure]):
            for item in found:
                self.unsure.discard(item.id)
                if self.store.has(item):
                    self.waiting.take([item])
                    self._count(item, self.store.outcome(item.id))

    def _submit(self) -> None:
        self._keep_what_holds()
        self._leave_out()
        if len(self.running) >= self.workers:
            return
        now = time.monotonic()
        ready = [item for item in self.waiting.ready(now) if not self._is_held(item, now)]
        while ready and len(self.running) < self.workers:
            batch = self._next_batch(ready)
            specs = [item.as_json() for item in batch]
            expired = {item.id: mark for item in batch if (mark := self.store.leases.expired(item.id))}
            future = self.executor.submit(execute, specs, str(self.store.root.absolute()), self.options, expired)
            self.waiting.take(batch)
            for item in batch:
                ready.remove(item)
                self.listener.started(item)
            self.running[future] = batch

    def _is_held(self, item: Item, now: float) -> bool:
        """Return whether another run still holds an item that it held before; then it is looked at again later."""
        if item.id not in self.busy or not self.store.is_claimed(item.id):
            return False
        self.waiting.postpone(item, now + PATIENCE)
        return True

    def _next_batch(self, ready: list[Item]) -> list[Item]:
        """Return the items to start together."""
        if ready[0].id in self.single:
            return ready[:1]
        first, kind = ready[0], kind_named(ready[0].kind)
        share = math.ceil(len(ready) / (self.workers - len(self.running)))
        most = min(self.options.stack if kind.most is None else kind.most, share)
        if most < 2:
            return [first]
        common, batch = kind.together(first), []
        for item in ready:
            if item.kind == first.kind and item.id not in self.single and kind.together(item) == common:
                batch.append(item)
            if len(batch) == most:
                break
        return batch

    def _collect(self) -> None:
        if not self.running:
            time.sleep(TICK)
            return
        finished, _ = wait(self.running, timeout=TICK, return_when=FIRST_COMPLETED)
        for future in finished:
            items, error = self.running.pop(future), future.exception()
            if isinstance(error, StillBorn):
                self._try_again(items)
                continue
            self.stillborn = 0
            if isinstance(error, BrokenProcessPool):
                self._bury(items)
            elif error is None:
                for item, outcome in zip(items, future.result(), strict=True):
                    self._settle(item, outcome)
            elif isinstance(error, ClusterError) and self.stop.asked:
                self.waiting.give_back(items)  # it began too late: a worker checks that it sees the stop file
            elif isinstance(error, StoreError | ClusterError) and not isinstance(error, Damaged):
                raise error  # it would meet all other work too
            elif len(items) > 1:
                self.single.update(item.id for item in items)
                self.waiting.give_back(items)
            else:
                self._give_up(items[0], _reason(error))

    def _try_again(self, items: list[Item]) -> None:
        self.stillborn += 1
        if self.stillborn > MAX_DEATHS:
            raise StoreError("workers die as soon as they start; run with --workers 0 to see the error")
        self.waiting.give_back(items)

    def _settle(self, item: Item, outcome: str) -> None:
        if outcome in ("busy", "preempted"):
            self.waiting.give_back([item], time.monotonic() + PATIENCE)
            if outcome == "busy":
                self.busy.add(item.id)
            else:
                self.listener.note(f"a node took its worker back; {item.label} is saved, and waits for another worker")
        elif outcome == "stopped":
            if not self.stop.asked and not self.stop.path.exists():
                raise StoreError(f"{self.stop.path} was removed during the run; run the same command again")
            self.waiting.give_back([item])
        else:
            self.store.see(item)
            self.listener.finished(item, outcome)
            self._count(item, outcome)

    def _bury(self, items: list[Item]) -> None:
        """A worker died. What it ran continues from its checkpoints, unless workers keep dying on the same item."""
        if len(items) == 1:
            saved = self.store.checkpoint_iteration(items[0].id) or 0
            if saved > self.saved[items[0].id]:  # it gets on all the same: nodes that go are not its fault
                self.deaths[items[0].id] = 0
            self.saved[items[0].id] = saved
            self.deaths[items[0].id] += 1
            if self.deaths[items[0].id] >= MAX_DEATHS:
                self._give_up(
                    items[0], f"workers died {MAX_DEATHS} times on this item; check the memory, or lower --workers"
                )
                return
        for item in items:
            self.single.add(item.id)
            self.listener.note(f"a worker died during {item.label}; it resumes from its last checkpoint")
        self.waiting.give_back(items)

    def _give_up(self, item: Item, reason: str) -> None:
        self.tally.failed[item.id] = reason
        self.listener.finished(item, "failed")
        self._lose(item)
        self.listener.note(f"{item.label} failed; all other work continues:\n{reason}")


def _reason(error: BaseException) -> str:
    """Return why an item failed: the message of an error that a user can mend, else the whole traceback."""
    return str(error) if isinstance(error, TombolaError) else "".join(traceback.format_exception(error))
