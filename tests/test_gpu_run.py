"""`make gpu` without a GPU: its stages, its clock and its pieces."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from benchmarks import gpu, workload

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


def test_stacks_are_measured_against_one_run_and_a_loop_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"hidden": [20, 10]}
    lenet = workload.NETWORKS["lenet-300-100"]
    monkeypatch.setitem(workload.NETWORKS, "lenet-300-100", lambda shape, classes: lenet(shape, classes, **small))
    gpu.stacks(tmp_path / "stacks.json", torch.device("cpu"), sizes=(2,), seconds=0.01)
    found = json.loads((tmp_path / "stacks.json").read_text())["steps per second, all runs together"]
    assert set(found) == {"a loop by hand", "one eager run", "stack of 2"}
    assert all(value > 0 for value in found.values())


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
