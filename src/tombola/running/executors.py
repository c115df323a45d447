"""Where work is executed. Everything here is a `concurrent.futures.Executor`; a cluster's own is used in the same way.

A future whose worker died raises `BrokenProcessPool`, and the executor continues to take calls.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from tombola.errors import InputError
from tombola.registry import user_folders
from tombola.running import preemption
from tombola.running.worker import HELD, Answer, Start

LOOK = 0.2  # seconds between two looks whether a worker is still alive
LEAVING = 5.0  # seconds that a worker without work has to end by itself
# What Python runs in a worker; the search path is this process's, and the current folder has no part in it.
WORKER = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from tombola.running.worker import serve; "
WORKER += "serve(int(sys.argv[2]))"


class StillBorn(BrokenProcessPool):
    """A worker died before it could take any work."""


class RemoteTraceback(Exception):
    """The traceback of an exception as the worker saw it; the exception's cause here."""

    def __init__(self, text: str):
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\n{self.text}"


class WorkExecutor(Executor):
    """An executor that can also be told to hurry at the end."""

    def withdraw(self) -> None:
        """Take back calls that nobody could begin yet, if such calls may wait for long."""

    def kill(self) -> None:
        """End without waiting for what is under way."""
        self.shutdown(wait=True)


class InProcess(WorkExecutor):
    """Executes each work item at once, in the calling thread: for debugging, and where no process may be started."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Run the function now, and return a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


class Workers(WorkExecutor):
    """Processes that each do one piece of work at a time. The death of one leaves the others alone.

    They do not import the caller's main module, so a script needs no `if __name__ == "__main__"`. They never hear
    Ctrl-C or SIGTERM, not even while Python starts: they are told to stop by the stop file.

    Args:
        count: of processes; each starts with its first call.
        threads: that PyTorch and NumPy use in each.
        environments: further environment variables of the processes; the processes share them out evenly.

    Raises:
        InputError: this system can't hand a pipe to a process.
    """

    def __init__(self, count: int, threads: int, environments: Sequence[Mapping[str, str]] = ({},)):
        if os.name != "posix":
            raise InputError("worker processes need a POSIX system; give --workers 0")
        number = str(threads)
        # OpenMP's threads else spin for a while after each product, which costs the other workers their core.
        shared = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), number)
        # The threads start the processes, which inherit that signals are held back.
        self._threads = ThreadPoolExecutor(count, initializer=signal.pthread_sigmask, initargs=(signal.SIG_BLOCK, HELD))
        self._idle: queue.LifoQueue[_Slot] = queue.LifoQueue()
        for place in range(count):
            self._idle.put(_Slot(shared | dict(environments[place % len(environments)])))
        self._lock = threading.Lock()
        self._alive: set[_Worker] = set()
        self._killed = False

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Call a function in a process that is idle, or in the next one that will be."""
        return self._threads.submit(self._call, pickle.dumps((function, arguments, options)))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes once they have done what they were given."""
        self._threads.shutdown(wait=wait, cancel_futures=cancel_futures)
        for worker in list(self._alive):
            worker.close()
        for worker in list(self._alive):
            worker.end()

    def preempt(self) -> None:
        """Let the processes save what they do and give it back."""
        for worker in list(self._alive):
            worker.preempt()

    def kill(self) -> None:
        """End the processes, and those that they have started, now."""
        with self._lock:
            self._killed = True
        for worker in list(self._alive):
            worker.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _call(self, call: bytes) -> Any:
        slot = self._idle.get()
        try:
            if slot.worker is None or not slot.worker.is_alive():
                self._bury(slot)
                slot.worker = self._started(slot.environment)
            return slot.worker.call(call)
        except BrokenProcessPool:
            self._bury(slot)
            raise
        finally:
            self._idle.put(slot)

    def _started(self, environment: dict[str, str]) -> _Worker:
        with self._lock:
            if self._killed:
                raise BrokenProcessPool("all workers have been ended")
            try:
                worker = _Worker(environment)
            except OSError as error:  # too many processes or files, or no memory: not the work's own fault
                raise StillBorn(f"a worker process can't be started: {error}") from error
            self._alive.add(worker)
        return worker

    def _bury(self, slot: _Slot) -> None:
        if slot.worker is not None:
            slot.worker.kill()
            self._alive.discard(slot.worker)
            slot.worker = None


@dataclass
class _Slot:
    """The place of a process: the process itself may die, and another takes the place."""

    environment: dict[str, str]
    worker: _Worker | None = None  # not started yet, or dead


def opened(answer: Answer) -> Any:
    """Return the value that a worker has answered, or raise the exception."""
    try:
        found = pickle.loads(answer.content)
    except Exception:
        if not answer.traceback:
            raise
        found = RuntimeError(answer.traceback.strip().splitlines()[-1])  # of a class that only the worker knows
    if answer.traceback:
        raise found from RemoteTraceback(answer.traceback)
    return found


class _Worker:
    """A process, and the pipe that leads to it."""

    def __init__(self, environment: dict[str, str]):
        self._pipe, theirs = Pipe()
        path = [folder or str(Path.cwd()) for folder in sys.path]
        command = [sys.executable, "-P", "-c", WORKER, json.dumps(path), str(theirs.fileno())]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), env=os.environ | environment
        )
        theirs.close()
        self._ready = False

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def call(self, call: bytes) -> Any:
        """Return what a pickled call gives.

        Raises:
            StillBorn: the process died before it could take the call.
            BrokenProcessPool: it died.
            Exception: what the function raised.
        """
        if not self._ready:
            try:
                self._pipe.send(Start(os.getpid(), sys.argv, user_folders()))
                self._received()
            except BrokenProcessPool as error:
                raise StillBorn(*error.args) from None
            except OSError:
                raise StillBorn("a worker process could not start") from None
            self._ready = True
        try:
            self._pipe.send_bytes(call)
        except OSError:
            raise BrokenProcessPool("a worker process died") from None
        return opened(self._received())

    def _received(self) -> Any:
        """Return what the process sends next. Its own children may hold the pipe open, so its end shows in two ways."""
        try:
            while not self._pipe.poll(LOOK):
                if not self.is_alive() and not self._pipe.poll(0):
                    raise EOFError
            return self._pipe.recv()
        except (EOFError, OSError):
            raise BrokenProcessPool("a worker process died") from None

    def preempt(self) -> None:
        """Let it save what it does and give it back."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(preemption.WORKERS_OWN)

    def close(self) -> None:
        """Let it end by itself."""
        self._pipe.close()

    def end(self) -> None:
        """Wait until it has ended, or end it."""
        try:
            self._process.wait(LEAVING)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it now, with all that it has started."""
        for process in (*_descendants(self._process.pid), self._process.pid) if self.is_alive() else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        self._process.wait()


def _descendants(process: int) -> list[int]:
    """Return the processes that a process has started, the latest first; none where the system does not tell."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{process}/task").glob("*/children"):
            for child in map(int, children.read_text().split()):
                found = [*_descendants(child), child, *found]
    return found


def end(executor: Executor, at_once: bool) -> None:
    """Shut an executor down: once it has done all that it was given, or without waiting for that."""
    if at_once and isinstance(executor, WorkExecutor):
        executor.kill()
    else:
        executor.shutdown(wait=True)


def withdraw(executor: Executor) -> None:
    """Take back calls that nobody could begin yet: see `WorkExecutor.withdraw`."""
    if isinstance(executor, WorkExecutor):
        executor.withdraw()
