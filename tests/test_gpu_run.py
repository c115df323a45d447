"""`make gpu` without a GPU: its stages, its clock and its pieces."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from benchmarks import gpu, gpu_stacks, workload

from tombola.studies import load_study


def python(name: str, code: str) -> gpu.Stage:
    return gpu.Stage(name, ("-c", code))


def test_stages_run_in_turn_and_what_became_of_them_is_written(tmp_path: Path) -> None:
    stages = [python("good", "print('{device} here')"), python("bad", "import sys; sys.exit(3)")]
    log = gpu.run(stages, tmp_path, 100, "cpu")
    assert [(line["stage"], line["status"]) for line in log] == [("good", "done"), ("bad", "failed (3)")]
    assert (tmp_path / "good.log").read_text() == "cpu here\n"
    assert json.loads((tmp_path / "log.json").read_text()) == log


def test_a_stage_whose_time_is_over_may_save_its_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SAVING", 4.0)
    saves = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: open('{out}/saved', 'w').close()"
    log = gpu.run([python("long", saves), python("late", "")], tmp_path, 6.0, "cpu")
    assert (tmp_path / "saved").exists()
    assert log[0]["status"] == "stopped"


def test_a_stage_that_does_not_stop_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SAVING", 0.5)
    deaf = "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\ntime.sleep(60)"
    log = gpu.run([python("deaf", deaf), python("late", "")], tmp_path, 1.0, "cpu")
    assert [line["status"] for line in log] == ["stopped", "no time left"]


def test_each_study_exists() -> None:
    for stage in gpu.STUDIES:
        name, *changes = stage.command[3 : stage.command.index("--out")]
        assert load_study(name, assignments=changes).name


def test_what_is_done_is_not_done_again_and_what_failed_is(tmp_path: Path) -> None:
    stages = [python("good", "print('here')"), python("bad", "open('{out}/bad', 'x').close()")]
    (tmp_path / "bad").touch()
    gpu.run(stages, tmp_path, 100, "cpu")
    (tmp_path / "bad").unlink()
    log = gpu.run(stages, tmp_path, 100, "cpu")
    assert [line["status"] for line in log] == ["done", "done"]
    assert (tmp_path / "good.log").read_text() == "here\n"


def test_a_stage_that_met_its_limit_continues_after_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "SAVING", 0.5)
    code = "import pathlib, time\np = pathlib.Path('{out}/seen')\np.exists() or (p.touch(), time.sleep(60))"
    long = gpu.Stage("long", ("-c", code), minutes=1.5 / 60)
    log = gpu.run([long, python("short", "open('{out}/short', 'x').close()")], tmp_path, 30, "cpu")
    assert [(line["stage"], line["status"]) for line in log] == [("long", "done"), ("short", "done")]
    assert (tmp_path / "seen").stat().st_mtime < (tmp_path / "short").stat().st_mtime


def test_a_study_without_its_data_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "MNIST").mkdir(parents=True)
    stages = [gpu.Stage(name, ("-c", "pass"), data=name) for name in ("MNIST", "cifar-10")]
    log = gpu.run(stages, tmp_path / "out", 100, "cpu")
    assert [line["status"] for line in log] == ["done", "no cifar-10 in the data"]
    assert {stage.data for stage in gpu.STUDIES} == {"MNIST", "cifar-10"}


def test_logs_measurements_and_pages_are_published_by_one_command(tmp_path: Path) -> None:
    out, root = tmp_path / "out", tmp_path / "root"
    page = out / "pages" / "lenet-mnist"
    page.mkdir(parents=True)
    (page / "README.md").write_text("# lenet-mnist\n")
    (out / "stacks.json").write_text("{}")
    gpu.run([python("noisy", f"print('x' * {2 * gpu.LOG_ENDS})")], out, 100, "cpu")
    gpu.publish(out / gpu.ARCHIVE, root)
    made = gpu.publish(out / gpu.ARCHIVE, root)
    assert made == [root / "benchmarks/results/gpu", root / "docs/results/lenet-mnist-gpu"]
    assert (made[1] / "README.md").read_text() == "# lenet-mnist\n"
    assert json.loads((made[0] / "log.json").read_text())[0]["status"] == "done"
    assert len((made[0] / "logs" / "noisy.log").read_text()) == gpu.LOG_ENDS
    assert not (made[0] / "pages").exists()


@pytest.mark.slow
def test_a_study_leaves_a_page(tmp_path: Path) -> None:
    changes = ("trials=2", "training.iterations=20", "pruning.rounds=1", "arms=[ticket]")
    small = replace(gpu.study("demo", 10, *changes), data="")
    log = gpu.run([small], tmp_path / "out", 250, "cpu")
    assert [line["status"] for line in log] == ["done"]
    gpu.publish(tmp_path / "out" / gpu.ARCHIVE, tmp_path / "root")
    assert (tmp_path / "root/docs/results/demo-gpu/report.html").exists()


def test_stacks_are_measured_against_one_run_and_a_loop_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lenet, conv = workload.NETWORKS["lenet-300-100"], workload.NETWORKS["conv-2"]
    small = lambda shape, classes: lenet(shape, classes, hidden=[20, 10])  # noqa: E731
    monkeypatch.setitem(workload.NETWORKS, "lenet-300-100", small)
    monkeypatch.setitem(workload.NETWORKS, "conv-2", lambda shape, classes: conv(shape, classes, width=0.1))
    monkeypatch.setattr(workload, "AT_A_TIME", 2)
    shapes = dict.fromkeys(workload.SHAPES, (3, 8, 8))
    monkeypatch.setattr(workload, "SHAPES", shapes)
    made, file = gpu_stacks.StackedEngine, tmp_path / "stacks.json"

    def failing(build, starts, *rest):
        if len(starts) == 3:
            raise torch.OutOfMemoryError("too large\nand more")
        return made(build, starts, *rest)

    monkeypatch.setattr(gpu_stacks, "StackedEngine", failing)
    gpu_stacks.measure(file, torch.device("cpu"), {"lenet-300-100": (2, 3), "conv-2": (2,)}, seconds=0.01)
    found = json.loads(file.read_text())["steps per second, all runs together"]
    lenets = found["lenet-300-100"]
    assert lenets.pop("stack of 3, float32") == {"failed": "OutOfMemoryError: too large"}
    assert set(lenets) == {"a loop by hand", "one eager run, float32", "stack of 2, float32"}
    assert set(found["conv-2"]) == {
        "a loop by hand",
        *(f"{each}, {kind}" for each in ("one eager run", "stack of 2") for kind in ("float32", "bfloat16")),
    }
    assert all(value["steps"] > 0 for values in found.values() for value in values.values())
    assert found["conv-2"]["stack of 2, bfloat16"]["replicas"] == 2


def test_files_survive_pieces(tmp_path: Path) -> None:
    content = bytes(range(256)) * 40
    (tmp_path / "whole.tar.gz").write_bytes(content)
    pieces = gpu.split(tmp_path / "whole.tar.gz", tmp_path / "pieces", 3000)
    assert max(piece.stat().st_size for piece in pieces) <= 3000
    (made,) = gpu.join(tmp_path / "pieces", tmp_path / "there")
    assert made.read_bytes() == content
    pieces[1].unlink()
    with pytest.raises(SystemExit, match="missing or damaged"):
        gpu.join(tmp_path / "pieces", tmp_path / "there")
    assert not made.exists()
