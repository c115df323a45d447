"""What the page says was found: the numbers of the tables, and no more than they allow."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from tombola.analysis.break_down import break_down
from tombola.analysis.paired import paired_differences
from tombola.analysis.rewinds import later_rewinds
from tombola.analysis.statistics import level_statistics
from tombola.analysis.verdicts import verdicts
from tombola.html.sentences import findings

DENSITIES = [1.0, 0.8, 0.5, 0.2]

ACCURACY = "early_stop_test_accuracy"


def table(accuracies: dict[str, list[list[float]]], stops: dict[str, list[list[float]]] | None = None) -> pd.DataFrame:
    """Return a results table: for each arm and trial, accuracy and early stop at each level."""
    rows = []
    for arm, trials in accuracies.items():
        for trial, levels in enumerate(trials):
            for level, accuracy in enumerate(levels):
                stop = stops[arm][trial][level] if stops else 1000.0 + 10 * trial
                rows.append(
                    {
                        "study": "study",
                        "arm": arm,
                        "trial": trial,
                        "repeat": 0,
                        "level": level,
                        "density": DENSITIES[level],
                        "remaining_weights": round(1000 * DENSITIES[level]),
                        "early_stop_iteration": stop,
                        ACCURACY: accuracy,
                        "final_test_accuracy": accuracy,
                        "final_train_accuracy": 1.0,
                        "status": "ok",
                    }
                )
    return pd.DataFrame(rows)


def found(levels: pd.DataFrame, arm: str = "ticket") -> tuple[str, ...]:
    others = [other for other in dict.fromkeys(levels["arm"]) if other != arm]
    gains = [paired_differences(levels, arm, other, ACCURACY) for other in others]
    together = pd.concat(gains) if gains else pd.DataFrame()
    return findings(level_statistics(levels), verdicts(levels), together, break_down(levels), 0.001)


# Five trials: the ticket is better and sooner at levels 1 and 2, and breaks down at level 3; the control is worse.
NOISE = [0.0, 0.0002, -0.0002, 0.0001, -0.0001]
BEFORE = [0.0001, -0.0001, 0.0, 0.0002, -0.0002]
TICKET = [[0.97 + n, 0.974 + n + b, 0.973 + n, 0.90 + n] for n, b in zip(NOISE, BEFORE, strict=True)]
REINIT = [[0.97 + n, 0.960 + n - b, 0.953 + n, 0.80 + n] for n, b in zip(NOISE, BEFORE, strict=True)]
STOPS = [[1000.0 + t, 700.0 - 2 * t, 600.0 + 3 * t, 500.0 + 2 * t] for t in range(5)]
LATER = [[1000.0 + t, 1300.0 + 5 * t, 1400.0 - 7 * t, 1500.0] for t in range(5)]


def winning() -> pd.DataFrame:
    levels = table({"ticket": TICKET, "reinit": REINIT}, {"ticket": STOPS, "reinit": LATER})
    # Differences that are the same in all trials have no interval to judge by.
    shift = levels["trial"].map(dict(enumerate([0.0001, 0.0, -0.0001, 0.0002, -0.0002])))
    levels.loc[levels["level"] == 2, ACCURACY] += shift[levels["level"] == 2]
    return levels


def test_winning_tickets_are_counted_with_their_densities() -> None:
    first, second, third = found(winning())
    assert first.startswith("Arm ticket wins at 2 of 3 levels, with 80.0 and 50.0 % of the weights. At these levels")
    assert first.endswith(" The other levels: 1 inconclusive.")
    assert "2 of them stand after Holm's correction" in first
    assert "within 0.1 points" in first
    assert "5 trials" in first
    assert second.startswith("With 50.0 % of the weights, the sparsest winning ticket, ticket gains 2.00 over ")
    assert "reinit (" in second
    assert second.endswith(" in accuracy at early stop, in percentage points.")
    assert third.startswith(
        "Test accuracy at early stop stays within 0.1 points of the dense network's down to 50.0 % in ticket"
    )
    assert "at no level in reinit" in third


def test_every_level_may_win() -> None:
    levels = winning()
    first = found(levels[levels["level"] < 3])[0]
    assert first.startswith("Arm ticket wins at 2 of 2 levels")
    assert "other levels" not in first


def test_what_does_not_survive_the_correction_is_not_counted_as_standing() -> None:
    levels = winning()
    judged = verdicts(levels)
    judged.loc[judged["level"] == 2, "p_holm"] = 0.03
    assert (
        "; 1 of them stands after Holm"
        in findings(level_statistics(levels), judged, pd.DataFrame(), break_down(levels), 0.001)[0]
    )
    judged["p_holm"] = 0.03
    assert (
        "; none stands after Holm"
        in findings(level_statistics(levels), judged, pd.DataFrame(), break_down(levels), 0.001)[0]
    )


def test_levels_between_winning_ones_are_not_said_to_win() -> None:
    levels = winning()
    levels.loc[levels["level"] == 3, [ACCURACY]] = levels.loc[levels["level"] == 1, ACCURACY].to_numpy()
    levels.loc[levels["level"] == 2, [ACCURACY]] = 0.9
    first = found(levels)[0]
    assert first.startswith("Arm ticket wins at 2 of 3 levels, with 80.0 and 20.0 % of the weights")


def test_trials_are_those_that_were_judged() -> None:
    levels = winning()
    unfinished = levels[(levels["level"] < 2) | (levels["trial"] < 2)]
    assert "over 2 to 5 trials" in found(unfinished)[0]
    one = found(levels[(levels["level"] == 0) | (levels["trial"] == 1)])
    assert one[0].startswith("Only one trial has both dense and pruned runs, so you can conclude nothing")
    assert "the dense network's 97.02 %" in one[1]  # that of trial 1


def test_the_gain_over_a_control_is_that_of_the_table() -> None:
    levels = winning()
    assert "gains 2.00 over reinit (equal in all trials: no interval)" in found(levels)[1]
    levels.loc[levels["arm"] == "reinit", ACCURACY] += 0.0001 * levels["trial"]
    gain = paired_differences(levels, "ticket", "reinit", ACCURACY).set_index("level").loc[2]
    text = found(levels)[1].replace("−", "-")
    assert f"gains {gain['mean']:.2f} over reinit ({gain['low']:+.2f} to {gain['high']:+.2f})" in text


def test_a_negative_gain_is_a_loss() -> None:
    levels = winning()
    levels["arm"] = levels["arm"].map({"ticket": "reinit", "reinit": "ticket"})
    text = found(levels)[1].replace("−", "-")
    assert "ticket loses " in text
    assert " against reinit (-" in text
    assert " gains" not in text


def test_no_winning_ticket_is_said_as_it_is() -> None:
    first = found(table({"ticket": REINIT, "reinit": REINIT}, {"ticket": LATER, "reinit": LATER}))[0]
    assert first.startswith("Arm ticket has no confirmed winning ticket at its 3 levels over 5 trials: ")
    assert " wins " not in first


def test_one_trial_allows_no_conclusion() -> None:
    sentences = found(table({"ticket": TICKET[:1], "reinit": REINIT[:1]}))
    assert "you can conclude nothing about variation" in sentences[0]
    assert "+0.41 points from the dense network's 97.00 %" in sentences[1]  # 0.9741 at level 1
    text = " ".join(sentences)
    assert " wins " not in text
    assert "inning ticket" not in text
    assert " to +" not in text  # no interval
    assert len(sentences) == 3


@pytest.mark.parametrize("lost", ["missing", "diverged"])
def test_the_one_trial_with_a_dense_network_has_its_own_values(lost: str) -> None:
    """The means over the ticket's five trials are not of that trial."""
    levels = table({"ticket": [[0.98, 0.96 + 0.001 * trial, 0.95] for trial in range(5)]})
    others = (levels["level"] == 0) & (levels["trial"] > 0)
    levels = levels[~others] if lost == "missing" else levels.assign(status=levels["status"].mask(others, "diverged"))
    first, second, *_ = found(levels)
    assert first.startswith("Only one trial has both dense and pruned runs")
    assert second.endswith(": 96.00 %, −2.00 points from the dense network's 98.00 %.")


