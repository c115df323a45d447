"""`tombola claims`: what it reads, what it writes, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from made_up_levels import levels_of

import tombola
from tombola import cli
from tombola.analysis.reading import seconds_of
from tombola.studies.loading import dump_study, load_study

Call = Callable[..., tuple[int, str, str]]

OWN = """
source: myself
claims:
  - {id: true-one, sentence: Tickets win., expression: 'gain("ticket", 0.8) > 0.2', stated: before the run}
  - {id: false-one, sentence: Tickets lose., expression: 'gain("ticket", 0.8) < 0'}
  - {id: unknown-one, sentence: So does one-shot., expression: 'gain("one-shot", 0.8) < 0'}
"""


# Scripts rely on these.
KEYS = (
    "results study id source sentence expression expected stated outcome reason n minimum_n measured low high applies"
)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run `tombola claims` in this process; return exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tombola", "claims", *arguments])
        capfd.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return status, out, err

    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A results table without the study's file."""
    (tmp_path / "own.yaml").write_text(OWN)
    path = tmp_path / "results.csv"
    levels_of({"ticket": ([0.985, 0.98], [3000, 3000])}, study="[red]s").to_csv(path, index=False)
    return path


def test_table_json_and_csv_say_the_same(call, table):
    status, out, _ = call("results.csv", "--claims", "own.yaml")
    assert status == 0
    for words in ("true-one", "Tickets win.", "reproduced", "not reproduced", "no arm", "[red]s (results.csv)"):
        assert words in out
    status, out, _ = call("results.csv", "--claims", "own.yaml", "--format", "json")
    rows = json.loads(out)
    assert [row["outcome"] for row in rows] == ["reproduced", "not reproduced", "not measured"]
    assert list(rows[0]) == KEYS.split()
    assert [row["stated"] for row in rows] == ["before the run", None, None]
    assert rows[0]["n"] == 5
    assert rows[0]["low"] < rows[0]["measured"] < rows[0]["high"]
    assert rows[2]["measured"] is None
    status, out, _ = call("results.csv", "--claims", "own.yaml", "--format", "csv")
    found = list(csv.DictReader(io.StringIO(out)))
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert float(found[0]["measured"]) == rows[0]["measured"]
    assert found[2]["measured"] == ""


def test_names_that_look_like_no_value_are_names(call, table):
    names = ["NA", "null", "None", "nan"]
    frames = [
        levels_of({name: ([0.985], [3000])}, study=name).assign(
            final_test_accuracy=lambda t: t.final_test_accuracy.where(t.trial > 0)
        )
        for name in names
    ]
    pd.concat(frames).to_csv(table, index=False)
    claims = [f"  - {{id: {n}-1, sentence: s, expression: 'gain(\"{n}\", 0.8) > 0'}}" for n in names]
    (table.parent / "own.yaml").write_text("source: me\nclaims:\n" + "\n".join(claims))
    rows = json.loads(call("results.csv", "--claims", "own.yaml", "--format", "json")[1])
    assert {(row["study"], row["id"]) for row in rows if row["outcome"] == "reproduced"} == {
        (name, f"{name}-1") for name in names
    }


def test_power_says_how_many_trials_decide(call, table):
    levels = pd.read_csv(table)
    levels.loc[levels["level"] > 0, "early_stop_test_accuracy"] += 0.002 * levels["trial"]
    levels.assign(job=range(len(levels)), seconds=36.0).to_csv(table, index=False)
    status, out, _ = call("results.csv", "--claims", "own.yaml", "--power", "--format", "json")
    assert status == 0
    rows = json.loads(out)
    assert [row["id"] for row in rows] == ["true-one", "false-one", "unknown-one"]
    assert [row["needed_if_claimed"] for row in rows] == [None] * 3  # comparisons
    assert [row["reason"] for row in rows] == ["", "", "the study has no arm 'one-shot'"]
    per_trial = 36.0 * len(levels) / levels["trial"].nunique() / 3600
    assert rows.pop()["hours_more"] is None
    for row in rows:
        assert row["hours_more"] == pytest.approx(max(0, row["needed_if_as_pilot"] - row["n"]) * per_trial)
    assert call("results.csv", "--claims", "own.yaml", "--power", "--strict")[0] == 1
    out = call("results.csv", "--claims", "own.yaml", "--power")[1]
    assert f" {rows[0]['needed_if_as_pilot']} " in out
    assert "90 % probability" in out
    assert "not known for unknown-one: the study has no arm 'one-shot'" in out
    levels[levels["trial"] < 2].to_csv(table, index=False)
    out = call("results.csv", "--claims", "own.yaml", "--power")[1]
    assert "not known for true-one, false-one: 2 trials; a pilot needs 3" in out


def test_power_counts_all_work_of_a_results_folder(call, tmp_path):
    study = tombola.Study.load("demo", **{"trials": 2, "training.iterations": 20, "pruning.rounds": 1})
    results = tombola.run(study, tmp_path / "out", workers=0, quiet=True, figures=False)
    done = [results.store.facts(job)["seconds"] for job in results.plan.work]
    assert len(done) > len(results.frame()["job"].unique())  # masks, too
    assert results.seconds_per_trial() == pytest.approx(sum(done) / 2)
    assert seconds_of(tmp_path / "out", results.frame()) == {study.name: pytest.approx(sum(done) / 2)}
    shutil.rmtree(next((tmp_path / "out" / "jobs").glob("*trial-1.ticket*")))
    first = [results.store.facts(job) for job in results.plan.work if results.store.has(results.plan.work[job])]
    alone = sum(each["seconds"] for each in first if each["spec"]["trial"] == 0)
    assert tombola.Results.open(tmp_path / "out").seconds_per_trial() == pytest.approx(alone)


