"""The Python calls of the README."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

import tombola

SCRIPT = """\
import sys

import tombola

study = tombola.Study.load("demo", trials=1, arms=["ticket"], **{"training.iterations": 40, "pruning.rounds": 2})
results = tombola.run(study, "out", workers=2, figures=False)
print(len(results.frame()), results.ticket(trial=0, level=2).build())
print("once", file=sys.stderr)
"""


def test_every_public_name_is_there() -> None:
    for name in tombola.__all__:
        assert getattr(tombola, name).__module__.startswith("tombola.")
        assert name in dir(tombola)
    assert tombola.Study is importlib.import_module("tombola.studies.study").Study
    with pytest.raises(AttributeError, match="nosuch"):
        tombola.nosuch  # noqa: B018


def test_errors_have_an_exit_status() -> None:
    assert tombola.InputError.exit_status == 2
    assert tombola.StoreError.exit_status == 1
    assert issubclass(tombola.DataError, tombola.InputError)
    assert issubclass(tombola.StoreError, tombola.TombolaError)


@pytest.mark.slow
def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOMBOLA")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3 ")
    assert "(output): Linear(in_features=50, out_features=10" in done.stdout
    assert done.stderr.count("once") == 1, "the workers ran the script again"
    assert done.stderr.count("done ") == 3
    assert len(pd.read_csv(tmp_path / "out" / "results.csv")) == 3


@pytest.mark.parametrize("main", ["script", pytest.param("-c", marks=pytest.mark.slow)])
def test_a_script_that_is_imported_for_its_own_study_says_so(main: str, tmp_path: Path) -> None:
    """Its workers would run it again, each with workers of its own."""
    (tmp_path / "train.py").write_text(
        SCRIPT.replace("**{", '**{"network": "train:make", ').replace(
            "study =", "from tombola.networks.lenet import lenet as make\nstudy ="
        )
    )
    # Run as a script it imports itself when the study is planned; imported first, its workers do when they start.
    line = ["train.py"] if main == "script" else ["-c", "import train"]
    done = subprocess.run([sys.executable, *line], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "tombola.run was called during the import of 'train'" in last
    assert "__main__" in last
    assert done.stdout == ""


def test_a_study_by_name_and_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(
        textwrap.dedent("""\
            extends: demo
            name: My study
            trials: 1
            arms: ticket
            training: {iterations: 10}
            pruning: {rounds: 0}
            """)
    )
    results = tombola.run("mine.yaml", workers=0, quiet=True, figures=False)
    assert results.store.root == Path("results/My-study")
    assert tombola.Results.open("results/My-study").study == results.study == tombola.Study.load("mine.yaml")


def test_bad_input_raises_before_anything_is_written(tmp_path: Path) -> None:
    for study, options in (
        ("dmeo", {}),
        ("demo", {"engine": "dens"}),
        ("demo", {"device": "gpu"}),
        ("demo", {"workers": -1}),
        ("demo", {"data": "no/such/folder"}),
        (3, {}),
        (None, {}),
        ("demo", {"checkpoint_every": 0.0}),
    ):
        with pytest.raises(tombola.InputError):
            tombola.run(study, tmp_path / "out", figures=False, quiet=True, **options)
        assert not (tmp_path / "out").exists()


def test_what_is_no_folder() -> None:
    for folder in (3, None):
        with pytest.raises(tombola.InputError, match="is not a results folder"):
            tombola.Results.open(folder)  # type: ignore[arg-type]


def test_the_overrides_of_a_study() -> None:
    study = tombola.Study.load("demo", trials=2, training={"lr": 0.5}, **{"pruning.rounds": 4})
    assert (study.trials, study.training.lr, study.pruning.rounds) == (2, 0.5, 4)
    assert study.training.iterations == tombola.Study.load("demo").training.iterations
    with pytest.raises(tombola.InputError, match="argument: trials=0"):
        tombola.Study.load("demo", trials=0)
