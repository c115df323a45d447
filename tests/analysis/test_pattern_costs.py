"""What patterns cost: one study with arms of several patterns, compared at equal density."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel

import tombola
from tombola.analysis import pattern_costs
from tombola.errors import InputError
from tombola.html.write import write_report
from tombola.pruning.patterns import Pattern
from tombola.studies.plan import make_plan

FINE = {"n": 1, "m": 4}
ARMS = [
    "ticket",
    {"rule": "ticket", "pattern": FINE},
    {"rule": "ticket", "pattern": {"block": [4, 1]}},
    {"rule": "ticket", "pattern": "channel", "name": "units"},
    {"rule": "random-mask", "pattern": FINE},
]
SETTINGS = {
    "training.iterations": 40,
    "training.evaluate_every": 20,
    "pruning": {"criterion": "magnitude", "densities": [0.5, 0.25, 0.2], "scope": "global"},
}


def study(**more):
    return tombola.Study.load("demo", **{**SETTINGS, "trials": 2, "arms": ARMS, **more})


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("patterns") / "results"
    return tombola.run(study(), folder, workers=0, engine="dense", figures=False, quiet=True)


def test_an_arm_s_work_is_that_of_a_study_with_the_pattern():
    ours = make_plan(study())
    for label, pattern in (("ticket-1:4", FINE), ("units", "channel"), ("random-mask-1:4", FINE)):
        rule = "random-mask" if label.startswith("random") else "ticket"
        rounds = 2 if pattern is FINE else 3
        pruning = {**SETTINGS["pruning"], "densities": SETTINGS["pruning"]["densities"][:rounds], "pattern": pattern}
        alone = make_plan(study(arms=[rule], pruning=pruning))
        mine = {(row.trial, row.level): row.job for row in ours.rows if row.arm == label}
        assert mine == {(row.trial, row.level): row.job for row in alone.rows}


def test_masks_have_the_pattern_of_their_arm(results):
    for label, pattern, level in (("ticket-1:4", Pattern(**FINE), 2), ("random-mask-1:4", Pattern(**FINE), 2)):
        for name, keep in results.ticket(1, level, label).mask.items():
            groups = pattern.groups(keep.shape).flatten()
            kept = np.bincount(groups[keep.flatten()].numpy(), minlength=int(groups.max()) + 1)
            assert (kept == 1).all(), name
    units = results.ticket(0, 2, "units").mask
    assert all(keep.any(1).sum() * keep.shape[1] == keep.sum() for keep in units.values())
    plain = results.ticket(0, 2, "ticket").mask
    assert any(keep.any(1).sum() * keep.shape[1] != keep.sum() for keep in plain.values())


def test_costs_are_paired_differences_at_equal_density(results):
    found = pattern_costs(results).set_index(["arm", "level"])
    assert set(found.index.get_level_values("arm")) == {"ticket-1:4", "ticket-block-4x1", "units"}  # no plain control
    assert [level for arm, level in found.index if arm == "ticket-1:4"] == [2]
    assert (found["baseline"] == "ticket").all()
    assert (abs(found["density"] / found["baseline_density"] - 1) <= 0.05).all()
    frame = results.frame()
    wide = frame.pivot(index=["level", "trial"], columns="arm", values="early_stop_test_accuracy")
    row, values = found.loc["ticket-1:4", 2], wide.loc[2]
    difference = 100 * (values["ticket-1:4"] - values["ticket"])
    assert row["mean"] == pytest.approx(difference.mean())
    test = ttest_rel(100 * values["ticket-1:4"], 100 * values["ticket"])
    interval = test.confidence_interval(0.95)
    assert (row["p"], row["low"], row["high"]) == pytest.approx((test.pvalue, interval.low, interval.high))
    assert row["n"] == 2


@pytest.mark.parametrize("points", [0.1, 10.0, 99.0])
def test_verdicts_follow_the_interval(points, results):
    found = pattern_costs(results, margin=points / 100)
    for row in found.to_dict("records"):
        expected = "no cost" if row["low"] > -points else "costs" if row["high"] < 0 else "inconclusive"
        assert row["verdict"] == expected


def test_one_trial_is_inconclusive(results):
    levels = results.frame()
    found = pattern_costs(results, levels=levels[levels["trial"] == 0])
    assert set(found["verdict"]) == {"inconclusive"}
    assert found["p"].isna().all()


def test_the_report_has_the_table(results, tmp_path):
    text = write_report(results, tmp_path / "page.html").read_text("utf-8")
    section = text.partition('<section id="patterns"')[2].partition("</section>")[0]
    assert "block-4x1" in section
    assert "95 % interval" in section
    assert section.count('<th scope="row">') == len(pattern_costs(results))


def test_a_study_without_patterns_has_nothing_to_compare(results):
    assert pattern_costs(tombola.Results(make_plan(study(arms=["ticket"])), results.store)).empty


def test_an_arm_that_can_not_have_a_pattern_is_named():
    with pytest.raises(InputError, match="arms: pattern of 'random-1:4': the method random-uniform can't follow"):
        make_plan(study(arms=[{"rule": "random", "pattern": FINE}]))
    little = {"criterion": "magnitude", "rate": 0.01, "rounds": 1}
    with pytest.raises(InputError, match=r"ticket-block-400x400.*round 1 would remove nothing"):
        make_plan(study(pruning=little, arms=[{"rule": "ticket", "pattern": {"block": [400, 400]}}]))


def test_an_arm_that_reaches_its_pattern_early_ends_there():
    plan = make_plan(study(arms=["ticket", {"rule": "ticket", "pattern": {"n": 7, "m": 8}}]))
    assert {row.level for row in plan.rows if row.arm == "ticket-7:8"} == {0, 1}
    assert {row.level for row in plan.rows if row.arm == "ticket"} == {0, 1, 2, 3}
