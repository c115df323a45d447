"""What a worker process does: it waits for calls, one at a time, and answers each.

This file's imports are those of a worker that has no work yet, so that starting one takes no time.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection

from tombola.running import preemption

ORPHAN_GRACE = 10.0  # seconds that a worker without a parent has to save what it is doing
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
HELD = (*STOPPING, preemption.WORKERS_OWN)  # held back until a worker can hear them


@dataclass(frozen=True)
class Start:
    """What a worker is told first.

    Args:
        parent: identity of the process that started it.
        arguments: that process's command line.
        folders: where the user's modules are looked for.
    """

    parent: int
    arguments: list[str]
    folders: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What became of a call.

    Args:
        content: the value or the exception, pickled by itself: reading it may fail, and the rest must not.
        traceback: of the exception; "" where there was none.
    """

    content: bytes
    traceback: str = ""


def serve(pipe: int) -> None:
    """Answer calls until the other end of the pipe is closed.

    Args:
        pipe: file descriptor of one end of a duplex `multiprocessing.Pipe`.
    """
    _ignore_signals()
    calls = Connection(pipe)
    with contextlib.suppress(EOFError, OSError):  # whoever asked has gone
        start: Start = calls.recv()
        sys.argv = start.arguments
        threading.Thread(target=_leave_with_parent, args=(start.parent,), daemon=True).start()
        from tombola.registry import add_user_folders

        add_user_folders(start.folders)
        calls.send(None)  # ready
        while True:
            calls.send(answered(calls.recv_bytes()))
            preemption.forget()


def answered(call: bytes) -> Answer:
    """Make a pickled call of (function, arguments, options)."""
    try:
        function, arguments, options = pickle.loads(call)
        return Answer(pickle.dumps(function(*arguments, **options)))
    except BaseException as error:  # a user's code may call sys.exit
        return failed(error)


def failed(error: BaseException) -> Answer:
    """Return the answer that raises an exception where it is opened."""
    return Answer(_pickled(error), "".join(traceback.format_exception(error)))


def _pickled(error: BaseException) -> bytes:
    """Return an exception as bytes that can be read again, or another one that says the same."""
    try:
        content = pickle.dumps(error)
        if isinstance(pickle.loads(content), Exception):
            return content
    except Exception:  # one that holds what can't be pickled, or whose constructor wants something else
        pass
    return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))


def _ignore_signals() -> None:
    """Leave Ctrl-C and the ends that systems ask for to the parent: it tells its workers to save what they do.

    They were held back while Python started. Processes that a user's code starts can be ended as usual, but Ctrl-C is
    not for them either: the work that needs them will be saved.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else _leave_it_to_the_parent)
    signal.signal(preemption.WORKERS_OWN, preemption.ask)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_hear_signals)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)


def _leave_it_to_the_parent(_number: int, _frame: object) -> None: ...


def _hear_signals() -> None:
    signal.signal(preemption.WORKERS_OWN, signal.SIG_DFL)
    for number in STOPPING:
        if signal.getsignal(number) is _leave_it_to_the_parent:
            signal.signal(number, signal.SIG_DFL)


def _leave_with_parent(parent: int) -> None:
    """Let this worker save and end when its parent was killed; what it does may never look."""
    while os.getppid() == parent:
        time.sleep(0.5)
    preemption.ask()
    time.sleep(ORPHAN_GRACE)
    os._exit(1)
