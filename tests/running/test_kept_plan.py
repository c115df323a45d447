"""Results can be read with what is in their folder, and a run says what has changed since the last one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import small_runs
from small_studies import find, small_study

import tombola
from tombola.running.files import Damaged, read_json_checked, write_json_checked
from tombola.running.kept_plan import PLAN_FILE, keep_plan, kept_plan, what_changed
from tombola.running.store import Store
from tombola.studies.plan import make_plan

# Each in a process of its own: a module is imported once, whatever becomes of its file.
SHORT = ("training.iterations=20", "training.evaluate_every=10", "pruning.rounds=1", "arms=[ticket]")


def tombola_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOMBOLA")}
    return subprocess.run(
        [sys.executable, "-m", "tombola", *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = small_runs.write_study(tmp_path_factory.mktemp("once"))
    assert run(study.parent).returncode == 0
    return study.parent


@pytest.fixture
def folder(once: Path, tmp_path: Path) -> Path:
    """A folder with a study of own code and data that has been run."""
    return Path(shutil.copytree(once, tmp_path / "own"))


def run(folder: Path, *changes: str) -> subprocess.CompletedProcess[str]:
    return tombola_in(folder, "run", "small.yaml", *SHORT, *changes, "--workers", "0", "--no-figures", "-q")


def test_the_plan_comes_back_as_it_was(tmp_path: Path, demo: tombola.Study) -> None:
    study = demo.model_copy(update={"rewind": 20, "pruning": demo.pruning.model_copy(update={"rounds": 0})})
    tombola.run(study, tmp_path / "out", workers=0, figures=False, quiet=True)
    plan = make_plan(study)
    assert kept_plan(tmp_path / "out") == plan
    assert list(kept_plan(tmp_path / "out").work) == list(plan.work)


@pytest.mark.parametrize("init", ["glorot-normal", "pytorch", None])
def test_a_kept_plan_says_how_a_network_of_ones_own_was_drawn(tmp_path: Path, init: str | None) -> None:
    """The file leaves out glorot-normal, the field's default; a study that leaves it out means pytorch."""
    network = {"name": "small_nets:mlp"} | ({} if init is None else {"init": init})
    plan = make_plan(small_study(network=network))
    keep_plan(tmp_path, plan)
    again = kept_plan(tmp_path)
    assert again == plan
    assert again.study.network.init == (init or "pytorch")
    for identity, item in again.work.items():
        assert (item.id, item.spec.network.init) == (identity, init or "pytorch")
    assert what_changed(Store(tmp_path), plan) == ""


def test_results_need_neither_the_code_nor_the_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "test_small_network", None)  # not to be imported
    table = (folder / "results/small/results.csv").read_text()
    (folder / "small.npz").unlink()
    (folder / "test_small_network.py").unlink()
    done = tombola_in(folder, "results", "results/small", "--format", "csv")
    assert (done.returncode, done.stdout) == (0, table), done.stderr
    found = tombola.Results.open(folder / "results/small")
    assert found.missing() == 0
    ticket = found.ticket(level=1)
    assert ticket.mask.density == pytest.approx(found.frame()["density"].min())
    with pytest.raises(tombola.InputError, match="test_small_network"):
        ticket.build()


def test_edited_code_is_said(folder: Path) -> None:
    file = folder / "test_small_network.py"
    file.write_text(file.read_text() + "\n\ndef unrelated():\n    return 3\n")
    assert "has changed since" not in run(folder).stderr
    file.write_text(file.read_text() + "\nprint('imported', file=__import__('sys').stderr)\n")
    assert tombola.Results.open(folder / "results/small").missing() == 0
    done = run(folder)
    assert done.returncode == 0
    assert (
        "network 'test_small_network:make' (its code or its shapes) has changed since the last run of results/small"
        in done.stderr
    )
    assert "the folder jobs/ keeps 3 results of the earlier version, unused" in done.stderr


@pytest.mark.slow
def test_other_data_are_said(folder: Path) -> None:
    path = folder / "small.npz"
    path.write_bytes(path.read_bytes() + b"\0")  # the same arrays in a file of another length
    done = run(folder)
    assert f"the data of {path} has changed since" in done.stderr, done.stderr


def test_an_edited_method_at_initialisation_is_said_by_its_name(tmp_path: Path) -> None:
    plan = make_plan(small_study(arms=["ticket", "small_nets:own_at_init"]))
    old = find(plan, "small_nets:own_at_init", 1)
    search = plan.work[old.spec.mask.search]
    spec = type(search.spec).model_validate(search.spec.model_dump() | {"code": "0" * 16})
    old = replace(search, spec=spec, id="")
    store = Store(tmp_path)
    (store.jobs / f"old-{old.id}").mkdir(parents=True)
    keep_plan(tmp_path, replace(plan, work={**plan.work, old.id: old}, rows=()))
    assert what_changed(store, plan).startswith("the code of criterion 'small_nets:sees_examples' has changed since")


