"""Where the levels of an arm end: at one that is hardly better than guessing, if the study asks for that."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tombola.studies.plan import Plan, Row
from tombola.training.loop import lowest


class Ends:
    """Which jobs need not be run, because an earlier level of their arm, trial and repeat has collapsed.

    That is so where validation accuracy at early stop is below chance (1 / classes) + `pruning.stop_margin`.
    """

    def __init__(self, plan: Plan):
        margin = plan.study.pruning.stop_margin
        self._floor = None if margin is None else 1 / plan.data.classes + margin
        self._rows: dict[str, list[Row]] = defaultdict(list)
        if self._floor is not None:
            for row in plan.rows:
                self._rows[row.job].append(row)
        self._last: dict[tuple[str, int, int | None], int] = {}  # repeat None: of all, since they share level 0

    @property
    def asked_for(self) -> bool:
        """Whether levels may end at all."""
        return self._floor is not None

    def note(self, job_id: str, facts: dict[str, Any]) -> bool:
        """Take in the result of a job that did not diverge; return whether it ends an arm."""
        history = facts["history"]
        if self._floor is None or history["val_accuracy"][lowest(history["val_loss"])] >= self._floor:
            return False
        for row in self._rows[job_id]:
            key = (row.arm, row.trial, row.repeat if row.level else None)
            self._last[key] = min(row.level, self._last.get(key, row.level))
        return True

    def left_out(self, job_id: str) -> bool:
        """Return whether all that would show a job lies behind an end."""
        rows = self._rows[job_id] if self._last else []
        return bool(rows) and all(
            any(row.level > self._last.get((row.arm, row.trial, repeat), row.level) for repeat in (row.repeat, None))
            for row in rows
        )
