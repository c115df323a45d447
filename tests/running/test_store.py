"""The store: results are whole or not there, and whatever happens to them is noticed."""

from __future__ import annotations

import errno
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import small_runs
import torch
from small_runs import assert_same_outcomes

import tombola
from tombola.errors import StoreError
from tombola.pruning.mask import Mask
from tombola.running.files import Damaged
from tombola.running.store import Store
from tombola.studies.plan import make_plan
from tombola.training.loop import Record
from tombola.work import Item

FILES = ("result.json", "weights.safetensors", "SHA256SUMS")


def quiet_run(study: tombola.Study | str, folder: Path) -> tombola.Results:
    return tombola.run(study, folder, workers=0, figures=False, quiet=True)


def a_job(study: tombola.Study) -> Item:
    return next(iter(make_plan(study).work.values()))


def job_folders(root: Path) -> list[Path]:
    return sorted(path for path in (root / "jobs").iterdir() if not path.name.startswith("."))


def a_record() -> tuple[Mask, Record]:
    """A result with all that is hard to keep: NaN, infinities, minus zero, counters, several types."""
    keep = torch.tensor([[True, False, True], [False, False, True]])
    mask = Mask({"fc.weight": keep, "empty.weight": torch.zeros(2, 2, dtype=torch.bool)})

    def weights(scale: float) -> dict[str, torch.Tensor]:
        return {
            "fc.weight": torch.tensor([[1.5, 0.0, math.nan], [0.0, 0.0, -math.inf]]) * scale,
            "fc.bias": torch.tensor([-0.0, 1e-45]),
            "empty.weight": torch.zeros(2, 2),
            "norm.running_mean": torch.tensor([0.1, 0.2], dtype=torch.float64),
            "norm.num_batches_tracked": torch.tensor(2**40 + 1),
            "norm.none": torch.zeros(0),
        }

    history = {"iteration": [0, 7], "val_loss": [0.1 + 0.2, math.nan]}
    record = Record(history, {"start": weights(1), "best": weights(2), "final": weights(3)}, 1.25, 7, (0.3, 0.9))
    return mask, record


def bits(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: (t.dtype, tuple(t.shape), t.numpy().tobytes()) for name, t in weights.items()}


def test_a_result_comes_back_bit_by_bit(tmp_path: Path, demo: tombola.Study) -> None:
    store, job = Store(tmp_path / "out"), a_job(demo)
    store.create()
    mask, record = a_record()
    store.save_training(job, mask, record, {"engine": {"name": "dense"}, "iterations": 7})
    found = Store(tmp_path / "out").load(job.id)
    assert found.mask == mask
    assert list(found.snapshots) == ["start", "best", "final"]
    for name, weights in record.snapshots.items():
        assert bits(found.snapshots[name]) == bits(weights), name
    assert repr(found.history) == repr(record.history)  # repr, for NaN is not equal to itself
    assert found.facts["diverged_at"] is not None
    assert (found.facts["seconds"], found.facts["train"]) == (1.25, [0.3, 0.9])


def test_a_mask_is_done_as_long_as_its_run_is_as_it_was(tmp_path: Path, demo: tombola.Study) -> None:
    store, plan = Store(tmp_path / "out"), make_plan(demo)
    dense = next(iter(plan.work.values()))
    search = next(item for item in plan.work.values() if item.needs == (dense.id,) and item.kind == "mask-search")
    store.create()
    mask, record = a_record()
    about = {"engine": {"name": "dense"}, "iterations": 7}
    store.save_training(dense, mask, record, about)
    store.save_mask(search, mask, {"remaining": mask.counts(), "seconds": 0.1})
    passed = {name: tensor.clone() for name, tensor in record.snapshots["start"].items()}
    more = replace(record, snapshots=record.snapshots | {"iteration-3": passed})
    store.save_training(dense, mask, more, about)
    assert Store(store.root).has(search)
    other = record.snapshots["final"] | {"fc.bias": torch.tensor([0.0, 1.0])}
    store.save_training(dense, mask, replace(more, snapshots=more.snapshots | {"final": other}), about)
    assert not store.has(search)
    assert not Store(store.root).has(search)
    store.save_mask(search, mask, {"remaining": mask.counts(), "seconds": 0.1})
    assert store.has(search)


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path: Path) -> None:
    store = Store(tmp_path / "out")
    store.create()
    _, record = a_record()
    tensors = {"weights/a": torch.randn(3, 2), "optimizer/step": torch.tensor(5.0)}
    store.save_checkpoint("abc", {"iteration": 3}, tensors, record)
    loaded = store.load_checkpoint("abc")
    assert loaded is not None
    facts, found, again = loaded
    assert facts == {"iteration": 3}
    assert bits(found) == bits(tensors)
    assert repr(again.history) == repr(record.history)
    assert (again.seconds, again.diverged_at, again.train) == (record.seconds, record.diverged_at, record.train)
    for name, weights in record.snapshots.items():
        assert bits(again.snapshots[name]) == bits(weights)


