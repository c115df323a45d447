"""Pages of docs/results: the commands beside them repeat their studies, with the code as it is."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tombola.studies import Study, load_study, make_plan

RESULTS = Path(__file__).parents[2] / "docs" / "results"
OLDER = "An earlier version of the code computed this page"  # such a page must say so, and its command still works
PAGES = sorted(path.parent for path in RESULTS.glob("*/results.csv"))
ROOT = Path(os.environ.get("TOMBOLA_DATA", "") or "nowhere")
PLACE = ["arm", "trial", "repeat", "level"]

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def head_of(page: Path) -> str:
    """Return what is written by hand, with each command on one line."""
    return (page / "README.md").read_text().partition("<!-- made by")[0].replace("\\\n", " ")


def commands(page: Path) -> list[list[str]]:
    """Return the words behind `tombola run` of each command of a page, those of a loop one by one."""
    found = list[list[str]]()
    for line in re.findall(r"^ {4}(\S.*)$", head_of(page), re.MULTILINE):
        loop = re.fullmatch(r"for (\w+) in (.+); do (.+); done", line)
        lines = [loop[3].replace(f"${loop[1]}", value) for value in loop[2].split()] if loop else [line]
        found += [words[2:] for words in map(shlex.split, lines) if words[:2] == ["tombola", "run"]]
    return [words[: words.index("--data")] if "--data" in words else words for words in found]


def studies(page: Path) -> dict[str, Study]:
    return {study.name: placed(study) for study in map(Study.load, sorted(page.glob("*.yaml")))}


def with_training(study: Study, changes: dict[str, Any]) -> Study:
    return study.model_copy(update={"training": study.training.model_copy(update=changes)})


def placed(study: Study) -> Study:
    """Return a study whose file of data lies in ROOT, as one that was run with `--data`."""
    if not isinstance(study.data.path, str):
        return study
    return study.model_copy(
        update={"data": study.data.model_copy(update={"path": str(ROOT / Path(study.data.path).name)})}
    )


@pages
def test_the_commands_of_a_page_are_its_studies(page: Path) -> None:
    mine = studies(page)
    asked = {study.name: placed(study) for study in (load_study(name, None, rest) for name, *rest in commands(page))}
    assert mine.keys() <= asked.keys()
    # What presets record at evaluations changed since.
    changed = {"test_every": None, "train_every": None} if OLDER in head_of(page) else {}
    for name, study in mine.items():
        assert with_training(study, changed) == with_training(asked[name], changed)


@pytest.mark.slow
@pages
def test_each_row_of_a_page_is_a_run_of_the_code_as_it_is(page: Path) -> None:
    mine = studies(page)
    if any(study.data.path and not Path(study.data.path).is_file() for study in mine.values()):
        pytest.skip("TOMBOLA_DATA names no folder that holds the file of the data")
    rows = pd.read_csv(page / "results.csv", dtype={"job": str})
    expected = {
        (name, row.arm, row.trial, row.repeat, row.level): row.job
        for name, study in mine.items()
        for row in make_plan(study, ROOT).rows
    }
    places = rows[["study", *PLACE]].itertuples(index=False, name=None)
    found = dict(zip(places, rows["job"], strict=True))
    assert found.keys() == expected.keys()
    assert (found == expected) == (OLDER not in head_of(page))
