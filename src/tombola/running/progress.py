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
from tombola.studies.connectivity import Line, Work
from tombola.studies.plan import Plan

LOG_EVERY = 30.0  # seconds between two lines about running jobs where the output is no terminal


State = dict[str, Any]  # how far a job is


def read_progress(store: Store, job_id: str) -> State | None:
    """Return the last note of a job under way: label, iteration, budget, val_accuracy, time; None without one."""
    try:
        found = json.loads((store.part(job_id) / PROGRESS).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


class Forecast:
    """Guesses how long the rest takes, from what the jobs so far have taken.

    The seconds of a job are fitted as a part for each iteration and a part for each operation of live weights. Lines,
    which are all alike, take as long as those before, or as their operations did in jobs.
    """

    def __init__(self, plan: Plan, workers: int):
        self.plan, self.workers = plan, workers
        self._seen: list[tuple[float, float, float]] = []
        self._lines: list[float] = []

    def learn(self, job: Work, seconds: float) -> None:
        """Take in what a job has taken."""
        if isinstance(job, Line):
            self._lines.append(seconds)
            return
        self._seen.append((self.plan.iterations(job), self.plan.operations(job), seconds))
        seen = np.array(self._seen[-500:])
        self._per_unit = np.linalg.lstsq(seen[:, :2], seen[:, 2], rcond=None)[0]
        pace = seen[:, 2] / seen[:, 0]
        self._slowest, self._fastest = float(pace.max()), float(pace.min())

    def job(self, job: Work) -> float:
        """Return the guess for one job in seconds."""
        if isinstance(job, Line):
            if self._lines:
                return float(np.mean(self._lines))
            _, operations, seconds = np.sum(self._seen, axis=0)
            return float(seconds / operations) * self.plan.operations(job)
        iterations = self.plan.iterations(job)
        guess = float(self._per_unit @ (iterations, self.plan.operations(job)))
        # Few or like points can tilt the fit anywhere; stay near what has been seen.
        return min(max(guess, iterations * self._fastest / 4), iterations * self._slowest)

    def left(self, waiting: list[Work], running: dict[str, float]) -> float | None:
        """Return the seconds left, None before anything is known; `running` has the fraction done of each job."""
        works = [*(self.plan.work[job] for job in running), *waiting]
        if not self._seen and not (self._lines and all(isinstance(work, Line) for work in works)):
            return None
        under_way = {job: self.job(self.plan.work[job]) * (1 - done) for job, done in running.items()}
        todo = under_way | {job.id: self.job(job) for job in waiting}
        return elapsed(self.plan, todo, self.workers)


def elapsed(plan: Plan, seconds: dict[str, float], workers: int) -> float:
    """Return how long jobs take together: all of them shared among workers, or the longest chain if that is longer."""
    chains: dict[str, float] = {}
    for job in plan.work.values():  # parents come first
        before = max((chains.get(parent, 0.0) for parent in job.needs), default=0.0)
        chains[job.id] = before + seconds.get(job.id, 0.0)
    return max(sum(seconds.values()) / max(1, workers), max(chains.values(), default=0.0))


class Display:
    """A `Watcher` that writes to a console.

    Args:
        plan, store: what is run, and where to.
        workers: jobs at a time.
        console: a terminal gets live lines, anything else log lines.
        quiet: write nothing but what went wrong.
        verbose: also say which engine and folder each job has.
    """

    def __init__(
        self, plan: Plan, store: Store, workers: int, console: Console, quiet: bool = False, verbose: bool = False
    ):
        self.plan, self.store, self.console = plan, store, console
        self.quiet, self.verbose = quiet, verbose
        self.open: set[str] = set()  # jobs still to be done
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

    def begin(self, waiting: Sequence[Work]) -> None:
        """Take note of the jobs that are to be done."""
        self.open = {job.id for job in waiting}

    def started(self, job: Work) -> None:
        """Say which job starts."""
        if self.verbose:
            self._say(f"started  {job.label}")

    def finished(self, job: Work, outcome: str) -> None:
        """Say what a job came to."""
        self.open.discard(job.id)
        if outcome == "skipped":
            return  # how many there are is said at the end
        if outcome == "failed":
            self._say(f"failed   {job.label}", always=True)
            return
        facts = self.store.facts(job.id)
        self.forecast.learn(job, facts["seconds"])
        seconds = facts["seconds"]
        if isinstance(job, Line):
            if self.verbose or self._live is None:
                highest = max(facts["along"]["test_error"])
                line = f"done     {job.label}  highest test error {highest:.2%}  {seconds:.1f} s  {self._totals({})}"
                self._say(line + (f"  {job.folder}" if self.verbose else ""))
            return
        if outcome == "diverged":
            self._say(f"diverged {job.label}: the loss was not finite at iteration {facts['diverged_at']}", always=True)
        if skipped := facts.get("remarks", {}).get("skipped"):
            self._say(f"skipped  {job.label}: its round removed nothing: {skipped}", always=True)
        if facts.get("remarks", {}).get("never_settled"):
            self._say(f"note     {job.label}: its mask never settled; it is that of the final weights", always=True)
        if collapsed := said(facts.get("remarks", {})):
            self._say(f"collapsed {job.label}: {collapsed}; {REMEDIES}", always=True)
        if outcome == "done" and (self.verbose or self._live is None):
            accuracy = facts["history"]["test_accuracy"][-1]
            line = f"done     {job.label}  test {accuracy:.2%}  {seconds:.1f} s  {self._totals({})}"
            self._say(line + (f"  {facts['engine']['name']} engine  {job.folder}" if self.verbose else ""))

    def note(self, message: str) -> None:
        """Say something that a person should know, quiet or not."""
        self._say(message, always=True)

    def tick(self, running: list[Work]) -> None:
        """Bring the live lines up to date, or write log lines when it is time."""
        if self.quiet:
            return
        if self._live is not None:
            self._live.update(self._lines(running))
        elif time.monotonic() - self._logged > LOG_EVERY:
            self._logged = time.monotonic()
            states = self._states(running)
            totals = self._totals(states)
            for job in running:
                if state := states[job.id]:
                    self._say(f"running  {job.label}  {_position(state)}  {totals}")

    def _say(self, text: str, always: bool = False) -> None:
        if always or not self.quiet:
            self.console.print(escape(text), highlight=False, soft_wrap=True)

    def _states(self, running: list[Work]) -> dict[str, State | None]:
        return {job.id: read_progress(self.store, job.id) for job in running}

    def _totals(self, states: dict[str, State | None]) -> str:
        done = len(self.plan.work) - len(self.open)
        fractions = {
            job: min(1.0, state["iteration"] / state["budget"]) if state else 0.0 for job, state in states.items()
        }
        waiting = [self.plan.work[job] for job in self.open if job not in fractions]
        left = self.forecast.left(waiting, fractions)
        return f"{done}/{len(self.plan.work)} jobs" + (f", about {duration(left)} left" if left else "")

    def _lines(self, running: list[Work]) -> Group:
        states = self._states(running)
        study = self.plan.study
        grid = Table.grid(padding=(0, 1))
        for _ in range(3):
            grid.add_column(no_wrap=True)
        for job in running:
            state = states[job.id]
            # Network and data are the same in all of them, and a terminal may be narrow.
            short = job.label.removeprefix(f"{study.network.name}.{study.data.source}.")
            accuracy = state.get("val_accuracy") if state else None
            where = f"{state['iteration']:,}/{state['budget']:,}" if state else "starting"
            grid.add_row(escape(short), where, "" if accuracy is None else f"val {accuracy:.2%}")
        bar = Progress(BarColumn(), TextColumn("{task.description}"))
        done = len(self.plan.work) - len(self.open)
        bar.add_task(self._totals(states), total=len(self.plan.work), completed=done)
        return Group(grid, bar)


def _position(state: State) -> str:
    accuracy = state.get("val_accuracy")
    shown = f"  validation {accuracy:.2%}" if accuracy is not None else ""
    return f"{state['iteration']:,}/{state['budget']:,} {state.get('unit', 'iterations')}{shown}"


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"
