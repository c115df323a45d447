"""Telling a person how a run goes: live lines on a terminal, log lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from tombola.running.collapse import REMEDIES, said
from tombola.running.store import PROGRESS, Store
from tombola.running.trackers import Tracking
from tombola.studies.plan import Plan
from tombola.tasks import Metric
from tombola.work import Item

LOG_EVERY = 30.0  # seconds between two lines about running work items where the output is not a terminal


State = dict[str, Any]  # how far a piece of work is


def read_progress(store: Store, work_id: str) -> State | None:
    """Return the last note of work under way: label, iteration, budget, metrics, time; None without one."""
    try:
        found = json.loads((store.part(work_id) / PROGRESS).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class Forecast:
    """Guesses how long the rest takes, from what the work so far has taken.

    The seconds of each kind of work are fitted as a part for each unit of work (an iteration, an evaluated example) and
    a part for each operation of live weights.
    """

    def __init__(self, plan: Plan, workers: int):
        self.plan, self.workers = plan, workers
        self._seen: dict[str, list[tuple[float, float, float]]] = {}

    def learn(self, item: Item, seconds: float) -> None:
        """Take in the seconds that an item has taken."""
        self._seen.setdefault(item.kind, []).append((_units(item), self.plan.operations(item), seconds))

    def item(self, item: Item) -> float:
        """Return the guess for one item in seconds; 0 where nothing is known of work that could tell."""
        units, operations = _units(item), self.plan.operations(item)
        if item.kind not in self._seen:
            others = [each for kind in self._seen.values() for each in kind if each[1]]
            if not others or not operations:
                return 0.0
            return sum(each[2] for each in others) / sum(each[1] for each in others) * operations
        seen = self._table(item.kind)
        if not units or not seen[:, 0].all():
            return float(seen[:, 2].mean())
        per_unit = np.linalg.lstsq(seen[:, :2], seen[:, 2], rcond=None)[0]
        pace = seen[:, 2] / seen[:, 0]
        # Few or like points can tilt the fit anywhere; stay near what has been seen.
        return float(min(max(per_unit @ (units, operations), units * pace.min() / 4), units * pace.max()))

    def left(self, waiting: list[Item], running: dict[str, float]) -> float | None:
        """Return the seconds left, None before anything is known; `running` has the fraction done of each item."""
        items = [*(self.plan.work[item] for item in running), *waiting]
        dear = {item.kind for item in items if self.plan.operations(item)}
        if not any(item.kind in self._seen for item in items) or not (dear <= self._seen.keys() or self._dear()):
            return None
        under_way = {item: self.item(self.plan.work[item]) * (1 - done) for item, done in running.items()}
        todo = under_way | {item.id: self.item(item) for item in waiting}
        return elapsed(self.plan, todo, self.workers)

    def _table(self, kind: str) -> np.ndarray:
        """Return the latest of what is known of a kind: [items, (units, operations, seconds)]."""
        return np.array(self._seen[kind][-500:])

    def _dear(self) -> bool:
        """Return whether something is known of work that has operations, by which others can be guessed."""
        return any(each[1] for kind in self._seen.values() for each in kind)


def _units(item: Item) -> int:
    """Return the iterations that an item trains for, or the examples that it evaluates where it trains for none."""
    return item.cost.iterations or item.cost.evaluated


def elapsed(plan: Plan, seconds: dict[str, float], workers: int) -> float:
    """Return how long work takes together: all of it shared among workers, or the longest chain if that is longer."""
    chains: dict[str, float] = {}
    for item in plan.work.values():  # parents come first
        before = max((chains.get(parent, 0.0) for parent in item.needs), default=0.0)
        chains[item.id] = before + seconds.get(item.id, 0.0)
    return max(sum(seconds.values()) / max(1, workers), max(chains.values(), default=0.0))


class Display:
    """A `Listener` that writes to a console.

    Args:
        plan, store: what is run, and where to.
        workers: items at a time.
        console: a terminal gets live lines, anything else log lines.
        quiet: write nothing but what went wrong.
        verbose: also say which engine and folder each item has.
    """

    def __init__(
        self, plan: Plan, store: Store, workers: int, console: Console, quiet: bool = False, verbose: bool = False
    ):
        self.plan, self.store, self.console = plan, store, console
        self.quiet, self.verbose = quiet, verbose
        self.metric = plan.measures.primary
        self.tracking: Tracking | None = None  # is told of each finished item
        self.open: set[str] = set()  # items still to be done
        self.forecast = Forecast(plan, workers)
        self._logged = time.monotonic()
        self._live: Live | None = None
        if console.is_terminal and not quiet:
            self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        if self._live:
            self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live:
            self._live.__exit__(*error)

    def begin(self, waiting: Sequence[Item]) -> None:
        """Take note of the items that are to be done."""
        self.open = {item.id for item in waiting}

    def started(self, item: Item) -> None:
        """Say which item starts."""
        if self.verbose:
            self._say(f"started  {item.label}")

    def finished(self, item: Item, outcome: str) -> None:
        """Say what an item came to."""
        self.open.discard(item.id)
        if outcome == "skipped":
            return  # how many there are is said at the end
        if outcome == "failed":
            self._say(f"failed   {item.label}", always=True)
            return
        facts = self.store.facts(item.id)
        if self.tracking is not None:
            self.tracking.finished(item)
        self.forecast.learn(item, facts["seconds"])
        for word, text in remarks_of(facts):
            self._say(f"{word:<8} {item.label}: {text}", always=True)
        if outcome == "done" and (self.verbose or (self._live is None and item.id in self.plan.wanted)):
            found = result_of(facts, self.metric)
            line = f"done     {item.label}{found}  {facts['seconds']:.1f} s  {self._totals({})}"
            engine = f"  {facts['engine']['name']} engine" if "engine" in facts else ""
            self._say(line + (f"{engine}  {item.folder}" if self.verbose else ""))

    def note(self, message: str) -> None:
        """Say something that a person should know, quiet or not."""
        self._say(message, always=True)

    def tick(self, running: list[Item]) -> None:
        """Bring the live lines up to date, or write log lines when it is time."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.update(self._lines(running))
        elif time.monotonic() - self._logged > LOG_EVERY:
            self._logged = time.monotonic()
            states = self._states(running)
            totals = self._totals(states)
            for item in running:
                if state := states[item.id]:
                    self._say(f"running  {item.label}  {_position(state)}{self._metric(state)}  {totals}")

    def _say(self, text: str, always: bool = False) -> None:
        if always or not self.quiet:
            self.console.print(escape(text), highlight=False, soft_wrap=True)

    def _states(self, running: list[Item]) -> dict[str, State | None]:
        return {item.id: read_progress(self.store, item.id) for item in running}

    def _totals(self, states: dict[str, State | None]) -> str:
        done = len(self.plan.work) - len(self.open)
        fractions = {
            item: min(1.0, state["iteration"] / state["budget"]) if state else 0.0 for item, state in states.items()
        }
        waiting = [self.plan.work[item] for item in self.open if item not in fractions]
        left = self.forecast.left(waiting, fractions)
        return f"{done}/{len(self.plan.work)} done" + (f", about {duration(left)} left" if left else "")

    def _metric(self, state: State | None, before: str = "  validation ") -> str:
        """Return the latest value of the metric on the validation examples; "" for none."""
        value = (state or {}).get("metrics", {}).get(self.metric.name)
        return "" if value is None else f"{before}{self.metric.text(value)}"

    def _lines(self, running: list[Item]) -> Group:
        states = self._states(running)
        study = self.plan.study
        grid = Table.grid(padding=(0, 1))
        for _ in range(3):
            grid.add_column(no_wrap=True)
        for item in running:
            state = states[item.id]
            # Network and data are the same in all of them, and a terminal may be narrow.
            short = item.label.removeprefix(f"{study.network.name}.{study.data.source}.")
            where = f"{state['iteration']:,}/{state['budget']:,}" if state else "starting"
            grid.add_row(escape(short), where, self._metric(state, "val "))
        bar = Progress(BarColumn(), TextColumn("{task.description}"))
        done = len(self.plan.work) - len(self.open)
        bar.add_task(self._totals(states), total=len(self.plan.work), completed=done)
        return Group(grid, bar)


