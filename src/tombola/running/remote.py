"""Sending work to other machines through an engine's executor, and what a worker there does with it."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import re
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from tombola import __version__
from tombola.errors import ClusterError
from tombola.registry import add_user_folders, user_folders
from tombola.revision import NUMERICS
from tombola.running import preemption
from tombola.running.executors import Workers, WorkExecutor, opened
from tombola.running.worker import Answer, answered, failed
from tombola.studies.study import Study
from tombola.user_code.places import searching

MOST_AT_A_TIME = 256  # calls in one process of an engine
NAMED = re.compile(r"([A-Za-z_][\w.]*):[A-Za-z_]\w*")  # package.module:name


@dataclass(frozen=True)
class Sender:
    """What a worker on another machine must know about the sender of its work, and must agree with.

    Args:
        versions: those that decide numbers, by name.
        folders: where the user's modules are looked for.
        modules: the user's modules that the study needs.
        file: one in the results folder, which the worker must see; "" where a `Courier` works instead.
        threads: how many compute a run.
        data: the folder of data sets that the command names; "" where each machine has its own.
    """

    versions: tuple[tuple[str, str], ...]
    folders: tuple[str, ...]
    modules: tuple[str, ...]
    file: str
    threads: int = 1
    data: str = ""

    @classmethod
    def of(cls, study: Study, file: str, threads: int, data: str | None = None) -> Sender:
        """Return what this process sends along with the work of a study.

        Args:
            study: whose modules have been imported here.
            file, threads, data: as in `Sender`.
        """
        named = (NAMED.fullmatch(text) for text in _texts(study.model_dump(mode="json")))
        modules = {found[1] for found in named if found and found[1] in sys.modules}
        return cls(versions(), user_folders(), tuple(sorted(modules)), file, threads, data or "")


def versions() -> tuple[tuple[str, str], ...]:
    """Return the versions that all processes of a study must share."""
    return ("tombola", f"{__version__} (numerics {NUMERICS})"), ("PyTorch", torch.__version__)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


class _Processes:
    """The processes in which this worker of a cluster computes, for each command its own.

    A process starts when it is needed. The engine's own process can't train: its threads draw from the global random
    generators, and it outlives the command whose modules it would have imported.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._workers: dict[Sender, Workers] = {}
        self._calls: Counter[Sender] = Counter()  # under way

    @contextlib.contextmanager
    def of(self, sender: Sender) -> Iterator[Workers]:
        """Lend the processes of a command for one call; they stay until `release`."""
        with self._lock:
            workers = self._workers.get(sender) or Workers(MOST_AT_A_TIME, sender.threads)
            self._workers[sender] = workers
            self._calls[sender] += 1
        try:
            yield workers
        finally:
            with self._lock:
                self._calls[sender] -= 1
            self.release()

    def preempt(self) -> None:
        """Let what is computed be saved and given back."""
        for workers in list(self._workers.values()):  # without the lock: a signal may interrupt whoever has it
            workers.preempt()

    def release(self) -> None:
        """End the processes of commands that have ended, unless calls are under way: these still save their work."""
        with self._lock:
            ended = [each for each in self._workers if not self._calls[each] and not os.path.exists(each.file)]
            workers = [self._workers.pop(sender) for sender in ended]
            for sender in ended:
                del self._calls[sender]
        for each in workers:
            each.shutdown(wait=False)


PROCESSES = _Processes()


def on_node(sender: Sender, call: bytes, watch: Callable[[Future[Any]], None] | None = None) -> Answer:
    """Make a call on a worker of a cluster, in a process of its own.

    Args:
        sender: whoever sends it.
        call: pickled (function, arguments, options).
        watch: is given the call under way, and returns when that is done.
    """
    with _heard():
        try:
            with PROCESSES.of(sender) as workers:
                under_way = workers.submit(_checked_answer, sender, call)
                if watch is not None:
                    watch(under_way)
                return under_way.result()
        except BrokenProcessPool as error:
            return failed(error)


class ProcessDied(ClusterError):
    """A worker's process died before it could answer."""


def check() -> bytes:
    """Return a call that does nothing: `on_node` then only checks that the worker can do the sender's work."""
    return pickle.dumps((int, (), {}))


