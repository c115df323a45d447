"""Tables that lack runs, trials or common ground: no number may pretend that they are whole."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from made_up_levels import levels_of

from tombola.analysis import barrier_statistics, barriers, break_down, paired_differences, verdicts
from tombola.analysis.answer import answer_of
from tombola.analysis.break_down import break_downs
from tombola.analysis.claims import Claim, evaluate
from tombola.analysis.paired import at_equal_density, paired_gains
from tombola.analysis.patterns import _verdict as cost_of_a_pattern
from tombola.analysis.power import trials_needed
from tombola.analysis.rewinds import later_helps, later_rewinds
from tombola.analysis.roles import role_of
from tombola.analysis.schema import checked
from tombola.analysis.summary import summarise
from tombola.analysis.transfers import OPEN, transfers
from tombola.errors import InputError
from tombola.figures.axes import bar_ends
from tombola.figures.ending import ending
from tombola.figures.text_chart import text_chart
from tombola.html.render import _verdict_rows
from tombola.tasks.metric import ACCURACY

GOOD = ([0.985, 0.985, 0.985], [3000, 3000, 3000])
QUIET = (0.0001, 10.0)


def outcome(levels: pd.DataFrame, expression: str, **fields: object):
    fields = {"id": "c", "source": "s", "sentence": "s", "expression": expression, **fields}
    return evaluate(levels, [Claim.model_validate(fields)])[0]


def without_survivors(levels: pd.DataFrame, status: str, arm: str = "ticket") -> pd.DataFrame:
    """Three of five trials of an arm end at level 2."""
    ill = (levels["arm"] == arm) & (levels["trial"] < 3)
    levels = levels[~(ill & (levels["level"] > 2))].copy()
    at_end = (levels["arm"] == arm) & (levels["trial"] < 3) & (levels["level"] == 2)
    levels.loc[at_end, "status"] = status
    levels.loc[at_end, "early_stop_test_accuracy"] = np.nan if status == "diverged" else 0.11
    return levels


@pytest.mark.parametrize("status", ["diverged", "ok"])
def test_levels_behind_the_end_of_some_trials_win_nothing(status):
    levels = without_survivors(levels_of({"ticket": GOOD}, noise=QUIET), status)
    found = verdicts(levels).set_index("level")
    assert list(found["verdict"]) == ["winning ticket", "inconclusive", "inconclusive"]
    assert found.loc[3, "n"] == 2
    assert "3 trials of the arm ended before this level" in found.loc[3, "reason"]
    assert answer_of(levels).at.level == 1
    worse = levels.assign(early_stop_test_accuracy=levels["early_stop_test_accuracy"] - 0.05 * (levels["level"] == 3))
    assert verdicts(worse).set_index("level").loc[3, "verdict"] == "losing"


def test_a_trial_that_begins_at_a_later_level_is_not_lost():
    levels = levels_of({"ticket": GOOD}, noise=QUIET)
    late = levels[~((levels["trial"] == 0) & (levels["level"] == 1))]
    assert list(verdicts(late)["verdict"]) == 3 * ["winning ticket"]


def test_transferred_tickets_of_lucky_trials_are_not_as_good():
    levels = levels_of({"ticket": GOOD, "far": GOOD, "random-mask": ([0.9] * 3, [3000] * 3)}, noise=QUIET)
    sources = {("s", "far"): ("elsewhere", "mask")}
    whole = transfers(levels, sources).set_index("level")
    assert whole["over_random"].all()
    found = transfers(without_survivors(levels, "diverged", "far"), sources).set_index("level")
    assert list(found["verdict"][1:]) == [OPEN, OPEN]
    assert list(found["over_random"]) == [True, False, False]


def test_a_pattern_without_variation_or_with_lost_runs_is_not_shown_to_cost_nothing():
    assert cost_of_a_pattern(-0.05, 0.2, 0.1, lost=False) == "no cost"
    assert cost_of_a_pattern(-0.05, 0.2, 0.1, lost=True) == "inconclusive"
    assert cost_of_a_pattern(-0.5, -0.2, 0.1, lost=True) == "costs"
    assert cost_of_a_pattern(0.0, 0.0, 0.1, lost=False) == "inconclusive"
    assert cost_of_a_pattern(-1.0, -1.0, 0.1, lost=False) == "inconclusive"


def two_dense_networks() -> pd.DataFrame:
    levels = levels_of({"adam": ([0.975], [3000]), "sgd": ([0.975], [3000])}, noise=QUIET)
    worse = (levels["arm"] == "sgd") & (levels["level"] == 0)
    levels.loc[worse, "early_stop_test_accuracy"] -= 0.02
    return checked(levels)


def test_each_arm_is_compared_with_its_own_dense_network():
    levels = two_dense_networks()
    found = verdicts(levels).set_index("arm")["accuracy_difference"]
    assert found["adam"] == pytest.approx(-0.5, abs=0.05)
    assert found["sgd"] == pytest.approx(1.5, abs=0.05)
    assert outcome(levels, 'gain("adam", 0.8)', expected=-0.5, tolerance=0.1).outcome == "reproduced"
    assert break_down(levels).set_index("arm")["density"].to_dict() == pytest.approx({"adam": 1.0, "sgd": 0.8})
    assert answer_of(levels[levels["arm"] == "sgd"]).at.dense == pytest.approx(96, abs=0.05)
    lacking = levels[~((levels["arm"] == "adam") & (levels["level"] == 0))]  # then it is that of the others
    assert verdicts(lacking).set_index("arm")["accuracy_difference"]["adam"] == pytest.approx(1.5, abs=0.05)


def test_a_claim_never_compares_the_dense_network_with_itself():
    levels = levels_of({"ticket": ([0.95, 0.95], [3000, 3000])}, noise=QUIET)
    found = outcome(levels, 'gain("ticket", 0.95)', expected=0, tolerance=0.3)
    assert found.outcome == "not measured"
    assert "no level near density 0.95" in found.reason
    assert outcome(levels, 'gain("ticket", 0.8)', expected=0, tolerance=0.3).outcome == "not reproduced"


def test_a_claim_needs_its_density_in_each_trial():
    levels = levels_of({"ticket": ([0.98], [3000])}, noise=QUIET, trials=4)
    far = (levels["level"] == 1) * np.where(levels["trial"] < 2, 0.05, 0.55)
    levels["density"] = np.where(levels["level"] == 1, far, 1.0)
    found = outcome(levels, 'gain("ticket", 0.3)', expected=0, tolerance=0.5)
    assert found.outcome == "not measured"
    assert "no level near density 0.3: the nearest is 0.05" in found.reason
    found = outcome(levels, 'gain("ticket", 0.55)', expected=0, tolerance=0.5)
    assert found.outcome == "inconclusive"
    assert "only 2 of 4 trials have all values" in found.reason


def test_claims_count_the_training_behind_trained_weights_as_verdicts_do():
    levels = levels_of({"fine-tune": ([0.98], [1000])}, noise=QUIET)
    levels["iterations_before"] = np.where(levels["level"] > 0, 50_000, 0)
    assert verdicts(levels)["iteration_difference"].iloc[0] == pytest.approx(47_000, abs=50)
    assert outcome(levels, 'earlier("fine-tune", 0.8) > 0').outcome == "not reproduced"
    assert outcome(levels, 'earlier("fine-tune", 0.8) > 0').measured == pytest.approx(1 - 51_000 / 4000, abs=0.1)


def test_more_trials_do_not_decide_a_claim_with_diverged_runs():
    levels = levels_of({"ticket": ([0.97], [3000])}, noise=(0.001, 10.0))
    assert trials_needed(outcome(levels, 'gain("ticket", 0.8)', expected=-1, tolerance=0.5)) is not None
    ill = (levels["trial"] == 0) & (levels["level"] == 1)
    found = outcome(levels.assign(status=levels["status"].mask(ill, "diverged")), 'gain("ticket", 0.8) < 0')
    assert found.biased
    assert trials_needed(found) is None


def test_a_table_without_a_study_says_what_a_claim_could_not_check():
    levels = levels_of({"ticket": ([0.97], [3000])}, noise=QUIET)
    fields = {"applies": {"network.name": "lenet-300-100", "data.source": "mnist"}, "recipe": {"training.lr": 0.1}}
    found = outcome(levels, 'gain("ticket", 0.8) < 0', **fields)
    assert found.outcome == "reproduced"
    assert found.reason.endswith("; the table does not tell data.source, training.lr")


def test_a_trial_that_is_not_finished_does_not_break_down_at_its_last_level():
    arms = {"ticket": ([0.98, 0.9785, 0.98, 0.98, 0.98, 0.9, 0.9], [3000] * 7)}
    levels = levels_of(arms, noise=(0.0, 0.0))
    unfinished = levels[(levels["trial"] < 4) | (levels["level"] <= 2)]
    found = break_downs(unfinished).set_index("trial")
    assert list(found["density"]) == pytest.approx(4 * [0.8**5] + [0.8])
    assert list(found["censored"]) == 4 * [False] + [True]


def test_a_level_with_a_diverged_repeat_is_below_dense():
    levels = levels_of({"reinit": ([0.98, 0.98, 0.98], [3000] * 3)}, noise=(0.0, 0.0), trials=3)
    runs = pd.concat([levels.assign(repeat=repeat) for repeat in range(3)])
    ill = (runs["repeat"] > 0) & (runs["level"] > 1)
    runs["status"] = runs["status"].mask(ill, "diverged")
    found = break_down(runs).iloc[0]
    assert found["density"] == pytest.approx(0.8)
    assert found["censored"] == 0


def line(copies: int, heights: list[float]) -> pd.DataFrame:
    point = {"study": "s", "kind": "copies", "trial": 0, "rewind": 0, "level": 0, "other_level": 0, "density": 1.0}
    place = {**point, "copy": 0, "other_copy": copies, "line": str(copies)}
    count = len(heights)
    return pd.DataFrame(
        [
            place | {"position": at / (count - 1), "test_loss": height, "train_loss": height}
            for at, height in enumerate(heights)
        ]
    )


@pytest.mark.parametrize("broken", [math.inf, math.nan])
def test_a_line_with_an_infinite_loss_is_no_stable_one(broken):
    points = pd.concat([line(1, [0.1, 0.105, 0.1]), line(2, [0.1, broken, 0.1])], ignore_index=True)
    assert list(barriers(points)["test_barrier"]) == pytest.approx([0.005, math.inf])
    found = barrier_statistics(points, 0.02).iloc[0]
    assert math.isinf(found["test_mean"])
    assert not found["stable"]


def test_paired_differences_have_both_densities():
    levels = levels_of({"ticket": GOOD, "one-shot": GOOD}, noise=QUIET)
    levels.loc[levels["arm"] == "one-shot", "density"] = 0.8
    found = paired_differences(levels, "ticket", "one-shot", "early_stop_test_accuracy").set_index("level")
    assert list(found["density"]) == pytest.approx([0.8, 0.64, 0.512])
    assert list(found["baseline_density"]) == pytest.approx([0.8, 0.8, 0.8])
    dense = paired_differences(levels, "ticket", "dense", "early_stop_test_accuracy")
    assert (paired_differences(levels, "one-shot", "ticket", "early_stop_test_accuracy")["baseline_density"] < 1).all()
    assert len(dense) == 3


def test_tables_with_impossible_values_are_refused():
    levels = levels_of({"ticket": GOOD})
    endless = levels.assign(
        early_stop_test_accuracy=math.inf, metric="perplexity", metric_unit="", metric_better="lower"
    )
    endless = endless.rename(columns={"early_stop_test_accuracy": "early_stop_test_perplexity"})
    with pytest.raises(InputError, match=r"early_stop_test_perplexity=inf is not finite; a run without a result"):
        checked(endless)
    with pytest.raises(
        InputError, match=r"level 1 of arm 'ticket' has density 0.8, and level 0, the dense network, 0.7"
    ):
        checked(levels.assign(density=levels["density"].where(levels["level"] > 0, 0.7)))


def test_an_empty_cell_is_as_good_as_a_missing_column():
    levels = levels_of({"ticket": GOOD})
    some = levels.assign(iterations_before=np.where(levels["trial"] == 0, 0.0, np.nan), repeat="")
    found = checked(some)
    assert (found["iterations_before"] == 0).all()
    assert (found["repeat"] == 0).all()
    assert verdicts(found)["n"].eq(5).all()


@pytest.mark.parametrize("dense", [0.97, 0.5])
def test_the_chart_bears_a_dense_network_far_off(dense):
    levels = levels_of({"ticket": ([0.981, 0.9815, 0.9805] * 4, [3000] * 12)}, noise=QUIET)
    levels.loc[levels["level"] == 0, "early_stop_test_accuracy"] = dense
    chart = text_chart(levels, answer_of(levels), verdicts(levels))
    rows = chart.splitlines()[1:-1]
    assert "‹" in rows[0]
    assert not any("┊" in row for row in rows[1:])
    assert ending(levels)


def test_bars_are_of_the_trials_that_have_a_value():
    levels = levels_of({"ticket": GOOD}, noise=(0.001, 10.0))
    levels.loc[levels["trial"] > 1, "final_test_accuracy"] = math.nan
    rows = summarise(levels)
    assert list(rows["n"]) == 4 * [5]
    assert list(rows["final_test_accuracy_n"]) == 4 * [2]
    low, high = bar_ends(rows, "final_test_accuracy", "interval")
    ends = levels.groupby("level")["final_test_accuracy"]
    assert list(low) == pytest.approx(list(ends.min()))  # two trials are joined
    assert list(high) == pytest.approx(list(ends.max()))


def test_findings_compare_arms_at_equal_density_alone():
    levels = levels_of({"ticket": GOOD, "one-shot": ([0.99] * 3, [3000] * 3)}, noise=QUIET)
    gains = paired_gains(levels, "ticket", "one-shot", "early_stop_test_accuracy")
    assert len(at_equal_density(gains, levels)) == 3
    apart = (levels["arm"] == "one-shot") & (levels["level"] == 3)
    levels.loc[apart, "density"] = 0.8
    gains = paired_gains(levels, "ticket", "one-shot", "early_stop_test_accuracy")
    assert list(at_equal_density(gains, levels)["level"]) == [1, 2]


def test_the_verdict_table_shows_both_densities_of_a_level():
    levels = levels_of({"ticket": GOOD, "one-shot": GOOD}, noise=QUIET)
    levels.loc[(levels["arm"] == "one-shot") & (levels["level"] == 3), "density"] = 0.8
    rows = _verdict_rows(verdicts(levels), ACCURACY)["levels"]
    assert [row["densities"] for row in rows] == ["80.0", "64.0", "51.2-80.0"]


def test_rewinds_of_lucky_trials_help_nothing():
    levels = levels_of({"ticket@0": GOOD, "ticket@500": ([0.99] * 3, [3000] * 3)}, noise=QUIET)
    assert later_helps(later_rewinds(levels, "ticket@0"))
    lost = without_survivors(levels, "diverged", "ticket@500")
    assert list(later_rewinds(lost, "ticket@0")["level"]) == [1]


def mixed(levels: pd.DataFrame, arm: str, densities: list[float]) -> pd.DataFrame:
    """Give the trials of an arm's level 1 densities of their own."""
    there = (levels["arm"] == arm) & (levels["level"] == 1)
    own = levels["trial"].map(dict(enumerate(densities)))
    return levels.assign(density=levels["density"].mask(there, own))


