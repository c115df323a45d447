"""Intervals against SciPy by another road, and on tables whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from made_up_levels import levels_of
from scipy import stats

from tombola.analysis import break_down, level_statistics, measures_of, verdicts
from tombola.analysis.intervals import holm, means, t_tests
from tombola.errors import InputError


@pytest.fixture
def levels() -> pd.DataFrame:
    return levels_of({"ticket": ([0.981, 0.982], [3000, 2000]), "reinit": ([0.97, 0.96], [5000, 6000])})


def test_t_interval_against_the_formula(levels):
    table = level_statistics(levels, confidence=0.9)
    assert len(table) == 2 * 3 * len(measures_of())
    for row in table.to_dict("records"):
        cell = levels[(levels.arm == row["arm"]) & (levels.level == row["level"])][row["measure"]].to_numpy()
        n = len(cell)
        mean, half = cell.mean(), stats.t.ppf(0.95, n - 1) * cell.std(ddof=1) / math.sqrt(n)
        assert (row["n"], row["confidence"], row["method"]) == (5, 0.9, "t")
        assert [row[key] for key in ("mean", "low", "high")] == pytest.approx([mean, mean - half, mean + half])
        assert (row["min"], row["max"]) == (cell.min(), cell.max())
        assert row["density"] == pytest.approx(0.8 ** row["level"])


def test_bootstrap_is_scipys_and_each_cell_stands_alone(levels):
    table = level_statistics(levels, ["early_stop_iteration"], method="bootstrap")
    alone = level_statistics(levels[levels.arm == "reinit"], ["early_stop_iteration"], method="bootstrap")
    pd.testing.assert_frame_equal(table[table.arm == "reinit"].reset_index(drop=True), alone)
    cell = levels[(levels.arm == "ticket") & (levels.level == 2)]["early_stop_iteration"].to_numpy()
    expected = stats.bootstrap(
        (cell,), np.mean, n_resamples=10_000, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    row = table[(table.arm == "ticket") & (table.level == 2)].iloc[0]
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high))
    assert set(table["method"]) == {"bootstrap"}


@pytest.mark.parametrize("method", ["t", "bootstrap"])
def test_one_trial_gets_no_interval_and_equal_values_one_without_width(levels, method):
    one = level_statistics(levels[levels.trial == 0], method=method)
    assert one[["std", "low", "high"]].isna().all(axis=None)
    assert (one["n"] == 1).all()
    equal = level_statistics(levels, ["final_train_accuracy"], method=method)
    assert (equal[["mean", "low", "high"]] == 1.0).all(axis=None)
    assert (equal["std"] == 0).all()


def test_repeats_count_as_one_trial_and_diverged_runs_as_none(levels):
    repeated = levels[(levels.arm == "reinit") & (levels.level == 1)]
    more = pd.concat([levels, repeated.assign(repeat=1), repeated.assign(repeat=2, status="diverged")])
    row = level_statistics(more).query("arm == 'reinit' and level == 1")
    pd.testing.assert_frame_equal(
        row.reset_index(drop=True),
        level_statistics(levels).query("arm == 'reinit' and level == 1").reset_index(drop=True),
    )
    lost = level_statistics(levels.assign(status="diverged"))
    assert (lost["n"] == 0).all()
    assert lost[["mean", "low"]].isna().all(axis=None)


def test_studies_in_one_table_are_kept_apart(levels):
    both = pd.concat([levels, levels.assign(study="t", early_stop_iteration=1.0)])
    table = level_statistics(both, ["early_stop_iteration"])
    assert table["study"].tolist() == ["s"] * 6 + ["t"] * 6
    assert set(table[table.study == "t"]["mean"]) == {1.0}
    assert (table["n"] == 5).all()


def test_t_tests_and_holm_against_independent_computation():
    rng = np.random.default_rng(1)
    samples = [rng.normal(0.5, 1, n) for n in (5, 3, 5, 2)] + [np.ones(3), np.ones(1), np.empty(0)]
    p = t_tests(samples, -0.2, "greater")
    for sample, value in zip(samples[:4], p[:4], strict=True):
        t = (sample.mean() + 0.2) / (sample.std(ddof=1) / math.sqrt(len(sample)))
        assert value == pytest.approx(stats.t.sf(t, len(sample) - 1))
    assert np.isnan(p[4:]).all()

    found = holm(np.array([0.01, np.nan, 0.04, 0.03]))
    assert found[[0, 2, 3]] == pytest.approx([0.03, 0.06, 0.06])  # 3 x 0.01; 2 x 0.03; not below the one before
    assert math.isnan(found[1])
    assert np.isnan(holm(np.array([np.nan]))).all()


def test_values_equal_up_to_rounding_do_not_vary():
    found = means([np.array([0.1 + 0.2, 0.3, 0.3])])
    assert found.low == pytest.approx(found.high)
    assert found.std == 0


@pytest.mark.parametrize("confidence", [0, 1, -1, 95, math.nan])
def test_confidence_must_be_a_probability(levels, confidence):
    with pytest.raises(InputError, match=r"confidence=.* between 0 and 1"):
        level_statistics(levels, confidence=confidence)


def test_an_unknown_method(levels):
    with pytest.raises(InputError, match="unknown method 'magic'"):
        level_statistics(levels, method="magic")


def test_studies_that_have_hardly_begun(levels):
    none, dense = levels.iloc[:0], levels[levels.level == 0]
    assert level_statistics(none).empty
    assert list(level_statistics(none)) == list(level_statistics(levels))
    for each in (none, dense):
        assert verdicts(each).empty
        assert break_down(each).empty
        assert list(verdicts(each)) == list(verdicts(levels))
    assert (level_statistics(dense)["level"] == 0).all()
