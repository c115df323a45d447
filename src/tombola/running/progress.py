"""Telling a person how a run goes: live lines on a terminal, log lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console

from tombola.errors import InputError
from tombola.formatting import counted
from tombola.paths import read_text
from tombola.running.collapse import REMEDIES, said
from tombola.running.estimate import Pace
from tombola.running.forecast import Forecast, UnderWay
from tombola.running.screens import View, screen_for
from tombola.running.store import PROGRESS, Store
from tombola.running.trackers import Tracking
from tombola.studies.plan import Plan
from tombola.tasks import Metric
from tombola.terminal import markup
from tombola.work import Item, is_counted, kind_named

MAX_NOTE = 64 * 1024  # bytes of a note of how far work is
MANY = 20_000  # iterations that are worth a measurement beforehand; fewer are soon over
GUESS_FREE, GUESS_SHARE = 0.01, 50  # a guess of the time left that takes longer, in seconds, has a share of 1 in 50
LOG_EVERY = 600.0  # seconds between two lines about running work in a log, which otherwise has one for each run


State = dict[str, Any]  # how far a piece of work is


def read_progress(store: Store, work_id: str) -> State | None:
    """Return the last note of work under way: label, iteration, budget, metrics; None without one that makes sense."""
    try:
        return _Note.model_validate_json(read_text(store.part(work_id) / PROGRESS, MAX_NOTE)).model_dump()
    except (InputError, ValidationError):
        return None


class _Note(BaseModel):
    """What a worker says of how far it is. Whoever made the folder may have written anything."""

    model_config = ConfigDict(extra="ignore")

    label: str
    iteration: int = Field(ge=0, le=10**15)
    budget: int = Field(default=0, ge=0, le=10**15)  # 0: nobody knows
    metrics: dict[str, float] = {}
    unit: str = "iterations"


class Display:
    """A `Listener` that writes to a console.

    A terminal or notebook gets a live view, anything else a line for each finished run.

    Args:
        plan, store: what is run, and where to.
        workers: items at a time.
        console: where lines go.
        quiet: write nothing but what went wrong.
        verbose: also say which engine and folder each item has.
        in_script: whether a user's own loop runs in this process: see `screen_for`.
    """

    def __init__(
        self,
        plan: Plan,
        store: Store,
        workers: int,
        console: Console,
        quiet: bool = False,
        verbose: bool = False,
        in_script: bool = False,
    ):
        self.plan, self.store, self.console = plan, store, console
        self.quiet, self.verbose = quiet, verbose
        self.metric = plan.measures.primary
        self._counts = counts(plan.work.values())
        self.tracking: Tracking | None = None  # is told of each finished item
        self.open: set[str] = set()  # items still to be done
        self.forecast = Forecast(plan, workers)
        self.measure: Callable[[], Pace | None] = lambda: None  # how long steps take at each density, for the forecast
        self._started: dict[str, float] = {}  # when each item was
        self._states: Callable[[Item], State | None] = lambda item: read_progress(store, item.id)
        self._logged = time.monotonic()
        self._early_stop_noted = False
        self._left: float | None = None  # seconds, as last guessed
        self._guess_again = 0.0
        self._screen = None if quiet else screen_for(console, in_script)

    def __enter__(self) -> Display:
        if self._screen:
            self._screen.open()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._screen:
            self._screen.close(lambda: self.view([]))

    def begin(self, waiting: Sequence[Item]) -> None:
        """Take note of the items that are to be done."""
        self.open = {item.id for item in waiting}
        if not self.quiet and sum(item.cost.iterations for item in waiting) >= MANY:
            self.forecast.pace = self.measure()

    def opening(self) -> None:
        """Say what a user's own loop will do: nothing else tells before its first run ends.

        A notebook shows its table instead.
        """
        if self.quiet or self._screen is not None:
            return
        missing = counts(self.plan.work[item] for item in self.open)
        work = " and ".join(
            counted(total, noun) if missing[noun] == total else f"{missing[noun]:,} of {counted(total, noun)}"
            for noun, total in self._counts.items()
        )
        study, folder = self.plan.study, self.store.root
        if not self.open:
            self._say(f"{study.name}: all work is finished in {folder}")
            return
        about = f"{counted(study.trials, 'trial')}, {counted(study.pruning.rounds, 'round')}"
        self._say(f"{study.name}: {work} to do, one at a time, into {folder} ({about})")
        self._say("Stop with Ctrl-C. The same script resumes.")

    def started(self, item: Item) -> None:
        """Say which item starts."""
        self._started[item.id] = time.monotonic()
        if self.verbose:
            self._say(f"started  {item.label}")

    def finished(self, item: Item, outcome: str) -> None:
        """Say what an item came to."""
        self.open.discard(item.id)
        started = self._started.pop(item.id, None)
        if outcome == "skipped":
            return  # how many there are is said at the end
        if outcome == "failed":
            self._say(f"failed   {item.label}", always=True)
            return
        facts = self.store.facts(item.id)
        if self.tracking is not None:
            self.tracking.finished(item)
        self.forecast.learn(item, facts["seconds"], None if started is None else time.monotonic() - started)
        for word, text in remarks_of(facts):
            self._say(f"{word:<8} {item.label}: {text}", always=True)
        self._note_early_stop(item, facts.get("remarks", {}).get("better_without_metric"))
        if outcome == "done" and (self.verbose or (self._screen is None and item.id in self.plan.wanted)):
            found = result_of(facts, self.metric)
            line = f"done     {item.label}{found}  {facts['seconds']:.1f} s  {self._totals([])}"
            engine = f"  {facts['engine']['name']} engine" if "engine" in facts else ""
            self._say(line + (f"{engine}  {item.folder}" if self.verbose else ""))

    def _note_early_stop(self, item: Item, better: str | None) -> None:
        """Say once that early stop is another step than the best one: it is so in each run of a trainer."""
        if better and not self._early_stop_noted:
            self._early_stop_noted = True
            metric = self.metric.name
            self._say(
                f"note     {item.label}: {better} was best at a step without {metric}, which is therefore not early "
                f"stop; report {metric} with each {better}"
            )

    def note(self, message: str) -> None:
        """Say something that a person should know, quiet or not."""
        self._say(message, always=True)

    def tick(self, running: Sequence[Item], states: Callable[[Item], State | None] | None = None) -> None:
        """Bring the live view up to date, or write log lines when it is time.

        Args:
            running: items under way.
            states: returns how far an item is; by default what its worker has noted in the store.
        """
        if states is not None:
            self._states = states
        if self.quiet:
            return
        if self._screen is not None:
            self._screen.show(lambda: self.view(running))
        elif time.monotonic() - self._logged > LOG_EVERY:
            self._logged = time.monotonic()
            totals = self._totals(running)
            for item in running:
                if state := self._states(item):
                    value = self._value(state)
                    measured = value and f"  validation {self.metric.words} {value}"
                    self._say(f"running  {item.label}  {position(state)}{measured}  {totals}")

    def view(self, running: Sequence[Item]) -> View:
        """Return what a live display shows."""
        study, rows = self.plan.study, []
        for item in running:
            state = self._states(item)
            # Network and data are the same in all of them, and a terminal may be narrow.
            short = item.label.removeprefix(f"{study.network.name}.{study.data.source}.")
            where = position(state).rpartition(" ")[0] if state else "starting"
            value = self._value(state)
            rows.append((short, where, value and f"val {value}"))
        about = f", val: {self.metric.words}" if any(value for _, _, value in rows) else ""
        return View(tuple(rows), self._totals(running) + about, self._share(running))

    def _say(self, text: str, always: bool = False) -> None:
        if always or not self.quiet:
            self.console.print(markup(text), highlight=False, soft_wrap=True)

    def _under_way(self, running: Sequence[Item]) -> dict[str, UnderWay]:
        """Return how far the items are that run, or that the scheduler has started."""
        now, found = time.monotonic(), {}
        for item in running:
            state = self._states(item)
            known = state and state["budget"]
            share = min(1.0, state["iteration"] / state["budget"]) if state and known else None
            found[item.id] = UnderWay(share, now - self._started.get(item.id, now))
        return found

    def _share(self, running: Sequence[Item]) -> float:
        """Return the share of the items that is done; those under way count in part."""
        part = sum(each.share or 0.0 for each in self._under_way(running).values())
        return min(1.0, (len(self.plan.work) - len(self.open) + part) / max(1, len(self.plan.work)))

    def _totals(self, running: Sequence[Item]) -> str:
        under_way = self._under_way(running)
        if (now := time.monotonic()) >= self._guess_again:
            waiting = [self.plan.work[item] for item in self.open if item not in under_way]
            self._left = self.forecast.left(waiting, under_way)
            took = time.monotonic() - now
            self._guess_again = now + (took * GUESS_SHARE if took > GUESS_FREE else 0.0)
        left = self._left
        total, waiting_for = self._counts, counts(self.plan.work[item] for item in self.open)
        done = ", ".join(f"{total[noun] - waiting_for[noun]}/{total[noun]} {noun}s" for noun in total)
        return f"{done} done" + (f", about {duration(left)} left" if left else "")

    def _value(self, state: State | None) -> str:
        """Return the latest value of the metric on the validation examples; "" for none."""
        value = (state or {}).get("metrics", {}).get(self.metric.name)
        return "" if value is None else self.metric.text(value)


def counts(items: Iterable[Item]) -> Counter[str]:
    """Return how many items a person counts, by the noun of their kind: runs, supermasks, interpolations."""
    return Counter(kind_named(item.kind).noun for item in items if is_counted(item))


def remarks_of(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what a person should know of a result, as pairs of a word and a sentence."""
    if (iteration := facts["diverged_at"]) is not None:
        what = facts.get("remarks", {}).get("not_finite", "the loss")
        return [
            ("diverged", f"{what} was not finite at iteration {iteration}; tombola skips the runs that need this one")
        ]
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
        return f"  test {metric.words} {metric.text(facts['history'][f'test_{metric.name}'][-1])}"
    if "along" in facts:
        points = facts["along"]
        if "test_error" in points:
            return f"  highest test error {max(points['test_error']):.2%}"
        return f"  highest test loss {max(points['test_loss']):.4g}"
    return ""


def position(state: State) -> str:
    """Return how far work is: "30,273/50,000 iterations"."""
    of = f"/{state['budget']:,}" if state["budget"] else ""  # a user's trainer says nothing of its last step
    return f"{state['iteration']:,}{of} {state.get('unit', 'iterations')}"


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
