"""Running a plan's jobs: which next, on what, and what to do when one goes wrong."""

from __future__ import annotations

import contextlib
import math
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tombola.errors import StoreError, TombolaError
from tombola.running.ends import Ends
from tombola.running.execute import Means
from tombola.running.execute import run_jobs as run_in_worker
from tombola.running.executors import end
from tombola.running.store import Store
from tombola.studies.connectivity import Line, Work
from tombola.studies.plan import Plan

MAX_DEATHS = 3  # of workers, while they ran the same job, before that job is given up
TICK = 0.2  # seconds between two looks at what is under way
PATIENCE = 1.0  # seconds until a job that another run holds is asked for again


class Watcher(Protocol):
    """Is told what happens; a progress display, or a log."""

    def begin(self, waiting: Sequence[Work]) -> None:
        """These jobs are to be done; the others of the plan are done already."""

    def started(self, job: Work) -> None:
        """A worker has been given the job."""

    def finished(self, job: Work, outcome: str) -> None:
        """The job came back "done", "diverged" or "failed", or is "skipped": one that it needs did not get done."""

    def note(self, message: str) -> None:
        """Something that a person should know."""

    def tick(self, running: list[Work]) -> None:
        """Called a few times a second."""


class Stop:
    """A wish to stop, seen by every process that has its address: a file that is there until then.

    That way round it works on a full disk too.
    """

    def __init__(self, path: Path):
        self.path = path
        self.asked = False
        self.at_once = False  # without waiting until the workers have saved

    def ask(self) -> None:
        """Ask all workers to save and end."""
        self.asked = True
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


@dataclass
class Tally:
    """What came of the jobs, by identity."""

    done: set[str] = field(default_factory=set)
    diverged: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)  # not run, because their arm has collapsed at an earlier level


def run_jobs(
    plan: Plan,
    store: Store,
    means: Means,
    workers: int,
    make_executor: Callable[[], Executor],
    watcher: Watcher,
    stop: Stop,
) -> Tally:
    """Run every job of a plan that the store does not have yet.

    Of the jobs that can start, the one with the longest chain of others waiting behind it goes first, so that no
    worker is idle at the end.

    Args:
        workers: jobs at a time.
        make_executor: called again where a worker's death has ended the pool.
        stop: once it is asked for, nothing more is started, and what runs saves itself and ends.

    Raises:
        TombolaError: one that would meet every job, such as a full disk.
        KeyboardInterrupt: the wish is to stop at once; all workers have been ended.
    """
    return _Scheduler(plan, store, means, workers, make_executor, watcher, stop).run()