def test_values_of_one_trial_that_no_table_has_are_not_shown() -> None:
    levels = table({"ticket": [[0.98, 0.96], [0.97, 0.95], [0.96, 0.94]]})
    dense, trial = levels["level"] == 0, levels["trial"]
    second = found(levels[(dense & (trial < 2)) | (~dense & (trial > 0))])[1]
    assert second.endswith("with 80.0 % of the weights: −2.00 points from the dense network.")


def test_one_trial_of_the_arm_is_not_one_trial_of_the_results() -> None:
    first = found(table({"ticket": TICKET[:1], "reinit": REINIT[:3]}))[0]
    assert first.startswith("Arm ticket has one trial, so you can conclude nothing about variation.")


def test_gains_of_several_trials_beside_one_dense_network_keep_their_intervals() -> None:
    levels = winning()
    first, _, third, *_ = found(levels[(levels["level"] > 0) | (levels["trial"] == 0)])
    assert "without intervals" not in first
    assert " to +" in third or "equal in all trials" in third


def test_equal_differences_favour_no_rewind_and_are_no_interval() -> None:
    at = {"ticket@0": [[0.97, 0.96 + n] for n in NOISE], "ticket@100": [[0.97, 0.961 + n] for n in NOISE]}
    levels = table(at)
    rewinds = later_rewinds(levels, "ticket@0")
    assert rewinds["low"].tolist() == rewinds["high"].tolist() == [0.1]
    said = findings(
        level_statistics(levels), verdicts(levels), pd.DataFrame(), break_down(levels), 0.001, rewinds=rewinds
    )[1]
    assert "0 favour the later rewind and 0 the earlier one" in said
    assert said.endswith("+0.10 points (equal in all trials: no interval).")