def test_sha256sum_agrees(finished: Path) -> None:
    if shutil.which("sha256sum") is None:
        pytest.skip("no sha256sum here")
    for folder in job_folders(finished):
        done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert set(done.stdout.splitlines()) == {"weights.safetensors: OK", "result.json: OK"}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", [truncate, alter, empty, remove])
def test_a_damaged_result_is_noticed_and_named(
    copied: Path, demo: tombola.Study, name: str, damage: Callable[[Path], None]
) -> None:
    folder = job_folders(copied)[0]
    job = replace(a_job(demo), id=folder.name.rpartition("-")[2], label=folder.name.rpartition("-")[0])
    damage(folder / name)
    store, noticed = Store(copied), []
    assert not store.has(job, noticed)
    (message,) = noticed
    assert str(folder) in message
    if name != "SHA256SUMS":
        assert name in message
    for read in (store.load, store.facts):
        with pytest.raises(Damaged, match=job.id):
            read(job.id)


def test_damaged_results_are_done_again_and_equal(
    copied: Path, finished: Path, demo: tombola.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = job_folders(copied)
    alter(folders[0] / "weights.safetensors")
    truncate(folders[3] / "result.json")
    remove(folders[5] / "SHA256SUMS")
    untouched = (folders[1] / "result.json").stat()
    quiet_run(demo, copied)
    err = capsys.readouterr().err
    for folder in (folders[0], folders[3], folders[5]):
        assert folder.name in err.replace("\n", "")
    assert err.count("tombola runs that item again") == 3
    assert_same_outcomes(copied, finished)
    assert (folders[1] / "result.json").stat().st_mtime_ns == untouched.st_mtime_ns


def test_a_damaged_result_counts_as_missing(copied: Path) -> None:
    truncate(job_folders(copied)[0] / "weights.safetensors")
    results = tombola.Results.open(copied)
    assert results.missing() == 1


def test_a_file_in_place_of_a_result_is_no_result(copied: Path, finished: Path, demo: tombola.Study) -> None:
    folder = job_folders(copied)[0]
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    quiet_run(demo, copied)
    assert_same_outcomes(copied, finished)


@pytest.mark.parametrize("damage", [truncate, alter, empty])
def test_a_half_written_checkpoint_is_ignored(
    small: Callable[..., tombola.Study], uninterrupted: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    study = small(**{"pruning.rounds": 0, "arms": ["ticket"]})
    store, job = Store(tmp_path / "out"), a_job(study)
    store.create()
    _, record = a_record()
    store.save_checkpoint(job.id, {"iteration": 50}, {"weights/a": torch.ones(30)}, record)
    path = store.part(job.id) / "checkpoint.safetensors"
    damage(path)
    assert store.load_checkpoint(job.id) is None
    quiet_run(study, tmp_path / "out")
    mine, others = small_runs.outcomes(tmp_path / "out"), small_runs.outcomes(uninterrupted)
    for name, result in mine.items():
        assert result == others[name]


def test_a_checkpoint_of_another_version_is_ignored(
    small: Callable[..., tombola.Study], uninterrupted: Path, tmp_path: Path
) -> None:
    study = small(**{"pruning.rounds": 0, "arms": ["ticket"]})
    store, job = Store(tmp_path / "out"), a_job(study)
    store.create()
    store.save_checkpoint(job.id, {"an": "unknown layout"}, {"weights/a": torch.ones(30)}, a_record()[1])
    quiet_run(study, tmp_path / "out")
    mine, others = small_runs.outcomes(tmp_path / "out"), small_runs.outcomes(uninterrupted)
    for name, result in mine.items():
        assert result == others[name]


def test_a_run_takes_over_what_its_neighbour_has(
    tmp_path: Path, finished: Path, demo: tombola.Study, capsys: pytest.CaptureFixture[str]
) -> None:
    neighbour = tmp_path / "results" / "first"
    shutil.copytree(finished, neighbour)
    dense = next(folder for folder in job_folders(neighbour) if folder.name.rpartition("-")[0].endswith("dense"))
    written = (dense / "result.json").read_bytes()
    other = demo.model_copy(update={"name": "second", "pruning": demo.pruning.model_copy(update={"rate": 0.5})})
    tombola.run(other, tmp_path / "results" / "second", workers=0, figures=False)
    lines = capsys.readouterr().err.splitlines()
    assert "copied 1 result from neighbouring results folders" in lines[0]
    counts = [int(re.search(r"(\d+)/13 runs done", line)[1]) for line in lines[1:]]
    assert (len(counts), counts, counts[-1]) == (12, list(range(2, 14)), 13)  # a line for each run, none for masks
    # Seconds and all: it was not trained again.
    assert (tmp_path / "results" / "second" / "jobs" / dense.name / "result.json").read_bytes() == written
    assert (dense / "result.json").exists()


def test_a_damaged_neighbour_is_not_taken_over(tmp_path: Path, finished: Path, demo: tombola.Study) -> None:
    neighbour = tmp_path / "results" / "first"
    shutil.copytree(finished, neighbour)
    for folder in job_folders(neighbour):
        alter(folder / "weights.safetensors")
    quiet_run(demo, tmp_path / "results" / "second")
    assert_same_outcomes(tmp_path / "results" / "second", finished)


def test_a_neighbour_that_was_killed_while_it_copied_is_no_hindrance(
    tmp_path: Path, finished: Path, demo: tombola.Study
) -> None:
    shutil.copytree(finished, tmp_path / "results" / "first")
    second = tmp_path / "results" / "second"
    job = a_job(demo)
    left = second / "jobs" / f".{job.id}.{os.getpid()}.adopted"  # in containers process numbers come back
    left.mkdir(parents=True)
    (left / "result.json").write_text("{")
    quiet_run(demo, second)
    assert_same_outcomes(second, finished)


def test_a_poorer_result_is_done_again_and_serves_both_studies(tmp_path: Path, demo: tombola.Study) -> None:
    out = tmp_path / "out"
    late = demo.model_copy(update={"rewind": 100})
    quiet_run(demo, out)
    before = small_runs.outcomes(out)
    dense = a_job(demo).id
    quiet_run(late, out)
    after = small_runs.outcomes(out)
    for name, result in before.items():
        if name.endswith(dense):
            assert "iteration-100" in after[name]["snapshots"]
            kept = {key for key in result if key.startswith(("start/", "best/", "final/", "mask/"))}
            assert {key: after[name][key] for key in kept} == {key: result[key] for key in kept}
            assert after[name]["history"] == result["history"]
        else:
            assert after[name] == result
    for study in (demo, late):
        results = tombola.Results(make_plan(study), Store(out))
        assert results.missing() == 0
        ticket = results.ticket(level=2)
        moment = "iteration-100" if study.rewind else "start"
        start = ticket.mask.apply(Store(out).load(dense).snapshots[moment])
        assert bits(ticket.weights) == bits(start)
    assert list(late_iterations := tombola.Results(make_plan(late), Store(out)).frame()["iterations"])[:2] == [200, 100]
    assert len(late_iterations) == len(make_plan(late).rows)


def test_studies_with_different_rewinds_do_not_undo_each_other(tmp_path: Path, demo: tombola.Study) -> None:
    out = tmp_path / "out"
    changes = {"arms": demo.arms[:1], "pruning": demo.pruning.model_copy(update={"rounds": 1})}
    first, second = (demo.model_copy(update={"rewind": k, **changes}) for k in (100, 50))
    quiet_run(first, out)
    quiet_run(second, out)
    store = Store(out)
    for study in (first, second):
        missing = [job.label for job in make_plan(study).work.values() if not store.has(job)]
        assert not missing, f"rewind={study.rewind}"


def test_one_of_many_gets_a_job(tmp_path: Path) -> None:
    Store(tmp_path).create()
    barrier = threading.Barrier(8)
    got = []

    def ask() -> None:
        barrier.wait()
        with Store(tmp_path).claim("job") as mine:
            got.append(mine)
            barrier.wait()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [False] * 7 + [True]
    with Store(tmp_path).claim("job") as mine:
        assert mine


def test_a_killed_process_lets_go_of_its_job(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    assert not store.is_claimed("job")
    code = (
        "import sys, time; from tombola.running.store import Store\n"
        "with Store(sys.argv[1]).claim('job') as mine: print(mine, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert store.is_claimed("job")
        with store.claim("job") as mine:
            assert not mine
        holder.send_signal(signal.SIGKILL)
    assert not store.is_claimed("job")
    with store.claim("job") as mine:
        assert mine


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_ends_the_run_and_keeps_what_is_done(
    small: Callable[..., tombola.Study],
    uninterrupted: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
) -> None:
    out = tmp_path / "out"
    real, calls = getattr(os, call), []

    def fill(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) > 14:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fill)
        with pytest.raises(StoreError, match=r"No space left on device.*run the same command again: finished work"):
            quiet_run(small(), out)
    done = small_runs.outcomes(out)
    expected = small_runs.outcomes(uninterrupted)
    assert 1 <= len(done) < len(expected)
    for name, result in done.items():
        assert result == expected[name]
    assert not list((out / "jobs").glob(".*/.*.tmp"))
    quiet_run(small(), out)
    assert_same_outcomes(out, uninterrupted)


@pytest.fixture(params=["size=150k", "nr_inodes=30"])
def tiny_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk that is soon full: of bytes, or of files."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", str(place)]
    try:
        if subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("may not mount a disk here")
    except FileNotFoundError:
        pytest.skip("no mount here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_really_full_disk(small: Callable[..., tombola.Study], uninterrupted: Path, tiny_disk: Path) -> None:
    out = tiny_disk / "out"
    with pytest.raises(StoreError, match="No space left on device"):
        quiet_run(small(), out)
    done = small_runs.outcomes(out)
    expected = small_runs.outcomes(uninterrupted)
    assert 1 <= len(done) < len(expected)
    for name, result in done.items():
        assert result == expected[name]
    subprocess.run(["mount", "-o", "remount,size=50m,nr_inodes=0", str(tiny_disk)], check=True)
    quiet_run(small(), out)
    assert_same_outcomes(out, uninterrupted)


def test_a_result_that_another_process_stores_is_seen_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the time of the folder's change is as coarse as file systems have it."""
    clock = [100.0]
    monkeypatch.setattr("tombola.running.store.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("tombola.running.store._change_of", lambda folder: int(clock[0] // 2))
    store = Store(tmp_path)
    store.create()
    for number in range(40):
        name = f"{number:016x}"
        assert store.folder(name) is None
        (store.jobs / f"run-{name}").mkdir()
        assert store.folder(name) == store.jobs / f"run-{name}", "a change in the same two seconds was missed"
        clock[0] += 0.3


def test_results_are_listed_once_where_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, lists = [100.0], []
    monkeypatch.setattr("tombola.running.store.time.monotonic", lambda: clock[0])
    store = Store(tmp_path)
    store.create()
    store.folder("a")
    clock[0] += 10
    scandir = os.scandir
    monkeypatch.setattr("tombola.running.store.os.scandir", lambda path: lists.append(path) or scandir(path))
    for _ in range(5):
        assert store.folder("a") is None
    assert len(lists) == 1
    (store.jobs / "run-a").mkdir()
    assert store.folder("a") == store.jobs / "run-a"