@dataclass
class _Scheduler:
    plan: Plan
    store: Store
    means: Means
    workers: int
    make_executor: Callable[[], Executor]
    watcher: Watcher
    stop: Stop
    tally: Tally = field(default_factory=Tally)
    waiting: list[Work] = field(default_factory=list)
    running: dict[Future[list[str]], list[Work]] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)  # job that another run holds -> when to ask again
    deaths: Counter[str] = field(default_factory=Counter)  # of workers, while they ran nothing but that job
    stillborn: int = 0  # pools in a row that broke before they took a job
    suspects: set[str] = field(default_factory=set)  # jobs that ran when a worker died
    single: set[str] = field(default_factory=set)  # jobs of a stack that failed

    def __post_init__(self) -> None:
        self.ends = Ends(self.plan)

    def run(self) -> Tally:
        self._take_stock()
        self.watcher.begin(self.waiting)
        if not self.waiting:
            return self.tally
        told = False
        self.executor = self.make_executor()
        try:
            while (self.waiting and not self.stop.asked) or self.running:
                if not self.stop.asked:
                    self._submit()
                elif not told and not all(future.done() for future in self.running):
                    told = True
                    self.watcher.note("stopping: what runs is being saved (once more Ctrl-C ends it at once)")
                if self.stop.at_once:
                    raise KeyboardInterrupt
                self._collect()
                self.watcher.tick([job for jobs in self.running.values() for job in jobs])
        except BaseException:
            self.stop.ask()  # or leaving would wait until the workers have trained to the end
            raise
        finally:
            end(self.executor, self.stop.at_once)
        return self.tally

    def _take_stock(self) -> None:
        """Find out what is done, and order the rest by the longest chain that waits for it."""
        damaged: list[str] = []
        for job in self.plan.work.values():
            if self.store.has(job, damaged):
                self._count(job, self.store.outcome(job.id))
            else:
                self.waiting.append(job)
        for message in damaged:
            self.watcher.note(f"{message}; that job is done again")
        depth: Counter[str] = Counter()
        for job in reversed(self.waiting):  # every job stands behind those that it needs
            for parent in job.needs:
                depth[parent] = max(depth[parent], depth[job.id] + 1)
        self.waiting.sort(key=lambda job: -depth[job.id])  # stable: else the study's order of arms

    def _count(self, job: Work, outcome: str) -> None:
        (self.tally.diverged if outcome == "diverged" else self.tally.done).add(job.id)
        if self.ends.asked_for and outcome == "done" and self.ends.note(job.id, self.store.facts(job.id)):
            self.watcher.note(f"{job.label} is hardly better than guessing; sparser levels of it are left out")

    def _submit(self) -> None:
        now = time.monotonic()
        lost = self.tally.diverged | self.tally.failed.keys() | self.tally.skipped | self.tally.ended
        for job in list(self.waiting):
            if job.id in self.ends.left_out:
                self.waiting.remove(job)
                self.tally.ended.add(job.id)
                lost.add(job.id)
            elif lost & set(job.needs):
                self.waiting.remove(job)
                self.tally.skipped.add(job.id)
                self.watcher.finished(job, "skipped")
                lost.add(job.id)
        ready = [
            job for job in self.waiting if set(job.needs) <= self.tally.done and self.not_before.get(job.id, 0) <= now
        ]
        while ready and len(self.running) < self.workers:
            batch = self._next_batch(ready)
            if not batch:
                break
            specs = [job.model_dump_json() for job in batch]
            try:
                future = self.executor.submit(run_in_worker, specs, str(self.store.root), self.means)
            except BrokenProcessPool:  # a worker died while it had nothing to do
                self._new_pool()
                break
            self.stillborn = 0
            for job in batch:
                ready.remove(job)
                self.waiting.remove(job)
                self.watcher.started(job)
            self.running[future] = batch

    def _next_batch(self, ready: list[Work]) -> list[Work]:
        """Return the jobs to start together, none if that must wait.

        When a worker dies, all that ran at the time is run one by one, so that no job is given up for another's fault.
        """
        if any(job.id in self.suspects for jobs in self.running.values() for job in jobs):
            return []
        suspects = [job for job in ready if job.id in self.suspects]
        if suspects:
            return [] if self.running else suspects[:1]
        if ready[0].id in self.single:
            return ready[:1]
        most = min(self.means.stack, math.ceil(len(ready) / (self.workers - len(self.running))))
        alike = [job for job in ready if job.id not in self.single and _stackable(job) == _stackable(ready[0])]
        return alike[:most]

    def _collect(self) -> None:
        if not self.running:
            time.sleep(TICK)
            return
        finished, _ = wait(self.running, timeout=TICK, return_when=FIRST_COMPLETED)
        for future in finished:
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                self._bury([job for jobs in self.running.values() for job in jobs])
                self.running.clear()
                self._new_pool()
                return
            jobs = self.running.pop(future)
            if error is None:
                for job, outcome in zip(jobs, future.result(), strict=True):
                    self._settle(job, outcome)
            elif isinstance(error, TombolaError):
                raise error
            elif len(jobs) > 1:
                self.single.update(job.id for job in jobs)
                self.waiting[:0] = jobs
            else:
                self._give_up(jobs[0], "".join(traceback.format_exception(error)))

    def _new_pool(self) -> None:
        self.stillborn += 1
        if self.stillborn > MAX_DEATHS:
            raise StoreError("workers die as soon as they start; --workers 0 does without them, and shows why")
        self.executor.shutdown(wait=True)
        self.executor = self.make_executor()

    def _settle(self, job: Work, outcome: str) -> None:
        if outcome == "busy":
            self.not_before[job.id] = time.monotonic() + PATIENCE
            self.waiting.insert(0, job)
        elif outcome == "stopped":
            if not self.stop.asked and not self.stop.path.exists():
                raise StoreError(f"{self.stop.path} was removed while the run went on; run the same command again")
            self.waiting.insert(0, job)
        else:
            self.suspects.discard(job.id)
            self._count(job, outcome)
            self.watcher.finished(job, outcome)

    def _bury(self, jobs: list[Work]) -> None:
        """A worker died. What ran goes on from its checkpoints, unless workers keep dying on the same job."""
        if len(jobs) == 1:
            self.deaths[jobs[0].id] += 1
            if self.deaths[jobs[0].id] >= MAX_DEATHS:
                self._give_up(jobs[0], f"workers died {MAX_DEATHS} times on this job; is there enough memory?")
                return
        for job in jobs:
            self.suspects.add(job.id)
            self.watcher.note(f"a worker died during {job.label}; that job goes on from its last checkpoint")
        self.waiting[:0] = jobs

    def _give_up(self, job: Work, reason: str) -> None:
        self.suspects.discard(job.id)
        self.tally.failed[job.id] = reason
        self.watcher.finished(job, "failed")
        self.watcher.note(f"{job.label} failed; the rest goes on:\n{reason}")


def _stackable(job: Work) -> tuple[object, ...]:
    """Return what jobs must have in common to be trained together; a line and a supermask go by themselves."""
    if isinstance(job, Line) or job.popup:
        return (job.id,)
    return job.network.model_dump_json(), job.training, job.data, job.origin.iteration, job.until
