"""`training.test_every`: when the test examples are measured changes no weight, no table and no identity."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

import tombola
from helpers.interrupting import run_interrupted
from helpers.small_studies import find, run_one, run_study, small_study
from tombola.analysis.learning_curves import CUT, cut_note, learning_curves, of_sound_runs, to_the_shortest
from tombola.figures.density import at_fractions
from tombola.figures.rounds import rounds
from tombola.figures.training import figure_3
from tombola.html.figures import curve_figures
from tombola.html.gather import gather, judge
from tombola.html.series import series_of
from tombola.studies import make_plan
from tombola.tasks.metric import ACCURACY
from tombola.training.engines.dense import DenseEngine

TRAINING = {"iterations": 24, "evaluate_every": 2, "lr": 0.03}
ALWAYS = {"training": {**TRAINING, "test_every": "evaluation"}}
EVERY_6 = {"training": {**TRAINING, "test_every": 6}}
NEVER = {"training": {**TRAINING, "test_every": None}}
TIMES = ["seconds"]


def run(folder: Path, options: dict[str, object], **more: object) -> tombola.Results:
    study = small_study(**options, trials=2, arms=["ticket", "reinit"])
    return tombola.run(study, folder, workers=0, figures=False, quiet=True, **more)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[tombola.Results]:
    # Each has a parent of its own: neighbours would lend their results.
    folders = [tmp_path_factory.mktemp(name) / "results" for name in ("always", "every-6", "never")]
    return [run(folder, options) for folder, options in zip(folders, (ALWAYS, EVERY_6, NEVER), strict=True)]


def test_tables_and_identities_are_the_same(three: list[tombola.Results]) -> None:
    always, *others = (results.frame().drop(columns=TIMES) for results in three)
    for other in others:
        pd.testing.assert_frame_equal(other, always)


def test_where_curves_have_test_values(three: list[tombola.Results]) -> None:
    always, every_6, never = (results.curves() for results in three)
    assert always["test_accuracy"].notna().all()
    for found, wanted in ((every_6, {0, 6, 12, 18, 24}), (never, set())):
        pd.testing.assert_frame_equal(found.filter(like="val_"), always.filter(like="val_"))
        for _, rows in found.groupby(["arm", "trial", "level"]):
            best = int(rows["iteration"].iloc[rows["val_loss"].argmin()])
            known = rows[rows["test_accuracy"].notna()]
            assert set(known["iteration"]) == wanted | {best, 24}
            assert rows["test_loss"].notna().equals(rows["test_accuracy"].notna())
        known = found["test_accuracy"].notna()
        assert found.loc[known, "test_accuracy"].equals(always.loc[known, "test_accuracy"])


def test_the_test_examples_are_measured_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}
    evaluate = DenseEngine.evaluate

    def counting(self: DenseEngine, part: str, *rest: object) -> object:
        counts[part] = counts.get(part, 0) + 1
        return evaluate(self, part, *rest)

    monkeypatch.setattr(DenseEngine, "evaluate", counting)
    plan, store = run_study(tmp_path, **NEVER, pruning__rounds=1)
    losses = (
        store.load(find(plan, "ticket", 0).id).history["val_loss"],
        store.load(find(plan, "ticket", 1).id).history["val_loss"],
    )
    records = sum(
        loss == low for each in losses for loss, low in zip(each, itertools.accumulate(each, min), strict=True)
    )
    last_is_best = sum(each.index(min(each)) == len(each) - 1 for each in losses)
    assert counts == {"validation": 26, "train": 2, "test": records + 2 - last_is_best}


def test_interrupted_anywhere_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store = run_study(tmp_path / "whole", **EVERY_6, pruning__rounds=1)
    _, cut = run_interrupted(small_study(**EVERY_6, pruning__rounds=1), tmp_path / "cut", monkeypatch)
    for arm, level in (("ticket", 0), ("ticket", 1)):
        identity = find(plan, arm, level).id
        np.testing.assert_equal(cut.load(identity).history, store.load(identity).history)


def test_what_is_stored_serves_a_study_that_asks_for_less(tmp_path: Path) -> None:
    run(tmp_path / "a" / "results", EVERY_6)
    times = [tuple(run(tmp_path / "a" / "results", options).frame()["seconds"]) for options in (EVERY_6, NEVER)]
    assert times[0] == times[1]

    again = run(tmp_path / "a" / "results", {"training": {**TRAINING, "test_every": 4}}).curves()
    assert set(again.loc[again["test_accuracy"].notna(), "iteration"]) >= {0, 4, 8, 12, 16, 20, 24}


def test_a_checkpoint_without_wanted_test_values_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tombola.running.heartbeat import Heartbeat
    from tombola.training.loop import Interrupted

    looks = iter(range(1000))

    def stop(_: Heartbeat) -> None:
        if next(looks) == 6:
            raise Interrupted

    monkeypatch.setattr(Heartbeat, "__call__", stop)
    first, second = (make_plan(small_study(**options)) for options in (NEVER, EVERY_6))
    from tombola.running.store import Store

    store = Store(tmp_path)
    store.create()
    before, after = (find(plan, "ticket", 0) for plan in (first, second))
    assert run_one(before, tmp_path) == "stopped"
    assert store.load_checkpoint(before.id) is not None
    assert run_one(after, tmp_path) == "done"
    history = store.load(after.id).history
    known = {
        step for step, value in zip(history["iteration"], history["test_loss"], strict=True) if not math.isnan(value)
    }
    assert known >= {0, 6, 12, 18, 24}


def test_the_last_evaluation_is_measured_where_patience_ends_training(tmp_path: Path) -> None:
    training = {**TRAINING, "iterations": 400, "lr": 1.0, "patience": 2}
    plan, store = run_study(tmp_path, training=training, pruning__rounds=0)
    history = store.load(find(plan, "ticket", 0).id).history
    assert history["iteration"][-1] < 400
    assert not math.isnan(history["test_loss"][-1])


def curves(test: list[list[float]]) -> pd.DataFrame:
    rows = [
        {"study": "s", "arm": "ticket", "trial": trial, "repeat": 0, "level": 0, "iteration": 10 * place}
        | {"val_accuracy": 0.5, "test_accuracy": value}
        for trial, values in enumerate(test)
        for place, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


NAN = math.nan


@pytest.mark.parametrize(
    ("test", "part", "iterations"),
    [
        ([[0.1, 0.2], [0.1, 0.2]], "test", [0, 10]),
        ([[NAN, 0.2, NAN, 0.4], [NAN, NAN, 0.3, 0.4]], "val", [0, 10, 20, 30]),  # early stop and the end
        ([[0.1, 0.2, 0.3, NAN, 0.5], [0.1, NAN, 0.3, 0.4, 0.5]], "test", [0, 20, 40]),
        ([[NAN, NAN, 0.3]], "val", [0, 10, 20]),
        ([[0.1, 0.2, NAN, 0.4], [0.1]], "test", [0, 10, 30]),  # one run ended at once
    ],
)
def test_a_curve_is_of_the_examples_that_all_runs_measured(
    test: list[list[float]], part: str, iterations: list[int]
) -> None:
    found, measured_on = learning_curves(curves(test), ACCURACY)
    assert measured_on == part
    assert sorted(set(found["iteration"])) == iterations
    without = learning_curves(curves(test).drop(columns="val_accuracy"), ACCURACY)
    assert without[1] == "test"
    assert without[0]["test_accuracy"].notna().all()


def test_a_run_that_diverged_at_once_does_not_change_what_the_curves_are_of() -> None:
    table = curves([[0.1, 0.2, NAN, 0.4], [0.1, 0.2, NAN, 0.4], [0.5, NAN]])
    table.loc[(table["trial"] == 2) & table["test_accuracy"].isna(), "val_accuracy"] = NAN
    found, part = learning_curves(table, ACCURACY)
    assert (part, sorted(set(found["iteration"]))) == ("test", [0, 10, 30])

    levels = table.drop_duplicates(["trial"]).assign(status=["ok", "ok", "diverged"], density=1.0, iterations=30)
    levels = levels.drop(columns=["iteration", "val_accuracy", "test_accuracy"]).assign(**ACCURACY.columns)
    assert set(of_sound_runs(levels, table)["trial"]) == {0, 1}
    assert set(of_sound_runs(levels.assign(study="other"), table)["trial"]) == {0, 1, 2}
    shown, _, measured_on = at_fractions(levels, table, (0.34, 1.0))
    assert measured_on == "test"
    assert shown.set_index("trial")["test_accuracy_0"].to_dict() == pytest.approx({0: 0.2, 1: 0.2, 2: NAN}, nan_ok=True)


def test_a_curve_ends_where_its_first_run_ended() -> None:
    table = curves([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2], [0.1, 0.2, 0.3]])
    table["val_accuracy"] = table["test_accuracy"]
    shown = to_the_shortest(table)
    assert shown.groupby("iteration")["trial"].agg(list).to_dict() == {0: [0, 1, 2], 10: [0, 1, 2]}
    assert (cut_note(shown, table), cut_note(shown, shown)) == (CUT, "")
    other = to_the_shortest(table.assign(level=table["trial"]))  # no other run is in its level
    assert len(other) == len(table)


def test_a_run_that_patience_ended_between_test_measurements_does_not_end_the_curve_at_its_beginning() -> None:
    one, other = [0.1, NAN, 0.3, NAN, 0.5], [0.1, *[NAN] * 4, 0.4, *[NAN] * 4, 0.6]
    found, part = learning_curves(to_the_shortest(curves([one, other])), ACCURACY)
    assert (part, sorted(set(found["iteration"]))) == ("val", [0, 10, 20, 30, 40])


def test_a_level_counts_at_a_fraction_where_all_its_runs_came_that_far() -> None:
    table = curves([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2]])
    levels = table.drop_duplicates(["trial"]).assign(status="ok", density=1.0, iterations=30)
    levels = levels.drop(columns=["iteration", "val_accuracy", "test_accuracy"]).assign(**ACCURACY.columns)
    later = [each.assign(level=1) for each in (levels, curves([[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.3, 0.4]]))]
    both = pd.concat([levels, later[0]]), pd.concat([table, later[1]])
    shown, _, _ = at_fractions(*both, (1 / 3, 1.0))
    assert shown["test_accuracy_0"].tolist() == [0.2] * 4
    assert shown["test_accuracy_1"].tolist() == pytest.approx([NAN, NAN, 0.4, 0.4], nan_ok=True)


def test_figures_say_where_curves_are_cut(three: list[tombola.Results]) -> None:
    levels, whole = three[0].frame(), three[0].curves()
    page = gather(three[0])
    for found, cut in ((whole, False), (whole[(whole["trial"] == 0) | (whole["iteration"] <= 12)], True)):
        figures = figure_3(levels, found), rounds(levels, found)
        prints = [" ".join(text.get_text() for text in figure.findobj(Text)) for figure in figures]
        assert [CUT in " ".join(text.split()) for text in prints] == [cut, cut]
        judged = judge(levels, found, 0.01)
        assert judged.cut_note == (CUT if cut else "")
        shown = curve_figures(replace(page, curves=judged.curves, cut_note=judged.cut_note), series_of(page.levels))
        assert [f"{CUT.capitalize()}." in figure.caption for figure in shown] == [cut, cut]
        assert judged.curves["iteration"].max() == (12 if cut else 24)
