"""The JSON schema of study files takes what tombola takes, and refuses misspelt fields as tombola does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

import tombola
from tombola.cli import cli
from tombola.section import Section, field_texts
from tombola.studies.cluster import SHELL
from tombola.studies.loading import dump_study, load_study, preset_names, preset_text
from tombola.studies.schema import study_schema
from tombola.studies.study import ArmSettings, Study
from tombola.tasks.settings import TASKS

SCHEMA = study_schema()
CHECK = jsonschema.Draft7Validator(SCHEMA)
ALONE: dict[str, Any] = {
    "name": "mine",
    "network": "lenet-300-100",
    "data": {"source": "digits", "validation": 200},
    "training": {"lr": 1e-3, "batch_size": 60, "iterations": 20},
    "pruning": {"rate": 0.3, "rounds": 1},
    "arms": ["ticket"],
    "trials": 1,
}


def faults(study: Any) -> list[str]:
    return [error.message for error in CHECK.iter_errors(study)]


def parsed(text: str) -> Any:
    return YAML(typ="safe").load(text)


def test_it_is_a_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)


def test_every_preset_fits() -> None:
    for name in preset_names():
        assert faults(parsed(preset_text(name))) == [], name


@pytest.mark.slow
def test_what_a_results_folder_keeps_fits() -> None:
    for name in preset_names():
        assert faults(parsed(dump_study(load_study(name)))) == [], name


@pytest.mark.parametrize(
    "change",
    [
        {"network": "my_nets:make"},
        {"network": {"name": "my.nets:make", "arguments": {"anything": [1, {"a": None}]}, "output": 4}},
        {"data": {"source": "my_data:load", "arguments": {"seed": 1}, "validation": "my_data:split"}},
        {"data": {"source": "digits", "validation": 0.1}},
        {"task": "my_tasks:Distance"},
        {"task": {"name": "my_tasks:Distance", "radius": 0.5}},
        {"task": {"name": "regression", "unit": "kW"}},
        {"training": {"lr": 1, "batch_size": 1, "iterations": None, "epochs": 1, "augment": ["flip", "my_code:noise"]}},
        {"training": {"optimizer": "torch.optim:NAdam", "lr": 1, "batch_size": 1, "epochs": 0.5, "schedule": "a:b"}},
        {"retraining": {"epochs": 25}},
        {"pruning": {"rate": [0.5, 0.2], "criterion": "mine:score", "rates": {"conv*": 0.1}, "exclude": ["output", 0]}},
        {"pruning": {"densities": [0.5, 0.1], "pattern": {"n": 2, "m": 4}, "back_off": {"margin": 0.01}}},
        {"rewind": [0, 0.1, "2 epochs"]},
        {"connectivity": {"levels": [0, 1], "rewind": [0, 5], "between": ["copies"]}},
        {"arms": "ticket"},
        {"arms": ["ticket", {"reinit": {"per_trial": 3}}, {"of": "snip", "shuffle": True}, {"one-shot": None}]},
        {"arms": [{"rule": "my_arms:late", "name": "late"}, {"my_arms:late": {"pattern": "channel"}}]},
        {"arms": {"ticket": {"transfer": {"from": {"data": "fashion-mnist", "seed": 1}, "take": "mask"}}}},
        {"arms": [{"rule": "ticket", "transfer": {"from": "lenet-mnist"}}, {"ticket": {"training": {"lr": 0.1}}}]},
        {"cluster": {"workers": 4, "walltime": "4:00:00"}},
    ],
)
def test_what_tombola_takes_fits(change: dict[str, Any]) -> None:
    study = ALONE | change
    Study.model_validate(study)
    assert faults(study) == []


def test_a_study_needs_its_sections_unless_it_extends_another_or_has_a_trainer() -> None:
    assert faults({"extends": "demo"}) == []
    assert faults({"extends": "base.yaml", "training": {"lr": 1e-4, "warmup": None}}) == []
    own = {name: ALONE[name] for name in ("name", "network", "pruning", "arms", "trials")}
    assert faults(own)
    assert faults(own | {"trainer": "my_train:fit"}) == []
    assert faults(own | {"trainer": {"name": "my_train:fit", "arguments": {"a": 1}, "inputs": [3, 8, 8]}}) == []


def sections() -> dict[str, type[Section]]:
    found = {name: field.annotation for name, field in Study.model_fields.items()}
    found = {name: each for name, each in found.items() if isinstance(each, type) and issubclass(each, Section)}
    assert len(found) >= 5
    return found


@pytest.mark.parametrize("section", [*sections(), "connectivity"])
def test_a_misspelt_field_is_refused_by_both(section: str) -> None:
    fields = sections().get(section) or type(Study.load("demo", connectivity={}).connectivity)
    for field in fields.model_fields:
        wrong = {section: {field + "s_": 1}} if section != "task" else {"task": {"name": "regression", field + "s_": 1}}
        assert faults({"extends": "demo"} | wrong), wrong
        with pytest.raises(tombola.InputError, match=f"{field}s_"):
            Study.load("demo", **wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"trails": 3},
        {"arms": [{"reinit": {"per_trail": 3}}]},
        {"arms": [{"rule": "reinit", "per_trail": 3}]},
        {"arms": ["tiket"]},
        {"arms": [{"of": "snip", "shufle": True}]},
        {"arms": [{"ticket": {"transfer": {"form": "lenet-mnist"}}}]},
        {"arms": [{"ticket": {"training": {"lr_": 0.1}}}]},
        {"retraining": {"epoch": 25}},
        {"pruning": {"pattern": {"n": 2, "k": 4}}},
        {"pruning": {"pattern": "channels"}},
        {"pruning": {"early_bird": {"treshold": 0.1}}},
        {"task": {"name": "regression", "units": "kW"}},
        {"training": {"optimizer": "adamm"}},
        {"training": {"lr": "high"}},
        {"trials": True},
    ],
)
def test_other_mistakes_are_refused_by_both(wrong: dict[str, Any]) -> None:
    assert faults({"extends": "demo"} | wrong)
    with pytest.raises(tombola.InputError):
        tombola.studies.plan.make_plan(Study.load("demo", **wrong))


def test_shell_lines_are_refused_by_both() -> None:
    for field in SHELL:
        wrong = {"cluster": {field: ["-x"]}}
        assert faults({"extends": "demo"} | wrong)
        with pytest.raises(tombola.InputError):
            Study.load("demo", **wrong)


def test_every_field_says_what_it_means() -> None:
    for section in (Study, ArmSettings, *sections().values()):
        assert set(section.model_fields) <= set(field_texts(section)), section


def test_options_of_a_task_are_those_of_its_class() -> None:
    for name, task in TASKS.items():
        for option in task.model_fields:
            assert not any("unexpected" in fault for fault in faults(ALONE | {"task": {"name": name, option: None}}))


def test_the_command_prints_it(tmp_path: Path) -> None:
    printed = CliRunner().invoke(cli, ["schema"])
    assert printed.exit_code == 0
    assert json.loads(printed.output) == json.loads(json.dumps(SCHEMA))
