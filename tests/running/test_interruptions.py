"""Stopped between any two steps and resumed, every engine ends where it would have ended anyway."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import assert_same_outcomes

import tombola
from tombola.running.heartbeat import Heartbeat
from tombola.running.notes import lost_checkpoints
from tombola.running.options import RunOptions
from tombola.running.store import Store
from tombola.studies import make_plan
from tombola.training import loop
from tombola.training.engines import NAMES

ENGINES = [name for name in NAMES if name != "auto"]


@pytest.fixture
def stopped_often(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Let every look whether to stop find, one time in four, that it should; looks come after each step."""

    def arm() -> list[int]:
        rng, stops = random.Random(1), []
        look = Heartbeat.__call__

        def stop_or_not(watch: Heartbeat) -> None:
            look(watch)
            if rng.random() < 0.25:
                stops.append(1)
                raise loop.Interrupted

        monkeypatch.setattr(loop, "SLICE", 0.0)
        monkeypatch.setattr(Heartbeat, "__call__", stop_or_not)
        return stops

    return arm


def both(study: tombola.Study, engine: str, folder: Path, arm: Callable[[], list[int]]) -> None:
    straight, crooked = folder / "a" / "straight", folder / "b" / "crooked"
    tombola.run(study, straight, workers=0, engine=engine, figures=False, quiet=True)
    stops = arm()
    tombola.run(study, crooked, workers=0, engine=engine, figures=False, quiet=True)
    assert len(stops) > 10
    assert_same_outcomes(crooked, straight)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("optimizer", [{}, {"training.optimizer": "sgd", "training.momentum": 0.9, "rewind": 7}])
def test_plain_network(
    engine: str, optimizer: dict[str, object], tmp_path: Path, stopped_often: Callable[[], list[int]]
) -> None:
    changes = {"trials": 2, "training.iterations": 30, "training.evaluate_every": 10, "pruning.rounds": 1}
    study = tombola.Study.load("demo", arms=["ticket"], **changes, **optimizer)
    both(study, engine, tmp_path, stopped_often)


@pytest.mark.parametrize("engine", ENGINES)
def test_network_with_batch_norm_and_dropout(
    engine: str, small: Callable[..., tombola.Study], tmp_path: Path, stopped_often: Callable[[], list[int]]
) -> None:
    changes = {"training.iterations": 30, "training.evaluate_every": 10, "pruning.rounds": 1, "arms": ["ticket"]}
    both(small(**changes), engine, tmp_path, stopped_often)


def test_a_checkpoint_of_other_options_is_not_continued(
    small: Callable[..., tombola.Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = small(**{"training.iterations": 30, "pruning.rounds": 0, "arms": ["ticket"]})
    looks = []
    look = Heartbeat.__call__

    def stop_once(watch: Heartbeat) -> None:
        look(watch)
        looks.append(1)
        if len(looks) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "SLICE", 0.0)
    monkeypatch.setattr(Heartbeat, "__call__", stop_once)
    out, straight = tmp_path / "a" / "out", tmp_path / "b" / "straight"
    with pytest.raises(tombola.StoppedByUser):
        tombola.run(study, out, workers=0, engine="dense", checkpoint_every=1e-9, figures=False, quiet=True)
    assert list((out / "jobs").glob(".*/checkpoint.safetensors"))
    plan, store = make_plan(study), Store(out)
    assert lost_checkpoints(plan, store, RunOptions()) == ""
    said = lost_checkpoints(plan, store, RunOptions(threads=7))
    assert "1 made with threads 1 instead of 7. That work starts again" in said
    for folder in (out, straight):
        tombola.run(study, folder, workers=0, engine="sparse", figures=False, quiet=True)
    assert_same_outcomes(out, straight)


def test_it_runs_outside_the_main_thread(
    small: Callable[..., tombola.Study], uninterrupted: Path, tmp_path: Path
) -> None:
    """As in a notebook or a server, where no signal handler can be set."""
    study = small(**{"pruning.rounds": 0, "arms": ["ticket"]})
    failed = []

    def run() -> None:
        try:
            tombola.run(study, tmp_path / "out", workers=0, figures=False, quiet=True)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed
    assert tombola.Results.open(tmp_path / "out").missing() == 0
