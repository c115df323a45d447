"""The command line as a person meets it: what it writes, what it answers, and what it does with mistakes."""

from __future__ import annotations

import io
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import tombola
import tombola.running.devices as devices
from tombola import cli
from tombola.formatting import text_of_csv
from tombola.running import estimate
from tombola.running.store import Store

SMALL = ("trials=1", "training.iterations=200", "training.evaluate_every=20", "pruning.rounds=3")
TINY = ("trials=1", "training.iterations=20", "training.evaluate_every=10", "pruning.rounds=2", "arms=[ticket]")
RUN = ("--workers", "0", "--no-figures")

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def own_corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty current folder, one core, and no traces afterwards."""
    corner = tmp_path / "corner"
    corner.mkdir()
    monkeypatch.chdir(corner)
    monkeypatch.delenv("TOMBOLA_DATA", raising=False)
    monkeypatch.setattr(devices, "cores", lambda: 1)
    monkeypatch.setattr(estimate, "SECONDS_EACH", 0.01)
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]) -> Call:
    """Run a command line in this process; return exit status, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tombola", *arguments])
        capfdbinary.readouterr()
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        out, err = capfdbinary.readouterr()
        return status, out.decode(errors="surrogateescape"), err.decode()

    return run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of a small demo; not to be changed."""
    folder = tmp_path_factory.mktemp("cli") / "results" / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "cores", lambda: 1)
        study = tombola.Study.load("demo", **dict(setting.split("=") for setting in SMALL))
        tombola.run(study, folder, workers=0, figures=False, quiet=True)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copy" / "demo")
    return tmp_path / "copy" / "demo"


def write(name: str, text: str) -> None:
    Path(name).write_text(text)


# What a person gets wrong, and what the answer must at least say.
BAD = {
    "unknown command": ("rnu demo", ["'rnu'", "did you mean 'run'?"]),
    "unknown subcommand": ("presets shw demo", ["'shw'", "'show'"]),
    "an empty name": ("run ''", ["empty"]),
    "no study": ("run", ["STUDY"]),
    "unknown option": ("run demo --workres 2", ["--workres"]),
    "unknown preset": ("run dmeo", ["'dmeo'", "did you mean 'demo'?"]),
    "unknown preset to show": ("presets show dmeo", ["'dmeo'", "'demo'"]),
    "no such file": ("run nothere.yaml", ["'nothere.yaml'"]),
    "no results folder": ("run .", ["study.yaml"]),
    "unknown field": ("run demo trails=3", ["'trails'", "did you mean 'trials'"]),
    "unknown field below": ("run demo training.itertions=3", ["training.itertions", "'iterations'"]),
    "unknown field far below": ("run demo a.b.c.d=3", ["'a'", "trials"]),
    "field below a number": ("run demo training.lr.x=3", ["training.lr"]),
    "no number": ("run demo training.iterations=many", ["training.iterations", "'many'", "integer"]),
    "no whole number": ("run demo trials=1.5", ["trials=1.5", "integer"]),
    "no value": ("run demo trials=", ["trials", "integer"]),
    "no section": ("run demo training=fast", ["training", "'fast'"]),
    "no name": ("run demo name=", ["name"]),
    "negative": ("run demo training.lr=-1", ["training.lr=-1", "greater than 0"]),
    "not a number": ("run demo training.lr=.nan", ["training.lr=nan", "finite"]),
    "infinite": ("run demo training.lr=1e400", ["training.lr=inf", "finite"]),
    "no trials": ("run demo trials=0", ["trials=0", "1"]),
    "rate too high": ("run demo pruning.rate=2", ["pruning.rate=2", "1"]),
    "nothing left to prune": (
        "run demo pruning.rounds=100",
        ["pruning", "would prune nothing", "pruning.rounds to 30"],
    ),
    "a layer would be empty": ("run demo pruning.rate=0.9", ["pruning.rounds", "'fc1'", "pruning.rounds to 4"]),
    "no such choice": ("run demo pruning.scope=glob", ["pruning.scope='glob'", "'layer' or 'global'"]),
    "no such optimizer": (
        "run demo training.optimizer=adagrad",
        ["'adagrad'", "known: adam, adamw, muon, rmsprop, sgd"],
    ),
    "unknown network": ("run demo network=lenet-300", ["'lenet-300'", "'lenet-300-100'"]),
    "network not importable": ("run demo network=nosuch.module:make", ["nosuch.module", "can't be imported"]),
    "network not in module": ("run demo network=numpy:zeross", ["'zeross'", "'zeros'"]),
    "network arguments": ("run demo network.arguments.hiden=[3]", ["hiden"]),
    "unknown layer": ("run demo pruning.exclude=[fc9]", ["'fc9'", "'fc1'"]),
    "all excluded": ("run demo pruning.exclude=[fc1,fc2,output]", ["excludes every prunable layer"]),
    "unknown arm": ("run demo arms=tiket", ["'tiket'", "did you mean 'ticket'?"]),
    "the same arm twice": ("run demo arms=[ticket,ticket]", ["'ticket'", "name"]),
    "no arms": ("run demo arms=[]", ["arms"]),
    "unknown data": ("run demo data=digit", ["'digit'", "did you mean 'digits'?"]),
    "no path": ("run demo data=npz", ["npz", "path"]),
    "path not there": ("run demo data.source=npz data.path=no/where.npz", ["where.npz", "does not exist"]),
    "unknown criterion": ("run demo pruning.criterion=magnitud", ["'magnitud'", "'magnitude'"]),
    "unknown engine": ("run demo --engine dens", ["'dens'", "'dense'"]),
    "unknown device": ("run demo --device gpu", ["'gpu'", "cpu"]),
    "workers": ("run demo --workers -1", ["--workers", "-1"]),
    "checkpoint never": ("run demo --checkpoint-every 0", ["checkpoint-every"]),
    "tf32 on the CPU": ("run demo --device cpu --tf32", ["only GPUs round products to TF32"]),
    "checkpoint not a number": ("run demo trials=1 pruning.rounds=0 --checkpoint-every nan", ["checkpoint-every"]),
    "validation takes all": ("run demo data.validation=1438", ["data.validation=1438", "1438"]),
    "no folder of data": ("run demo --data no/data", ["--data no/data", "this folder does not exist"]),
    "batch too large": ("run demo training.batch_size=2000", ["training.batch_size=2000"]),
    "rewind too late": ("run demo rewind=1500", ["rewind=1500", "1500"]),
    "two budgets": (
        "run demo trials=1 pruning.rounds=0 training.epochs=3 training.iterations=40",
        ["epochs", "iterations", "exactly one"],
    ),
    "no assignment": ("run demo trials", ["'trials'", "FIELD=VALUE"]),
    "no field": ("run demo =3", ["'=3'", "FIELD=VALUE"]),
    "broken value": ("run demo trials=[1", ["trials", "YAML"]),
    "nowhere to write": ("run demo --out afile/x", ["afile/x", "--out"]),
    "a file to write to": ("run demo --out afile", ["afile", "--out"]),
    "plan, too": ("plan demo trials=0", ["trials=0"]),
    "plan, nothing left": ("plan demo pruning.rounds=100", ["would prune nothing"]),
    "plan, engine": ("plan demo --engine dens", ["'dens'", "'dense'"]),
    "results of nothing": ("results demo", ["results/demo", "tombola run demo"]),
    "results of no study": ("results nofolder", ["'nofolder'"]),
    "results, format": ("results demo --format xml", ["xml", "csv"]),
    "figures of nothing": ("figures demo", ["results/demo"]),
    "figures, one of nothing": ("figures demo nothere.yaml", ["results/demo"]),
    "figures of no study": ("figures", ["STUDY"]),
    "figures, format": ("figures demo --format gif", ["gif", "pdf"]),
    "figures, columns": ("figures demo --columns 2", ["--columns", "--style paper"]),
    "status of nothing": ("status demo", ["results/demo"]),
}


@pytest.mark.parametrize(("line", "expected"), BAD.values(), ids=BAD.keys())
def test_bad_input(line: str, expected: list[str], call: Call) -> None:
    write("afile", "")
    if line.startswith("run demo "):
        line += " --no-figures --workers 0" if "--workers" not in line else " --no-figures"
    status, out, err = call(*shlex.split(line))
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    assert len(err) < 400
    assert len(err.strip().splitlines()) <= 4
    for words in expected:
        assert words in err
    assert [path.name for path in Path().iterdir()] == ["afile"], "something was written"


FILES = {
    "wrong type": ("extends: demo\nname: x\ntraining:\n  lr: fast\n", ["bad.yaml, line 4", "training.lr='fast'"]),
    "unknown field": ("extends: demo\nname: x\n\ntrails: 3\n", ["bad.yaml, line 4", "'trails'", "'trials'"]),
    "out of range": (
        "extends: demo\nname: x\npruning: {rate: 0.2,\n  rounds: -1}\n",
        ["bad.yaml, line 4", "rounds=-1"],
    ),
    "in a list": (
        "extends: demo\nname: x\narms:\n  - ticket\n  - {rule: reinit, per_trial: 0}\n",
        ["bad.yaml, line 5"],
    ),
    "missing": ("name: x\n", ["network is missing", "trials is missing"]),
    "no name": ("extends: other.yaml\n", ["name"]),
    "not YAML": ("name: x\n  bad: [1\n", ["bad.yaml, line 2", "YAML"]),
    "twice": ("extends: demo\nname: x\ntrials: 1\ntrials: 2\n", ["bad.yaml, line 4", "trials"]),
    "only text": ("just text\n", ["bad.yaml", "field: value"]),
    "empty": ("", ["bad.yaml", "field: value"]),
    "a circle": ("extends: circle.yaml\nname: x\n", ["bad.yaml", "circle.yaml", "itself"]),
    "itself": ("extends: bad.yaml\nname: x\n", ["bad.yaml", "itself"]),
    "extends nothing": ("extends: dmeo\nname: x\n", ["'dmeo'", "'demo'"]),
    "extends a list": ("extends: [demo]\nname: x\n", ["bad.yaml", "extends"]),
    "dangerous": ("!!python/object/apply:os.system ['touch pwned']\n", ["bad.yaml"]),
    "two budgets": (
        "extends: demo\nname: x\ntraining: {epochs: 1, iterations: 3}\n",
        ["line 3", "exactly one"],
    ),
    "control characters": ("name: \x00\n", ["bad.yaml", "YAML"]),
}


@pytest.mark.parametrize(("text", "expected"), FILES.values(), ids=FILES.keys())
def test_bad_study_file(text: str, expected: list[str], call: Call) -> None:
    write("bad.yaml", text)
    write("circle.yaml", "extends: bad.yaml\nname: y\n")
    write("other.yaml", "trials: 1\n")
    status, out, err = call("run", "bad.yaml", *RUN)
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    assert len(err) < 600
    for words in expected:
        assert words in err
    assert sorted(path.name for path in Path().iterdir()) == ["bad.yaml", "circle.yaml", "other.yaml"]


def test_a_file_that_is_no_text(call: Call) -> None:
    Path("bad.yaml").write_bytes(b"\xff\xfe\x00")
    status, _, err = call("run", "bad.yaml", *RUN)
    assert status == 2
    assert "bad.yaml" in err


def test_a_change_on_the_command_line_is_not_blamed_on_a_file(call: Call) -> None:
    for change in ("trials.x=3", "data.path=x.npz", "training.milestones=[1,2]"):
        status, _, err = call("run", "demo", change, *RUN)
        assert status == 2
        assert "preset demo" not in err, change


@pytest.mark.parametrize("command", ["run", "plan"])
def test_a_field_that_is_written_as_an_option_is_named(call: Call, command: str) -> None:
    for option, change in (("--trials", "trials"), ("--training.lr", "training.lr")):
        status, _, err = call(command, "demo", option, "3")
        assert status == 2
        assert err == f"tombola: {option} is a field of the study; write {change}=VALUE, without dashes\n"
    status, _, err = call(command, "demo", "--wrokers", "3")
    assert status == 2
    assert "--workers" in err


def test_names_with_a_comma_need_a_list(call: Call) -> None:
    status, _, err = call("plan", "demo", "arms=ticket,reinit")
    assert status == 2
    assert "unknown arm 'ticket,reinit'; if these are several names, write a list: '[ticket,reinit]'" in err


def test_run_makes_tables_figures_and_a_summary(call: Call) -> None:
    status, out, err = call("run", "demo", *SMALL, "--workers", "0")
    assert status == 0, err
    assert out.startswith("In one trial, ")
    assert "● mean" in out
    assert "demo: test accuracy at early stop" in out
    assert "results/demo/results.csv" in out
    assert out.endswith("Report:   results/demo/report.html\n")
    assert "In one trial, " in Path("results/demo/report.html").read_text(encoding="utf-8")
    folder = Path("results/demo")
    levels = pd.read_csv(folder / "results.csv")
    assert len(levels) == 1 * (3 + 1) + (1 + 2 * 3) + (1 + 3)  # ticket, reinit twice, random-mask; level 0 in each
    assert set(levels["status"]) == {"ok"}
    curves = pd.read_csv(folder / "curves.csv")
    assert len(curves) == len(levels) * 11
    for figure in ("figure-1", "figure-3", "figure-4"):
        assert (folder / "figures" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (folder / "figures" / f"{figure}.svg").read_text()
    assert err.count("done ") == 13
    assert tombola.Study.load(folder).trials == 1
    assert [path.name for path in Path().iterdir()] == ["results"]


def test_the_report_is_opened_and_where_no_browser_is_it_is_named(
    copied: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("tombola.html.write.write_report", lambda results, *_: results.store.root / "report.html")
    monkeypatch.setattr("webbrowser.open", lambda address: bool(opened.append(address)))
    for command in (["run", str(copied), "--workers", "0", "--open"], ["report", str(copied), "--open"]):
        status, out, err = call(*command)
        assert status == 0, err
        assert opened.pop() == (copied / "report.html").resolve().as_uri()
        assert "report.html" in out
        assert "no browser was found; open this file yourself" in err


def test_a_report_that_cannot_be_made_is_refused_before_any_run(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, err = call("run", "demo", "--open", "--no-figures")
    assert status == 2
    assert "--open shows the report, which --no-figures omits" in err
    monkeypatch.setattr("tombola.extras.installed", lambda module: module != "vl_convert")
    status, _, err = call("run", "demo", "--open")
    assert status == 2
    assert "--open needs vl_convert" in err
    assert "tombola[report]" in err
    assert not Path("results").exists()


def test_a_run_without_the_extra_says_how_to_get_the_report(
    copied: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tombola.extras.installed", lambda module: module != "vl_convert")
    status, out, err = call("run", str(copied), "--workers", "0")
    assert status == 0, err
    assert "Report:   pip install 'tombola[report]', then: tombola report " in out
    assert not (copied / "report.html").exists()


def test_quiet_is_quiet(call: Call) -> None:
    status, out, err = call("run", "demo", *TINY, *RUN, "--quiet")
    assert status == 0
    assert err == ""
    assert "ticket" in out


def test_a_results_folder_is_gone_on_with(copied: Path, finished: Path, call: Call) -> None:
    lost = next((copied / "jobs").glob("*ticket.level-03-*"))
    shutil.rmtree(lost)
    status, _, err = call("run", str(copied), *RUN)
    assert status == 0
    assert err.count("done ") == 1
    assert lost.is_dir()
    drop = ["seconds"]
    pd.testing.assert_frame_equal(
        pd.read_csv(copied / "results.csv").drop(columns=drop),
        pd.read_csv(finished / "results.csv").drop(columns=drop),
        check_exact=True,
    )
    assert not Path("results").exists()


def test_a_study_file_that_extends_a_preset(call: Call) -> None:
    write("mine.yaml", "extends: demo\nname: mine\ntrials: 1\narms: [ticket]\npruning: {rounds: 1}\n")
    status, _, err = call("run", "mine.yaml", "training.iterations=20", *RUN)
    assert status == 0, err
    study = tombola.Study.load(Path("results/mine"))
    assert (study.trials, study.pruning.rounds, study.pruning.rate, study.training.iterations) == (1, 1, 0.3, 20)


def test_own_arrays_are_found_from_anywhere(call: Call) -> None:
    rng = np.random.default_rng(0)
    arrays = {f"x_{part}": rng.random((80, 6), dtype=np.float32) for part in ("train", "test")}
    arrays |= {f"y_{part}": rng.integers(0, 3, 80) for part in ("train", "test")}
    np.savez("own.npz", **arrays)
    data = "data={source: npz, path: own.npz, validation: 10}"
    status, _, err = call("run", "demo", data, "training.batch_size=10", *TINY, *RUN, "--out", "made/here")
    assert status == 0, err
    status, out, err = call("results", "made/here", "--format", "csv")
    assert status == 0, err
    assert len(pd.read_csv(io.StringIO(out))) == 3


def test_a_folder_with_the_name_of_a_preset_is_that_folder(call: Call) -> None:
    status, _, err = call("run", "demo", *TINY, *RUN, "--out", "demo")
    assert status == 0, err
    status, out, _ = call("results", "demo", "--out", "demo")
    assert status == 0
    assert "missing. Resume" not in out
    assert tombola.Results.open("demo").study.trials == 1
    status, out, _ = call("status", "--out", "demo")
    assert out.split()[-2:] == ["3", "-"]  # the dense run, and a run at each of two levels


def test_report_and_comparison(copied: Path, finished: Path, call: Call) -> None:
    pytest.importorskip("vl_convert")
    status, out, err = call("report", str(copied))
    assert (status, out.splitlines()[-1], err) == (0, str(copied / "report.html"), "")
    said = " ".join(out.split())
    assert said.startswith("In one trial, ")
    assert "may be" in said
    assert "<h1>demo</h1>" in (copied / "report.html").read_text()
    status, out, err = call("report", str(finished), "-o", "sub/page.html")
    assert (status, out.splitlines()[-1], err) == (0, "sub/page.html", "")
    assert Path("sub/page.html").read_bytes() == (copied / "report.html").read_bytes()
    status, out, err = call("compare", str(copied), str(finished), "--out", "two.html")
    assert (status, out, err) == (0, "two.html\n", "")
    assert "Table of studies side by side" in Path("two.html").read_text()
    status, _, err = call("compare", str(finished), str(finished))
    assert status == 2
    assert "two or more studies" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["report", "demo"], ["no results", "tombola run demo"]),
        (["report", "nothere.yaml"], ["'nothere.yaml'"]),
        (["compare", "demo"], ["two or more studies", "tombola report demo"]),
        (["compare"], ["STUDY"]),
        (["compare", "demo", "demo"], ["no results", "tombola run demo"]),
    ],
)
def test_a_report_of_nothing_says_what_to_do(arguments: list[str], words: list[str], call: Call) -> None:
    status, out, err = call(*arguments)
    assert (status, out) == (2, "")
    assert all(word in err for word in words)
    assert "Traceback" not in err


def test_a_report_that_can_not_be_written(finished: Path, call: Call) -> None:
    pytest.importorskip("vl_convert")
    write("afile", "")
    status, out, err = call("report", str(finished), "-o", "afile/page.html")
    assert (status, out) == (1, "")
    assert "afile" in err
    assert "Traceback" not in err


def test_plan_writes_nothing_and_counts_what_is_there(copied: Path, call: Call) -> None:
    shutil.rmtree(next((copied / "jobs").glob("*random-mask.level-01-*")))
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    status, out, err = call("plan", str(copied))
    assert (status, err) == (0, "")
    rows = {line.split("  ")[0]: line.split() for line in out.splitlines() if line.strip()}
    assert rows["dense"][1:3] == ["0", "1"]
    assert rows["masks"][1:3] == ["0", "3"]  # one a level, which the three arms share
    assert rows["ticket"][1:3] == ["0", "3"]
    assert rows["reinit"][1:3] == ["0", "6"]
    assert rows["random-mask"][1:3] == ["1", "2"]
    assert rows["total"][1:3] == ["1", "15"]
    assert "11,900 prunable" in out
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before
    assert list(Path().iterdir()) == []


def test_plan_refuses_targets_that_a_run_would_refuse(call: Call) -> None:
    data, network = "data={source: 'column_data:impossible_labels', validation: 10}", "network=task_nets:mlp"
    code, _, err = call("plan", "demo", data, network, "task=multilabel", "training.batch_size=20")
    assert code == 2
    assert "takes targets of 0 and 1, but column_data:impossible_labels has the target 0.7" in err


def test_plan_of_a_study_never_run(call: Call) -> None:
    status, out, _ = call("plan", "demo", *TINY)
    assert status == 0
    assert next(line.split()[1:3] for line in out.splitlines() if line.startswith("total ")) == ["5", "0"]
    assert "about" in out
    assert list(Path().iterdir()) == []


def test_plan_names_the_trials_where_they_are_not_the_first_ones(call: Call) -> None:
    _, out, _ = call("plan", "demo", "trials=2", "first_trial=5", "pruning.rounds=1", "arms=[ticket]")
    assert out.startswith("demo: lenet-300-100 on digits, trials 5 to 6, levels 0 to 1")


def test_plan_names_every_arm(call: Call) -> None:
    """At level 1, one-shot is the ticket: its row must not be missing for it."""
    status, out, _ = call("plan", "demo", "trials=1", "pruning.rounds=1", "arms=[ticket, one-shot]")
    assert status == 0
    assert "1 trial," in out
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert rows["ticket"].split()[1:3] == ["1", "0"]
    assert "one-shot (shares all its runs with other arms)" in rows["one-shot"]
    assert rows["one-shot"].split()[-2:] == ["0", "0"]


def test_surplus_outputs_are_noted(call: Call) -> None:
    for command in (("plan",), ("run", *RUN, "-q")):
        for more in (0, 1):
            network = f"network.arguments={{hidden: [5], classes: {10 + more}}}"
            status, out, err = call(*command, "demo", *TINY, network)
            assert status == 0
            said = "note: the network returns 11 scores per example, but digits has 10 classes" in out + err
            assert said == bool(more)


def test_plan_says_what_has_changed(copied: Path, call: Call) -> None:
    assert "changed" not in call("plan", str(copied))[1]
    status, out, _ = call("plan", str(copied), "pruning.rate=0.2")
    assert status == 0
    assert "(pruning.rate)" in out


def test_presets(call: Call) -> None:
    status, out, _ = call("presets")
    assert status == 0
    names = [line.split()[0] for line in out.splitlines() if line.strip() and not line.startswith(" ")]
    assert {"demo", "lenet-mnist", "lenet-mnist-global", "lenet-mnist-layerwise", "lenet-fashion"} <= set(names)


@pytest.mark.parametrize(
    "name", ["demo", "lenet-mnist", "lenet-mnist-global", "lenet-mnist-layerwise", "lenet-fashion"]
)
def test_a_shown_preset_is_a_file_that_works(name: str, call: Call) -> None:
    status, out, _ = call("presets", "show", name)
    assert status == 0
    write("copy.yaml", out)
    assert tombola.Study.load("copy.yaml") == tombola.Study.load(name)


def test_status(copied: Path, call: Call) -> None:
    status, out, _ = call("status", str(copied))
    assert status == 0
    assert out.split()[-5:] == ["demo", "13", "0", "13", "-"]
    shutil.rmtree(next((copied / "jobs").glob("*random-mask.level-01-*")))
    _, out, _ = call("status", str(copied))
    assert out.split()[-5:] == ["demo", "12", "0", "13", "-"]


def test_status_shows_what_was_interrupted(copied: Path, call: Call) -> None:
    (lost,) = (copied / "jobs").glob("*random-mask.level-01-*")
    store, job = Store(copied), lost.name.rpartition("-")[2]
    shutil.rmtree(lost)
    store.part(job).mkdir()
    state = {"label": "demo.random-mask", "iteration": 60, "budget": 200}
    (store.part(job) / "progress.json").write_text(json.dumps(state))
    words = call("status", str(copied))[1].split()
    assert " ".join(words[words.index("demo.random-mask") :]) == "demo.random-mask at 60/200 iterations, interrupted"
    with store.claim(job):
        _, out, _ = call("status", str(copied))
    assert "demo.random-mask at 60/200" in out
    assert "interrupted" not in out
    assert "still runs" not in out
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tombola.running.leases.machine", lambda: "an earlier start of this one")
        assert store.leases.claim(job)
    assert "if it still runs" in " ".join(call("status", str(copied))[1].split())
    store.leases.let_go(job, finished=False)


@pytest.mark.slow
def test_a_network_beside_the_study_file_is_found(call: Call) -> None:
    """Also by the workers, and from another folder."""
    Path("far").mkdir()
    write("far/net_beside.py", "from tombola.networks.lenet import lenet as make\n")
    write("far/mine.yaml", "extends: demo\nname: mine\nnetwork: net_beside:make\n")
    status, _, err = call("run", "far/mine.yaml", *TINY, "--workers", "1", "--no-figures")
    assert status == 0, err
    assert err.count("done ") == 3


def test_status_of_all_that_is_here(copied: Path, call: Call) -> None:
    status, out, _ = call("status")
    assert status == 0
    assert "contains no study" in out
    shutil.copytree(copied, "results/one")
    shutil.copytree(copied, "results/two")
    Path("results/two/study.yaml").write_text("name: [\n")
    status, out, _ = call("status")
    assert status == 0
    assert "results/one" in out
    assert "can't be read" in out


def test_results_as_files_agree(finished: Path, call: Call) -> None:
    pytest.importorskip("pyarrow")
    for kind in ((), ("--curves",)):
        status, text, _ = call("results", str(finished), "--format", "csv", *kind)
        assert status == 0
        assert text == (finished / ("curves.csv" if kind else "results.csv")).read_text()
        results = tombola.Results.open(finished)
        expected = results.curves() if kind else results.frame()
        assert [row.split(",") for row in text.splitlines()[1:]] == [
            ["" if cell != cell else str(cell) for cell in row] for row in expected.values
        ]
        assert call("results", str(finished), "--format", "parquet", "-o", "r.parquet", *kind)[0] == 0
        pd.testing.assert_frame_equal(pd.read_parquet("r.parquet"), expected, check_exact=True, check_dtype=False)
        status, text, _ = call("results", str(finished), "--format", "json", *kind)
        assert status == 0
        pd.testing.assert_frame_equal(pd.DataFrame(json.loads(text)), expected, check_exact=True, check_dtype=False)


def test_results_to_a_file_or_to_standard_output(finished: Path, call: Call) -> None:
    pytest.importorskip("pyarrow")
    for form in ("csv", "json", "parquet"):
        _, out, _ = call("results", str(finished), "--format", form)
        status, nothing, _ = call("results", str(finished), "--format", form, "--output", f"r.{form}")
        assert (status, nothing) == (0, "")
        assert Path(f"r.{form}").read_bytes() == out.encode(errors="surrogateescape")
    for form in ("csv", "table", "json", "parquet"):
        status, _, err = call("results", str(finished), "--format", form, "-o", "no/folder/r")
        assert status == 1
        assert "can't write no/folder/r: No such file or directory; name an existing folder" in err
        assert "--out" not in err


def test_results_as_a_table(finished: Path, call: Call) -> None:
    status, out, _ = call("results", str(finished))
    assert status == 0
    frame = tombola.Results.open(finished).frame()
    ticket = frame[(frame.arm == "ticket") & (frame.level == 2)].iloc[0]
    assert f"{100 * ticket.early_stop_test_accuracy:.2f}" in out
    assert call("results", str(finished), "--output", "summary.txt") == (0, "", "")
    assert Path("summary.txt").read_text() == out
    status, out, _ = call("results", str(finished), "--curves")
    assert status == 0
    assert len(out.splitlines()) == 1 + len(pd.read_csv(finished / "curves.csv"))


def test_results_of_an_unfinished_study(copied: Path, call: Call) -> None:
    for folder in (copied / "jobs").glob("*level-0[23]-*"):
        shutil.rmtree(folder)
    status, out, _ = call("results", str(copied))
    assert status == 0
    assert "10 of 16 work items are missing. Resume with: tombola run " in out
    status, out, _ = call("results", str(copied), "--format", "csv")
    assert set(pd.read_csv(io.StringIO(out))["level"]) == {0, 1}


def test_results_of_a_study_that_has_only_begun(copied: Path, call: Call) -> None:
    pytest.importorskip("pyarrow")
    shutil.rmtree(copied / "jobs")
    for arguments in ((), ("--curves",), ("--format", "csv"), ("--format", "json"), ("--format", "parquet")):
        status, out, err = call("results", str(copied), *arguments)
        assert status == 0, err
        assert "Traceback" not in err
        if arguments == ("--format", "csv"):
            assert pd.read_csv(io.StringIO(out)).empty
    status, out, _ = call("figures", str(copied))
    assert status == 0
    assert "no data for a figure yet" in out


def test_figures(copied: Path, call: Call) -> None:
    status, out, _ = call("figures", str(copied), "--figure", "4")
    assert status == 0
    assert [Path(line).name for line in out.splitlines()] == ["figure-4.png", "figure-4.svg"]
    for line in out.splitlines():
        assert Path(line).stat().st_size > 1000
    status, _, err = call("figures", str(copied), "--figure", "99")
    assert status == 2
    assert "99" in err
    assert "Traceback" not in err


def test_figures_for_print(copied: Path, call: Call) -> None:
    options = ("--figure", "4", "--style", "paper", "--columns", "1", "--bars", "interval")
    status, out, _ = call("figures", str(copied), *options)
    assert status == 0
    assert [Path(line).name for line in out.splitlines()] == ["figure-4-1col.pdf"]
    status, out, _ = call("figures", str(copied), *options, "--format", "png", "--format", "svg")
    assert [Path(line).name for line in out.splitlines()] == ["figure-4-1col.png", "figure-4-1col.svg"]


def test_figures_of_several_studies(copied: Path, finished: Path, call: Call) -> None:
    other = copied.parent / "other"
    shutil.copytree(copied, other)
    for folder in ("figures", "together"):
        options = () if folder == "figures" else ("--out", folder)
        # A folder that is named twice counts once; two studies of one name are told apart by their folders.
        status, out, err = call("figures", str(copied), str(other), str(other), "--figure", "criteria", *options)
        assert (status, err) == (0, "")
        assert out.splitlines() == [f"{folder}/criteria.png", f"{folder}/criteria.svg"]
    status, out, _ = call("figures", str(copied), str(other), "--figure", "4", "--format", "png")
    assert out.splitlines() == ["figures/figure-4-demo-demo.png", "figures/figure-4-demo-other.png"]
    assert not (finished / "figures").exists()
    shutil.rmtree(other / "jobs")
    status, out, _ = call("figures", str(copied), str(other), "--figure", "4", "--format", "png")
    assert (status, out) == (0, "figures/figure-4.png\n")


@pytest.mark.parametrize(
    "name", ["<script>", "../x", "a b $HOME `id`", "[bold]x[/bold]", "[/]", "..", "line\nbreak", "Ü-ñ-名", "-o", "{0}"]
)
def test_odd_names(name: str, finished: Path, call: Call) -> None:
    shutil.copytree(finished, "results/demo")  # whose jobs are taken over: nothing is trained
    outside = set(Path("..").iterdir())
    write("odd.yaml", json.dumps({"extends": "demo", "name": name}))
    small = (*SMALL, "arms=[ticket, {rule: reinit, name: '[red]a[/red] /../b'}]")
    status, out, err = call("run", "odd.yaml", *small, *RUN)
    assert status == 0, err
    assert set(Path("..").iterdir()) == outside
    (folder,) = set(Path("results").iterdir()) - {Path("results/demo")}
    assert (folder / "results.csv").is_file()
    assert f"{' '.join(name.split())}: test accuracy" in " ".join(out.split())
    assert "[red]a[/red]" in out
    assert set(pd.read_csv(folder / "results.csv")["study"].map(text_of_csv)) == {name}
    for line in (("plan", str(folder)), ("status", str(folder)), ("results", str(folder))):
        status, out, err = call(*line)
        assert (status, err) == (0, "")
        assert name.splitlines()[0] in out
    assert tombola.Study.load(folder).name == name


def test_version(call: Call) -> None:
    status, out, _ = call("--version")
    assert (status, out) == (0, f"tombola, version {tombola.__version__}\n")


@pytest.mark.parametrize("command", ["", "run", "plan", "presets", "status", "results", "figures"])
def test_help(command: str, call: Call) -> None:
    for option in ("-h", "--help"):
        status, out, _ = call(*command.split(), option)
        assert status == 0
        assert out.startswith("Usage: tombola")


def test_the_reader_may_go_away(finished: Path) -> None:
    line = f"{sys.executable} -m tombola results {finished} --curves | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1
