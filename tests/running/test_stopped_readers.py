"""Processes that read streamed data end with their run, however that ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import Command, family, parent_of

Start = Callable[..., Command]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc"),
]

DATA = """\
import os

import numpy as np


class Rows:
    def __init__(self, size, seed):
        rng = np.random.default_rng(seed)
        self.targets = rng.integers(0, 10, size)
        self.inputs = (np.eye(10)[self.targets].repeat(7, 1)[:, :64] + rng.normal(size=(size, 64))).astype(np.float32)

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, row):
        open(f"reader-{os.getpid()}", "w").close()
        return self.inputs[row], self.targets[row]


def load():
    return {"train": Rows(1000, 1), "test": Rows(300, 2), "classes": 10}
"""
STREAM = (
    'data={source: "test_small_stream:load", validation: 200, stream: true, stream_workers: 2, path: null}',
    "arms=[ticket]",
    "pruning.rounds=1",
)


@pytest.fixture
def streaming(command: Start) -> Callable[..., Command]:
    """Start the study on streamed data, and wait until it trains and processes read."""

    def start(*arguments: str, wait: bool = True, **options: float) -> Command:
        Path("test_small_stream.py").write_text(DATA)
        for found in Path(".").glob("reader-*"):
            found.unlink()
        run = command(*STREAM, *arguments, **options)
        if wait:
            until = time.monotonic() + 120
            while not run.steps()[run.steps_before :]:
                assert run.process.poll() is None, run.process.communicate()[1]
                assert time.monotonic() < until, "it does not train"
                time.sleep(0.05)
        return run

    return start


def readers(run: Command) -> set[int]:
    """Return the processes that read now, for the one that trains."""
    read = {int(path.name.removeprefix("reader-")) for path in Path(".").glob("reader-*")}
    return {process for process in read if parent_of(process) == run.steps()[-1]}


def wait_until_gone(processes: set[int], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while alive := [process for process in processes if parent_of(process) is not None]:
        assert time.monotonic() < until, f"{alive} outlive the run"
        time.sleep(0.1)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_ctrl_c_ends_them_and_the_same_command_continues(workers: str, streaming: Start) -> None:
    run = streaming("--workers", workers, step_seconds=0.05)
    everyone, reading = family(run.pid), readers(run)
    assert reading
    os.killpg(run.pid, signal.SIGINT)  # as a terminal does: every process of the group hears it
    status, _, err = run.finish()
    assert (status, "Traceback" in err) == (130, False), err
    assert run.checkpoints()
    wait_until_gone(everyone)
    status, _, err = streaming("--workers", workers, wait=False).finish()
    assert status == 0, err


@pytest.mark.parametrize("workers", ["0", "1"])
def test_none_outlives_a_killed_run(workers: str, streaming: Start) -> None:
    run = streaming("--workers", workers, step_seconds=0.05)
    everyone = family(run.pid)
    assert readers(run)
    os.kill(run.pid, signal.SIGKILL)
    wait_until_gone(everyone)


def test_none_outlives_a_killed_worker_and_its_run_continues(streaming: Start) -> None:
    run = streaming("--workers", "1", "--checkpoint-every", "0.05", step_seconds=0.02)
    reading = readers(run)
    (worker,) = {parent_of(process) for process in reading}
    assert worker is not None
    assert worker != run.pid
    os.kill(worker, signal.SIGKILL)
    wait_until_gone(reading, 10)
    status, _, err = run.finish()
    assert status == 0, err


def test_a_killed_reader_ends_its_run_with_one_sentence(streaming: Start) -> None:
    run = streaming("--workers", "1", step_seconds=0.05)
    everyone = family(run.pid)
    os.kill(min(readers(run)), signal.SIGKILL)
    status, _, err = run.finish()
    assert status != 0
    assert "Traceback" not in err
    assert "a process that read examples ended" in " ".join(err.split())
    wait_until_gone(everyone)