def test_a_table_without_its_study_says_which_settings_nobody_compared(call, table):
    lines = OWN.replace("source: myself", "source: myself\nrecipe: {training.lr: 0.1}")
    (table.parent / "own.yaml").write_text(lines)
    for more in ([], ["--power"]):
        out = call("results.csv", "--claims", "own.yaml", *more)[1]
        assert "The table does not tell training.lr. Put study.yaml beside it to compare them." in out
        assert out.count("does not tell") == 1


def test_a_study_file_of_another_name_is_refused(call, table):
    (table.parent / "study.yaml").write_text(dump_study(load_study("lenet-mnist")))
    status, _, err = call("results.csv")
    assert status == 2
    assert "is the study 'lenet-mnist', but results.csv has rows of '[red]s'" in err.replace("\n", " ")
    shutil.move(table, table.parent / "mine.csv")  # a table with another name may lie anywhere
    assert call("mine.csv", "--claims", "own.yaml")[0] == 0


def test_strict_fails_for_what_is_not_reproduced_and_nothing_else(call, table):
    assert call("results.csv", "--claims", "own.yaml", "--strict")[0] == 1
    lines = [line for line in OWN.splitlines() if "false-one" not in line]
    (table.parent / "own.yaml").write_text("\n".join(lines))
    assert call("results.csv", "--claims", "own.yaml", "--strict")[0] == 0


def test_a_folder_of_published_results_with_its_study(call, table):
    study = load_study("lenet-mnist-global", {"name": "[red]s"})
    (table.parent / "study.yaml").write_text(dump_study(study))
    for path in (".", "results.csv"):
        status, out, _ = call(path, "--format", "json")
        assert status == 0
        assert {row["id"].partition("-1")[0] for row in json.loads(out) if row["applies"]} >= {"study-b-dense"}
        assert all(row["id"].startswith("study-b") for row in json.loads(out) if row["applies"])
    assert "claims about other networks or studies" in call(".")[1]


def test_claims_about_another_recipe_are_counted_and_not_listed(call, table):
    study = load_study("lenet-mnist", {"name": "[red]s", "training.iterations": 5000})
    (table.parent / "study.yaml").write_text(dump_study(study))
    out = call(".")[1]
    assert "about another recipe, training.iterations=50000; this study has 5000: not measured" in out
    assert "lenet-L1" not in out


def test_each_study_of_a_table_is_judged_by_its_own_settings(call, table):
    names = ("[red]s", "other one", "unknown")
    frames = [levels_of({"ticket": ([0.985, 0.98], [3000, 3000])}, study=name) for name in names]
    pd.concat(frames).to_csv(table, index=False)
    for preset, name, file in (
        ("lenet-mnist-global", "[red]s", "red-s.yaml"),
        ("lenet-mnist", "other one", "other-one.yaml"),
    ):
        (table.parent / file).write_text(dump_study(load_study(preset, {"name": name})))
    rows = json.loads(call(".", "--format", "json")[1])
    about = {
        name: {row["id"].partition("-")[0] for row in rows if row["study"] == name and row["applies"]} for name in names
    }
    assert about["[red]s"] == {"study"}
    assert about["other one"] == {"lenet"}
    assert about["unknown"] >= {"study", "lenet"}  # of the network's name alone


def test_several_results_are_judged_one_by_one(call, table):
    shutil.copy(table, table.parent / "again.csv")
    rows = json.loads(call("results.csv", "again.csv", "--claims", "own.yaml", "--format", "json")[1])
    assert [row["results"] for row in rows] == ["results.csv"] * 3 + ["again.csv"] * 3
    assert {row["n"] for row in rows} == {5, 0}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "contains no results: give a results folder, or a results.csv"),
        ("", "can't be read as a results table"),
        (
            "a,b\n1,2\n",
            "bad.csv: the column 'arm' is missing; needed are arm, trial, level, density, early_stop_iter",
        ),
        ("\x00\x00", "bad.csv"),
        (",".join(("study", "network", "arm")) + "\n", "bad.csv: the column 'trial' is missing"),
    ],
)
def test_what_is_no_results_table(call, table, content, message):
    if content is not None:
        (table.parent / "bad.csv").write_text(content)
    status, _, err = call("bad.csv", "--claims", "own.yaml")
    assert status == 2
    assert message in err


def test_a_table_with_words_for_numbers_or_without_rows(call, table):
    text = table.read_text()
    table.write_text(text.replace("0.8,", "much,", 1))
    status, _, err = call("results.csv", "--claims", "own.yaml")
    assert (status, ": density=much is not a number" in err) == (2, True)
    table.write_text(text.splitlines()[0] + "\n")
    status, _, err = call("results.csv", "--claims", "own.yaml")
    assert (status, "results.csv contains no results yet" in err) == (2, True)


def test_a_claims_file_with_a_mistake(call, table):
    (table.parent / "own.yaml").write_text(OWN.replace('gain("one-shot"', "gain(one_shot"))
    status, _, err = call("results.csv", "--claims", "own.yaml")
    assert status == 2
    assert "own.yaml, claim 'unknown-one': expression: at character 6: one_shot: must be an arm in quotes" in err
