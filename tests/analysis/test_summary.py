"""The summary against numbers worked out by hand and by an independent computation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tombola.analysis import measures_of, spread, summarise


def rows(values: list[tuple], arm: str = "ticket") -> pd.DataFrame:
    """Return levels from (trial, repeat, level, accuracy, status)."""
    frame = pd.DataFrame(values, columns=["trial", "repeat", "level", "early_stop_test_accuracy", "status"])
    frame = frame.assign(study="s", arm=arm, density=0.5**frame.level, remaining_weights=1000 // 2**frame.level)
    return frame.assign(
        early_stop_iteration=1000 * frame.early_stop_test_accuracy,
        final_test_accuracy=frame.early_stop_test_accuracy - 0.01,
        final_train_accuracy=1.0,
    )


def test_a_trial_counts_once_however_many_repeats_it_has():
    levels = rows([(0, 0, 1, 0.90, "ok"), (0, 1, 1, 0.92, "ok"), (0, 2, 1, 0.94, "ok"), (1, 0, 1, 0.80, "ok")])
    row = summarise(levels).iloc[0]
    assert (row["n"], row["runs"], row["diverged"]) == (2, 4, 0)
    assert row["early_stop_test_accuracy_mean"] == pytest.approx((0.92 + 0.80) / 2)
    assert row["early_stop_test_accuracy_std"] == pytest.approx(np.std([0.92, 0.80], ddof=1))
    assert (row["early_stop_test_accuracy_min"], row["early_stop_test_accuracy_max"]) == (0.80, 0.94)
    assert row["early_stop_iteration_mean"] == pytest.approx(860)


def test_diverged_runs_are_counted_and_left_out_even_with_numbers():
    levels = rows([(0, 0, 1, 0.9, "ok"), (1, 0, 1, 0.1, "diverged"), (2, 0, 1, 0.7, "ok")])
    row = summarise(levels).iloc[0]
    assert (row["n"], row["runs"], row["diverged"]) == (2, 2, 1)
    assert row["early_stop_test_accuracy_mean"] == pytest.approx(0.8)
    assert row["early_stop_test_accuracy_min"] == 0.7
    assert row["density"] == 0.5


def test_a_level_where_all_diverged_is_kept_without_statistics():
    summary = summarise(rows([(0, 0, 0, 0.9, "ok"), (0, 0, 1, math.nan, "diverged")]))
    assert summary["level"].tolist() == [0, 1]
    assert summary["n"].tolist() == [1, 0]
    assert summary["diverged"].tolist() == [0, 1]
    assert summary["remaining_weights"].tolist() == [1000, 500]
    assert math.isnan(summary["early_stop_test_accuracy_mean"][1])


def test_every_run_diverged():
    summary = summarise(rows([(0, 0, 0, math.nan, "diverged"), (1, 0, 0, math.inf, "diverged")]))
    assert summary[["n", "runs", "diverged"]].to_numpy().tolist() == [[0, 0, 2]]


def test_one_trial_has_no_deviation():
    row = summarise(rows([(0, 0, 0, 0.9, "ok")])).iloc[0]
    assert row["n"] == 1
    assert math.isnan(row["early_stop_test_accuracy_std"])
    assert row["early_stop_test_accuracy_min"] == row["early_stop_test_accuracy_max"] == 0.9


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf])
def test_missing_and_infinite_values_are_skipped(missing):
    row = summarise(rows([(0, 0, 0, 0.9, "ok"), (1, 0, 0, missing, "ok")])).iloc[0]
    assert row["early_stop_test_accuracy_mean"] == 0.9
    assert row["early_stop_test_accuracy_max"] == 0.9


def test_levels_are_sorted_within_arms_and_arms_stay_in_order():
    values = [(0, 0, level, 0.9, "ok") for level in (2, 0, 1)]
    summary = summarise(pd.concat([rows(values, "b"), rows(values, "a"), rows([(1, 0, 0, 0.8, "ok")], "b")]))
    assert list(zip(summary["arm"], summary["level"], strict=True)) == [(a, n) for a in "ba" for n in (0, 1, 2)]


def test_missing_columns_and_no_rows_at_all():
    levels = rows([(0, 0, 0, 0.9, "ok")]).drop(columns=["status", "final_train_accuracy"])
    row = summarise(levels).iloc[0]
    assert row["n"] == 1
    assert math.isnan(row["final_train_accuracy_mean"])
    empty = summarise(levels.iloc[:0])
    assert empty.empty
    assert list(empty.columns) == list(summarise(levels).columns)


def test_the_table_given_is_left_as_it_was():
    levels = rows([(0, 0, 0, 0.9, "ok"), (1, 0, 0, math.inf, "ok")])
    before = levels.copy()
    summarise(levels)
    pd.testing.assert_frame_equal(levels, before)


@pytest.mark.parametrize("seed", range(5))
def test_against_an_independent_computation(seed):
    generator = np.random.default_rng(seed)
    rows_ = []
    for arm in ("ticket", "reinit", "own"):
        for trial in range(4):
            for level in range(5):
                for repeat in range(3 if arm == "reinit" and level else 1):
                    if generator.random() < 0.1:
                        continue  # a study that was interrupted
                    place = {"study": "s", "arm": arm, "trial": trial, "repeat": repeat, "level": level}
                    values = {m: generator.random() if generator.random() > 0.1 else math.nan for m in measures_of()}
                    sizes = {"density": 0.8**level, "remaining_weights": round(1000 * 0.8**level)}
                    status = "diverged" if generator.random() < 0.1 else "ok"
                    rows_.append({**place, **values, **sizes, "status": status})
    levels = pd.DataFrame(rows_).sample(frac=1, random_state=seed)
    for found in summarise(levels).to_dict("records"):
        cell = [r for r in rows_ if (r["arm"], r["level"]) == (found["arm"], found["level"])]
        sound = [r for r in cell if r["status"] == "ok"]
        assert found["diverged"] == len(cell) - len(sound)
        assert found["runs"] == len(sound)
        assert found["n"] == len({r["trial"] for r in sound})
        for measure in measures_of():
            by_trial: dict[int, list[float]] = {}
            for r in sound:
                if not math.isnan(r[measure]):
                    by_trial.setdefault(r["trial"], []).append(r[measure])
            means = [sum(values) / len(values) for values in by_trial.values()]
            everything = [value for values in by_trial.values() for value in values]
            expected = {
                "mean": np.mean(means) if means else math.nan,
                "std": np.std(means, ddof=1) if len(means) > 1 else math.nan,
                "min": min(everything, default=math.nan),
                "max": max(everything, default=math.nan),
            }
            got = {name: found[f"{measure}_{name}"] for name in expected}
            assert got == pytest.approx(expected, nan_ok=True)


def test_spread_groups_by_any_columns():
    curves = pd.DataFrame(
        {
            "level": [0, 0, 0, 1],
            "iteration": [100, 100, 200, 100],
            "trial": [0, 1, 0, 0],
            "test_accuracy": [0.5, 0.7, 0.8, 0.1],
        }
    )
    found = spread(curves, ["level", "iteration"], ["test_accuracy"])
    assert found["n"].tolist() == [2, 1, 1]
    assert found["test_accuracy_mean"].tolist() == pytest.approx([0.6, 0.8, 0.1])
