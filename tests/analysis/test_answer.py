"""The short answer: which level it names, what it rests on, and what it may not claim."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from tombola.analysis.answer import answer_of
from tombola.analysis.paired import paired_gains
from tombola.analysis.rewinds import later_helps, later_rewinds
from tombola.analysis.roles import main_arm_of, role_of, split
from tombola.analysis.verdicts import verdicts

DENSITIES = [1.0, 0.5, 0.25, 0.1]
NOISE = [0.0, 0.0002, -0.0002, 0.0001, -0.0001]
ACCURACY = "early_stop_test_accuracy"


def study(gains, stops, arm="ticket", trials=5, metric=None):
    """Return levels whose trials differ from dense by `gains` and `stops` (one for each level), with some noise."""
    generator, rows = np.random.default_rng(0), []
    for trial in range(trials):
        for level, density in enumerate(DENSITIES):
            gain, stop = (0.0, 0.0) if level == 0 else (gains[level - 1], stops[level - 1])
            noise = NOISE[trial] + (0.0 if level == 0 else 0.0001 * generator.standard_normal())
            stop += 0.0 if level == 0 else 5 * generator.standard_normal()
            rows.append(
                {
                    "study": "s", "arm": arm, "trial": trial, "repeat": 0, "level": level, "density": density,
                    "remaining_weights": round(1000 * density), "early_stop_iteration": 1000.0 + 10 * trial + stop,
                    ACCURACY: 0.97 + gain + noise, "final_test_accuracy": 0.97, "final_train_accuracy": 1.0,
                    "status": "ok",
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


CASES = {
    "winning": ([0.01, 0.01, -0.05], [-300, -300, -300], 2),
    "matching": ([0.01, 0.01, -0.05], [300, 300, 300], 2),
    "losing": ([-0.03, -0.01, -0.05], [0, 0, 0], 2),
}


@pytest.mark.parametrize("kind", CASES)
def test_the_answer_is_the_sparsest_level_with_that_verdict(kind):
    gains, stops, level = CASES[kind]
    levels = study(gains, stops)
    answer = answer_of(levels)
    assert (answer.kind, answer.arm, answer.levels) == (kind, "ticket", 3)
    row = verdicts(levels).set_index("level").loc[level]
    assert answer.at is not None
    assert (answer.at.level, answer.at.verdict, answer.at.reason) == (level, row["verdict"], row["reason"])
    assert answer.at.difference == row["accuracy_difference"]
    assert answer.at.dense == pytest.approx(100 * levels[levels["level"] == 0][ACCURACY].mean())
    assert (answer.at.stop_low, answer.at.stop_high) == tuple(
        row[["iteration_difference_low", "iteration_difference_high"]]
    )
    assert answer.at.dense_stop == pytest.approx(1020)


def test_levels_that_no_interval_decides_are_no_ticket():
    levels = study([0.0, 0.0, -0.05], [-300] * 3)
    wide = levels["trial"].map(dict(enumerate([0.01, -0.01, 0.008, -0.008, 0.0])))
    levels.loc[levels["level"] > 0, ACCURACY] += wide[levels["level"] > 0]
    answer = answer_of(levels)
    assert answer.kind == "undecided"
    assert answer.at is not None
    assert answer.at.level in (1, 2)


def test_a_sparser_matching_level_is_told_beside_a_winning_one():
    answer = answer_of(study([0.01, 0.01, 0.01], [-300, -300, 300]))
    assert (answer.kind, answer.at.level, answer.sparser.level) == ("winning", 2, 3)
    assert answer_of(study([0.01, 0.01, 0.01], [300, -300, -300])).sparser is None  # it is denser


def test_one_trial_is_described_and_proves_nothing():
    good = answer_of(study([0.01, 0.0, -0.02], [0, 0, 0], trials=1))
    assert (good.kind, good.at.level) == ("one trial", 2)
    assert math.isnan(good.at.low)
    bad = answer_of(study([-0.03, -0.01, -0.02], [0, 0, 0], trials=1))
    assert (bad.kind, bad.at.level) == ("one trial, none", 2)


def test_nothing_to_compare():
    levels = study([0.01] * 3, [0] * 3)
    assert answer_of(levels.iloc[:0], missing=4).kind == "no runs"
    assert answer_of(levels[levels["level"] == 0]).kind == "no pair"
    measures = [ACCURACY, "early_stop_iteration", "final_test_accuracy", "final_train_accuracy"]
    lost = levels.assign(status="diverged", **dict.fromkeys(measures, math.nan))
    answer = answer_of(lost)
    assert (answer.kind, answer.diverged) == ("all diverged", 20)


def test_a_dense_run_that_several_arms_show_diverged_once():
    levels = pd.concat([study([0.01] * 3, [0] * 3), study([0.01] * 3, [0] * 3, arm="reinit")])
    first = (levels["level"] == 0) & (levels["trial"] == 1)
    levels.loc[first, "status"] = "diverged"
    assert answer_of(levels).diverged == 1


def test_dense_runs_of_two_arms_count_as_two():
    other = study([0.01] * 3, [0] * 3, arm="reinit")
    levels = pd.concat([study([0.01] * 3, [0] * 3), other.assign(**{ACCURACY: other[ACCURACY] + 0.01})])
    levels.loc[(levels["level"] == 0) & (levels["trial"] == 1), "status"] = "diverged"
    assert answer_of(levels).diverged == 2


def test_the_metric_and_its_direction_decide():
    levels = study([0.01, 0.01, 0.01], [-300] * 3)
    names = {name: name.replace("accuracy", "rmse") for name in levels}
    levels = levels.rename(columns=names).assign(metric="rmse", metric_better="lower", metric_unit="kW")
    answer = answer_of(levels)
    assert answer.kind == "losing"  # a larger error is worse
    assert answer.at.difference > 0


def test_an_arm_of_dense_networks_alone_is_not_what_a_study_is_about():
    rows = pd.DataFrame({"arm": ["dense", "lottery", "lottery", "other"], "level": [0, 1, 2, 1]})
    assert main_arm_of(rows) == "lottery"
    assert main_arm_of(rows.iloc[:1]) == "dense"


@pytest.mark.parametrize(
    ("arm", "role"),
    [("ticket@100", "rewind"), ("late-reinit@100", "rewind"), ("late-reinit@0", "control"), ("snip", "other"),
     ("snip-shuffled", "control"), ("random-mask", "control"), ("mine@home", "other"), ("mine", "other")],
)  # fmt: skip
def test_roles(arm, role):
    assert role_of(arm, "ticket@0") == role


def test_the_study_knows_its_controls_better_than_names_do():
    assert role_of("mine@0", "ticket@0", {"mine"}) == "control"
    assert role_of("reinit", "ticket", {"mine"}) == "other"
    assert split("me@home") == ("me@home", None)
    assert split("@5") == ("@5", None)


def rewound(gain):
    pieces = [study([0.0, 0.0, 0.0], [0, 0, 0], arm="ticket@0")]
    for seed, (arm, more) in enumerate({"ticket@100": 0.0, "ticket@500": gain}.items()):
        piece = study([more] * 3, [0, 0, 0], arm=arm)
        piece.loc[piece["level"] > 0, ACCURACY] += np.random.default_rng(seed).normal(0, 0.0003, 15)
        pieces.append(piece)
    return pd.concat([*pieces, study([-0.1] * 3, [0] * 3, arm="late-reinit@0")], ignore_index=True)


def test_later_rewinds_are_compared_with_the_first_and_corrected_together():
    levels = rewound(0.01)
    found = later_rewinds(levels, "ticket@0")
    assert list(dict.fromkeys(found["arm"])) == ["ticket@100", "ticket@500"]
    assert set(found["baseline"]) == {"ticket@0"}
    alone = paired_gains(levels, "ticket@500", "ticket@0", ACCURACY)
    mine = found[found["arm"] == "ticket@500"].reset_index(drop=True)
    pd.testing.assert_frame_equal(mine.drop(columns="p_holm"), alone.drop(columns="p_holm"))
    assert (mine["p_holm"] >= alone["p_holm"]).all()  # of six comparisons, not of three
    assert later_helps(found) is True
    assert answer_of(levels).later_helps is True
    assert answer_of(rewound(-0.01)).later_helps is False
    assert answer_of(levels[levels["arm"] != "late-reinit@0"].query("arm == 'ticket@0'")).later_helps is None
