"""The terminal tables: right numbers, honest about what they rest on, and never wider than they may be."""

from __future__ import annotations

import io
import math

import pandas as pd
import pytest
from rich.console import Console, Group

from tombola.analysis import summarise
from tombola.tables import summary_table, ticket_versus_reinit
from tombola.tables.captions import left_out


def printed(group: Group, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(group)
    return console.file.getvalue()


def cells(text: str, heading: str) -> dict[str, list[str]]:
    """Return the rows of the table below `heading`, by their first cell."""
    block = text.split(heading, 1)[1].split("n = ")[0]
    lines = [line.replace(" ± ", "±").split() for line in block.splitlines()]
    return {line[0]: line[1:] for line in lines if line and line[0].isdigit()}


def test_numbers_of_the_summary(make):
    levels, _ = make(trials=3, rounds=4, arms=("ticket", "reinit"), repeats=2)
    text = printed(summary_table(levels))
    accuracy = cells(text, "test accuracy at early stop, %")
    assert list(accuracy) == ["0", "1", "2", "3", "4"]
    assert [row[0] for row in accuracy.values()] == ["100", "80.0", "64.0", "51.2", "41.0"]
    stops = cells(text, "early-stop iteration, mean")
    for column, arm in enumerate(("ticket", "reinit"), start=1):
        rows = levels[(levels.arm == arm) & (levels.level == 3)]
        means = rows.groupby("trial")[["early_stop_test_accuracy", "early_stop_iteration"]].mean()
        values = 100 * means.early_stop_test_accuracy
        assert accuracy["3"][column] == f"{values.mean():.2f}±{values.std():.2f}"
        assert stops["3"][column] == f"{means.early_stop_iteration.mean():,.0f}"
    assert "n = 3 trials (ticket); 3 trials, 6 runs (reinit)" in text


def test_five_arms_fit_in_80_columns(full):
    text = printed(summary_table(full[0]), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert text.count("±") > 5 * 18
    # Plain text where the output is not a terminal.
    assert "\x1b" not in text


def test_more_arms_go_on_in_a_further_table(make):
    arms = ["ticket", *(f"an-arm-with-quite-a-long-name-{n}" for n in range(7))]
    text = printed(summary_table(make(trials=2, rounds=2, arms=arms)[0]))
    assert text.count("test accuracy at early stop") == 2
    tables = [line for line in text.splitlines() if not line.startswith("n = ")]
    assert max(map(len, tables)) <= 80


def test_wide_numbers_get_fewer_columns(make):
    arms = ("ticket", "reinit", "one-shot", "fine-tune")
    levels = make(trials=2, rounds=1, arms=arms)[0].assign(metric="loss", metric_better="lower", metric_unit="")
    levels = levels.rename(columns={name: name.replace("accuracy", "loss") for name in levels})
    levels["early_stop_test_loss"] = 12345.6789 * levels["early_stop_test_loss"] + 1e5 * levels["trial"]
    text = printed(summary_table(levels), width=200)
    assert "±" in text
    assert max(map(len, text.splitlines())) <= 80


def test_the_brief_table_is_the_metric_of_the_first_arms(make):
    arms = ("ticket", "reinit", "one-shot", "fine-tune", "lr-rewind", "late-reinit")
    text = printed(summary_table(make(trials=2, rounds=1, arms=arms)[0], brief=True))
    assert text.count("test accuracy at early stop") == 1
    assert "early-stop iteration" not in text
    assert "fine-tune" not in text


def test_six_arms_make_two_tables_of_three(make):
    arms = ("ticket", "reinit", "one-shot", "fine-tune", "lr-rewind", "late-reinit")
    text = printed(summary_table(make(trials=2, rounds=1, arms=arms)[0]))
    headers = [line.split() for line in text.splitlines() if line.strip().startswith("level")]
    assert headers == [["level", "Pm", "%", *some] for some in (arms[:3], arms[:3], arms[3:], arms[3:])]


def test_one_trial_shows_no_deviation(make):
    text = printed(summary_table(make(trials=1, rounds=2, arms=("ticket",))[0]))
    assert "±" not in text
    assert "n = 1 trial\n" in text


def test_diverged_runs_are_marked(make):
    levels, _ = make(trials=2, rounds=2, arms=("ticket", "reinit"))
    levels.loc[(levels.arm == "ticket") & (levels.level == 2), "status"] = "diverged"
    levels.loc[(levels.arm == "reinit") & (levels.level == 1) & (levels.trial == 0), "status"] = "diverged"
    text = printed(summary_table(levels))
    accuracy = cells(text, "test accuracy at early stop, %")
    assert accuracy["2"][1] == "diverged"
    assert accuracy["1"][2].endswith("*")
    assert "* 3 diverged runs omitted (ticket, reinit)" in text
    assert "n = 2 trials (ticket); 1 to 2 trials (reinit)" in text


def test_levels_that_an_arm_lacks(make):
    levels, _ = make(trials=2, rounds=3, arms=("ticket", "reinit"))
    levels = levels[(levels.arm == "ticket") | (levels.level < 2)]
    accuracy = cells(printed(summary_table(levels)), "test accuracy at early stop, %")
    assert accuracy["3"][2] == "-"


def test_densities_that_differ_between_arms_are_both_shown(make):
    levels, _ = make(trials=1, rounds=1, arms=("ticket", "own"))
    levels.loc[(levels.arm == "own") & (levels.level == 1), "density"] = 0.5
    assert cells(printed(summary_table(levels)), "early stop, %")["1"][0] == "50.0-80.0"


def test_names_are_text_not_markup(make):
    levels, _ = make(trials=1, rounds=1, arms=("ticket", "[red]x[/red]"), name="\x1b[31m[bold]\nstudy")
    text = printed(summary_table(levels))
    assert "[red]x[/red]" in text
    assert "[bold] study: test accuracy" in text
    assert "\x1b" not in text


def test_ticket_versus_reinit(make):
    levels, _ = make(trials=2, rounds=3)
    levels["final_test_accuracy"] = levels.arm.map({"ticket": 0.983, "reinit": 0.9809}).fillna(0.5)
    levels.loc[levels.level == 0, "final_test_accuracy"] = 0.9843
    text = printed(ticket_versus_reinit(levels))
    assert "study: test accuracy at the end of training, %" in text
    rows = cells(text, "mean")
    assert rows["0"] == ["100", "98.43", "98.43", "-"]  # the same run
    assert rows["2"] == ["64.0", "98.30", "98.09", "+0.21"]
    assert "n = 2 trials" in text


def test_ticket_versus_reinit_compares_within_trials(make):
    levels, _ = make(trials=3, rounds=1, arms=("ticket", "reinit"))
    levels["final_test_accuracy"] = 0.9 + 0.02 * levels["trial"]  # trials differ, arms do not
    levels = levels[(levels["arm"] == "ticket") | (levels["trial"] == 0) | (levels["level"] == 0)]
    assert cells(printed(ticket_versus_reinit(levels)), "mean")["1"][1:] == ["92.00", "90.00", "+0.00"]


def test_a_diverged_dense_run_counts_once(make):
    levels, _ = make(trials=3, rounds=1, arms=("ticket", "reinit", "one-shot"))
    dense = (levels["level"] == 0) & (levels["trial"] == 0)
    lost = levels.assign(status=levels["status"].mask(dense, "diverged"))
    assert left_out(summarise(lost)) == "1 diverged run omitted (dense)"
    both = lost.assign(status=lost["status"].mask((lost["level"] == 1) & (lost["arm"] == "reinit"), "diverged"))
    assert left_out(summarise(both)) == "4 diverged runs omitted (dense, reinit)"


@pytest.mark.parametrize("trials", [(0, 1), (0, 0)])
def test_diverged_dense_runs_of_two_arms_are_two(make, trials):
    """A table that others have measured can have dense runs for each arm."""
    levels, _ = make(trials=3, rounds=1, arms=("ticket", "own"))
    levels.loc[(levels["arm"] == "own") & (levels["level"] == 0), "early_stop_test_accuracy"] -= 0.01
    for arm, trial in zip(("ticket", "own"), trials, strict=True):
        ill = (levels["arm"] == arm) & (levels["level"] == 0) & (levels["trial"] == trial)
        levels["status"] = levels["status"].mask(ill, "diverged")
    assert left_out(summarise(levels)) == "2 diverged runs omitted (dense)"


def test_ticket_versus_reinit_without_the_pair(make):
    levels, _ = make(trials=1, rounds=1, arms=("ticket", "random-mask"))
    assert not ticket_versus_reinit(levels).renderables
    levels, _ = make(trials=1, rounds=2, arms=("ticket", "reinit"))
    levels.loc[(levels.arm == "reinit") & (levels.level == 1), "final_test_accuracy"] = math.nan
    levels = levels[(levels.arm == "ticket") | (levels.level < 2)]
    rows = cells(printed(ticket_versus_reinit(levels)), "mean")
    assert rows["1"][2:] == ["-", "-"]
    assert rows["2"][2:] == ["-", "-"]


@pytest.mark.parametrize("function", [summary_table, ticket_versus_reinit])
def test_several_studies_and_none(make, function):
    first, second = (make(trials=1, rounds=1, name=name)[0] for name in ("one", "two"))
    text = printed(function(pd.concat([first, second])))
    assert "one: test" in text
    assert "two: test" in text
    assert not function(first.iloc[:0]).renderables


def test_collapsed_runs_are_named(make):
    levels, _ = make(trials=2, rounds=3, arms=("ticket", "reinit"))
    assert "collapsed" not in printed(summary_table(levels))
    ill = (levels["arm"] == "reinit") & (levels["level"] >= 2) & (levels["trial"] == 1)
    levels["status"] = levels["status"].mask(ill, "collapsed")
    assert "no path leads from input to output: reinit (level 2, 3)" in printed(summary_table(levels))
