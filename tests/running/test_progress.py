"""What a person sees of a run under way."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

import tombola
from tombola.running import progress
from tombola.running.progress import Display
from tombola.running.store import PROGRESS, Store
from tombola.studies.plan import Plan, make_plan
from tombola.work import Item

STATE = {"iteration": 12_300, "budget": 50_000, "metrics": {"accuracy": 0.9712}}


@pytest.fixture
def plan() -> Plan:
    return make_plan(tombola.Study.load("lenet-mnist", trials=1, **{"pruning.rounds": 10}))


def under_way(plan: Plan, store: Store) -> list[Item]:
    """Return the jobs with the shortest and the longest label; both are at STATE."""
    jobs = sorted((item for item in plan.work.values() if item.kind == "run"), key=lambda job: len(job.label))
    for job in (jobs[0], jobs[-1]):
        store.part(job.id).mkdir(parents=True)
        (store.part(job.id) / PROGRESS).write_text(json.dumps({"label": job.label, **STATE}))
    return [jobs[0], jobs[-1]]


def test_labels_are_whole_on_a_narrow_terminal(plan: Plan, tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=60, color_system=None)
    display = Display(plan, Store(tmp_path), 2, console)
    display.begin(list(plan.work.values()))
    jobs = under_way(plan, display.store)
    console.print(display._lines(jobs))
    lines = [line.rstrip() for line in text.getvalue().splitlines()]
    assert lines[0].split() == ["trial-0.dense", "12,300/50,000", "val", "97.12%"]
    assert lines[1].split() == ["trial-0.one-shot-reinit-2.level-10", "12,300/50,000", "val", "97.12%"]
    assert lines[2].endswith(f"0/{len(plan.work)} done")
    assert max(map(len, lines)) <= 60


def test_log_lines_say_how_far_jobs_and_study_are(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)
    text = io.StringIO()
    display = Display(plan, Store(tmp_path), 2, Console(file=text, width=60))
    waiting = list(plan.work.values())
    display.begin(waiting[7:])
    display.finished(waiting[7], "skipped")  # what it needs did not get done: nobody waits for it
    jobs = under_way(plan, display.store)
    display.tick(jobs)
    first = f"running  {jobs[0].label}  12,300/50,000 iterations  validation 97.12%  8/{len(waiting)} done"
    assert text.getvalue().splitlines()[0] == first
    assert len(text.getvalue().splitlines()) == 2
