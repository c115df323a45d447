"""Where jobs are run. Everything here is a `concurrent.futures.Executor`; a cluster's own is used in the same way."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

from loky.process_executor import ProcessPoolExecutor

from tombola.registry import add_user_folders, safe_start, user_folders

ORPHAN_GRACE = 10.0  # seconds that a worker without a parent has to save what it is doing


class InProcess(Executor):
    """Runs each job at once, in the calling thread: for debugging, and where no process may be started."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        """Run the function now, and return a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def process_pool(workers: int, threads: int) -> Executor:
    """Return a pool of processes of `threads` threads each; a dead worker ends the pool, not the machine.

    loky's workers do not import the caller's main module again, so a script needs no `if __name__ == "__main__"`.
    """
    count = str(threads)
    # OpenMP's threads else spin for a while after each product, which costs the other workers their core.
    environment = {"OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, "NUMBA_NUM_THREADS": count}
    # Where psutil is installed, loky takes PyTorch and the data, loaded with the first job, for a leak and starts the
    # worker again.
    environment["LOKY_MAX_MEMORY_LEAK_SIZE"] = "1e15"
    with _interrupts_held_back(), safe_start():
        pool = ProcessPoolExecutor(
            workers, initializer=_start_worker, initargs=(os.getpid(), user_folders()), env=environment, timeout=None
        )
        pool.submit(os.getpid)  # starts all workers, while interrupts are held back
    return pool


def end(executor: Executor, at_once: bool) -> None:
    """Shut an executor down: once it has done all that it was given, or without waiting for that."""
    if at_once and isinstance(executor, ProcessPoolExecutor):
        executor.shutdown(wait=True, kill_workers=True)
    else:
        executor.shutdown(wait=True)


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that never hear Ctrl-C, not even while Python starts: they are told to stop by the go file.

    They inherit that the signal is held back. Here it comes through afterwards, if someone pressed Ctrl-C meanwhile.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(parent: int, folders: tuple[str, ...]) -> None:
    add_user_folders(folders)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, args=(parent,), daemon=True).start()


def _leave_with_parent(parent: int) -> None:
    """End this worker when its parent was killed: it would wait for work for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    time.sleep(ORPHAN_GRACE)
    os._exit(1)
