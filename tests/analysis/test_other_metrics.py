"""Tables, verdicts and claims of studies whose metric is not accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_levels import levels_of

from tombola.analysis import (
    barrier_statistics,
    break_down,
    level_statistics,
    paired_differences,
    paired_gains,
    summarise,
    verdicts,
)
from tombola.analysis.claims import evaluate, read_claims
from tombola.analysis.connectivity import barriers, height_of
from tombola.analysis.reading import read_levels
from tombola.errors import InputError
from tombola.tasks.metric import Metric

RMSE = Metric("rmse", "lower", "kW")
PERPLEXITY = Metric("perplexity", "lower")
IOU = Metric("iou", "higher", "%")


def of_metric(levels: pd.DataFrame, metric: Metric, change=lambda accuracy: accuracy) -> pd.DataFrame:
    """Return a table of accuracies as one of another metric: its columns, and values changed by a function."""
    accuracies = [column for column in levels if column.endswith("_accuracy")]
    changed = levels.assign(**{column: change(levels[column]) for column in accuracies})
    names = {column: f"{column.removesuffix('accuracy')}{metric.name}" for column in accuracies}
    return changed.rename(columns=names).assign(**metric.columns)


def errors_of(levels: pd.DataFrame, metric: Metric = RMSE, factor: float = 1.0) -> pd.DataFrame:
    """Return accuracies as errors, so that better stays better."""
    return of_metric(levels, metric, lambda accuracy: factor * (1 - accuracy))


@pytest.fixture
def levels() -> pd.DataFrame:
    """Tickets better, equal and worse than dense, and a control that is always worse."""
    return levels_of(
        {
            "ticket": ([0.985, 0.984, 0.97, 0.96], [3000, 2500, 2000, 2000]),
            "reinit": ([0.97, 0.96, 0.95, 0.94], [5000, 6000, 8000, 9000]),
        }
    )


@pytest.mark.parametrize("metric", [RMSE, PERPLEXITY])
def test_less_is_better(levels, metric):
    """An error of 1 - accuracy is judged as the accuracy is, where the margin is the same loss."""
    errors = errors_of(levels, metric)
    dense = errors.loc[errors["level"] == 0].drop_duplicates("trial")[f"early_stop_test_{metric.name}"].mean()
    mine, theirs = verdicts(errors, margin=0.001 / dense), verdicts(levels)
    assert list(mine["verdict"]) == list(theirs["verdict"])
    assert set(mine["verdict"]) == {"winning ticket", "losing"}
    difference = f"{metric.name}_difference"
    assert -100 * mine[difference].to_numpy() == pytest.approx(theirs["accuracy_difference"].to_numpy())
    assert -100 * mine[f"{difference}_low"].to_numpy() == pytest.approx(theirs["accuracy_difference_high"].to_numpy())
    assert mine["p"].to_numpy() == pytest.approx(theirs["p"].to_numpy())


def test_a_share_is_judged_as_an_accuracy_is(levels):
    mine, theirs = verdicts(of_metric(levels, IOU)), verdicts(levels)
    pd.testing.assert_frame_equal(
        mine.rename(columns=lambda name: name.replace("iou", "accuracy")).drop(columns="reason"),
        theirs.drop(columns="reason"),
    )
    assert [reason.replace("iou", "accuracy") for reason in mine["reason"]] == list(theirs["reason"])


@settings(max_examples=8, deadline=None)
@given(st.floats(1e-6, 1e6))
def test_the_unit_decides_nothing(factor):
    """In W or in MW the verdicts and break-downs are the same."""
    levels = levels_of({"ticket": ([0.985, 0.98, 0.975], [3000, 2500, 2000])})
    here, there = errors_of(levels), errors_of(levels, factor=factor)
    for column in ("verdict", "p"):
        mine, theirs = verdicts(here)[column], verdicts(there)[column]
        assert list(mine) == (list(theirs) if column == "verdict" else pytest.approx(list(theirs)))
    pd.testing.assert_frame_equal(break_down(here, 0.05), break_down(there, 0.05))


def test_reasons_name_the_metric_its_unit_and_the_margin(levels):
    reason = verdicts(errors_of(levels), margin=0.01)["reason"].iloc[0]
    assert reason.startswith("rmse -0.00")
    assert " kW [" in reason
    assert "the margin of 1 % of the dense network's value, 0.000" in reason
    assert "points" not in reason
    assert "accuracy" not in reason


def test_break_down_of_an_error():
    levels = levels_of({"ticket": ([0.98, 0.98, 0.97, 0.96], [3000] * 4)}, noise=(0.0, 10.0))
    expected = break_down(levels, 0.001)
    found = break_down(errors_of(levels), 0.05)  # 5 % of an error of 0.02 is 0.001
    assert found["density"].to_numpy() == pytest.approx(expected["density"].to_numpy())
    assert found["density"].item() < 1


def test_a_loss_of_exactly_the_margin_is_none():
    """Whatever the unit: 1 % of 0.02 is no more than 1 %."""
    for factor in (1.0, 1e-7, 3e5):
        levels = levels_of({"ticket": ([0.9798], [3000])}, noise=(0.0, 0.0), trials=2)
        assert break_down(errors_of(levels, factor=factor), 0.01)["censored"].item() == 2
        assert break_down(errors_of(levels, factor=factor), 0.0099)["censored"].item() == 0


def test_differences_and_gains(levels):
    errors = errors_of(levels)
    plain = paired_differences(errors, "ticket", "reinit", "early_stop_test_rmse")
    gains = paired_gains(errors, "ticket", "reinit", "early_stop_test_rmse")
    assert set(plain["unit"]) == {"kW"}
    assert (plain["mean"] < 0).all()
    assert list(gains["mean"]) == list(-plain["mean"])
    assert list(gains["low"]) == list(-plain["high"])
    assert (gains["low"] <= gains["mean"]).all()
    sooner = paired_gains(errors, "ticket", "reinit", "early_stop_iteration")
    assert (sooner["mean"] > 0).all()
    accuracy = paired_gains(levels, "ticket", "reinit", "early_stop_test_accuracy")
    pd.testing.assert_frame_equal(accuracy, paired_differences(levels, "ticket", "reinit", "early_stop_test_accuracy"))
    with pytest.raises(InputError, match="unknown measure 'early_stop_test_accuracy'"):
        paired_differences(errors, "ticket", "reinit", "early_stop_test_accuracy")


def test_equal_differences_of_tiny_and_of_huge_values_are_equal():
    """(x + d) - x differs in its last digits from trial to trial; it would look like variation."""
    for size in (1e-9, 1.0, 1e9):
        levels = levels_of({"ticket": ([0.97], [3000])}, noise=(0.0, 0.0))
        shift = levels["trial"] * 0.37
        levels["early_stop_test_accuracy"] += shift
        errors = of_metric(levels, RMSE, lambda accuracy, size=size: size * accuracy)
        row = paired_differences(errors, "ticket", "dense", "early_stop_test_rmse").iloc[0]
        assert row["low"] == row["high"] == row["mean"]
        assert row["mean"] == pytest.approx(-0.01 * size)


def test_summaries_have_the_metrics_columns(levels):
    errors = errors_of(levels)
    assert "final_train_rmse_mean" in summarise(errors)
    assert not [column for column in summarise(errors) if "accuracy" in column]
    assert "early_stop_test_rmse" in set(level_statistics(errors)["measure"])


def test_studies_of_different_metrics_are_refused_by_name(levels):
    both = pd.concat([levels.assign(**Metric("accuracy", "higher", "%").columns), errors_of(levels)])
    for compare in (summarise, level_statistics, verdicts, break_down):
        with pytest.raises(InputError, match=r"accuracy .* and rmse"):
            compare(both)


def own_claim(expression: str, **fields):
    lines = {"id": "a", "source": "s", "sentence": "t", "expression": expression, "metric": "rmse"} | fields
    return read_claims(json.dumps({"claims": [lines]}), "own.yaml")


@pytest.mark.parametrize(
    ("expression", "same"),
    [
        ('gain("ticket", 0.8)', 'gain("ticket", 0.8)'),
        ('final_gain("ticket", 0.8)', 'final_gain("ticket", 0.8)'),
        ('difference("ticket", "reinit", 0.64)', 'difference("ticket", "reinit", 0.64)'),
        ('100 - value("ticket", "final_test_rmse", 0.8)', 'value("ticket", "final_test_accuracy", 0.8)'),
        ('100 - best("ticket", "early_stop_test_rmse")', 'best("ticket", "early_stop_test_accuracy")'),
    ],
)
def test_claims_know_the_direction(levels, expression, same):
    errors = errors_of(levels, factor=100.0)
    mine = evaluate(errors, own_claim(f"{expression} > -99"))[0]
    theirs = evaluate(levels, own_claim(f"{same} > -99", metric="accuracy"))[0]
    assert mine.measured == pytest.approx(theirs.measured)
    assert mine.outcome == theirs.outcome == "reproduced"


def test_a_claim_is_about_one_metric(levels):
    """0.3 points of accuracy are not 0.3 kW."""
    outcome = evaluate(errors_of(levels), own_claim('gain("ticket", 0.8) > 0.3', metric="accuracy"))[0]
    assert outcome.outcome == "not measured"
    assert not outcome.applies
    assert outcome.reason == "the claim is about accuracy; this study measures rmse"
    other = evaluate(errors_of(levels), own_claim('value("ticket", "final_test_accuracy", 0.8) > 0'))[0]
    assert other.outcome == "not measured"
    assert "final_test_rmse" in other.reason


@pytest.mark.parametrize("metric", [RMSE, PERPLEXITY, IOU])
def test_a_saved_table_is_read_again(levels, metric, tmp_path: Path):
    table = errors_of(levels, metric)
    table.to_csv(tmp_path / "results.csv", index=False)
    found, _ = read_levels(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(verdicts(found), verdicts(table))
    table.drop(columns=f"early_stop_test_{metric.name}").to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(InputError, match=f"the column 'early_stop_test_{metric.name}' is missing; did you mean"):
        read_levels(tmp_path / "results.csv")


def points_of(**columns) -> pd.DataFrame:
    place = {"study": "s", "kind": "copies", "trial": 0, "rewind": 0, "level": 1, "other_level": 1, "copy": 0}
    rest = {"other_copy": 1, "line": "a", "density": 0.8, "position": [0.0, 0.5, 1.0]}
    return pd.DataFrame(place | rest | columns)


def test_barriers_without_an_error_rate_are_barriers_in_loss():
    losses = {"train_loss": [1.0, 2.0, 1.0], "test_loss": [2.0, 5.0, 3.0]}
    points = points_of(**losses)
    assert height_of(points) == "loss"
    found = barriers(points)
    assert found["test_barrier"].item() == pytest.approx(2.5)
    assert found["train_barrier"].item() == pytest.approx(1.0)
    assert not barrier_statistics(points, 2.4)["stable"].item()
    assert barrier_statistics(points, 2.5)["stable"].item()
    unknown = points_of(**losses, train_error=np.nan, test_error=np.nan)
    pd.testing.assert_frame_equal(barriers(unknown), found)
    errors = points_of(**losses, train_error=[0.0, 0.1, 0.0], test_error=[0.1, 0.3, 0.1])
    assert height_of(errors) == "error"
    assert barriers(errors)["test_barrier"].item() == pytest.approx(0.2)
    with pytest.raises(InputError, match="s and t can't be compared"):
        barriers(pd.concat([errors, unknown.assign(study="t")], ignore_index=True))
