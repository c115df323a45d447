"""`training.train_every`: when the training examples are measured changes no weight, no table and no identity."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tombola
from helpers.interrupting import run_interrupted
from helpers.small_studies import find, run_study, small_study
from tombola.studies import make_plan

TRAINING = {"iterations": 24, "evaluate_every": 2, "lr": 0.03}
ALWAYS = {"training": {**TRAINING, "train_every": "evaluation"}}
EVERY_6 = {"training": {**TRAINING, "train_every": 6}}
NEVER = {"training": TRAINING}
WHERE = ["arm", "trial", "repeat", "level"]


def run(folder: Path, options: dict[str, object], **more: object) -> tombola.Results:
    study = small_study(**options, trials=2, arms=["ticket", "reinit"])
    return tombola.run(study, folder, workers=0, figures=False, quiet=True, **more)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[tombola.Results]:
    # Each has a parent of its own: neighbours would lend their results.
    folders = [tmp_path_factory.mktemp(name) / "results" for name in ("always", "every-6", "never")]
    return [run(folder, options) for folder, options in zip(folders, (ALWAYS, EVERY_6, NEVER), strict=True)]


def test_tables_and_identities_are_the_same(three: list[tombola.Results]) -> None:
    always, *others = (results.frame().drop(columns="seconds") for results in three)
    for other in others:
        pd.testing.assert_frame_equal(other, always)


def test_where_curves_have_training_values(three: list[tombola.Results]) -> None:
    always, every_6, never = (results.curves() for results in three)
    assert not [column for column in never if column.startswith("train_")]
    names = ["train_loss", "train_accuracy"]
    assert always[names].notna().all(axis=None)
    pd.testing.assert_frame_equal(always.drop(columns=names), never)
    known = every_6["train_loss"].notna()
    assert every_6["train_accuracy"].notna().equals(known)
    for _, rows in every_6[known].groupby(WHERE):
        assert list(rows["iteration"]) == [0, 6, 12, 18, 24]
    pd.testing.assert_frame_equal(every_6.loc[known, names], always.loc[known, names])


def test_the_last_value_is_that_of_the_table(three: list[tombola.Results]) -> None:
    ends = three[0].curves().groupby(WHERE)["train_accuracy"].last()
    wanted = three[0].frame().set_index(WHERE)["final_train_accuracy"]
    np.testing.assert_array_equal(ends.reindex(wanted.index), wanted)


@pytest.mark.parametrize("engine", ["dense", "sparse", "mlp", "stacked"])
def test_each_engine_measures_what_the_weights_give(tmp_path: Path, engine: str) -> None:
    options = {"training": {**TRAINING, "iterations": 4, "train_every": "evaluation"}, "pruning__rounds": 1}
    curves = run(tmp_path / "curve" / "results", options, engine=engine).curves()
    ends = run(tmp_path / "end" / "results", {"training": {**TRAINING, "iterations": 2}, "pruning__rounds": 0})
    at_2 = curves[(curves["iteration"] == 2) & (curves["level"] == 0)].set_index(WHERE)["train_accuracy"]
    wanted = ends.frame().set_index(WHERE)["final_train_accuracy"]
    np.testing.assert_allclose(at_2.reindex(wanted.index), wanted, atol=0.021)  # rounding may turn one example


def test_interrupted_anywhere_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store = run_study(tmp_path / "whole", **EVERY_6, pruning__rounds=1)
    # An evaluation of three parts looks more often than every third time.
    _, cut = run_interrupted(small_study(**EVERY_6, pruning__rounds=1), tmp_path / "cut", monkeypatch, every=7)
    for arm, level in (("ticket", 0), ("ticket", 1)):
        identity = find(plan, arm, level).id
        np.testing.assert_equal(cut.load(identity).history, store.load(identity).history)


def test_what_is_stored_serves_a_study_that_asks_for_less(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "results"
    times = [tuple(run(folder, options).frame()["seconds"]) for options in (EVERY_6, NEVER)]
    assert times[0] == times[1]
    again = run(folder, {"training": {**TRAINING, "train_every": 4}}).curves()
    assert set(again.loc[again["train_accuracy"].notna(), "iteration"]) == {
        0,
        2,
        4,
        6,
        8,
        10,
        12,
        14,
        16,
        18,
        20,
        22,
        24,
    }


def test_a_checkpoint_without_wanted_values_starts_again_and_one_with_more_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helpers.small_studies import run_one
    from tombola.running.heartbeat import Heartbeat
    from tombola.running.store import Store
    from tombola.training.loop import Interrupted

    looks = iter(range(1000))

    def stop(_: Heartbeat) -> None:
        if next(looks) in (6, 12):
            raise Interrupted

    monkeypatch.setattr(Heartbeat, "__call__", stop)
    plans = [make_plan(small_study(**options)) for options in (NEVER, EVERY_6, NEVER)]
    store = Store(tmp_path)
    store.create()
    nothing, some, less = (find(plan, "ticket", 0) for plan in plans)
    assert [run_one(nothing, tmp_path), run_one(some, tmp_path), run_one(less, tmp_path)] == ["stopped"] * 2 + ["done"]
    history = store.load(less.id).history
    known = [step for step, value in zip(history["iteration"], history["train_loss"], strict=True) if value == value]
    assert known == [24]  # what nobody asks for any more is cleared
    assert not any(math.isnan(value) for value in history["val_loss"])


def test_the_plan_counts_what_is_measured() -> None:
    costs = [
        find(make_plan(small_study(**options)), "ticket", 0).cost.evaluated for options in (NEVER, EVERY_6, ALWAYS)
    ]
    train = make_plan(small_study(**NEVER)).data.train
    assert [cost - costs[0] for cost in costs] == [0, 4 * train, 12 * train]
