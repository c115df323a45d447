"""Two machines on one results folder, without a cluster's engine: other names, other clocks, no common locks."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from same_results import assert_same_results

import tombola

# Stands for a machine: its name, its clock, and locks that tell other machines nothing.
MACHINE = """
import sys, socket, time
name, shift, folder = sys.argv[1], float(sys.argv[2]), sys.argv[3]
clock, monotonic = time.time, time.monotonic
time.time = lambda: clock() + shift
time.monotonic = lambda: monotonic() + 7 * shift
socket.gethostname = lambda: name
import tombola, tombola.running.lease as lease, tombola.running.leases as leases, tombola.running.store as store
lease.machine = leases.machine = store.machine = lambda: name
locks = leases.Leases._lock_file
leases.Leases._lock_file = lambda self, work_id: locks(self, f"{work_id}.{name}")
study = tombola.Study.load("demo", **eval(sys.argv[4]))
from tombola.studies.cluster import ClusterSettings
tombola.run(study, folder, workers=0, figures=False, quiet=True, checkpoint_every=0.2, cluster=ClusterSettings(lease=3))
"""
CHANGES = {"trials": 2, "pruning.rounds": 3, "arms": ["ticket", "reinit"], "training.iterations": 400}


def machine(name: str, shift: float, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", MACHINE, name, str(shift), str(folder), repr(CHANGES)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "out"
    tombola.run(tombola.Study.load("demo", **CHANGES), folder, workers=0, figures=False, quiet=True)
    return folder


@pytest.mark.slow
def test_two_machines_share_the_work(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    both = [machine("one", 0.0, out), machine("other", 600.0, out)]
    for each in both:
        ended_well(each)
    assert_same_results(out, alone)


@pytest.mark.slow
def test_one_machine_freezes_past_its_lease_and_another_dies(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    frozen = machine("frozen", 0.0, out)
    until(lambda: any((out / "jobs").glob(".*.part")))
    frozen.send_signal(signal.SIGSTOP)
    dies = machine("dies", -600.0, out)
    until(lambda: len(list((out / "jobs" / ".leases").glob("*/*"))) > 1)
    dies.kill()
    dies.communicate()
    last = machine("last", 600.0, out)
    ended_well(last)
    frozen.send_signal(signal.SIGCONT)
    ended_well(frozen)
    for stop in (out / "jobs").glob(".running.*"):  # of the machine that died: only that machine may delete it
        stop.unlink()
    assert_same_results(out, alone)


def ended_well(process: subprocess.Popen[str]) -> None:
    _, message = process.communicate(timeout=240)
    assert (process.returncode, message) == (0, "")


def until(condition: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)