@contextlib.contextmanager
def checking(worker: str) -> Iterator[None]:
    """Say in a sentence that a worker's process died before it could answer to `check`.

    Raises:
        ProcessDied: it did.
    """
    try:
        yield
    except BrokenProcessPool as error:
        raise ProcessDied(f"{worker} can't start a process ({error}); look at its log and its free memory") from None


@contextlib.contextmanager
def _heard() -> Iterator[None]:
    """Save the work and give it back when a signal asks for it. Only the main thread can hear signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: PROCESSES.preempt()) for number in preemption.SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checked_answer(sender: Sender, call: bytes) -> Answer:
    try:
        check_node(sender)
    except ClusterError as error:
        return failed(error)
    return answered(call)


@lru_cache(maxsize=4)
def check_node(sender: Sender) -> None:
    """Check that this process can do the sender's work.

    Raises:
        ClusterError: its versions differ, or it lacks a module or the results folder.
    """
    node = f"a worker on {socket.gethostname()}"
    for (name, wanted), (_, here) in zip(sender.versions, versions(), strict=True):
        if wanted != here:
            raise ClusterError(
                f"{node} has {name} {here}, but this command has {name} {wanted}; install the same version there"
            )
    add_user_folders(sender.folders)
    for module in sender.modules:
        try:
            with searching():
                importlib.import_module(module)
        except Exception as error:
            raise ClusterError(
                f"{node} can't import your module {module!r} ({error}); install it there, or keep it in a folder that "
                "all machines share"
            ) from None
    if sender.file and not os.path.exists(sender.file):
        raise ClusterError(
            f"{node} does not see the results folder {os.path.dirname(os.path.dirname(sender.file))}; give an --out "
            "that all machines share"
        )
    if sender.data and not os.path.isdir(sender.data):
        raise ClusterError(
            f"{node} has no folder {sender.data} of data sets; put the data there too, or leave --data out, and each "
            "machine uses its own"
        )


def _open(found: Answer, answer: Future[Any]) -> None:
    try:
        answer.set_result(opened(found))
    except BaseException as error:
        answer.set_exception(error)


class Remote(WorkExecutor):
    """Sends each call through an engine's executor, with all that a worker on another machine must know.

    Args:
        inner: the engine's executor.
        sender: what goes along.
        deaths: exceptions by which the engine says that a worker died. It continues to take calls.
        waits: returns whether calls wait for a worker that may never come.
        node: makes the call where it arrives.
    """

    def __init__(
        self,
        inner: Executor,
        sender: Sender,
        deaths: tuple[type[Exception], ...] = (),
        waits: Callable[[], bool] = lambda: False,
        node: Callable[[Sender, bytes], Answer] = on_node,
    ):
        self._inner, self._sender, self._deaths, self._waits, self._node = inner, sender, deaths, waits, node
        self._under_way: set[Future[Any]] = set()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Call a function on a worker.

        Raises:
            ClusterError: the engine no longer takes calls.
        """
        answer: Future[Any] = Future()
        call = pickle.dumps((function, arguments, options))
        try:
            sent = self._inner.submit(self._node, self._sender, call)
        except (BrokenExecutor, RuntimeError) as error:
            raise ClusterError(f"the executor takes no more work ({error}); make a new one, and run again") from error
        self._under_way.add(sent)
        sent.add_done_callback(lambda done: self._pass_on(done, answer))
        return answer

    def _pass_on(self, done: Future[Any], answer: Future[Any]) -> None:
        self._under_way.discard(done)
        try:
            found = done.result()
        except self._deaths:
            answer.set_exception(BrokenProcessPool("a worker died"))
        except CancelledError:
            answer.set_exception(
                ClusterError("the cluster has dropped the work: its scheduler has ended; run the same command again")
            )
        except BrokenExecutor as error:
            answer.set_exception(ClusterError(f"the executor is broken ({error}); make a new one, and run again"))
        except BaseException as error:
            answer.set_exception(error)
        else:
            _open(found, answer)

    def withdraw(self) -> None:
        """Take back what waits for a worker that may never come."""
        if self._waits():
            self.kill()

    def kill(self) -> None:
        """Take back all calls. Workers that are alive save what they do: the stop file has gone."""
        for sent in list(self._under_way):
            sent.cancel()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the engine's executor to whoever made it."""
        if cancel_futures:
            with contextlib.suppress(Exception):
                self.kill()
