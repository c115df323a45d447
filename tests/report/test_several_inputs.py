"""A study of a network with three named inputs: its notes, its report, and what can't be measured."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import tombola
from tombola.cli import cli
from tombola.errors import InputError
from tombola.export.measure import measure
from tombola.html.write import write_report
from tombola.studies.loading import dump_study

STUDY = {
    "name": "tabular",
    "network": "tabular:Network",
    "data": {"source": "tabular:data", "validation": 10},
    "training": {"optimizer": "sgd", "lr": 0.1, "batch_size": 10, "iterations": 4},
    "pruning": {"rate": 0.5, "rounds": 1},
    "arms": ["ticket"],
    "trials": 1,
}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> tombola.Results:
    folder = tmp_path_factory.mktemp("tabular") / "results"
    return tombola.run(tombola.Study.model_validate(STUDY), out=folder, workers=0, figures=False, quiet=True)


def test_the_report_is_written_and_names_each_input(results, tmp_path):
    page = write_report(results, tmp_path / "page.html").read_text()
    assert "The inputs are not images" in page
    assert "numbers: 3; city: one number; plan: one number, 2 classes" in page
    assert "none; networks take the inputs as they are" in page


def test_a_network_with_several_inputs_is_not_measured(results):
    ticket = results.ticket(trial=0, level=1)
    with pytest.raises(InputError, match=r"one input, and this network takes 3; .* packed or pytorch"):
        measure(ticket.trusted())
    told = CliRunner().invoke(cli, ["measure", str(results.store.root)], standalone_mode=False)
    assert isinstance(told.exception, InputError)
    assert "takes 3" in str(told.exception)


@pytest.mark.parametrize(("normalise", "noted"), [("default", True), ("none", False)])
def test_the_plan_says_which_inputs_stay_as_they_are(normalise, noted, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tabular.yaml"
    path.write_text(dump_study(tombola.Study.model_validate(STUDY)))
    told = CliRunner().invoke(cli, ["plan", str(path), f"data.normalise={normalise}"]).output
    assert ("tombola does not normalise numbers; if" in " ".join(told.split())) is noted


def test_several_inputs_refuse_to_be_normalised():
    study = STUDY | {"data": STUDY["data"] | {"normalise": "feature"}}
    with pytest.raises(InputError, match=r"data\.normalise=feature needs one input, but tabular:data has 3"):
        tombola.run(tombola.Study.model_validate(study), workers=0)
