"""Verdicts on networks of which it is known what they are, and how often they are wrong of noise."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from made_up_levels import levels_of

from tombola.analysis import break_down, verdicts
from tombola.analysis.break_down import break_downs
from tombola.errors import InputError


def one(accuracy: float, iteration: float, **settings) -> pd.Series:
    """Return the verdict on a single level."""
    table = verdicts(levels_of({"ticket": ([accuracy], [iteration])}, **settings))
    assert len(table) == 1
    return table.iloc[0]


@pytest.mark.parametrize(
    ("accuracy", "iteration", "verdict"),
    [
        (0.985, 3000, "winning ticket"),
        (0.9805, 2000, "winning ticket"),
        (0.985, 5000, "matching"),  # as accurate, but later
        (0.985, 4000, "matching"),  # as accurate, not shown to be earlier
        (0.97, 2000, "losing"),  # however early
        (0.97, 6000, "losing"),
        (0.979, 2000, "inconclusive"),  # exactly at the margin
    ],
)
def test_known_networks(accuracy, iteration, verdict):
    row = one(accuracy, iteration)
    assert row["verdict"] == verdict
    assert row["n"] == 5
    assert f"{row['accuracy_difference']:+.2f} points" in row["reason"]


def test_the_words_and_the_numbers_agree():
    row = one(0.985, 3000)
    assert row["accuracy_difference_low"] > -0.1
    assert row["iteration_difference_high"] <= 0
    for number in ("accuracy_difference_low", "accuracy_difference_high"):
        assert f"{row[number]:+.2f}" in row["reason"]
    assert f"{row['iteration_difference_high']:+,.0f}" in row["reason"]
    assert "n = 5" in row["reason"]
    assert "0.1 points" in row["reason"]


def test_one_trial_is_never_conclusive():
    row = one(0.99, 10, trials=1)
    assert row["verdict"] == "inconclusive"
    assert "one trial shows no variation" in row["reason"]
    assert math.isnan(row["accuracy_difference_low"])


def test_noise_is_inconclusive():
    assert one(0.98, 4000, noise=(0.01, 2000.0))["verdict"] == "inconclusive"


def test_the_margin_decides():
    levels = levels_of({"ticket": ([0.978], [3000])}, noise=(0.0001, 10.0))
    assert verdicts(levels, margin=0.001)["verdict"].item() == "losing"
    assert verdicts(levels, margin=0.003)["verdict"].item() == "winning ticket"
    assert verdicts(levels, margin=0.002)["verdict"].item() == "inconclusive"
    with pytest.raises(InputError, match="margin=-1"):
        verdicts(levels, margin=-1)


def test_a_diverged_run_forbids_praise_but_not_blame():
    good = levels_of({"ticket": ([0.99, 0.95], [3000, 3000])})
    lost = good.assign(status=np.where((good.level > 0) & (good.trial == 0), "diverged", "ok"))
    table = verdicts(lost)
    assert table["verdict"].tolist() == ["inconclusive", "losing"]
    assert "diverged" in table["reason"][0]
    nothing = good.assign(status=np.where(good.level > 0, "diverged", "ok"))
    assert verdicts(nothing)["verdict"].tolist() == ["inconclusive"] * 2
    assert "5 runs of this level diverged" in verdicts(nothing)["reason"][0]


def test_a_diverged_dense_run_forbids_praise_too():
    good = levels_of({"ticket": ([0.99, 0.95], [3000, 3000])})
    table = verdicts(good.assign(status=np.where((good.level == 0) & (good.trial == 0), "diverged", "ok")))
    assert table["verdict"].tolist() == ["inconclusive", "losing"]
    assert "the dense network diverged in 1 trial: the remaining 4 trials" in table["reason"][0]


def test_n_is_that_of_the_measure_with_fewer_trials():
    levels = levels_of({"ticket": ([0.99], [3000])})
    for measure, left in (("early_stop_iteration", 4), ("early_stop_test_accuracy", 3)):
        levels.loc[(levels.level == 1) & (levels.trial >= left), measure] = math.nan
        assert verdicts(levels)["n"].item() == left


def test_the_same_difference_in_all_trials_is_no_evidence():
    """Coarse evaluation makes such ties: they must not pass for certainty."""
    row = one(0.99, 3000, noise=(0.0, 0.0))
    assert row["verdict"] == "inconclusive"
    levels = levels_of({"ticket": ([0.985], [0])}).assign(early_stop_iteration=lambda t: 4000 - 1000 * t.level)
    row = verdicts(levels).iloc[0]
    assert row["verdict"] == "matching"
    assert "-1,000 iterations in all 5 trials" in row["reason"]


def test_arms_and_studies_in_their_order():
    levels = levels_of({"b": ([0.99, 0.95], [3000, 3000]), "a": ([0.95, 0.99], [3000, 3000])})
    table = verdicts(pd.concat([levels.assign(study="z"), levels]).sample(frac=1, random_state=3).sort_values("study"))
    assert table["study"].tolist() == ["s"] * 4 + ["z"] * 4
    found = {(row.study, row.arm, row.level): row.verdict for row in table.itertuples()}
    for study in "sz":
        assert found[study, "b", 1] == found[study, "a", 2] == "winning ticket"
        assert found[study, "b", 2] == found[study, "a", 1] == "losing"


@pytest.mark.parametrize(("gain", "sooner"), [(-0.001, 0.5), (0.005, 1.0)], ids=["at the margin", "no earlier"])
def test_the_false_positive_rate_is_nominal(gain, sooner):
    """At both edges of what is not a winning ticket. The full figure: benchmarks/verdict_calibration.py."""
    rng = np.random.default_rng(5)
    studies, trials, width = 250, 5, 9
    study, trial, level = (axis.ravel() for axis in np.indices((studies, trials, width)))
    sparse = level > 0
    levels = pd.DataFrame({"study": study, "arm": "ticket", "trial": trial, "level": level, "density": 0.8**level})
    levels["early_stop_test_accuracy"] = 0.97 + gain * sparse + rng.normal(0, 0.0015, len(study))
    levels["early_stop_iteration"] = 4000 * np.where(sparse, sooner, 1) + rng.normal(0, 300, len(study))
    table = verdicts(levels)
    wrong = table["verdict"] == "winning ticket"
    nominal = 0.025
    error = wrong.groupby(table["study"]).mean().std() / studies**0.5
    assert nominal / 4 < wrong.mean() < nominal + 3 * error
    standing = (wrong & (table["p_holm"] <= nominal)).groupby(table["study"]).any()
    assert standing.mean() < nominal + 3 * (nominal / studies) ** 0.5


def test_break_down_density_of_known_curves():
    ok, bad = 0.98, 0.95
    curves = {
        "late": [ok, ok, ok, bad, bad],
        "dip": [ok, bad, ok, ok, bad],  # one bad level between good ones is forgiven, the last one is not
        "never": [ok] * 5,
        "at once": [bad] * 5,
    }
    levels = levels_of({arm: (values, [1000] * 5) for arm, values in curves.items()}, noise=(0.0, 0.0))
    table = break_down(levels).set_index("arm")
    assert table.loc["late", "density"] == pytest.approx(0.8**3)
    assert table.loc["dip", "density"] == pytest.approx(0.8**4)
    assert table.loc["at once", "density"] == pytest.approx(1.0)
    assert table.loc["never", ["density", "censored"]].tolist() == pytest.approx([0.8**5, 5])
    assert math.isnan(table.loc["never", "low"])
    assert table.loc["late", ["n", "censored"]].tolist() == [5, 0]
    assert math.isnan(table.loc["late", "low"])  # the same in all trials


def test_break_down_intervals_are_of_logarithms():
    table = levels_of({"ticket": ([0.98] * 5, [1000] * 5)}, trials=3, noise=(0.0, 0.0))
    for trial, last in enumerate((1, 2, 3)):
        table.loc[(table.trial == trial) & (table.level > last), "early_stop_test_accuracy"] = 0.9
    row = break_down(table).iloc[0]
    half = (
        4.302653 * abs(math.log(0.8)) / math.sqrt(3)
    )  # Student's t for 2 degrees of freedom; the deviation is one level
    assert row["density"] == pytest.approx(0.8**2)
    assert row[["first", "last"]].tolist() == pytest.approx([0.8, 0.8**3])
    assert row["low"] == pytest.approx(0.8**2 * math.exp(-half))
    assert row["high"] == pytest.approx(min(1.0, 0.8**2 * math.exp(half)))


def test_break_down_with_margin_divergence_and_missing_dense_run():
    table = levels_of({"ticket": ([0.98, 0.979, 0.979], [1000] * 3)}, trials=2, noise=(0.0, 0.0))
    assert break_down(table, margin=0.001)["censored"].item() == 2  # a loss of exactly the margin is none
    assert break_down(table, margin=0.0005)["density"].item() == pytest.approx(0.8)
    lost = table.assign(status=np.where(table.level > 1, "diverged", "ok"))
    lost.loc[lost.level > 1, "early_stop_test_accuracy"] = math.nan
    assert break_downs(lost)["density"].tolist() == pytest.approx([0.8, 0.8])
    assert break_down(table[(table.level > 0) | (table.trial == 0)])["n"].item() == 1
    with pytest.raises(InputError, match="margin=2"):
        break_down(table, margin=2)
