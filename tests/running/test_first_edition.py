"""A results folder of version 0.1 opens: the tables are those that it was saved with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

import tombola
from tombola.running.files import Damaged

FOLDER = Path(__file__).parent / "first_edition"


@pytest.fixture
def results() -> tombola.Results:
    return tombola.Results.open(FOLDER)


def test_tables_are_as_they_were_saved(results: tombola.Results) -> None:
    saved = pd.read_csv(FOLDER / "results.csv")
    found = results.frame()
    pd.testing.assert_frame_equal(found[list(saved)], saved, check_dtype=False)
    for name, table in (
        ("curves", results.curves()),
        ("connectivity", results.connectivity()),
        ("mask_distance", results.settling()),
    ):
        saved = pd.read_csv(FOLDER / f"{name}.csv")
        pd.testing.assert_frame_equal(table[list(saved)], saved, check_dtype=False)
    assert results.missing() == 0


def test_a_ticket_of_it_is_built(results: tombola.Results) -> None:
    ticket = results.ticket(level=1)
    built = dict(ticket.build().named_parameters())
    for name, keep in ticket.mask.items():
        assert bool((built[name][~keep] == 0).all())
    assert ticket.mask.density == pytest.approx(results.frame().query("arm == 'ticket' and level == 1").density.iloc[0])


def test_a_new_run_in_it_uses_nothing_old_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "copy" / "first-edition"
    shutil.copytree(FOLDER, folder)
    study = tombola.Study.load(folder, connectivity=None, arms=["ticket"])
    results = tombola.run(study, folder, workers=0, figures=False)
    assert "settings have changed since" in capsys.readouterr().err
    assert results.missing() == 0
    assert len(list((folder / "jobs").glob("*.dense-*"))) == 2  # the old one stays, and is not used


def test_a_damaged_result_of_it_is_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "first-edition"
    shutil.copytree(FOLDER, folder)
    (path,) = (folder / "jobs").glob("*ticket.level-01*")
    (path / "result.json").write_text("{}")
    results = tombola.Results.open(folder)
    assert len(results.frame()) == len(pd.read_csv(FOLDER / "results.csv")) - 1
    with pytest.raises(Damaged):
        results.store.facts(path.name.rpartition("-")[2])
