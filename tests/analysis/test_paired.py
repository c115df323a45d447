"""Paired differences against SciPy's paired test, and where there is nothing to test."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up_levels import levels_of
from scipy import stats

from tombola.analysis import paired_differences
from tombola.errors import InputError


@pytest.fixture
def levels() -> pd.DataFrame:
    return levels_of(
        {"ticket": ([0.981, 0.982, 0.98], [3000, 2000, 4000]), "reinit": ([0.97, 0.96, 0.95], [5000, 6000, 7000])}
    )


def column(levels: pd.DataFrame, arm: str, level: int, measure: str) -> np.ndarray:
    return levels[(levels.arm == arm) & (levels.level == level)].sort_values("trial")[measure].to_numpy()


@pytest.mark.parametrize(("measure", "scale"), [("final_test_accuracy", 100), ("early_stop_iteration", 1)])
@pytest.mark.parametrize("baseline", ["reinit", "dense"])
def test_against_scipys_paired_test(levels, measure, scale, baseline):
    table = paired_differences(levels.sample(frac=1, random_state=0), "ticket", baseline, measure, confidence=0.9)
    assert table["level"].tolist() == [1, 2, 3]
    p = []
    for row in table.to_dict("records"):
        mine = scale * column(levels, "ticket", row["level"], measure)
        other = ("ticket", 0) if baseline == "dense" else (baseline, row["level"])
        test = stats.ttest_rel(mine, scale * column(levels, *other, measure))
        interval = test.confidence_interval(0.9)
        assert row["unit"] == ("points" if scale == 100 else "iterations")
        found = [row[key] for key in ("n", "mean", "low", "high", "p")]
        difference = (mine - scale * column(levels, *other, measure)).mean()
        assert found == pytest.approx([5, difference, interval.low, interval.high, test.pvalue], rel=1e-6)
        p.append(test.pvalue)
    ranked = np.sort(p)
    assert table["p_holm"].min() == pytest.approx(min(1.0, 3 * ranked[0]))
    assert (table["p_holm"] >= table["p"]).all()


def test_pairs_are_of_the_same_trial(levels):
    """A part of each trial that both arms share must not widen the interval."""
    shared = levels["trial"].map({0: 0.0, 1: 0.01, 2: -0.02, 3: 0.015, 4: -0.005})
    moved = levels.assign(early_stop_test_accuracy=levels.early_stop_test_accuracy + shared)
    for baseline in ("reinit", "dense"):
        before, after = (
            paired_differences(each, "ticket", baseline, "early_stop_test_accuracy") for each in (levels, moved)
        )
        pd.testing.assert_frame_equal(before, after, rtol=1e-6)


def test_only_trials_that_have_both_are_compared(levels):
    gone = (levels.arm == "ticket") & (levels.level == 1) & (levels.trial == 0)
    diverged = (levels.arm == "reinit") & (levels.level == 1) & (levels.trial == 1)
    some = levels.assign(status=np.where(diverged, "diverged", "ok"))[~gone]
    table = paired_differences(some, "ticket", "reinit", "early_stop_iteration")
    assert table["n"].tolist() == [3, 5, 5]


def test_repeats_of_a_trial_are_averaged(levels):
    repeats = levels[(levels.arm == "reinit") & (levels.level > 0)].assign(repeat=1)
    repeats["early_stop_iteration"] += 100
    table = paired_differences(pd.concat([levels, repeats]), "ticket", "reinit", "early_stop_iteration")
    single = paired_differences(levels, "ticket", "reinit", "early_stop_iteration")
    assert table["n"].tolist() == [5, 5, 5]
    assert table["mean"].to_numpy() == pytest.approx(single["mean"].to_numpy() - 50)


def test_one_trial_has_a_mean_and_nothing_else(levels):
    table = paired_differences(levels[levels.trial == 2], "ticket", "dense", "early_stop_iteration")
    assert table["mean"].notna().all()
    assert table[["low", "high", "p", "p_holm"]].isna().all(axis=None)


@pytest.mark.parametrize("measure", ["final_train_accuracy", "early_stop_test_accuracy"])
def test_equal_differences_neither_warn_nor_pass_for_evidence(measure):
    levels = levels_of({"ticket": ([0.99], [3000])}, noise=(0.0, 0.0))
    levels.loc[levels.trial == 0, "early_stop_test_accuracy"] += 0.003  # shifts both: the difference stays 0.01
    row = paired_differences(levels, "ticket", "dense", measure).iloc[0]
    assert row["low"] == row["high"] == row["mean"] == pytest.approx(0 if measure.startswith("final") else 1)
    assert np.isnan(row["p"])


def test_studies_are_tested_apart_and_those_without_the_arm_left_out(levels):
    other = levels[levels.arm == "reinit"].assign(study="other")
    table = paired_differences(pd.concat([other, levels]), "ticket", "dense", "early_stop_iteration")
    assert set(table["study"]) == {"s"}
    both = pd.concat([levels, levels.assign(study="t")])
    table = paired_differences(both, "ticket", "reinit", "early_stop_iteration")
    single = paired_differences(levels, "ticket", "reinit", "early_stop_iteration")
    pd.testing.assert_frame_equal(table[table.study == "s"], single)
    assert table["study"].tolist() == ["s"] * 3 + ["t"] * 3


def test_what_is_unknown_is_named(levels):
    with pytest.raises(InputError, match="no arm 'tickt'; did you mean 'ticket'"):
        paired_differences(levels, "tickt", "dense", "early_stop_iteration")
    with pytest.raises(InputError, match="no arm 'random-mask'"):
        paired_differences(levels, "ticket", "random-mask", "early_stop_iteration")
    with pytest.raises(InputError, match="unknown measure 'accuracy'"):
        paired_differences(levels, "ticket", "dense", "accuracy")
