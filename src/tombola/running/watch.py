"""What looks up from the work now and then: to note how far it is, and whether it is to stop."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tombola.running.store import PROGRESS, Store
from tombola.training.loop import Interrupted

if TYPE_CHECKING:
    from tombola.running.execute import Means

PROGRESS_EVERY = 0.5  # seconds between two notes of how far a job is
State = Mapping[str, Any]


class Watch:
    """Called several times a second while work is done: notes its progress, and ends it when that is asked for.

    Args:
        store, means: of the work.
        states: returns how far each piece of work is, by identity: "label", "iteration", "budget", "val_accuracy"
            where there is one, and "unit" where it isn't iterations that are counted.
    """

    def __init__(self, store: Store, means: Means, states: Callable[[], Mapping[str, State]]):
        self._store, self._means, self._states = store, means, states
        self._noted = 0.0

    def __call__(self) -> None:
        """Note progress if that is due.

        Raises:
            Interrupted: the go file or the parent process is gone.
        """
        now = time.monotonic()
        if now - self._noted > PROGRESS_EVERY:
            self._noted = now
            for identity, state in self._states().items():
                # A full disk must not end a job for the sake of a progress note; saving will say it.
                with contextlib.suppress(OSError):
                    self._note(identity, state)
        means = self._means
        orphaned = means.parent is not None and os.getppid() != means.parent
        if orphaned or (means.go_file is not None and not os.path.exists(means.go_file)):
            raise Interrupted

    def _note(self, identity: str, state: State) -> None:
        path = self._store.part(identity) / PROGRESS
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps({**state, "time": time.time()}))
        os.replace(aside, path)
