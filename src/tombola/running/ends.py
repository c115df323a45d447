"""Where the levels of an arm end: at one that is hardly better than guessing, if the study asks for that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from tombola.studies.plan import Plan, Row
from tombola.training.loop import ROUNDING, early_stop_metric


class Ends:
    """Which rows and work are omitted, because an earlier level of the same arm, trial and repeat has collapsed.

    That is so where the task's metric on the validation examples at early stop is not better than chance by
    `pruning.stop_margin`: of classification, where accuracy is below 1 / classes + margin. A run behind an end is still
    executed where the mask of another arm, or an interpolation, needs it.

    Args:
        plan: of the study.

    Attributes:
        left_out: identities of the work that is omitted, as far as is known.
    """

    def __init__(self, plan: Plan):
        self._margin = plan.study.pruning.stop_margin
        if self._margin is not None:
            self._metric, chance = plan.measures.primary, plan.measures.chance
            assert chance is not None  # planning refuses a margin without it
            self._chance = chance
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
        return self._margin is not None

    def note(self, work_id: str, facts: dict[str, Any]) -> bool:
        """Take in the result of work that did not diverge; return whether it ends an arm that had not ended before."""
        if self._margin is None or work_id not in self._rows or self._is_good(facts, self._margin):
            return False
        news = False
        for row in self._rows[work_id]:
            key = (row.arm, row.trial, row.repeat if row.level else None)
            news = news or not self.behind(row)
            self._last[key] = min(row.level, self._last.get(key, row.level))
        self._settle()
        return news

    def _is_good(self, facts: Mapping[str, Any], margin: float) -> bool:
        """Return whether a run is better than chance by the margin."""
        gain = self._metric.gain(early_stop_metric(facts, self._metric.name), self._chance)
        return gain >= margin - ROUNDING

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
