"""Small studies, and tombola as a process of its own, for the tests of this folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tombola.running.files import unpack_tensors
from tombola.running.store import Store
from tombola.work import WEIGHTS, kind_named

# A user's own network: batch norm has buffers and dropout draws, both of which resuming must get right. The
# environment makes it slow, so that there is time to kill it, has it write down who makes each training step, and lets
# it wait until so many processes have made one.
NETWORK = """\
import os
import time
from pathlib import Path

import torch
from torch import nn

BATCH = 60


class Net(nn.Module):
    def __init__(self, mishap="none", below=0.0):
        super().__init__()
        self.mishap, self.below = mishap, below
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 10)
        )

    def forward(self, inputs):
        if not self.training:
            time.sleep(float(os.environ.get("TEST_LOOK_SECONDS", "0")))
        if self.training and len(inputs) == BATCH:
            time.sleep(float(os.environ.get("TEST_STEP_SECONDS", "0")))
            if path := os.environ.get("TEST_STEP_LOG"):
                with open(path, "ab", buffering=0) as file:
                    file.write(b"%d\\n" % os.getpid())
            if number := os.environ.get("TEST_MEETING"):
                until = time.monotonic() + 60
                while len(set(Path(path).read_text().split())) < int(number):
                    assert time.monotonic() < until, "the others do not come"
                    time.sleep(0.02)
            if (self.layers[1].weight != 0).float().mean() < self.below:
                if self.mishap == "nan":
                    return self.layers(inputs) * torch.nan
                if self.mishap == "raise":
                    raise RuntimeError("the user's own mistake")
                if self.mishap == "die":
                    os._exit(9)
        return self.layers(inputs)


def make(mishap="none", below=0.0):
    return Net(mishap, below)
"""

STUDY = """\
name: small
network: {name: "test_small_network:make"}
data: {source: npz, path: small.npz, validation: 200}  # scikit-learn takes half a second to import
training: {lr: 2.0e-3, batch_size: 60, iterations: 120, evaluate_every: 20}
pruning: {rate: 0.4, rounds: 3}
arms: [ticket, reinit]
trials: 1
"""
JOBS = 7  # trainings: dense, three tickets, three reinitialised
STEPS = 120  # training steps of each
EVALUATE_EVERY = 20

SMALL_DEMO = {"trials": 1, "training.iterations": 200, "training.evaluate_every": 20, "pruning.rounds": 3}


def write_study(folder: Path) -> Path:
    """Write the study and its network into a folder, and return the study's path."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test_small_network.py").write_text(NETWORK)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 64))
    arrays = {}
    for part, examples in (("train", 1000), ("test", 300)):
        targets = rng.integers(0, 10, examples)
        arrays[f"y_{part}"] = targets
        arrays[f"x_{part}"] = (centres[targets] + 2 * rng.normal(size=(examples, 64))).astype(np.float32)
    np.savez(folder / "small.npz", **arrays)
    path = folder / "small.yaml"
    path.write_text(STUDY)
    return path


def outcomes(folder: Path) -> dict[str, dict[str, Any]]:
    """Return all that the jobs of a results folder came to, bit by bit, but for the time they took."""
    store = Store(folder)
    found = {}
    for path in sorted((folder / "jobs").iterdir()):
        if path.name.startswith("."):
            continue
        job = path.name.rpartition("-")[2]
        facts = store.facts(job)
        del facts["seconds"]
        facts["engine"] = facts.get("engine", {}).get("name")  # threads and device follow from the machine
        tensors, about = (
            unpack_tensors(path / "weights.safetensors") if WEIGHTS in kind_named(facts["kind"]).files else ({}, {})
        )
        parts = {
            name: (tensor.dtype, tuple(tensor.shape), tensor.numpy().tobytes()) for name, tensor in tensors.items()
        }
        found[path.name] = {
            # As text, for NaN is not equal to itself.
            **{key: json.dumps(value, sort_keys=True) for key, value in facts.items()},
            "snapshots": sorted(facts.get("snapshots", ())),
            "shapes": about.get("mask"),
            **parts,
        }
    return found


def assert_same_outcomes(found: Path, expected: Path) -> None:
    """Check that two results folders hold the same jobs with bit-equal results."""
    mine, other = outcomes(found), outcomes(expected)
    assert sorted(mine) == sorted(other)
    for job, result in mine.items():
        assert result.keys() == other[job].keys()
        different = [key for key in result if result[key] != other[job][key]]
        assert not different, f"{job}: {different}"


class Command:
    """`tombola run` as a process group of its own."""

    def __init__(
        self, folder: Path, *arguments: str, step_seconds: float = 0.0, look_seconds: float = 0.0, **environs: str
    ):
        self.out = folder / "results" / "small"
        self.log = folder / "steps"
        self.steps_before = len(self.steps())
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TOMBOLA")}
        environment |= {"TEST_STEP_SECONDS": str(step_seconds), "TEST_STEP_LOG": str(self.log)}
        environment["TEST_LOOK_SECONDS"] = str(look_seconds)  # makes mask searches and interpolations slow
        environment |= environs
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tombola", "run", "small.yaml", "--no-figures", *arguments],
            cwd=folder,
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid

    def steps(self) -> list[int]:
        """Return the process of each training step of all runs in this folder so far."""
        return [int(line) for line in self.log.read_text().split()] if self.log.exists() else []

    def checkpoints(self) -> list[Path]:
        return list((self.out / "jobs").glob(".*.part/checkpoint.safetensors"))

    def wait_for_steps(self, count: int = 1) -> None:
        """Wait until this run's workers have made so many training steps."""
        until = time.monotonic() + 90
        while len([pid for pid in self.steps()[self.steps_before :] if parent_of(pid) == self.pid]) < count:
            assert self.process.poll() is None, f"ended before it trained: {self.process.communicate()[1]}"
            assert time.monotonic() < until, "it does not train"
            time.sleep(0.02)

    def wait_for_library(self, name: str) -> None:
        """Wait until the process has begun to load a shared library."""
        until = time.monotonic() + 90
        while name not in Path(f"/proc/{self.pid}/maps").read_text():
            assert self.process.poll() is None, f"ended before it loaded {name}: {self.process.communicate()[1]}"
            assert time.monotonic() < until, f"it does not load {name}"
            time.sleep(0.005)

    def finish(self, timeout: float = 120) -> tuple[int, str, str]:
        """Wait for the end; return exit status, standard output and standard error."""
        out, err = self.process.communicate(timeout=timeout)
        return self.process.returncode, out, err

    def clean_up(self) -> None:
        """Kill whatever is left of the process group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.communicate()


def parent_of(pid: int) -> int | None:
    """Return the parent of a process; None where there is no such process, or only its remains."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(parent)


def family(pid: int) -> set[int]:
    """Return the processes that descend from a process, itself included."""
    pairs = [(int(path.name), parent_of(int(path.name))) for path in Path("/proc").glob("[0-9]*")]
    found = {pid}
    while more := {child for child, parent in pairs if parent in found} - found:
        found |= more
    return found