def test_changed_settings_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"training.iterations": 10, "pruning.rounds": 0, "arms": ["ticket"]}
    for changes, said in (
        ({"trials": 1}, ""),
        ({"trials": 1}, ""),
        ({"trials": 2, "training.lr": 0.01}, "(training.lr, trials): a run writes study.yaml"),
        ({"trials": 2, "training.lr": 0.01}, ""),
    ):
        study = tombola.Study.load("demo", **few, **changes)
        tombola.run(study, tmp_path / "out", workers=0, figures=False, quiet=True)
        err = capsys.readouterr().err
        assert said in err
        assert len(err.splitlines()) == bool(said)


def test_a_folder_of_which_the_plan_was_lost(copied: Path, finished: Path) -> None:
    expected = tombola.Results.open(finished).frame()
    for content in (None, b"", b"{}", b"[1]"):
        (copied / PLAN_FILE).unlink(missing_ok=True)
        if content is not None:
            (copied / PLAN_FILE).write_bytes(content)
        pd.testing.assert_frame_equal(tombola.Results.open(copied).frame(), expected, check_exact=True)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("checksum", "plan.json is not what was written: its checksum differs; "),
        ("kind", r"plan.json can't be read by this version of tombola \(\w+: .*kind.*\); run the study again; "),
        ("lost", "plan.json does not exist; "),
        ("edited", "study.yaml was edited after its last run; "),
    ],
)
def test_a_plan_that_reading_cannot_use_is_named(tmp_path: Path, fault: str, message: str) -> None:
    keep_plan(tmp_path, make_plan(small_study(data={"source": "own_data:arrays", "validation": 10})))
    path = tmp_path / PLAN_FILE
    if fault == "checksum":
        path.write_text(path.read_text().replace('"label"', '"lobel"', 1))
    elif fault == "kind":
        content = read_json_checked(path)
        del content["work"][0]["kind"]
        write_json_checked(path, content)
    elif fault == "lost":
        path.unlink()
    else:
        study = tmp_path / "study.yaml"
        study.write_text(study.read_text().replace("seed: 0", "seed: 1"))
    rest = "planning again would import data source 'own_data:arrays', and reading a folder runs no code: run `tombola "
    with pytest.raises(tombola.InputError, match=message + rest):
        tombola.Results.open(tmp_path)


def test_a_kind_of_work_that_nobody_knows_is_only_shown(tmp_path: Path) -> None:
    plan = make_plan(small_study(data={"source": "own_data:arrays", "validation": 10}))
    keep_plan(tmp_path, plan)
    content = read_json_checked(tmp_path / PLAN_FILE)
    content["work"][-1]["kind"] = "alien"
    write_json_checked(tmp_path / PLAN_FILE, content)
    assert tombola.Results.open(tmp_path).missing() == len(plan.work)


def test_an_edited_study_file_is_believed(copied: Path) -> None:
    text = (copied / "study.yaml").read_text()
    assert "rounds: 3" in text
    (copied / "study.yaml").write_text(text.replace("rounds: 3", "rounds: 2"))
    results = tombola.Results.open(copied)
    assert results.frame()["level"].max() == 2
    assert results.missing() == 0


@pytest.mark.slow
def test_what_is_left_of_other_settings_is_said(copied: Path) -> None:
    text = (copied / "study.yaml").read_text().replace("seed: 0", "seed: 1")
    (copied / "study.yaml").write_text(text)
    done = tombola_in(copied, "results", ".")
    assert "16 of 16 work items are missing" in done.stdout
    assert "contains 16 results of other settings, or of an earlier version of the code or the data" in done.stdout
    shutil.rmtree(copied / "jobs")
    assert "other settings" not in tombola_in(copied, "results", ".").stdout


def test_other_shapes_of_a_network_are_other_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factory may read what decides its shapes from a file, which its code does not show."""
    (tmp_path / "nets_of_a_file.py").write_text(
        "from pathlib import Path\nfrom torch import nn\n\n\ndef make(input_shape, classes):\n"
        "    width = int((Path(__file__).parent / 'width').read_text())\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = []
    for width in ("8", "9", "8"):
        (tmp_path / "width").write_text(width)
        study = tombola.Study.load("demo", trials=1, network="nets_of_a_file:make", **{"pruning.rounds": 1})
        found.append(set(make_plan(study).work))
    assert found[0] == found[2]
    assert not found[0] & found[1]


@pytest.mark.parametrize("lost", ["work", "needs"])
def test_a_plan_without_work_that_it_names_is_damaged(tmp_path: Path, lost: str) -> None:
    plan = make_plan(small_study(pruning__rounds=1))
    keep_plan(tmp_path, plan)
    content = read_json_checked(tmp_path / PLAN_FILE)
    others = content["work"][1:]
    content["work"] = [] if lost == "work" else others
    write_json_checked(tmp_path / PLAN_FILE, content)
    with pytest.raises(Damaged, match="does not contain it"):
        kept_plan(tmp_path)
