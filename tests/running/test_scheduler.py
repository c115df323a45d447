"""Which job goes first, and what becomes of the others when one goes wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import small_runs

import tombola
import tombola.running.devices as devices
import tombola.running.run as running
import tombola.running.sites as sites
from tombola.errors import ClusterError, StoreError
from tombola.running.devices import threads_each
from tombola.running.executors import StillBorn
from tombola.running.options import RunOptions
from tombola.running.scheduler import Stop, Tally, run_plan
from tombola.running.store import Store
from tombola.studies.plan import Plan, make_plan
from tombola.work import Item, item_from_json


class Pretend(Executor):
    """Settles jobs without training them, as `becomes` says: at once, or a moment later all that were handed in."""

    def __init__(self, becomes: Callable[[Item], str | Exception] = lambda job: "done", later: bool = False):
        self.becomes, self.later = becomes, later
        self.most = 0
        self.batches: list[list[Item]] = []
        self.open: list[tuple[Future[list[str]], list[Item]]] = []

    def __call__(self) -> Pretend:
        return self

    @property
    def order(self) -> list[Item]:
        return [job for batch in self.batches for job in batch]

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        jobs = [item_from_json(values) for values in arguments[0]]
        self.batches.append(jobs)
        future: Future[list[str]] = Future()
        self.open.append((future, jobs))
        self.most = max(self.most, len(self.open))
        if not self.later:
            self._settle()
        elif len(self.open) == 1:
            threading.Timer(0.05, self._settle).start()
        return future

    def _settle(self) -> None:
        handed_in, self.open = self.open, []
        for future, jobs in handed_in:
            outcomes = [self.becomes(job) for job in jobs]
            if errors := [outcome for outcome in outcomes if isinstance(outcome, Exception)]:
                future.set_exception(errors[0])
            else:
                future.set_result([str(outcome) for outcome in outcomes])

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None: ...


class Silent:
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.outcomes: dict[str, str] = {}

    def begin(self, waiting: Sequence[Item]) -> None: ...

    def started(self, job: Item) -> None: ...

    def finished(self, job: Item, outcome: str) -> None:
        self.outcomes[job.id] = outcome

    def note(self, message: str) -> None:
        self.notes.append(message)

    def tick(self, running: list[Item]) -> None: ...


def schedule(plan: Plan, executor: Pretend, folder: Path, workers: int = 1, listener: Silent | None = None) -> Tally:
    return run_plan(plan, Store(folder), RunOptions(), workers, executor, listener or Silent(), Stop(folder / "stop"))


def chain_behind(plan: Plan) -> dict[str, int]:
    """Return how many jobs, one after the other, wait for each."""
    children: dict[str, list[str]] = {job: [] for job in plan.work}
    for job in plan.work.values():
        for parent in job.needs:
            children[parent].append(job.id)

    def length(job: str) -> int:
        return max((1 + length(child) for child in children[job]), default=0)

    return {job: length(job) for job in plan.work}


def test_the_longest_chain_goes_first(tmp_path: Path) -> None:
    plan = make_plan(tombola.Study.load("demo", trials=2, **{"pruning.rounds": 4}))
    executor = Pretend()
    tally = schedule(plan, executor, tmp_path)
    behind, done, waiting = chain_behind(plan), set(), dict(plan.work)
    for job in executor.order:
        ready = [behind[other.id] for other in waiting.values() if set(other.needs) <= done]
        assert set(job.needs) <= done, "it was started before what it needs was there"
        assert behind[job.id] == max(ready)
        done.add(job.id)
        del waiting[job.id]
    assert not waiting
    assert tally.done == set(plan.work)


def test_as_many_jobs_at_a_time_as_workers(tmp_path: Path) -> None:
    plan = make_plan(tombola.Study.load("demo", trials=5, **{"pruning.rounds": 1}))
    executor = Pretend(later=True)
    schedule(plan, executor, tmp_path, workers=3)
    assert executor.most == 3


def test_a_study_with_only_reinit_trains_the_chain_too(tmp_path: Path, demo: tombola.Study) -> None:
    study = demo.model_copy(update={"arms": tombola.Study.load("demo", arms=["reinit"]).arms})
    results = tombola.run(study, tmp_path / "out", workers=0, figures=False, quiet=True)
    labels = {job.label.rpartition("trial-0.")[2] for job in results.plan.work.values() if job.kind == "run"}
    tickets = {"ticket.level-01", "ticket.level-02"}  # that of level 3 has no mask to give
    assert labels == {"dense", *tickets, "reinit.level-01", "reinit.level-02", "reinit.level-03"}
    assert results.missing() == 0
    assert list(results.frame()["arm"].unique()) == ["reinit"]
    assert list(results.frame()["level"]) == [0, 1, 2, 3]


def test_a_run_with_everything_done_starts_no_worker(
    copied: Path, demo: tombola.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise AssertionError("a worker was started")

    monkeypatch.setattr(sites, "Workers", refuse)
    results = tombola.run(demo, copied, workers=2, figures=False, quiet=True)
    assert results.missing() == 0


def test_a_failing_job_takes_only_its_followers_along(tmp_path: Path) -> None:
    plan = make_plan(tombola.Study.load("demo", trials=2, arms=["ticket", "one-shot"], **{"pruning.rounds": 3}))
    bad = next(job for job in plan.work.values() if job.label.endswith("trial-0.ticket.level-02"))
    listener = Silent()
    executor = Pretend(lambda job: ValueError("odd") if job.id == bad.id else "done")
    tally = schedule(plan, executor, tmp_path, listener=listener)
    assert set(tally.failed) == {bad.id}
    skipped = {plan.work[job].label.rpartition("trial-")[2] for job in tally.skipped}
    assert skipped == {"0.mask.ticket.level-03", "0.ticket.level-03"}
    assert len(tally.done) == len(plan.work) - 3
    assert any("ValueError: odd" in note for note in listener.notes)


def test_a_job_that_another_run_has_is_asked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola.running.scheduler.PATIENCE", 0.05)
    plan = make_plan(tombola.Study.load("demo", trials=1, arms=["ticket"], **{"pruning.rounds": 1}))
    answers = iter(["busy", "busy", "done", "done", "diverged"])
    executor = Pretend(lambda job: next(answers))
    tally = schedule(plan, executor, tmp_path)
    assert [job.label.rpartition(".")[2] for job in executor.order] == [
        "dense",
        "dense",
        "dense",
        "level-01",
        "level-01",
    ]
    assert (len(tally.done), len(tally.diverged)) == (2, 1)


def test_a_job_that_kills_its_workers_is_given_up(tmp_path: Path) -> None:
    plan = make_plan(tombola.Study.load("demo", trials=2, arms=["ticket"], **{"pruning.rounds": 1}))
    bad = next(job for job in plan.work.values() if job.label.endswith("trial-0.dense"))
    executor = Pretend(lambda job: BrokenProcessPool("killed") if job.id == bad.id else "done")
    tally = schedule(plan, executor, tmp_path)
    assert "workers died 3 times" in tally.failed[bad.id]
    assert sum(job.id == bad.id for job in executor.order) == 3
    assert len(tally.skipped) == 2
    assert len(tally.done) == 3


def test_a_job_beside_one_that_kills_its_workers_goes_on(tmp_path: Path) -> None:
    plan = make_plan(tombola.Study.load("demo", trials=2, arms=["ticket"], **{"pruning.rounds": 1}))
    bad = next(job for job in plan.work.values() if job.label.endswith("trial-0.dense"))

    executor = Pretend(lambda job: BrokenProcessPool("killed") if job.id == bad.id else "done", later=True)
    tally = schedule(plan, executor, tmp_path, workers=2)
    assert set(tally.failed) == {bad.id}
    assert len(tally.done) == 3
    others = [job.id for job in executor.order if job.id != bad.id]
    assert len(others) == len(set(others)), "work was done twice for another's fault"


def test_a_stack_that_kills_its_worker_is_done_one_by_one(tmp_path: Path) -> None:
    plan = make_plan(tombola.Study.load("demo", trials=3, arms=["ticket"], **{"pruning.rounds": 0}))
    bad = next(iter(plan.work.values()))
    executor = Pretend(lambda job: BrokenProcessPool("killed") if job.id == bad.id else "done")
    tally = run_plan(plan, Store(tmp_path), RunOptions(stack=8), 1, executor, Silent(), Stop(tmp_path / "stop"))
    assert [len(batch) for batch in executor.batches] == [3, 1, 1, 1, 1, 1]
    assert set(tally.failed) == {bad.id}
    assert len(tally.done) == 2


def test_a_worker_that_dies_before_it_takes_work(tmp_path: Path) -> None:
    """The work is not to blame, unless no worker ever comes up."""
    plan = make_plan(tombola.Study.load("demo", trials=1, arms=["ticket"], **{"pruning.rounds": 1}))
    fates = iter([StillBorn("killed")] * 3)
    executor = Pretend(lambda job: next(fates, "done"))
    tally = schedule(plan, executor, tmp_path)
    assert tally.done == set(plan.work)
    assert len(executor.order) == len(plan.work) + 3
    with pytest.raises(StoreError, match="workers die as soon as they start"):
        schedule(plan, Pretend(lambda job: StillBorn("killed")), tmp_path / "other")


def test_a_call_that_begins_after_the_stop_is_no_error_of_the_cluster(tmp_path: Path) -> None:
    plan = make_plan(tombola.Study.load("demo", trials=1, arms=["ticket"], **{"pruning.rounds": 1}))
    stop = Stop(tmp_path / "stop")

    def becomes(job: Item) -> str | Exception:
        if len(executor.batches) == 2:
            stop.ask()
        return ClusterError("a worker does not see the results folder") if stop.asked else "done"

    executor = Pretend(becomes)
    tally = run_plan(plan, Store(tmp_path), RunOptions(), 1, executor, Silent(), stop)
    assert (len(executor.batches), len(tally.done), tally.failed) == (2, 1, {})
    with pytest.raises(ClusterError, match="does not see"):
        schedule(plan, Pretend(lambda job: ClusterError("a worker does not see it")), tmp_path / "other")


def changed(study: tombola.Study, mishap: str, below: float) -> tombola.Study:
    network = study.network.model_copy(update={"arguments": {"mishap": mishap, "below": below}})
    return study.model_copy(update={"network": network})


def test_a_diverging_job_leaves_the_rest_alone(
    small: Callable[..., tombola.Study], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = changed(small(), "nan", 0.4)  # densities are 1, 0.6, 0.36 and 0.216
    results = tombola.run(study, tmp_path / "out", workers=0, figures=True)
    err = capsys.readouterr().err
    assert err.count("diverged test_small_network") == 2
    assert "the loss was not finite at iteration" in err
    assert "3 of 10 work items were skipped: they need work that diverged or failed" in err
    frame = results.frame()
    status = {(row.arm, row.level): row.status for row in frame.itertuples()}
    for arm in ("ticket", "reinit"):
        assert [status.get((arm, level)) for level in range(4)] == ["ok", "ok", "diverged", None]
    lost = frame[frame["status"] == "diverged"]
    assert lost["final_test_accuracy"].isna().all()
    assert lost["early_stop_iteration"].isna().all()
    assert frame[frame["status"] == "ok"].drop(columns=["energy_kwh", "co2_kg"]).notna().all(axis=None)
    assert (tmp_path / "out" / "figures").is_dir()
    assert results.missing() == 0
    again = tombola.run(study, tmp_path / "out", workers=0, figures=False)
    pd.testing.assert_frame_equal(again.frame(), frame)
    assert "done " not in capsys.readouterr().err  # what diverged is not tried again


def test_a_dense_run_that_diverges_is_a_result_too(tmp_path: Path, demo: tombola.Study) -> None:
    study = demo.model_copy(update={"training": demo.training.model_copy(update={"lr": 1e30})})
    results = tombola.run(study, tmp_path / "out", workers=0, figures=True, quiet=True)
    assert list(results.frame()["status"]) == ["diverged"] * 3  # level 0 of each arm
    assert results.missing() == 0  # what would follow is not still to be done


def test_a_network_that_raises_is_told_of_with_its_traceback(
    small: Callable[..., tombola.Study], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = changed(small(), "raise", 0.4)
    with pytest.raises(running.WorkFailed, match="2 of 10 work items failed") as caught:
        tombola.run(study, tmp_path / "out", workers=0, figures=False, quiet=True)
    assert caught.value.exit_status == 1
    err = capsys.readouterr().err
    assert "RuntimeError: the user's own mistake" in err
    assert "in forward" in err
    frame = pd.read_csv(tmp_path / "out" / "results.csv")
    assert sorted(frame["level"]) == [0, 0, 1, 1]
    assert "RuntimeError: the user's own mistake" in str(caught.value)
    # Once the mistake is put right, the same command continues.
    assert tombola.Results.open(tmp_path / "out").missing() == 5


def test_the_stop_file_of_a_dead_run_does_not_stop_the_next(tmp_path: Path, demo: tombola.Study) -> None:
    store = Store(tmp_path / "out")
    store.create()
    (store.jobs / f".stop.{os.getpid()}").touch()
    study = demo.model_copy(update={"pruning": demo.pruning.model_copy(update={"rounds": 0})})
    assert tombola.run(study, tmp_path / "out", workers=0, figures=False, quiet=True).missing() == 0


def test_engine_and_device_are_noted_and_no_part_of_identity(tmp_path: Path, demo: tombola.Study) -> None:
    study = demo.model_copy(update={"pruning": demo.pruning.model_copy(update={"rounds": 0})})
    found = [
        tombola.run(study, tmp_path / engine / "out", workers=0, engine=engine, figures=False, quiet=True).frame()
        for engine in ("dense", "sparse")
    ]
    assert list(found[0]["job"]) == list(found[1]["job"])
    assert set(found[0]["engine"]) == {"dense"}
    assert set(found[1]["engine"]) != {"dense"}
    assert (
        small_runs.outcomes(tmp_path / "dense" / "out").keys()
        == small_runs.outcomes(tmp_path / "sparse" / "out").keys()
    )


@pytest.mark.parametrize(
    ("network", "workers", "threads"),
    [("lenet-300-100", 0, 1), ("lenet-300-100", 1, 1), ("conv-2", 0, 8), ("conv-2", 2, 4), ("conv-2", 20, 1)],
)
def test_large_steps_are_shared_by_threads(
    network: str, workers: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 8)
    study = tombola.Study.load("lenet-mnist", network=network, trials=1, arms=["ticket"])
    assert threads_each(make_plan(study), workers) == threads
