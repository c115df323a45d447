"""The heartbeat of a worker: notes how far its work is, and stops it when that is asked for."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from tombola.running import preemption
from tombola.running.options import RunOptions
from tombola.running.store import PROGRESS, Store
from tombola.training.loop import Interrupted

NOTING = 50.0  # times what the notes of a stack take, until the next
LONGEST = 10.0  # seconds until the next notes, however long they take
State = Mapping[str, Any]


def check_wanted(options: RunOptions) -> None:
    """Check that the work is still wanted.

    Raises:
        Interrupted: the stop file or the parent process is gone, or the node wants its workers to go.
    """
    if preemption.asked():
        raise Interrupted
    if options.stop_file is not None and not os.path.exists(options.stop_file):
        raise Interrupted


class Heartbeat:
    """Called several times a second while work is executed.

    Args:
        store, options: of the work.
        states: returns how far each piece of work is, by identity: "label", "iteration", "budget", "metrics" by
            name where there are any, and "unit" where something other than iterations is counted.
    """

    def __init__(self, store: Store, options: RunOptions, states: Callable[[], Mapping[str, State]]):
        self._store, self._options, self._states = store, options, states
        self._due = 0.0

    def __call__(self) -> None:
        """Note progress if that is due.

        Raises:
            Interrupted: as `check_wanted`; or another process has taken the work over.
        """
        now = time.monotonic()
        if now > self._due:
            for identity, state in self._states().items():
                # A full disk must not end a run for the sake of a progress note; saving will report it.
                if self._store.leases.is_lost(identity):
                    raise Interrupted
                with contextlib.suppress(OSError):
                    self._note(identity, state)
            took = time.monotonic() - now
            self._due = now + max(self._options.note_every, min(LONGEST, NOTING * took))
        check_wanted(self._options)

    def _note(self, identity: str, state: State) -> None:
        path = self._store.part(identity) / PROGRESS
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps({**state, "time": time.time()}))
        os.replace(aside, path)
