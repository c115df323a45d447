"""What a person sees of a run under way."""

from __future__ import annotations

import io
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console
from small_studies import find, small_study

import tombola
from tombola.running import progress, screens
from tombola.running.estimate import Pace
from tombola.running.forecast import Forecast, UnderWay
from tombola.running.kept_plan import keep_plan
from tombola.running.progress import Display
from tombola.running.screens import lines, screen_for
from tombola.running.store import PROGRESS, Store
from tombola.studies.plan import Plan, make_plan
from tombola.tables.overview import status_table
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
    console.print(lines(display.view(jobs)))
    seen = [line.rstrip() for line in text.getvalue().splitlines()]
    assert seen[0].split() == ["trial-0.dense", "12,300/50,000", "val", "97.12%"]
    assert seen[1].split() == ["trial-0.one-shot-reinit-2.level-10", "12,300/50,000", "val", "97.12%"]
    assert "0/97 runs done" in seen[2]  # 1 dense, 24 x 4 of arms and repeats: the mask searches are not runs
    assert seen[2].endswith(", val: accuracy")
    assert max(map(len, seen)) <= 60


def test_log_lines_say_how_far_jobs_and_study_are(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY", 0.0)
    text = io.StringIO()
    display = Display(plan, Store(tmp_path), 2, Console(file=text, width=60))
    waiting = list(plan.work.values())
    display.begin(waiting[7:])
    display.finished(waiting[7], "skipped")  # what it needs did not get done: nobody waits for it
    done = sum(item.kind == "run" for item in waiting[:8])
    assert 0 < done < 8
    jobs = under_way(plan, display.store)
    display.tick(jobs)
    first = f"running  {jobs[0].label}  12,300/50,000 iterations  validation accuracy 97.12%  {done}/97 runs done"
    assert text.getvalue().splitlines()[0] == first
    assert len(text.getvalue().splitlines()) == 2


def test_the_bar_moves_within_a_run(plan: Plan, tmp_path: Path) -> None:
    display = Display(plan, Store(tmp_path), 2, Console(file=io.StringIO(), force_terminal=True))
    display.begin(list(plan.work.values()))
    jobs = under_way(plan, display.store)
    assert display.view([]).share == 0
    assert display.view(jobs).share == pytest.approx(2 * 12_300 / 50_000 / len(plan.work))
    part = display.store.part(jobs[0].id) / PROGRESS  # of a user's trainer, whose last step nobody knows
    part.write_text(json.dumps({"label": "x", "iteration": 1_234, "budget": 0}))
    assert display.view(jobs).rows[0][1] == "1,234"
    assert display.view(jobs[:1]).share == 0


class Shell:
    kernel = None


def test_a_notebook_has_one_table_that_changes(plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    handles: list[object] = []

    class Handle:
        def update(self, content: str) -> None:
            shown.append(content)

    def display_one(content: str, display_id: bool) -> Handle:
        shown.append(content)
        handles.append(Handle())
        return handles[-1]

    ipython, part = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = Shell  # type: ignore[attr-defined]
    part.HTML, part.display = str, display_one  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", part)
    monkeypatch.setattr(screens, "EVERY", 0.0)
    text = io.StringIO()
    display = Display(plan, Store(tmp_path), 2, Console(file=text), in_script=True)
    display.begin(list(plan.work.values()))
    jobs = under_way(plan, display.store)
    with display:
        for _ in range(5):
            display.tick(jobs)
        display.open.clear()
    assert len(handles) == 1
    assert len(shown) == 6
    assert "<td>12,300/50,000</td>" in shown[0]
    assert "97/97 runs done" in shown[-1]
    assert text.getvalue() == ""  # no flood of lines


def test_where_nothing_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, log = Console(file=io.StringIO(), force_terminal=True), Console(file=io.StringIO())
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert screen_for(terminal) is not None
    assert screen_for(terminal, in_script=True) is None  # a user's own loop may write to it
    assert screen_for(log) is None


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize(("each", "saved"), [(1.0, 0.0), (0.3, 0.7), (0.05, 0.0)])
def test_the_time_left_is_right_within_half_after_a_tenth(plan: Plan, workers: int, each: float, saved: float) -> None:
    """A run of density d takes each + saved * d minutes here; evaluations and searches are cheap."""

    def takes(item: Item) -> float:
        return 60 * (each + saved * item.cost.density) if item.kind == "run" else 0.5

    assert 1 / 1.5 < said_after_a_tenth(Forecast(plan, workers), takes) < 1.5


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("off", [0.7, 1.0, 3.0])
@pytest.mark.parametrize("between", [0.0, 0.03])
def test_the_time_left_knows_the_levels_of_a_faster_engine(workers: int, off: float, between: float) -> None:
    """Below 60 % of the weights a run is fifteen times as fast, which no run before has shown."""
    plan = make_plan(tombola.Study.load("demo"))

    def expected(item: Item) -> float:
        return (0.75 if item.cost.density > 0.6 else 0.05) if item.kind == "run" else 0.0

    def takes(item: Item) -> float:
        return expected(item) * off + between + 0.005

    densities = (0.0, 0.6, 0.6001, 1.0)
    steps = tuple(seconds / plan.budget() for seconds in (0.05, 0.05, 0.75, 0.75))
    forecast = Forecast(plan, workers)
    forecast.pace = Pace(densities, steps, (0.0,) * 4, 60, False)
    assert 1 / 1.5 < said_after_a_tenth(forecast, takes, between) < 1.5


def test_a_measured_pace_tells_the_time_left_before_any_work_is_done(plan: Plan) -> None:
    forecast = Forecast(plan, 2)
    forecast.pace = Pace((1.0,), (1e-3,), (0.0,), 60, False)
    runs = sum(item.kind == "run" for item in plan.work.values())
    assert forecast.left(list(plan.work.values()), {}) == pytest.approx(runs * plan.budget() * 1e-3 / 2)


def test_only_a_long_study_is_measured_first(plan: Plan, tmp_path: Path) -> None:
    asked: list[int] = []
    pace = Pace((1.0,), (1e-3,), (1e-5,), 60, False)

    def measure() -> Pace:
        asked.append(1)
        return pace

    for quiet, items, times in ((True, list(plan.work.values()), 0), (False, [], 0), (False, plan.work.values(), 1)):
        display = Display(plan, Store(tmp_path), 2, Console(file=io.StringIO()), quiet=quiet)
        display.measure = measure
        display.begin(list(items))
        assert len(asked) == times
        assert display.forecast.pace is (pace if times else None)


def test_runs_of_a_trainer_are_expected_to_take_alike(tmp_path: Path) -> None:
    """A busy machine made the dense runs slow: sparser ones are not taken for nearly free."""
    fields = {"name": "own", "network": "own_trainer:make", "trainer": "own_trainer:fit", "arms": ["ticket"]}
    study = tombola.Study.model_validate(fields | {"pruning": {"rate": 0.2, "rounds": 5}, "trials": 2})
    own = make_plan(study)
    forecast, runs = Forecast(own, 1), [item for item in own.work.values() if item.kind == "own-run"]
    for seconds, item in zip((20.0, 20.0, 10.0), runs, strict=False):
        forecast.learn(item, seconds)
    left = forecast.left(runs[3:], {})
    assert left == pytest.approx(50 / 3 * len(runs[3:]))


def said_after_a_tenth(forecast: Forecast, takes: Callable[[Item], float], between: float = 0.0) -> float:
    """Return the time left that a forecast says after a tenth of the whole time, as a multiple of the real one.

    Args:
        takes: seconds that a worker needs for an item.
        between: how many of them pass besides the work itself.
    """
    plan = forecast.plan
    ends = simulate(plan, forecast.workers, takes)
    whole = max(end for _, end in ends.values())
    now = whole / 10
    for key, (_, end) in sorted(ends.items(), key=lambda pair: pair[1]):
        if end <= now:
            seconds = takes(plan.work[key])
            forecast.learn(plan.work[key], seconds - between, seconds)
    running = {
        key: UnderWay((now - begun) / (end - begun), now - begun)
        for key, (begun, end) in ends.items()
        if begun < now < end
    }
    left = forecast.left([plan.work[key] for key, (begun, _) in ends.items() if begun >= now], running)
    assert left is not None
    return left / (whole - now)


def simulate(plan: Plan, workers: int, takes: Callable[[Item], float]) -> dict[str, tuple[float, float]]:
    """Return when each item begins and ends if the next one that can start always does."""
    free, ends = [0.0] * workers, dict[str, tuple[float, float]]()
    waiting = list(plan.work.values())
    while waiting:
        at, item = min(
            ((max([0.0, *(ends[need][1] for need in item.needs)]), item) for item in waiting if ready(item, ends)),
            key=lambda pair: pair[0],
        )
        begun = max(at, min(free))
        free[free.index(min(free))] = begun + takes(item)
        ends[item.id] = begun, begun + takes(item)
        waiting.remove(item)
    return ends


def ready(item: Item, ends: dict[str, tuple[float, float]]) -> bool:
    return all(need in ends for need in item.needs)


def test_status_shows_a_run_that_has_noted_nothing_yet(tmp_path: Path) -> None:
    """A trainer of a user's own notes nothing before its first report."""
    plan = make_plan(small_study(pruning__rounds=1))
    keep_plan(tmp_path, plan)
    store, item = Store(tmp_path), find(plan, "ticket", 0)
    console = Console(width=300, record=True, file=io.StringIO())
    with store.claim(item.id) as mine:
        assert mine
        console.print(status_table([tmp_path]))
    shown = console.export_text()
    assert f"{item.label}, on {socket.gethostname()} since " in shown
    assert "level-01" not in shown
