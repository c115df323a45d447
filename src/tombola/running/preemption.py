"""Preemption: a node tells its workers to go. They save what they do, and it is queued again."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
_ASKED = threading.Event()


def ask(*_: object) -> None:
    """Ask the work of this process to save and end; also a handler of signals."""
    _ASKED.set()


def asked() -> bool:
    """Return whether the work of this process is to save and end."""
    return _ASKED.is_set()


@contextlib.contextmanager
def heard() -> Iterator[None]:
    """Let `SIGNALS` ask for the end of what is done meanwhile; other threads than the main one can't hear them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, ask) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _ASKED.clear()  # the process may live on: whoever sent the signal ends it
