"""Interrupted anywhere and resumed, the result is bit-equal to the uninterrupted run (fault 6 of other tools)."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import small_runs
from small_runs import (
    EVALUATE_EVERY,
    JOBS,
    STEPS,
    Command,
    assert_same_outcomes,
    family,
    parent_of,
)

import tombola
import tombola.running.run as running
from tombola.running.store import Store

KILLS = int(os.environ.get("TOMBOLA_KILLS", "2"))  # `make test-all` kills 20 times
Start = Callable[..., Command]

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")


@pytest.mark.timeout(60 + 30 * KILLS)
def test_kill_9_at_random_moments_and_resume_is_bit_equal(command: Start, uninterrupted: Path) -> None:
    rng = random.Random(KILLS)
    step_seconds = 0.01 * max(KILLS, 4) / 4  # else the study would be over before the last kill
    orphans: dict[int, float] = {}
    with_checkpoint = 0
    for number in range(KILLS):
        run = command("--workers", "2", "--checkpoint-every", "0.05", step_seconds=step_seconds)
        if number == 0:
            time.sleep(rng.uniform(0.1, 3))  # wherever that is: in an import, in starting a worker
        else:
            run.wait_for_steps()
            time.sleep(rng.uniform(0, 1.5))
        until = time.monotonic() + 20
        while number == KILLS - 1 and not run.checkpoints() and time.monotonic() < until:
            time.sleep(0.01)
        assert run.process.poll() is None, "the study was over before it was killed"
        with_checkpoint += bool(run.checkpoints())
        workers = family(run.pid) - {run.pid}
        if number % 2:  # all at once, as when the machine fails
            os.killpg(run.pid, signal.SIGKILL)
        else:
            os.kill(run.pid, signal.SIGKILL)
        orphans |= dict.fromkeys(workers, time.monotonic())
        # The next one starts at once: it must get along with workers that have not yet noticed.
    assert with_checkpoint >= 1

    last = command("--workers", "2")
    status, _, err = last.finish()
    assert status == 0, err
    assert_same_outcomes(last.out, uninterrupted)
    # Checkpoints are taken at every evaluation at the latest: each worker loses no more than that at each kill.
    assert JOBS * STEPS <= len(last.steps()) <= JOBS * STEPS + KILLS * 2 * EVALUATE_EVERY
    for worker, killed in orphans.items():
        while parent_of(worker) is not None:
            assert time.monotonic() < killed + 15, "a worker outlived its parent"
            time.sleep(0.1)


EVERY_KIND = (
    "arms=[ticket, snip, edge-popup-trained]",
    "connectivity={levels: [0], points: 5}",
    "pruning.rounds=1",
    "training.iterations=40",
)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_kill_9_in_work_of_every_kind_and_resume_is_bit_equal(command: Start, tmp_path: Path) -> None:
    """Masks are searched, scores trained and lines evaluated slowly enough for kills to hit each of them."""
    other = small_runs.write_study(tmp_path / "other").parent
    whole = Command(other, "--workers", "2", *EVERY_KIND)
    assert whole.finish()[0] == 0
    kinds = {Store(whole.out).facts(found)["kind"] for found in Store(whole.out).finished()}
    assert kinds == {"run", "supermask", "mask-search", "interpolation"}
    rng = random.Random(KILLS)
    for number in range(KILLS + 2):
        run = command("--workers", "2", "--checkpoint-every", "0.05", *EVERY_KIND, look_seconds=0.05)
        until = time.monotonic() + rng.uniform(2, 5)
        while run.process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        if run.process.poll() is not None:
            break
        (os.killpg if number % 2 else os.kill)(run.pid, signal.SIGKILL)
    status, _, err = command("--workers", "2", *EVERY_KIND).finish()
    assert status == 0, err
    assert_same_outcomes(run.out, whole.out)


def test_a_killed_worker_ends_neither_the_run_nor_the_other_worker(
    command: Start, uninterrupted: Path, tmp_path: Path
) -> None:
    # Small images have no programs that list processes, such as pgrep. (Git says of which version a result is.)
    programs = tmp_path / "programs"
    programs.mkdir()
    if git := shutil.which("git"):
        (programs / "git").symlink_to(git)
    run = command("--workers", "2", "--checkpoint-every", "0.05", step_seconds=0.005, PATH=str(programs))
    run.wait_for_steps(random.Random(0).randint(40, 120))
    killed = run.steps()[-1]
    os.kill(killed, signal.SIGKILL)
    before = len(run.steps())
    status, out, err = run.finish()
    assert status == 0, err
    assert err.count("a worker died during") == 1
    others = set(run.steps()[:before]) - {killed}
    assert others <= set(run.steps()[-STEPS:]) | set(run.steps()[before + STEPS :]), "a healthy worker was ended"
    assert "Traceback" not in err
    assert "small: test accuracy" in out
    assert_same_outcomes(run.out, uninterrupted)
    assert len(run.steps()) > JOBS * STEPS, "it was killed in vain"


Ask = Callable[[int], None]


def press_often(pid: int) -> None:
    for _ in range(5):
        os.killpg(pid, signal.SIGINT)
        time.sleep(0.04)


def end_as_timeout_does(pid: int) -> None:
    """`timeout` sends the signal to the process, and then to its whole group."""
    os.kill(pid, signal.SIGTERM)
    os.killpg(pid, signal.SIGTERM)


@pytest.mark.parametrize(
    ("ask", "expected"),
    [
        (lambda pid: os.kill(pid, signal.SIGINT), 130),
        (press_often, 130),
        (end_as_timeout_does, 143),
        (lambda pid: os.killpg(pid, signal.SIGHUP), 129),
    ],
    ids=["Ctrl-C to the parent", "five presses", "SIGTERM to the group", "the terminal goes"],
)
def test_an_end_stops_at_once_and_loses_nothing(
    command: Start,
    uninterrupted: Path,
    ask: Ask,
    expected: int,
    small: Callable[..., tombola.Study],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = command("--workers", "2", step_seconds=0.01)
    run.wait_for_steps(50)
    asked = time.monotonic()
    ask(run.pid)
    status, out, err = run.finish(timeout=20)
    assert time.monotonic() - asked < 10  # seconds; less than one on an idle machine
    assert status == expected
    assert "same command resumes" in err
    assert "Traceback" not in err
    assert "KeyboardInterrupt" not in err
    assert out == ""
    assert run.checkpoints()
    assert not list((run.out / "jobs").glob(".running*"))

    monkeypatch.setenv("TEST_STEP_LOG", str(run.log))
    tombola.run(small(), run.out, workers=0, figures=False, quiet=True)
    assert_same_outcomes(run.out, uninterrupted)
    assert len(run.steps()) == JOBS * STEPS, "a step was made twice"


def test_ctrl_c_many_times_ends_it_at_once_without_a_traceback(command: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_MEETING", "99")  # a step that hangs: it never looks whether to stop
    run = command("--workers", "2")
    run.wait_for_steps()
    workers = family(run.pid) - {run.pid}
    asked = time.monotonic()
    os.kill(run.pid, signal.SIGINT)
    assert run.process.stderr is not None
    assert "stopping: tombola saves running work" in run.process.stderr.readline()
    while run.process.poll() is None:
        os.kill(run.pid, signal.SIGINT)
        time.sleep(0.05)
        assert time.monotonic() < asked + 20
    status, _, err = run.finish()
    assert status == 130
    assert err.count("stopped at once") == 1
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    while any(parent_of(worker) is not None for worker in workers):
        assert time.monotonic() < asked + 20, "a worker outlived its parent"
        time.sleep(0.1)


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_ctrl_c_while_workers_start_gives_no_traceback(command: Start, delay: float) -> None:
    run = command("--workers", "2", step_seconds=0.01)
    until = time.monotonic() + 60
    while len(family(run.pid)) < 2:
        assert run.process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.002)
    time.sleep(delay)
    os.killpg(run.pid, signal.SIGINT)
    status, _, err = run.finish(timeout=30)
    assert status == 130
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 3, err


def test_a_group_killed_leaves_nothing_behind(command: Start) -> None:
    """Neither in shared memory, nor, once it ran again, in the results folder."""
    shared = Path("/dev/shm")
    before = set(shared.iterdir()) if shared.exists() else set()
    short = ("pruning.rounds=0", "arms=[ticket]")
    run = command("--workers", "2", *short, step_seconds=0.01)
    run.wait_for_steps(5)
    os.killpg(run.pid, signal.SIGKILL)
    run.process.wait()
    assert list((run.out / "jobs").glob(".running.*"))
    assert command("--workers", "1", *short).finish()[0] == 0
    assert {path.name for path in (run.out / "jobs").glob(".*")} == {".leases", ".locks"}
    if shared.exists():
        assert not [path for path in set(shared.iterdir()) - before if str(run.pid) in path.name]


def test_a_run_that_starts_is_interrupted_without_a_traceback(command: Start) -> None:
    run = command()
    run.wait_for_library("libtorch")  # then PyTorch is being imported, or has just been
    # An import may swallow the exception; who pressed Ctrl-C presses it again then.
    for _ in range(40):
        os.kill(run.pid, signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(timeout=0.5)
            break
    status, _, err = run.finish(timeout=20)
    assert status == 130
    assert "stopped" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_two_runs_at_once_share_the_work(
    command: Start, small: Callable[..., tombola.Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Four dense runs can start at once, and none goes on before three workers have come: at least one of each run.
    monkeypatch.setenv("TEST_MEETING", "3")
    changes = ("trials=4", "pruning.rounds=1", "training.iterations=40")
    runs = [command("--workers", "2", *changes) for _ in range(2)]
    (status, out, err), (other_status, other_out, other_err) = (run.finish() for run in runs)
    assert (status, other_status) == (0, 0), err + other_err
    assert out == other_out
    steps = runs[0].steps()
    assert len(set(steps)) >= 3
    assert len(steps) == 12 * 40, "a job was trained twice"
    assert not list((runs[0].out / "jobs").glob(".*.part"))
    monkeypatch.delenv("TEST_MEETING")
    study = small(**{"trials": 4, "pruning.rounds": 1, "training.iterations": 40})
    tombola.run(study, tmp_path / "alone" / "out", workers=0, figures=False, quiet=True)
    assert_same_outcomes(runs[0].out, tmp_path / "alone" / "out")


def test_ctrl_c_in_process(
    small: Callable[..., tombola.Study], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "steps"
    monkeypatch.setenv("TEST_STEP_SECONDS", "0.005")
    monkeypatch.setenv("TEST_STEP_LOG", str(log))
    before = signal.getsignal(signal.SIGINT)
    asked: list[float] = []

    def interrupt() -> None:
        while not log.exists():
            time.sleep(0.01)
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(running.StoppedByUser, match="0 of 10 work items are finished"):
        tombola.run(small(), tmp_path / "out", workers=0, figures=False, quiet=True)
    thread.join()
    assert time.monotonic() - asked[0] < 2
    assert signal.getsignal(signal.SIGINT) is before
