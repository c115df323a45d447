"""Study files, overrides and claims from strangers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fuzz_harness import cases, damaged_text, harmless, json_values
from hypothesis import given
from hypothesis import strategies as st

from tombola.analysis.claims import read_claims
from tombola.studies.explaining import fields_of
from tombola.studies.loading import dump_study, load_study, preset_names, preset_text
from tombola.studies.size import check_size, runs_of
from tombola.studies.study import Study

SECTIONS = ("", "network", "data", "training", "retraining", "pruning", "connectivity")
FIELDS = [
    f"{section}.{field}".strip(".") for section in SECTIONS for field in fields_of(Study, (section,) if section else ())
]
PIECES = ("mean", "std", "(", ")", "[", "]", ",", " ", "+", "-", "*", "/", ">", ">=", "<", "==", "1e999", "0", "50%")
PIECES += ("ticket", "accuracy", "density", "level", "arm", "'", '"', "@", "__import__('os')", "**", "lambda", "\0")
PIECES += ("9" * 400, "at", "of")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@cases
@given(st.sampled_from(preset_names()).flatmap(lambda name: damaged_text(preset_text(name))))
def test_study_files(folder: Path, text: str) -> None:
    path = folder / "study.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    with harmless():
        study = load_study(str(path))
        dump_study(study)
        check_size(runs_of(study))


@cases
@given(st.sampled_from(FIELDS), json_values)
def test_values_of_every_field(field: str, value: Any) -> None:
    with harmless():
        study = load_study("demo", {field: value})
        assert load_study("demo", {field: value}) == study


@cases
@given(st.lists(st.sampled_from(FIELDS).flatmap(lambda field: damaged_text(f"{field}=1")), min_size=1, max_size=3))
def test_overrides(changes: list[str]) -> None:
    with harmless():
        load_study("demo", {}, changes)


@cases
@given(st.one_of(st.text(max_size=30), st.lists(st.sampled_from(PIECES), max_size=12).map("".join)))
def test_claims_expressions(expression: str) -> None:
    claim = {"id": "a", "source": "b", "sentence": "c", "expression": expression, "expected": 1, "tolerance": 1}
    with harmless():
        read_claims(json.dumps({"claims": [claim]}), "claims.yaml")


@cases
@given(st.data())
def test_claims_files(data: st.DataObject) -> None:
    import tombola

    texts = [path.read_text() for path in sorted((Path(tombola.__file__).parent / "claims").glob("*.yaml"))]
    text = data.draw(st.sampled_from(texts).flatmap(damaged_text))
    with harmless():
        read_claims(text, "claims.yaml")


FOUND = [
    "name: *nothing",
    "extends: demo\nname: &a [*a]",
    "extends: demo\ntrials: !!int x",
    "extends: demo\nname: " + "[" * 300,
    "extends: demo\ntrials: " + "9" * 5000,
    "extends: demo\nname: 2001-99-99",
]


@pytest.mark.parametrize("text", FOUND)
def test_what_was_once_found(folder: Path, text: str) -> None:
    path = folder / "study.yaml"
    path.write_text(text)
    with harmless():
        load_study(str(path))