def remarks_of(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a person should know of a result, as pairs of a word and a sentence."""
    if (iteration := facts["diverged_at"]) is not None:
        return [("diverged", f"the loss was not finite at iteration {iteration}")]
    found, remarks = [], facts.get("remarks", {})
    # Of a mask, the search that found it tells: runs that share the mask would repeat it.
    if "history" not in facts:
        if skipped := remarks.get("skipped"):
            found.append(("skipped", f"its round pruned nothing: {skipped}"))
        if remarks.get("never_settled"):
            found.append(("note", "its mask never settled; the mask comes from the final weights"))
    elif collapsed := said(remarks):
        found.append(("collapsed", f"{collapsed}; {REMEDIES}"))
    return found


def result_of(facts: dict[str, Any], metric: Metric) -> str:
    """Return the one figure that sums up a result, with two spaces before it; "" for a kind without one."""
    if "history" in facts:
        return f"  test {metric.text(facts['history'][f'test_{metric.name}'][-1])}"
    if "along" in facts:
        points = facts["along"]
        if "test_error" in points:
            return f"  highest test error {max(points['test_error']):.2%}"
        return f"  highest test loss {max(points['test_loss']):.4g}"
    return ""


def _position(state: State) -> str:
    return f"{state['iteration']:,}/{state['budget']:,} {state.get('unit', 'iterations')}"


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
