"""`data.validation: 0`: a network trains on all training examples, and is judged at the end of training."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import tombola
from helpers.small_studies import find, run_study, small_study
from tombola.errors import InputError
from tombola.figures.density import figure_4
from tombola.figures.training import figure_3
from tombola.studies import make_plan
from tombola.tables import summary_table
from tombola.tables.captions import AT_THE_END

NONE = {
    "data__validation": 0,
    "training": {"iterations": 12, "evaluate_every": 5, "lr": 0.03, "test_every": None},
}


@pytest.mark.parametrize("engine", ["dense", "sparse", "mlp", "stacked"])
def test_tables_show_the_end_of_training(tmp_path: Path, engine: str) -> None:
    study = small_study(**NONE, arms=["ticket", "one-shot", "reinit"], pruning__rounds=1)
    results = tombola.run(study, tmp_path / "results", workers=0, figures=engine == "dense", quiet=True, engine=engine)
    frame, curves = results.frame(), results.curves()
    assert results.plan.data.train == 1438
    assert (frame["early_stop_iteration"] == 12).all()
    np.testing.assert_array_equal(frame["early_stop_test_accuracy"], frame["final_test_accuracy"])
    assert frame["final_test_accuracy"].notna().all()
    assert frame[["early_stop_val_loss", "final_val_loss"]].isna().all(axis=None)
    assert curves[["val_loss", "val_accuracy"]].isna().all(axis=None)
    if engine == "dense":
        assert (tmp_path / "results" / "figures" / "figure-4.png").exists()
        assert figure_3(frame, curves) is None  # only the end has test values: a point is not a curve
        asked = curves.assign(test_accuracy=curves["test_accuracy"].fillna(0.5))
        assert figure_3(frame, asked) is not None

        def captions(levels: pd.DataFrame) -> tuple[str, str]:
            figure = figure_4(levels)
            assert figure is not None
            console = Console(file=io.StringIO(), width=100)
            console.print(summary_table(levels))
            return console.file.getvalue(), " ".join(text.get_text() for text in figure.texts)

        assert all(AT_THE_END in " ".join(text.split()) for text in captions(frame))
        assert not any(AT_THE_END in " ".join(text.split()) for text in captions(frame.assign(early_stop_val_loss=1.0)))


def test_the_best_weights_are_the_last_and_training_is_that_of_a_plain_run(tmp_path: Path) -> None:
    plan, store = run_study(tmp_path / "none", **NONE, pruning__rounds=1)
    for level in (0, 1):
        found = store.load(find(plan, "ticket", level).id)
        assert set(found.snapshots) == {"start", "best", "final"}
        for name, weight in found.snapshots["final"].items():
            assert weight.equal(found.snapshots["best"][name])
    assert store.load(find(plan, "ticket", 0).id).facts["diverged_at"] is None


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"training__patience": 3}, "training: patience needs validation examples"),
        ({"pruning__criterion": "stability"}, "pruning.criterion=stability needs validation examples"),
        ({"pruning__back_off": {"margin": 0.1}}, "pruning.back_off needs validation examples"),
        ({"pruning__stop_margin": 0.1}, "pruning.stop_margin needs validation examples"),
        ({"arms": [{"one-shot": {"criterion": "stability"}}]}, "criterion of 'one-shot-stability'"),
    ],
)
def test_what_is_judged_by_validation_examples_is_refused(fields: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        make_plan(small_study(data__validation=0, **fields))


def test_the_plan_says_what_early_stop_means() -> None:
    assert [note for note in make_plan(small_study(data__validation=0)).notes if "data.validation is 0" in note]
    assert not [note for note in make_plan(small_study()).notes if "data.validation" in note]