def test_arms_of_equal_mean_density_are_not_equal_if_their_trials_differ():
    levels = levels_of({"ticket": ([0.98], [3000]), "one-shot": ([0.99], [3000])}, noise=QUIET, trials=4)
    levels = mixed(mixed(levels, "ticket", [0.5, 0.5, 0.1, 0.1]), "one-shot", [0.1, 0.1, 0.5, 0.5])
    gains = paired_gains(levels, "ticket", "one-shot", "early_stop_test_accuracy")
    assert at_equal_density(gains, levels).empty
    same = mixed(levels, "one-shot", [0.5, 0.5, 0.1, 0.1])
    assert len(at_equal_density(paired_gains(same, "ticket", "one-shot", "early_stop_test_accuracy"), same)) == 1


def test_a_rewind_of_another_density_proves_nothing():
    levels = levels_of({"ticket@0": ([0.95], [3000]), "ticket@500": ([0.98], [3000])}, noise=QUIET)
    assert later_helps(later_rewinds(levels, "ticket@0")) is True
    assert later_rewinds(mixed(levels, "ticket@0", [0.1] * 5), "ticket@0").empty


def test_controls_of_another_rewind_are_no_controls():
    assert role_of("reinit@0", "ticket@0") == "control"
    assert role_of("reinit", "ticket@0") == "control"
    assert role_of("reinit@500", "ticket@0") == "rewind"
    levels = levels_of({"ticket@0": ([0.95], [3000]), "reinit@500": ([0.98], [3000])}, noise=QUIET)
    assert later_rewinds(levels, "ticket@0").empty  # it is not the ticket, either


