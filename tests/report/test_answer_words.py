"""The answer in words, numbers and a chart of text: true of what was measured, and readable."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import pytest
from made_up_levels import levels_of
from rich.console import Console

from tombola.analysis.answer import Answer, Judged, answer_of
from tombola.analysis.stability import Parting
from tombola.analysis.verdicts import verdicts
from tombola.figures.ending import ending
from tombola.figures.text_chart import ASCII, text_chart
from tombola.formatting import differences, percent, together, typeset, with_interval
from tombola.tables.answer import HEADLINES, at_its_level, barriers_in_words, headline, numbers, proof
from tombola.tasks.metric import ACCURACY, Metric

AT = Judged(7, 0.087, 5, "winning ticket", "accuracy is fine", True, 0.49, 0.15, 0.82, -1960, -3691, -229, 4261)
WINNING = Answer("winning", arm="ticket", levels=24, at=AT)


PARTING = Parting(0, 0.0352, -0.21, 0.28, 2, 2, 0.02, stable=False)
LATER = replace(PARTING, rewind=200, mean=0.0048, low=-0.005, high=0.0146, stable=True)


def test_copies_of_a_dense_network():
    answer = Answer("connectivity", partings=(PARTING, replace(LATER, rewind=50, mean=0.04, stable=False), LATER))
    assert headline(answer) == (
        "The dense network is stable from iteration 200: copies that part there have an error barrier of 0.48 points."
    )
    assert proof(answer) == (
        "Stable: the mean error barrier on the test examples is at most 2 points.",
        "No pruned network is compared with the dense one.",
    )
    first, last = numbers(answer)
    assert (first.label, first.value, first.unit) == ("error barrier from the initialisation", "3.52", "points")
    assert last.remark == "stable; 95 % interval -0.50 to 1.46"
    assert barriers_in_words(answer)[0] == (
        "Copies of the dense network that part at the initialisation are unstable. Their mean error barrier is 3.52 "
        "points (95 % interval -21.00 to 28.00), over 2 trials and 2 pairs."
    )
    relapsed = replace(answer, partings=(replace(LATER, rewind=10), replace(PARTING, rewind=300)), missing=2)
    assert headline(relapsed) == (
        "So far, the dense network is not stable: copies that part at iteration 300 have an error barrier of 3.52 "
        "points."
    )
    alone = replace(LATER, rewind=0, low=math.nan, high=math.nan, trials=1, height="loss", mean=0.0123)
    single = Answer("connectivity", partings=(alone,))
    assert headline(single).endswith("from the initialisation: copies that part there have a loss barrier of 0.0123.")
    assert "One trial shows no variation between trials: this may be luck." in proof(single)
    assert numbers(single)[0].remark == "stable; one trial: no interval"


def test_a_winning_ticket():
    assert headline(WINNING) == (
        "A ticket with 8.7 % of the weights is as accurate as the dense network, and its training stops no later."
    )
    assert proof(WINNING) == (
        "The verdict compares 5 trials with dense, within 0.1 points.",
        "It stands after Holm's correction for the number of levels.",
    )
    assert [(each.value, each.unit) for each in numbers(WINNING)] == [("8.7", "%"), ("+0.49", "points"), ("46", "%")]
    assert numbers(WINNING)[2].label == "earlier stop than dense"
    assert "95 % interval +0.15 to +0.82" in numbers(WINNING)[1].remark
    assert at_its_level(WINNING) == "8.7 % of the weights: winning ticket. Accuracy is fine."


def test_what_does_not_stand_is_said_to_not_stand():
    weak = replace(WINNING, at=replace(AT, stands=False), sparser=replace(AT, density=0.029))
    assert "It does not stand after Holm's correction for the number of levels." in proof(weak)
    assert proof(weak)[-1] == "With 2.9 %, it is as good, but not shown to stop as early."


@pytest.mark.parametrize(
    ("dense", "metric", "low", "high", "weak"),
    [
        (68.5, ACCURACY, 9.9, 12.0, True),
        (68.5, ACCURACY, 3.3, 12.0, False),  # the interval reaches below 5 % of 68.5
        (97.4, ACCURACY, 0.5, 0.9, False),
        (2.0, Metric("rmse", "lower", "kW"), -0.8, -0.2, True),
        (2.0, Metric("rmse", "lower", "kW"), -0.8, -0.05, False),
        (2.0, Metric("rmse", "lower", "kW"), 0.2, 0.8, False),  # worse
        (math.nan, ACCURACY, 9.9, 12.0, False),
    ],
)
@pytest.mark.parametrize("kind", ["winning", "matching", "undecided"])
def test_a_ticket_far_above_dense_makes_the_dense_network_suspect(dense, metric, low, high, weak, kind):
    at = replace(AT, dense=dense, low=low, high=high, difference=(low + high) / 2)
    said = " ".join(proof(replace(WINNING, kind=kind, metric=metric, at=at)))
    assert ("it is weak: check its learning rate" in said) == (weak and kind != "undecided")
    if weak and kind != "undecided":
        amount = "10.95 points" if metric == ACCURACY else "0.500 kW"
        assert f"The dense network is {amount} worse" in said


def test_what_is_not_decided_asks_for_more_trials():
    assert "such as trials=10; finished trials stay." in proof(replace(WINNING, kind="undecided"))[-1]


def undecided(levels, missing=0):
    """Return the answer of a study whose pruned levels are about as good as dense, with wide intervals."""
    answer = answer_of(levels, missing=missing)
    assert answer.kind == "undecided"
    return answer


def noisy(*arms):
    return levels_of({arm: ([0.98], [4000]) for arm in arms}, noise=(0.01, 100.0))


def test_more_trials_are_suggested_where_they_can_decide():
    levels = noisy("ticket", "reinit")
    of_control = (levels["arm"] == "reinit") & (levels["level"] == 1) & (levels["trial"] == 0)
    lost = levels.assign(status=levels["status"].mask(of_control, "diverged"))
    assert "More trials may decide it, such as trials=10; finished trials stay." in proof(undecided(lost))
    unfinished = undecided(levels[levels["trial"] < 2], missing=9)
    assert "More trials may decide it; finished trials stay." in proof(unfinished)


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("trials", [1, 3])
def test_more_trials_do_not_decide_a_biased_level(level, trials):
    """The dense network or a level diverged, or a trial lacks level 2: of five trials, some are left."""
    levels = levels_of({"ticket": ([0.90, 0.98], [4000, 4000])}, noise=(0.01, 100.0))
    ill = (levels["level"] == level) & (levels["trial"] >= trials)
    levels = levels[~ill] if level == 2 else levels.assign(status=levels["status"].mask(ill, "diverged"))
    if level == 1:  # is then the best level
        levels = levels[levels["level"] < 2]
        levels.loc[levels["level"] == 1, "early_stop_test_accuracy"] += 0.08
    at = replace(AT, verdict="inconclusive", reason=verdicts(levels)["reason"].iloc[-1])
    said = " ".join(proof(Answer("undecided", arm="ticket", levels=2, at=at)))
    assert "More trials can't decide this level, because runs of it diverged or are missing." in said
    assert "trials=" not in said


def test_equal_runs_of_a_biased_level_are_said_to_be_biased():
    levels = levels_of({"ticket": ([0.98], [4000])}, noise=(0.0, 0.0))
    ill = (levels["level"] == 1) & (levels["trial"] == 0)
    lost = levels.assign(status=levels["status"].mask(ill, "diverged"))
    assert "More trials can't decide this level" in proof(undecided(lost))[1]
    assert "More trials may decide it" in proof(undecided(levels))[1]


def test_a_level_without_a_comparison_is_not_counted_as_one():
    levels = levels_of({"ticket": ([0.90, 0.95], [4000, 4000])})
    lost = levels.assign(status=levels["status"].mask(levels["level"] == 2, "diverged"))
    assert headline(answer_of(lost)).endswith("the dense network is better at the only level compared.")


def test_an_unfinished_study_says_so_far():
    unfinished = replace(WINNING, missing=1, diverged=2)
    assert headline(unfinished).startswith("So far, a ticket with 8.7 %")
    assert proof(unfinished)[-2:] == ("2 runs diverged.", "The study is unfinished: 1 work item is missing.")
    assert headline(Answer("no runs", missing=9)) == "The study has no finished run yet."


@pytest.mark.parametrize("kind", HEADLINES)
@pytest.mark.parametrize("arm", ["ticket", "ticket@500", "my arm"])
def test_every_kind_has_a_short_sentence(kind, arm):
    has_level = kind not in ("no runs", "all diverged", "no pair", "connectivity")
    answer = Answer(kind, arm=arm, levels=3, at=AT if has_level else None)
    answer = replace(answer, partings=(PARTING,)) if kind == "connectivity" else answer
    sentence = headline(answer)
    assert re.fullmatch(r"[A-Z].*\.", sentence)
    assert len(sentence.split()) <= 25
    claims = kind in ("winning", "matching", "one trial")
    assert ("8.7 %" in sentence) == claims
    first = ["8.7"] if claims else ["0 of 3"] if has_level else ["3.52"] if answer.partings else []
    assert [each.value for each in numbers(answer)][:1] == first
    if kind == "one trial":
        assert "was as accurate" in sentence
        assert proof(answer) == ("One trial shows no variation between trials: this may be luck.",)


def test_other_metrics_and_no_early_stop():
    metric = Metric("rmse", "lower", "kW")
    at = replace(AT, difference=-5.259e-06, low=-0.00214, high=0.00215, stop=math.nan)
    answer = replace(WINNING, metric=metric, at=at)
    assert "is as good as the dense network in rmse" in headline(answer)
    _, difference, stop = numbers(answer)
    assert (difference.value, difference.unit) == ("-0.00001", "kW")
    assert difference.remark == "95 % interval -0.00214 to +0.00215; lower is better"
    assert (stop.value, stop.remark) == ("–", "not measured")


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        ([98.2620, 98.2331, 98.2909], ["98.262", "98.233", "98.291"]),
        ([0.24497, -5.26e-06, 0.48995], ["0.24", "-0.00", "0.49"]),
        ([10.5, 6.2, 16.1], ["10.5", "6.2", "16.1"]),
        ([1.0, 0.95, 1.0499], ["1.00", "0.95", "1.05"]),  # a width of 0.0999 has two digits as 0.10
        ([12345.0, 11000.0, 13690.0], ["12,345", "11,000", "13,690"]),
        ([0.5, 0.5, 0.5], ["0.5000", "0.5000", "0.5000"]),
        ([2.507], ["2.507"]),
        ([0.5, 0.5, float("nan")], ["0.5000", "0.5000", "nan"]),
    ],
)
def test_an_interval_has_two_digits_of_its_width(values, texts):
    assert with_interval(values) == texts


def test_numbers_read_together():
    assert together([-5.259e-06, -0.0021, 0.0021]) == ["-0.00001", "-0.00210", "0.00210"]
    assert together([2.507, 1.9, 3.1], significant=4) == ["2.507", "1.900", "3.100"]
    assert together([12345.6, -3.0]) == ["12,346", "-3"]
    assert together([0.9996, 0.1]) == ["1.00", "0.10"]
    assert together([0.0, 0.0], sign=True) == ["+0", "+0"]
    assert together([3e-9]) == ["3.00e-09"]
    assert differences([0.354, -0.1], ACCURACY) == ["+0.35", "-0.10"]
    assert typeset("one-shot -0.5 to (-1,200), 2-3 and [-.5]") == "one-shot −0.5 to (−1,200), 2-3 and [−.5]"


def test_the_chart_shows_every_level_in_its_place(make):
    levels, _ = make(trials=3, rounds=6, arms=("ticket", "reinit"))
    judged = verdicts(levels)
    answer = answer_of(levels, verdicts=judged)
    chart = text_chart(levels, answer, judged, width=80)
    head, *rows, key = chart.splitlines()
    assert head.split() == ["weights", "accuracy", "verdict"]
    assert len(rows) == 7
    assert rows[0].split()[:4] == ["100", "%", f"{100 * levels[levels.level == 0][MEASURE].mean():.2f}", "dense"]
    assert max(map(len, chart.splitlines())) <= 80
    means = levels[levels.arm == "ticket"].groupby("level")[MEASURE].mean().to_numpy()
    places = [row.index("●") for row in rows]
    order = sorted(range(7), key=lambda level: means[level])
    assert [places[level] for level in order] == sorted(places)  # the better, the further to the right
    assert "dense network" in key
    assert text_chart(levels, answer, judged, signs=ASCII).isascii()


MEASURE = "early_stop_test_accuracy"


def test_a_long_chart_keeps_the_level_of_the_answer(make):
    levels, _ = make(trials=3, rounds=24, arms=("ticket",))
    judged = verdicts(levels)
    for level in (5, 12, 23):
        answer = Answer("matching", arm="ticket", at=replace(AT, level=level))
        rows = text_chart(levels, answer, judged).splitlines()[1:-1]
        assert len(rows) == 12
        density = levels[levels.level == level].density.iloc[0]
        assert any(row.strip().startswith(f"{percent(density)} %") for row in rows)


def printed(levels, **options) -> str:
    console = Console(file=io.StringIO(), width=80)
    console.print(ending(levels, **options))
    return console.file.getvalue()


def test_the_end_of_a_run_fits_80_columns_and_speaks_first(make):
    levels, _ = make(trials=3, rounds=4)
    text = printed(levels, missing=2)
    assert text.startswith("So far, ")
    assert "2 work items are missing" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    assert "●" not in printed(levels, encoding="ascii")
    assert re.search(
        r"Accuracy against dense: [+-]\d\.\d+ points, 95 % interval [+-]\d\.\d+ to ", " ".join(text.split())
    )
    assert "matching: as good." in text
    assert printed(levels.iloc[:0]).strip() == "The study has no finished run yet."


def test_a_long_name_of_a_metric_does_not_widen_the_chart(make):
    levels, _ = make(trials=3, rounds=3, arms=("ticket",))
    name = "mean_of_a_very_long_name_that_a_user_gave_to_the_metric"
    levels = levels.rename(columns={column: column.replace("accuracy", name) for column in levels})
    levels = levels.assign(metric=name, metric_better="higher", metric_unit="")
    judged = verdicts(levels)
    chart = text_chart(levels, answer_of(levels), judged)
    assert max(map(len, chart.splitlines())) <= 80
    assert "mean of a very …" in chart


def test_an_interval_of_two_trials_is_not_drawn(make):
    levels, _ = make(trials=2, rounds=3, arms=("ticket",))
    judged = verdicts(levels)
    rows = text_chart(levels, answer_of(levels), judged).splitlines()[:-1]
    assert not any("─" in row for row in rows)
