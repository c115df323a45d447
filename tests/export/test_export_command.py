"""`tombola export` and `ticket.export`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from click.testing import CliRunner
from made_up_tickets import ticket_of

import tombola
from tombola.cli import cli
from tombola.errors import InputError
from tombola.export import FORMATS, default_path, export
from tombola.export.packed.decode import read
from tombola.export.packed.ticket import load_packed
from tombola.export.smaller import load_compact
from tombola.export.source import best_level


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    study = tombola.Study.load(
        "demo",
        **{"training.iterations": 60, "training.evaluate_every": 30, "pruning.rounds": 2},
        trials=2,
        arms=["ticket", "random-mask"],
    )
    return tombola.run(study, tmp_path_factory.mktemp("export") / "results", workers=0, quiet=True, figures=False)


def run(*arguments: object):
    found = CliRunner().invoke(cli, ["export", *map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found


def test_a_row_of_a_results_folder_is_exported(results, tmp_path):
    folder = results.store.root
    said = run(folder, "--to", "compact", "--out", tmp_path / "x", "--trial", 1, "--level", 2, "--arm", "random-mask")
    assert f"{tmp_path / 'x'}: " in said.output
    origin = load_compact(tmp_path / "x").about["origin"]
    assert (origin["trial"], origin["level"], origin["arm"]) == (1, 2, "random-mask")


def test_a_folder_takes_the_ticket_s_name(results, tmp_path):
    run(results.store.root, "--to", "packed", "bits=2", "--level", 1, "--out", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["demo-ticket-trial-0-level-01.tombola"]


def test_a_ticket_s_file_is_exported(results, tmp_path):
    ticket = results.ticket(level=1)
    ticket.save(tmp_path / "ticket.safetensors")
    run(tmp_path / "ticket.safetensors", "--to", "packed", "form=recipe", "--out", tmp_path / "x")
    assert read(tmp_path / "x").about["form"] == "recipe"


def test_fine_tuning_uses_the_trial_s_training_examples(results, tmp_path):
    run(results.store.root, "--to", "packed", "bits=1", "finetune=20", "--level", 1, "--out", tmp_path / "tuned")
    run(results.store.root, "--to", "packed", "bits=1", "finetune=0", "--level", 1, "--out", tmp_path / "plain")
    assert (tmp_path / "tuned").read_bytes() != (tmp_path / "plain").read_bytes()
    assert load_packed(tmp_path / "tuned")


def test_the_level_is_chosen_on_validation_alone(results):
    curves = results.curves()
    ends = curves[(curves["arm"] == "ticket") & (curves["iteration"] == curves["iteration"].max())]
    means = ends.groupby("level")["val_accuracy"].mean()
    assert best_level(results) == max(level for level in means.index if means[level] >= means[0])
    with pytest.raises(InputError, match="no finished run of arm 'reinit'"):
        best_level(results, "reinit")


def test_without_validation_values_no_level_is_chosen(results, monkeypatch):
    curves = results.curves().assign(val_accuracy=float("nan"))
    monkeypatch.setattr(type(results), "curves", lambda _: curves)
    with pytest.raises(InputError, match=r"has no validation accuracy of the dense network.*choose one with --level"):
        best_level(results)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["--to", "pakced"], "unknown format; did you mean 'packed'"),
        (["--to", "packed", "bits"], "write NAME=VALUE"),
        (["--to", "packed", "bots=3"], "did you mean 'bits'"),
        (["--to", "packed", "finetune=many"], "is not a number of iterations"),
        (["--to", "compact", "--level", "9"], "has no arm='ticket', trial=0, repeat=0, level=9"),
    ],
)
def test_mistakes_are_one_sentence(results, arguments, match):
    with pytest.raises(InputError, match=match) as caught:
        run(results.store.root, *arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_a_ticket_s_file_has_no_levels(results, tmp_path):
    results.ticket(level=1).save(tmp_path / "ticket")
    with pytest.raises(InputError, match="--level needs a results folder"):
        run(tmp_path / "ticket", "--to", "compact", "--level", 1)
    with pytest.raises(InputError, match="needs training data: pass a results folder"):
        run(tmp_path / "ticket", "--to", "packed", "finetune=5")
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "nothing", "--to", "compact")
    with pytest.raises(InputError, match="a file system allows"):
        run("a" * 5000, "--to", "compact")


@pytest.mark.parametrize(
    ("origin", "name"),
    [
        ({"study": "/tmp/x/../evil", "arm": "a b"}, "_tmp_x____evil-a_b-trial-0-level-01.tombola"),
        ({"study": "größe_2-b", "level": 12}, "größe_2-b-ticket-trial-0-level-12.tombola"),
        ({"study": ["x"], "arm": None}, "__x__-None-trial-0-level-01.tombola"),
    ],
)
def test_a_ticket_can_not_choose_another_folder(origin, name):
    ticket = ticket_of(hidden=[5])
    assert str(default_path(replace(ticket, origin=ticket.origin | origin), "packed")) == name


@pytest.mark.parametrize("field", ["trial", "level"])
@pytest.mark.parametrize("value", [[1], "../x", 1.5, True, None])
def test_a_ticket_whose_numbers_are_none_has_no_default_path(field, value):
    ticket = ticket_of(hidden=[5])
    with pytest.raises(InputError, match=f"the ticket's {field} is .*not a whole number: give the path of the file"):
        default_path(replace(ticket, origin=ticket.origin | {field: value}), "packed")


def test_every_format_can_be_imported_and_is_known_by_name(tmp_path):
    for name, form in FORMATS.items():
        assert callable(form.function()), name
        assert form.suffix.startswith(".")
    with pytest.raises(InputError, match="unknown format 'onxx'; did you mean 'onnx'"):
        export(ticket_of(hidden=[5]), "onxx", tmp_path / "x")