def test_never_broken_down_and_partly() -> None:
    flat = [[0.97 + n] * 4 for n in NOISE]
    partly = [[0.97, 0.97, 0.97, 0.90 if trial < 2 else 0.97] for trial in range(5)]
    last = found(table({"ticket": flat, "reinit": partly}))[-1]
    assert "down to the sparsest level in ticket (20.0 % of the weights)" in last
    assert "down to the sparsest level in 3 of 5 trials of reinit, and at least down to 50.0 % in the others" in last


def test_the_break_down_is_told_by_the_range_of_trials_and_its_rule() -> None:
    ends = [0.97, 0.97, 0.90, 0.90], [0.97, 0.97, 0.97, 0.90]
    unequal = [ends[trial % 2] for trial in range(5)]
    last = found(table({"ticket": unequal, "reinit": [ends[0]] * 5}))[-1]
    assert "down to 66.3 % in ticket (80.0 to 50.0 % by trial)" in last  # (0.8 ** 3 * 0.5 ** 2) ** (1 / 5)
    assert "down to 80.0 % in reinit. Each density is the last one before two levels in a row" in last
    assert "geometric mean" in last


def test_trials_of_unequal_depth_that_never_broke_down_have_no_mean_level() -> None:
    levels = table({"ticket": [[0.97] * 4] * 5})
    last = found(levels[(levels["level"] < 3) | (levels["trial"] < 2)])[-1]
    assert "down to the sparsest level in ticket (by trial 50.0 to 20.0 % of the weights)" in last


def test_nothing_and_nothing_but_divergence() -> None:
    levels = table({"ticket": TICKET})
    nothing = pd.DataFrame()
    assert findings(nothing, nothing, nothing, nothing, 0.001) == ("The study has no finished run yet.",)
    levels[[ACCURACY, "early_stop_iteration", "final_test_accuracy", "final_train_accuracy"]] = np.nan
    assert found(levels.assign(status="diverged")) == (
        "Every run so far diverged, so the page has no results to report.",
    )


def test_a_study_without_a_ticket_speaks_of_its_first_arm() -> None:
    assert "Arm mine " in found(table({"mine": REINIT}, {"mine": LATER}), "mine")[0]


@pytest.mark.parametrize("trials", [1, 3])
def test_any_study_gives_four_sentences_at_most(
    make: Callable[..., tuple[pd.DataFrame, pd.DataFrame]], trials: int
) -> None:
    sentences = found(make(trials=trials, rounds=6, evaluations=3)[0])
    assert 1 <= len(sentences) <= 4
    assert not any("nan" in sentence or "inf" in sentence.replace("inconclusive", "") for sentence in sentences)
