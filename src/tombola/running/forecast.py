"""How long the rest of a study takes, guessed from the work so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tombola.running.estimate import Pace
from tombola.studies.plan import Plan
from tombola.work import Item

TELLING = 0.03  # share of a piece of work that must be done before its pace counts
KEPT = 500  # of the latest pieces of work of a kind, which the guess is fitted to
NEAREST = 9  # pieces of work seen that tell how far off the measured pace is


class Seen(NamedTuple):
    """What a piece of work took, and what was to be expected; the work is 0 to 1 dense."""

    units: float
    operations: float
    seconds: float
    density: float
    expected: float  # 0 where no pace was measured


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

    Where a pace was measured beforehand, it says how the seconds of an item depend on its density and engine; the work
    so far says how far off it is. Else the seconds of each kind of work are fitted as a part for each unit of work (an
    iteration, an evaluated example) and a part for each operation of live weights. Work under way counts as if it went
    on at its pace.
    """

    def __init__(self, plan: Plan, workers: int):
        self.plan, self.workers = plan, workers
        self.pace: Pace | None = None
        self._seen: dict[str, list[Seen]] = {}
        self._between: list[float] = []  # seconds of a worker for each item, besides those of the work itself

    def learn(self, item: Item, seconds: float, waited: float | None = None) -> None:
        """Take in the seconds that an item has taken, and those from its start to its end for whoever waited for it."""
        self._seen.setdefault(item.kind, []).append(self._point(item, seconds))
        if waited is not None:
            self._between.append(max(0.0, waited - seconds))

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
        known = any(point.operations for points in seen.values() for point in points)
        told = any(item.kind in seen for item in todo) and (dear <= seen.keys() or known)
        if self.pace is None and not told:
            return None
        guess = _Guess(self.pace, seen)
        seconds = {item.id: guess.seconds(self._point(item, 0.0), item.kind) + self._more for item in waiting}
        for key, state in running.items():
            seconds[key] = self._rest(guess.seconds(self._point(work[key], 0.0), work[key].kind), state)
        return elapsed(self.plan, seconds, self.workers)

    @property
    def _more(self) -> float:
        """The seconds between two items of a worker. A worker's first item also waited for the worker's start."""
        if self.pace is None:  # it may be a stack, or travel to another machine
            return 0.0
        usual = self._between[self.workers :][-KEPT:]
        return float(np.median(usual)) if usual else 0.0

    def _rest(self, guess: float, state: UnderWay) -> float:
        if state.telling and state.share is not None:
            return state.seconds * (1 - state.share) / state.share
        return max(0.0, guess - state.seconds)

    def _point(self, item: Item, seconds: float) -> Seen:
        expected = self.pace.seconds(item) if self.pace else 0.0
        return Seen(_units(item), self.plan.operations(item), seconds, item.cost.density, expected)


class _Guess:
    """The seconds of items that nobody has seen.

    Args:
        pace: measured beforehand, if any.
        seen: what the work so far has taken, by kind.
    """

    def __init__(self, pace: Pace | None, seen: Mapping[str, list[Seen]]):
        self._tables = {kind: np.array(points, dtype=float) for kind, points in seen.items()}
        self._fits = {kind: _fit(table) for kind, table in self._tables.items()}
        dear = [table[table[:, 1] > 0] for table in self._tables.values()]
        self._dear = np.concatenate([np.zeros((0, len(Seen._fields))), *dear])
        self._by_pace = pace is not None
        self._off: dict[tuple[str, float], float] = {}

    def seconds(self, item: Seen, kind: str) -> float:
        """Return the guess for one item; 0 where nothing is known of work that could tell."""
        if self._by_pace and item.expected:
            return item.expected * self._factor(kind, item.density)
        if kind not in self._tables:
            if not len(self._dear) or not item.operations:
                return 0.0
            return float(self._dear[:, 2].sum() / self._dear[:, 1].sum() * item.operations)
        table = self._tables[kind]
        if not item.units or not table[:, 0].all():
            return float(table[:, 2].mean())
        pace = table[:, 2] / table[:, 0]
        # Few or like points can tilt the fit anywhere; stay near what has been seen.
        fitted = self._fits[kind] @ (item.units, item.operations)
        return float(min(max(fitted, item.units * pace.min() / 4), item.units * pace.max()))

    def _factor(self, kind: str, density: float) -> float:
        """Return how much longer than expected work of a kind takes: the median of those nearest in density."""
        if (kind, density) not in self._off:
            table = self._tables.get(kind, self._dear)
            table = table[table[:, 4] > 0]
            nearest = np.argsort(np.abs(_log(table[:, 3]) - _log(density)), kind="stable")[:NEAREST]
            self._off[kind, density] = float(np.median(table[nearest, 2] / table[nearest, 4])) if len(table) else 1.0
        return self._off[kind, density]


def _log(density: np.ndarray | float) -> np.ndarray:
    return np.log(np.maximum(density, 1e-9))


def _fit(table: np.ndarray) -> np.ndarray:
    """Return the seconds of a unit and of an operation that fit best, neither below 0.

    Args:
        table: [items, fields of `Seen`].
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
