"""A loop and the leases of others: it waits for a silent holder, and says when its own run was taken over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import tombola
import tombola.running.leases as leases
from tombola.errors import StoreError
from tombola.running.leases import Leases
from tombola.running.own_runs import store_run
from tombola.running.store import Store


def make() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def train(run: tombola.running.loop_run.LoopRun) -> None:
    with torch.no_grad():
        run.model[0].weight.mul_(1.1)
    run.report(accuracy=0.5)


def loop(out: Path):
    return tombola.rounds(make, out=out, rounds=1, trials=1, figures=False)


def first_id(out: Path) -> str:
    """Return the identity of the loop's first run, which it leaves undone."""
    for run in loop(out):
        found = run._item.id
        break
    return found


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch):
    """Return a function that claims an item as a process of another machine does, for 0.3 seconds without a beat."""

    def claim(out: Path, work_id: str, beats: bool) -> Leases:
        made = Leases(out / "jobs", 0.3)
        with monkeypatch.context() as patch:
            patch.setattr(leases, "machine", lambda: "another")
            patch.setattr(made, "_lock", lambda work_id: None)
            if not beats:
                patch.setattr(leases._KEEPER, "keep", lambda lease: None)
            assert made.claim(work_id)
        return made

    monkeypatch.setattr("tombola.running.rounds.PATIENCE", 0.02)
    return claim


def test_a_loop_resumes_what_a_dead_machine_had(tmp_path, elsewhere, capsys):
    elsewhere(tmp_path, first_id(tmp_path), beats=False)
    capsys.readouterr()
    given = 0
    for run in loop(tmp_path):
        given += 1
        train(run)
    assert given > 1
    assert " ".join("".join(capsys.readouterr()).split()).count("waits up to 0.3 seconds") == 1


def test_a_loop_leaves_a_living_process_its_run(tmp_path, elsewhere, capsys):
    work_id = first_id(tmp_path)
    holder = elsewhere(tmp_path, work_id, beats=True)
    assert not list(loop(tmp_path))
    assert "another process trains 1 run;" in " ".join("".join(capsys.readouterr()).split())
    assert holder.may_write(work_id)
    holder.let_go(work_id, finished=True)


def test_ctrl_c_ends_the_wait(tmp_path, elsewhere, monkeypatch):
    def press(_seconds: float) -> None:
        raise KeyboardInterrupt

    work_id = first_id(tmp_path)
    elsewhere(tmp_path, work_id, beats=False)
    monkeypatch.setattr("tombola.running.rounds.time.sleep", press)
    with pytest.raises(KeyboardInterrupt):
        list(loop(tmp_path))
    monkeypatch.undo()
    assert Store(tmp_path).is_claimed(work_id)


def take_over(out: Path, work_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do as a process of another machine does that has seen no change for too long."""
    other = Leases(out / "jobs")
    monkeypatch.setattr(other, "_lock", lambda work_id: None)
    other._has_expired = lambda work_id, mark, note: True
    assert other.claim(work_id)


@pytest.mark.parametrize("when", ["before the report", "after the report", "as it is stored"])
def test_a_loop_whose_run_was_taken_over_says_so(tmp_path, monkeypatch, when):
    def body(run) -> None:
        if when == "before the report":
            take_over(tmp_path, run._item.id, monkeypatch)
            for lease in run._store.leases._held.values():
                lease.beat()
        train(run)
        if when == "after the report":
            take_over(tmp_path, run._item.id, monkeypatch)

    def store_late(run, store, options) -> None:
        take_over(tmp_path, run._item.id, monkeypatch)
        store_run(run, store, options)

    if when == "as it is stored":
        monkeypatch.setattr("tombola.running.rounds.store_run", store_late)

    def whole_loop() -> None:
        for run in loop(tmp_path):
            body(run)

    with pytest.raises(StoreError, match=r"another machine has taken over run .*dense; start the script again"):
        whole_loop()
    assert not Store(tmp_path).finished()
