"""Where the levels of an arm end: at one that is hardly better than guessing, if the study asks for that."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tombola.studies.plan import Plan, Row
from tombola.training.loop import ROUNDING, early_stop_accuracy


class Ends:
    """Which rows and work are left out, because an earlier level of the same arm, trial and repeat has collapsed.

    That is so where validation accuracy at early stop is below chance (1 / classes) + `pruning.stop_margin`. A run
    behind an end is still executed where the mask of another arm, or an interpolation, needs it.

    Args:
        plan: of the study.

    Attributes:
        left_out: identities of the work that is left out, as far as is known.
    """

    def __init__(self, plan: Plan):
        margin = plan.study.pruning.stop_margin
        self._floor = None if margin is None else 1 / plan.data.classes + margin - ROUNDING
        self._items = list(plan.work.values())
        self._compared = {pair.line for pair in plan.pairs}
        self._rows: dict[str, list[Row]] = defaultdict(list)
        for row in plan.rows:
            self._rows[row.job].append(row)
        self._last: dict[tuple[str, int, int | None], int] = {}  # repeat None: of all, since they share level 0
        self.left_out: set[str] = set()

    @property
    def asked_for(self) -> bool:
        """Whether levels may end at all."""
        return self._floor is not None

    def note(self, job_id: str, facts: dict[str, Any]) -> bool:
        """Take in the result of work that did not diverge; return whether it ends an arm that had not ended before."""
        if self._floor is None or job_id not in self._rows or early_stop_accuracy(facts["history"]) >= self._floor:
            return False
        news = False
        for row in self._rows[job_id]:
            key = (row.arm, row.trial, row.repeat if row.level else None)
            news = news or not self.behind(row)
            self._last[key] = min(row.level, self._last.get(key, row.level))
        self._settle()
        return news

    def behind(self, row: Row) -> bool:
        """Return whether a row lies behind an end."""
        ends = [self._last.get((row.arm, row.trial, repeat), row.level) for repeat in (row.repeat, None)]
        return row.level > min(ends)

    def _settle(self) -> None:
        needed: set[str] = set()
        self.left_out = set()
        for item in reversed(self._items):  # each stands behind those that it needs
            shown = item.id in self._compared or not all(map(self.behind, self._rows.get(item.id, ())))
            if shown or item.id in needed:
                needed |= set(item.needs)
            else:
                self.left_out.add(item.id)