def test_a_transferred_ticket_of_another_density_is_not_compared():
    arms = {name: ([0.98], [3000]) for name in ("ticket", "from-afar")} | {"random-mask": ([0.9], [3000])}
    levels = levels_of(arms, noise=QUIET)
    sources = {("s", "from-afar"): ("afar", "mask")}
    (row,) = transfers(levels, sources, margin=0.01).to_dict("records")
    assert (row["verdict"], row["over_random"]) == ("as good", True)
    (row,) = transfers(mixed(levels, "from-afar", [0.5] * 5), sources, margin=0.01).to_dict("records")
    assert (row["verdict"], row["over_random"]) == (OPEN, False)
    assert math.isnan(row["mean"])


def test_the_answer_says_that_the_trials_of_its_level_differ_in_density():
    levels = mixed(levels_of({"ticket": ([0.98], [3000])}, noise=QUIET), "ticket", [0.9, 0.9, 0.9, 0.05, 0.05])
    at = answer_of(levels).at
    assert (at.fewest, at.most) == (0.05, 0.9)
    equal = answer_of(mixed(levels, "ticket", [0.8] * 5)).at
    assert (equal.fewest, equal.most) == (0.8, 0.8)


def test_a_trial_that_collapsed_broke_down_though_others_go_on():
    levels = levels_of({"ticket": ([0.98, 0.98, 0.98, 0.98], [3000] * 4)}, noise=(0.0, 0.0))
    ended = levels[(levels["trial"] > 0) | (levels["level"] <= 2)].copy()
    last = (ended["trial"] == 0) & (ended["level"] == 2)
    ended.loc[last, "early_stop_test_accuracy"] = 0.11
    found = break_downs(ended.assign(status=ended["status"].mask(last, "collapsed"))).set_index("trial")
    assert (found.loc[0, "density"], found.loc[0, "censored"]) == (0.8, False)
    assert break_downs(ended).set_index("trial").loc[0, "censored"]  # it may be unfinished
