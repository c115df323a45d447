"""How long the rest of a study takes, guessed from the work so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tombola.studies.plan import Plan
from tombola.work import Item

TELLING = 0.03  # share of a piece of work that must be done before its pace counts
KEPT = 500  # of the latest pieces of work of a kind, which the guess is fitted to
Seen = tuple[float, float, float]  # units, operations, seconds


@dataclass(frozen=True)
class UnderWay:
    """How far a piece of work is.

    Args:
        share: that is done, 0 to 1; None where that is not known.
        seconds: since it was started.
    """

    share: float | None
    seconds: float

    @property
    def telling(self) -> bool:
        """Whether it is far enough to tell how long it takes."""
        return self.share is not None and self.share >= TELLING and self.seconds > 0


class Forecast:
    """Guesses how long the rest takes, from what the work so far has taken.

    The seconds of each kind of work are fitted as a part for each unit of work (an iteration, an evaluated example) and
    a part for each operation of live weights. Work under way counts as if it went on at its pace.
    """

    def __init__(self, plan: Plan, workers: int):
        self.plan, self.workers = plan, workers
        self._seen: dict[str, list[Seen]] = {}

    def learn(self, item: Item, seconds: float) -> None:
        """Take in the seconds that an item has taken."""
        self._seen.setdefault(item.kind, []).append(self._point(item, seconds))

    def left(self, waiting: Sequence[Item], running: Mapping[str, UnderWay]) -> float | None:
        """Return the seconds left, None before anything is known.

        Args:
            waiting: items that have not started.
            running: how far each other item is.
        """
        work = self.plan.work
        seen = {kind: points[-KEPT:] for kind, points in self._seen.items()}
        for key, state in running.items():
            if state.telling and state.share is not None:
                point = self._point(work[key], state.seconds / state.share)
                seen.setdefault(work[key].kind, []).append(point)
        todo = [*(work[key] for key in running), *waiting]
        dear = {item.kind for item in todo if self.plan.operations(item)}
        known = any(point[1] for points in seen.values() for point in points)
        if not any(item.kind in seen for item in todo) or not (dear <= seen.keys() or known):
            return None
        seconds = {item.id: self._guess(item, seen) for item in waiting}
        for key, state in running.items():
            seconds[key] = self._rest(self._guess(work[key], seen), state)
        return elapsed(self.plan, seconds, self.workers)

    def _rest(self, guess: float, state: UnderWay) -> float:
        if state.telling and state.share is not None:
            return state.seconds * (1 - state.share) / state.share
        return max(0.0, guess - state.seconds)

    def _point(self, item: Item, seconds: float) -> Seen:
        return _units(item), self.plan.operations(item), seconds

    def _guess(self, item: Item, seen: Mapping[str, list[Seen]]) -> float:
        """Return the guess for one item in seconds; 0 where nothing is known of work that could tell."""
        units, operations, _ = self._point(item, 0.0)
        if item.kind not in seen:
            others = [each for kind in seen.values() for each in kind if each[1]]
            if not others or not operations:
                return 0.0
            return sum(each[2] for each in others) / sum(each[1] for each in others) * operations
        table = np.array(seen[item.kind])
        if not units or not table[:, 0].all():
            return float(table[:, 2].mean())
        pace = table[:, 2] / table[:, 0]
        # Few or like points can tilt the fit anywhere; stay near what has been seen.
        return float(min(max(_fit(table) @ (units, operations), units * pace.min() / 4), units * pace.max()))


def _fit(table: np.ndarray) -> np.ndarray:
    """Return the seconds of a unit and of an operation that fit best, neither below 0.

    Args:
        table: [items, (units, operations, seconds)].
    """
    both = np.linalg.lstsq(table[:, :2], table[:, 2], rcond=None)[0]
    if (both >= 0).all():
        return both
    found = []
    for column in (0, 1):  # more of one can't make the work shorter, so one of the two tells nothing
        alone = np.zeros(2)
        alone[column] = max(0.0, float(np.linalg.lstsq(table[:, [column]], table[:, 2], rcond=None)[0][0]))
        found.append(alone)
    return min(found, key=lambda each: float(((table[:, :2] @ each - table[:, 2]) ** 2).sum()))


def _units(item: Item) -> int:
    """Return the iterations that an item trains for, or the examples that it evaluates where it trains for none."""
    return item.cost.iterations or item.cost.evaluated


def elapsed(plan: Plan, seconds: Mapping[str, float], workers: int) -> float:
    """Return how long work takes together: all of it shared among workers, or the longest chain if that is longer."""
    chains: dict[str, float] = {}
    for item in plan.work.values():  # parents come first
        before = max((chains.get(parent, 0.0) for parent in item.needs), default=0.0)
        chains[item.id] = before + seconds.get(item.id, 0.0)
    return max(sum(seconds.values()) / max(1, workers), max(chains.values(), default=0.0))
