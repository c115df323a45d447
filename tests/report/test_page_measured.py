"""Measurements that lie beside the results: stored by `tombola measure`, shown by the report and the model card."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hostile_names import HOSTILE, HOSTILE_ARM
from page_tables import tables_of

import tombola
from tombola.cli import cli
from tombola.export.measured_card import card_lines
from tombola.export.stored import FOLDER, MOST_FILES, read_measurements
from tombola.formatting import plain
from tombola.html.write import write_report
from tombola.running.files import read_json_checked, write_json_checked

QUICK = ("--rival", "PyTorch", "--batch", "1", "--threads", "1", "--rounds", "1")


@pytest.fixture(scope="module")
def folder(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one measurement, made without a C compiler."""
    made = tmp_path_factory.mktemp("measured") / "results"
    shutil.copytree(hostile, made)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", "no-such-compiler")
        arguments = ["measure", str(made), "--arm", HOSTILE_ARM, "--level", "2", *QUICK, "--format", "json"]
        found = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert found.exit_code == 0
    assert found.stderr.endswith("`tombola report` shows it\n")
    return made


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "results"))


def stored(folder: Path) -> Path:
    (path,) = (folder / FOLDER).iterdir()
    return path


def changed(folder: Path, **more: Any) -> None:
    """Write the measurement again with other fields, and a checksum that fits."""
    write_json_checked(stored(folder), read_json_checked(stored(folder)) | more)


def test_a_stored_measurement_says_what_was_measured_and_on_what(folder: Path) -> None:
    results = tombola.Results.open(folder)
    measurements = read_measurements(results)
    assert measurements.left_out == ()
    (each,) = measurements.found
    frame = results.frame()
    row = frame[(frame["arm"] == HOSTILE_ARM) & (frame["trial"] == 0) & (frame["level"] == 2)].iloc[0]
    assert (each.ticket.job, each.ticket.density) == (row["job"], row["density"])
    assert each.metric == "accuracy"
    assert each.forms[0].metric == pytest.approx(row["final_test_accuracy"], abs=1e-6)
    assert {"torch", "python", "tombola"} <= each.conditions.versions.keys()
    assert "C compiler" not in each.conditions.versions
    assert each.conditions.examples == 359
    assert each.command.startswith("tombola measure RESULTS --arm ")
    assert each.command.endswith("--level 2 --rival PyTorch --batch 1 --threads 1 --rounds 1")
    assert {each.contender for each in each.latencies} == {"PyTorch", "compact", "pytorch (numba)"}
    assert re.fullmatch(r"[A-Za-z0-9_-]+-trial-0-repeat-0-level-02\.json", stored(folder).name)


def test_the_report_shows_it_and_measures_nothing(folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    import tombola.export.measure

    monkeypatch.setattr(tombola.export.measure, "measure", None)
    page = write_report(tombola.Results.open(folder), tmp_path / "page.html")
    text = page.read_text("utf-8")
    section = text.partition('<section id="measured"')[2].partition("</section>")[0]
    assert "dense float32" in section
    assert "Batch 1, 1 thread" in section
    assert "Measured on " in section
    assert "needs a C compiler" in section
    assert HOSTILE not in section
    assert page.stat().st_size < 1.5e6
    exported = tables_of(text)["exported"]
    assert {row[exported["columns"].index("form")] for row in exported["rows"]} >= {"dense float32", "packed"}
    again = write_report(tombola.Results.open(folder), tmp_path / "again.html")
    assert again.read_bytes() == page.read_bytes()


def test_a_report_without_measurements_has_no_such_section(hostile_page: Path) -> None:
    assert 'id="measured"' not in hostile_page.read_text("utf-8")


def test_the_card_has_its_lines(folder: Path) -> None:
    results = tombola.Results.open(folder)
    lines = card_lines(results, results.ticket(0, 2, HOSTILE_ARM))
    assert lines[0] == "| form | bytes | parameters | multiply-adds | memory | accuracy |"
    assert any(line.startswith("| dense float32 |") for line in lines)
    assert any(line.startswith("| PyTorch |") for line in lines)
    assert any(line.startswith("Measured on ") for line in lines)
    for other in (results.ticket(1, 2, HOSTILE_ARM), results.ticket(0, 1, "ticket")):
        assert card_lines(results, other)[0].startswith("Not measured")
    assert card_lines(None, results.ticket(0, 2, HOSTILE_ARM))[0].startswith("Not measured")


def test_names_in_a_file_are_text(copied: Path, tmp_path: Path) -> None:
    content = read_json_checked(stored(copied))
    content["forms"][0]["form"] = content["latencies"][0]["contender"] = f"|{HOSTILE}"
    changed(copied, notes=[HOSTILE], command=HOSTILE, forms=content["forms"], latencies=content["latencies"])
    results = tombola.Results.open(copied)
    text = write_report(results, tmp_path / "page.html").read_text("utf-8")
    assert HOSTILE not in text
    assert "&lt;" in text.partition('<section id="measured"')[2].partition("</section>")[0]
    for line in card_lines(results, results.ticket(0, 2, HOSTILE_ARM)):
        assert plain(HOSTILE) not in line
        assert "<" not in line.replace("\\<", "")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes().replace(b"float32", b"float64", 1)),
        lambda path: path.write_text("nonsense"),
        lambda path: path.write_bytes(b""),
        lambda path: write_json_checked(path, [1]),
        lambda path: write_json_checked(path, read_json_checked(path) | {"format": 2}),
        lambda path: write_json_checked(path, read_json_checked(path) | {"more": 1}),
    ],
)
def test_a_damaged_file_is_left_out_by_name(copied: Path, change: Any, tmp_path: Path) -> None:
    change(stored(copied))
    results = tombola.Results.open(copied)
    found = read_measurements(results)
    assert found.found == ()
    assert found.left_out == (f"{FOLDER}/{stored(copied).name} is damaged; delete it, and measure the ticket again",)
    assert "is damaged; delete it" in write_report(results, tmp_path / "page.html").read_text("utf-8")


def test_a_measurement_of_an_earlier_version_is_left_out(copied: Path) -> None:
    ticket = read_json_checked(stored(copied))["ticket"]
    changed(copied, ticket=ticket | {"job": "0" * 16})
    found = read_measurements(tombola.Results.open(copied))
    assert found.found == ()
    assert "a ticket that the study no longer has" in found.left_out[0]


def test_too_many_files_are_not_all_read(copied: Path) -> None:
    first = stored(copied)
    for number in range(MOST_FILES):
        shutil.copy(first, copied / FOLDER / f"z{number}.json")
    found = read_measurements(tombola.Results.open(copied))
    assert len(found.found) == MOST_FILES
    assert "the first 200 are read" in found.left_out[0]
