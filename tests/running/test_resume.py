"""Interrupted anywhere and resumed, the result is bit-equal to the uninterrupted run (fault 6 of other tools)."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import conftest
import pytest
import small_runs
from small_runs import JOBS, STEPS, Command, assert_same_outcomes, family, parent_of

import tombola
import tombola.running.run as running
from tombola.running.store import Store

KILLS = int(os.environ.get("TOMBOLA_KILLS", "4"))  # 20 in the full form
Start = Callable[..., Command]

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")


@pytest.mark.timeout(60 + 30 * KILLS)
def test_kill_9_at_random_moments_and_resume_is_bit_equal(command: Start, uninterrupted: Path) -> None:
    rng = random.Random(KILLS)
    step_seconds = 0.01 * KILLS / 4  # else the study would be over before the last kill
    orphans: dict[int, float] = {}
    while_training, with_checkpoint, went_on = 0, 0, 0
    for number in range(KILLS):
        run = command("--workers", "2", "--checkpoint-every", "0.05", step_seconds=step_seconds)
        if number == 0:
            time.sleep(rng.uniform(0.1, 3))  # wherever that is: in an import, in starting a worker
        else:
            run.wait_for_training()
            until = time.monotonic() + rng.uniform(0, 1.5)
            while time.monotonic() < until:
                went_on += any(note["first"] > 0 for note in run.under_way().values())
                time.sleep(0.02)
        assert run.process.poll() is None, "the study was over before it was killed"
        while_training += bool(run.under_way())
        with_checkpoint += bool(run.checkpoints())
        workers = family(run.pid) - {run.pid}
        os.kill(run.pid, signal.SIGKILL)
        orphans |= dict.fromkeys(workers, time.monotonic())
        # The next one starts at once: it must get along with workers that have not yet noticed.
    assert while_training >= KILLS - 2
    assert with_checkpoint >= 1
    assert went_on >= 1

    last = command("--workers", "2")
    status, _, err = last.finish()
    assert status == 0, err
    assert_same_outcomes(last.out, uninterrupted)
    for worker, killed in orphans.items():
        while parent_of(worker) is not None:
            assert time.monotonic() < killed + 15, "a worker outlived its parent"
            time.sleep(0.1)


def test_a_killed_worker_does_not_end_the_run(command: Start, uninterrupted: Path) -> None:
    run = command("--workers", "2", "--checkpoint-every", "0.05", step_seconds=0.005)
    notes = run.wait_for_training()
    time.sleep(random.Random(0).uniform(0.1, 0.4))
    victim = next(iter(notes.values()))["pid"]
    os.kill(victim, signal.SIGKILL)
    status, out, err = run.finish()
    assert status == 0, err
    assert "a worker died during" in err
    assert "Traceback" not in err
    assert "small: test accuracy" in out
    assert_same_outcomes(run.out, uninterrupted)


@pytest.mark.parametrize("whole_group", [False, True], ids=["parent alone", "whole group"])
def test_ctrl_c_stops_at_once_and_loses_nothing(
    command: Start,
    uninterrupted: Path,
    whole_group: bool,
    tmp_path: Path,
    small: Callable[..., tombola.Study],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = tmp_path / "steps"
    run = command("--workers", "2", step_seconds=0.01, log=log)
    run.wait_for(lambda: any(note["iteration"] > 30 for note in run.under_way().values()), "30 iterations")
    asked = time.monotonic()
    (os.killpg if whole_group else os.kill)(run.pid, signal.SIGINT)
    status, out, err = run.finish(timeout=20)
    assert time.monotonic() - asked < 3
    assert status == 130
    assert "same command goes on from here" in err
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err
    assert out == ""
    assert run.checkpoints()
    assert not list((run.out / "jobs").glob(".stop*"))

    monkeypatch.setattr(running, "cores", conftest.worker_threads)
    monkeypatch.setenv("TEST_STEP_LOG", str(log))
    tombola.run(small(), run.out, workers=0, figures=False, quiet=True)
    assert_same_outcomes(run.out, uninterrupted)
    assert log.stat().st_size == JOBS * STEPS, "a step was made twice"


def test_a_run_that_starts_is_interrupted_without_a_traceback(command: Start) -> None:
    run = command()
    time.sleep(0.8)  # most likely while PyTorch is imported
    os.kill(run.pid, signal.SIGINT)
    status, _, err = run.finish(timeout=20)
    assert status == 130
    assert "Traceback" not in err


def test_two_runs_at_once_share_the_work(command: Start, uninterrupted: Path, tmp_path: Path) -> None:
    log = tmp_path / "steps"
    runs = [command("--workers", "1", step_seconds=0.003, log=log) for _ in range(2)]
    (status, out, err), (other_status, other_out, other_err) = (run.finish() for run in runs)
    assert (status, other_status) == (0, 0), err + other_err
    assert out == other_out
    assert log.stat().st_size == JOBS * STEPS, "a job was trained twice"
    # A single worker has more threads than one of two where there are more than two cores.
    if conftest.worker_threads() == 1 and len(os.sched_getaffinity(0)) == 1:
        assert_same_outcomes(runs[0].out, uninterrupted)
    assert small_runs.outcomes(runs[0].out).keys() == small_runs.outcomes(uninterrupted).keys()
    assert not list((runs[0].out / "jobs").glob(".*.part"))


def test_ctrl_c_in_process(small: Callable[..., tombola.Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_STEP_SECONDS", "0.005")
    before = signal.getsignal(signal.SIGINT)
    asked = []
    note = Store.part

    def interrupt(store: Store, job: str) -> Path:  # while the first job starts
        if not asked:
            asked.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        return note(store, job)

    monkeypatch.setattr(Store, "part", interrupt)
    with pytest.raises(running.StoppedByUser, match="0 of 7 jobs are done"):
        tombola.run(small(), tmp_path / "out", workers=0, figures=False, quiet=True)
    assert time.monotonic() - asked[0] < 2
    assert signal.getsignal(signal.SIGINT) is before
