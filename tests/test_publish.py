"""The script that makes the pages of docs/results."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import tombola
from tombola.analysis.claims import published_claims
from tombola.studies import dump_study, make_plan

SCRIPT = Path(__file__).parents[1] / "docs" / "results" / "publish.py"
FIELDS = {"trials": 2, "training.iterations": 20, "pruning.rounds": 2, "arms": ["ticket", "random-mask"]}


@pytest.mark.slow
def test_a_page_keeps_its_head_and_gets_the_rest(tmp_path: Path) -> None:
    results = []
    for name in ("one", "two"):
        study = tombola.Study.load("demo", name=name, **FIELDS)
        tombola.run(study, tmp_path / name, workers=0, quiet=True, figures=False)
        results.append(str(tmp_path / name))
    page = tmp_path / "page" / "README.md"
    page.parent.mkdir()
    page.write_text("# A title\n\nFindings.\n")
    for sources, report in ((results[:1], "report.html"), (results[:1], "report.html"), (results, "comparison.html")):
        done = subprocess.run(
            [sys.executable, str(SCRIPT), *sources, str(page.parent), "--figure", "cost"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        text = page.read_text()
        assert text.startswith("# A title\n\nFindings.\n")
        assert text.count("made by docs/results/publish.py") == 1
        assert f"[{report}]({report})" in text
        assert (page.parent / report).is_file()
        assert "](cost" in text
        for picture in page.parent.glob("*.png"):
            assert f"]({picture.name})" in text
        assert str(tmp_path) not in text


@pytest.mark.slow
def test_a_page_grows_by_the_trials_and_arms_of_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("publish", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    original, drawn = script.draw, dict[str, set[int]]()

    def draw(levels: pd.DataFrame, curves: pd.DataFrame, folder: Path, *names: list[str], **options: Any) -> list[Path]:
        files: list[Path] = original(levels, curves, folder, *names, **options)
        drawn.update({path.stem: set(levels["trial"]) for path in files})
        return files

    def publish(folder: str, *options: str) -> None:
        monkeypatch.setattr(sys, "argv", ["", str(tmp_path / folder), str(tmp_path / "page"), *options])
        script.main()

    monkeypatch.setattr(script, "draw", draw)
    fields = FIELDS | {"arms": ["ticket", "reinit"]}
    whole = tombola.Study.load("demo", **(fields | {"trials": 4}))
    expected = tombola.run(whole, tmp_path / "whole", workers=0, quiet=True, figures=False).frame()
    lines = {"connectivity": {"levels": [0]}}
    cases: dict[str, dict[str, Any]] = {
        "middle": {"trials": 2, "first_trial": 1},
        "first": {"trials": 1},
        "last": {"trials": 1, "first_trial": 3},
        "far": {"trials": 1, "first_trial": 5},
        "other": {"trials": 1, "first_trial": 3, "training.lr": 0.1},
        "lines": {"trials": 1, "first_trial": 3, **lines},
        "arm": {"trials": 4, "arms": ["one-shot"]},
        "arm of some": {"trials": 2, "arms": ["one-shot"]},
        "both": {"trials": 2, "arms": ["reinit", "one-shot"]},
        "renamed": {"trials": 1, "first_trial": 3, "name": "renamed"},
    }
    for folder, changes in cases.items():
        shutil.copytree(tmp_path / "whole" / "jobs", tmp_path / folder / "jobs")  # those of `whole` are not run again
        study = tombola.Study.load("demo", **fields | changes)
        tombola.run(study, tmp_path / folder, workers=0, quiet=True, figures=False)

    with pytest.raises(SystemExit, match=r"no results\.csv to keep rows of"):
        publish("middle", "--keep-rows")
    publish("middle")
    refused = {
        "far": "have gaps",
        "other": "are of other runs",
        "lines": "does not join inter",
        "renamed": "is of the st",
    }
    for folder, why in refused.items():
        with pytest.raises(SystemExit, match=why):
            publish(folder, "--keep-rows")
    with pytest.raises(SystemExit, match="the page has no row that the results folder lacks"):
        publish("middle", "--keep-rows")
    with pytest.raises(SystemExit, match="needs --keep-rows"):
        publish("last", "--keep-pictures")
    shutil.copytree(tmp_path / "page", tmp_path / "before")
    publish("last", "--keep-rows", "--keep-pictures", "--figure", "cost")
    for name in ("figure-3.png", "curves-summary.csv"):
        assert (tmp_path / "page" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()
    assert drawn["figure-1"] == drawn["cost"] == {1, 2, 3}
    text = (tmp_path / "page" / "README.md").read_text()
    assert "show trials 1 to 2 alone.\nThe page does not have the masks and evaluations of trial 3." in text
    assert "](figure-3.png)" in text
    shutil.rmtree(tmp_path / "page")
    shutil.move(tmp_path / "before", tmp_path / "page")
    publish("last", "--keep-rows", "--figure", "live-pixels", "--figure", "cost")
    assert drawn["figure-1"] == drawn["cost"] == {1, 2, 3}
    assert drawn["live-pixels"] == {3}
    publish("first", "--keep-rows", "--figure", "live-pixels", "--figure", "cost")
    rows = pd.read_csv(tmp_path / "page" / "results.csv")
    by = ["arm", "trial", "level"]
    assert list(rows[by].itertuples(index=False)) == list(expected[by].itertuples(index=False))
    for column in ("job", "final_test_accuracy"):
        assert rows.set_index(by)[column].to_dict() == expected.set_index(by)[column].to_dict()
    assert tombola.Study.load(tmp_path / "page" / "study.yaml").trial_numbers == range(4)
    text = (tmp_path / "page" / "README.md").read_text()
    assert "show trial 0 alone.\nThe page does not have the masks and evaluations of trials 1 to 3." in text
    assert "n = 4 trials" in text
    assert str(tmp_path) not in text + (tmp_path / "page" / "report.html").read_text()

    for folder, why in {"arm of some": "page and results folder lack", "both": "trials or arms, not both"}.items():
        with pytest.raises(SystemExit, match=why):
            publish(folder, "--keep-rows")
    with pytest.raises(SystemExit, match="lack some of its rows already"):
        publish("arm", "--keep-rows", "--keep-pictures")
    publish("arm", "--keep-rows")
    assert (tmp_path / "page" / "figure-1.png").is_file()  # of the tickets, which this folder does not have
    by = [*by, "repeat"]
    rows = pd.read_csv(tmp_path / "page" / "results.csv").set_index(by)
    three = whole.model_copy(update={"arms": tombola.Study.load(tmp_path / "page" / "study.yaml").arms})
    assert [arm.label for arm in three.arms] == ["ticket", "reinit", "one-shot"]
    planned = {(row.arm, row.trial, row.level, row.repeat): row.job for row in make_plan(three).rows}
    assert rows["job"].to_dict() == planned
    assert list(rows.index) == list(planned)
    text = (tmp_path / "page" / "README.md").read_text()
    assert "show one-shot alone.\nThe page does not have the masks and evaluations of ticket, reinit." in text

    page_study = tmp_path / "page" / "study.yaml"
    page_study.write_text(dump_study(tombola.Study.load(page_study, **lines)))
    with pytest.raises(SystemExit, match="does not join inter"):
        publish("last", "--keep-rows")
    page_study.unlink()
    with pytest.raises(SystemExit, match="has several studies"):
        publish("last", "--keep-rows")

    shutil.rmtree(next((tmp_path / "last" / "jobs").glob("*trial-3.ticket.level-02*")))
    with pytest.raises(SystemExit, match="needs a finished results folder"):
        publish("last", "--keep-rows")


def page_of(folder: Path, dense: float, ticket: float) -> None:
    """Write a page of study D: 74.75 % is published for its dense network."""
    densities, values = (1.0, 0.59, 0.25), (dense, ticket, 0.5)
    rows = [
        f"conv4-cifar10-stability,ticket,{trial},{level},{density},100,{value},{value + trial / 1000}"
        for trial in range(3)
        for level, (density, value) in enumerate(zip(densities, values, strict=True))
    ]
    header = "study,arm,trial,level,density,early_stop_iteration,early_stop_test_accuracy,final_test_accuracy"
    folder.mkdir(parents=True)
    (folder / "results.csv").write_text("\n".join([header, *rows]) + "\n")
    study = tombola.Study.load("conv4-cifar10-stability")
    (folder / "study.yaml").write_text(dump_study(study))


def test_the_summary_has_each_claim_and_keeps_what_is_written_by_hand(tmp_path: Path) -> None:
    page_of(tmp_path / "good", 0.747, 0.747)
    page_of(tmp_path / "bad", 0.62, 0.62)
    short = tmp_path / "short"
    page_of(short, 0.62, 0.62)
    study = tombola.Study.load("conv4-cifar10-stability-short", name="conv4-cifar10-stability")
    (short / "study.yaml").write_text(dump_study(study))

    def summarise() -> str:
        done = subprocess.run(
            [sys.executable, str(SCRIPT.with_name("summarise.py")), str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return (tmp_path / "summary.md").read_text()

    text = summarise()
    lines = {line.split("](")[1].split("/")[0]: line for line in text.splitlines() if "| study-d-dense |" in line}
    assert set(lines) == {"good", "bad"}  # a cut budget is not judged
    assert "| 74.80 [" in lines["good"]
    assert "| 3 | reproduced |" in lines["good"]
    assert "| 3 | not reproduced |" in lines["bad"]
    assert "- **study-d-dense** The cause is not known." in text
    assert "| lenet-L1 |" in text
    assert all(f"| {claim.id} |" in text for claim in published_claims())

    by_hand = text.replace("The cause is not known.", "Too few images.\n  They were 10,000.").replace(
        "# Summary", "# Mine"
    )
    (tmp_path / "summary.md").write_text(by_hand)
    assert summarise() == by_hand


def test_a_mean_of_the_summary_covers_all_runs_of_its_level() -> None:
    spec = importlib.util.spec_from_file_location("publish", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    place = {"study": "s", "arm": "ticket", "level": 0, "density": 1.0}
    values = {0: (0.1, 0.2), 100: (0.5, None), 200: (0.7, 0.9)}  # at iteration 100, one run alone has its early stop
    rows = [
        place | {"trial": trial, "iteration": iteration, "test_accuracy": value, "val_loss": 1.0}
        for iteration, both in values.items()
        for trial, value in enumerate(both)
    ]
    found = script._summary(pd.DataFrame(rows)).reset_index().set_index("iteration")
    assert list(found["runs"]) == [2, 2, 2]
    assert found["test_accuracy_mean"].dropna().to_dict() == pytest.approx({0: 0.15, 200: 0.8})
    assert found["test_accuracy_min"].isna().to_dict() == {0: False, 100: True, 200: False}
