"""Preemption: a node tells its workers to go. They save what they do, and it is queued again."""

from __future__ import annotations

import signal
import threading

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
WORKERS_OWN = SIGNALS[-1]  # the one that a worker process hears: SIGTERM it leaves to its parent
_ASKED = threading.Event()


def ask(*_: object) -> None:
    """Ask the work of this process to save and end; also a handler of signals."""
    _ASKED.set()


def asked() -> bool:
    """Return whether the work of this process is to save and end."""
    return _ASKED.is_set()


def forget() -> None:
    """Let this process work again: it may live on, and whoever sent the signal ends it."""
    _ASKED.clear()
