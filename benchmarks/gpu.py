"""`make gpu`: on a machine with a card, the CUDA tests, the GPU benchmarks, then as many full studies as fit.

    python -m benchmarks.gpu --minutes 25 --out results/gpu
    python -m benchmarks.gpu --split cifar-10-python.tar.gz pieces     # where a link takes small files alone
    python -m benchmarks.gpu --join pieces data                        # on the machine with the card

Stages run in the order of their worth, and each gets what is left of the time. A study that is stopped has saved its
work: the same command continues it. `log.json` says what became of each stage. `docs/results/publish.py` publishes a
study's folder as a page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import workload
from benchmarks.plain import pace, plain_loop
from tombola.networks import NETWORKS, initialised
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.stacked import StackedEngine

STACKS = (1, 4, 16, 64, 256)
PIECE = 48 * 2**20  # bytes
SAVING = 60.0  # seconds that a stopped stage has to save its work
LENET = "lenet-300-100"


@dataclass(frozen=True)
class Stage:
    """One part of the run.

    Args:
        name: of its log, and of its results folder where it is a study.
        command: what is executed, after the interpreter.
    """

    name: str
    command: tuple[str, ...]


def study(name: str, *changes: str) -> Stage:
    """Return the stage that runs a study into its folder under `--out`."""
    return Stage(name, ("-m", "tombola", "run", name, *changes, "--out", f"{{out}}/{name}", "--device", "{device}"))


# The paper's Section 2; study D at full size; Figure 5; Section 4's network at its three learning rates.
STUDIES = (
    study("lenet-mnist"),
    *(study(f"conv4-cifar10-{each}", "trials=3") for each in ("stability", "magnitude", "random", "gradient")),
    *(study(f"{network}-cifar10") for network in ("conv2", "conv4", "conv6")),
    *(study(f"resnet18-cifar10{each}") for each in ("-lr0.1", "-lr0.01", "-warmup")),
)
STAGES = (
    Stage("tests", ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", "tests")),
    Stage("stacks", ("-m", "benchmarks.gpu", "--stacks", "{out}/stacks.json", "--device", "{device}")),
    *STUDIES,
)


def run(stages: Sequence[Stage], out: Path, seconds: float, device: str) -> list[dict[str, object]]:
    """Run stages until the time is over, and return what became of each.

    Args:
        stages: in the order of their worth.
        out: folder of logs and results.
        seconds: for all of them.
        device: "cuda" or "cpu".
    """
    out.mkdir(parents=True, exist_ok=True)
    end, log = time.monotonic() + seconds, []
    for stage in stages:
        begun = time.monotonic()
        left = end - begun
        status = _run(stage, out, left, device) if left > 0 else "no time left"
        log.append({"stage": stage.name, "status": status, "seconds": round(time.monotonic() - begun, 1)})
        (out / "log.json").write_text(json.dumps(log, indent=1) + "\n")
        print(f"{stage.name:<24} {status:<14} {log[-1]['seconds']:>8} s", flush=True)
    return log


def _run(stage: Stage, out: Path, seconds: float, device: str) -> str:
    """Run one stage, and stop it when its time is over: "done", "stopped" or "failed (status)"."""
    command = [sys.executable, *(part.format(out=out, device=device) for part in stage.command)]
    with (out / f"{stage.name}.log").open("a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            status = process.wait(max(0.0, seconds - SAVING))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # a study saves what it does
            try:
                process.wait(SAVING)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            return "stopped"
    return "done" if status == 0 else f"failed ({status})"


def stacks(file: Path, device: torch.device, sizes: Sequence[int] = STACKS, seconds: float = 3.0) -> None:
    """Write the steps of Lenet per second: of stacks, of one eager run, and of a loop written by hand."""
    data = workload.on_device(workload.made_up(LENET), device).train
    masks = {name: bits.to(device) for name, bits in workload.mask_at(LENET, 0.2).items()}
    module = initialised(lambda: NETWORKS[LENET](workload.SHAPES[LENET], 10), "glorot-normal", 0).to(device)
    loop = plain_loop(module, masks, data.inputs, data.targets, 1.2e-3, workload.BATCH)

    def by_hand(count: int) -> None:
        loop(count)
        if device.type == "cuda":
            torch.cuda.synchronize()

    found = {"a loop by hand": 1 / pace(by_hand, 100, seconds)}
    found["one eager run"] = workload.stack_pace(DenseEngine, 1, device, seconds)
    found |= {f"stack of {size}": workload.stack_pace(StackedEngine, size, device, seconds) for size in sizes}
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    about = {"device": name, "torch": torch.__version__, "steps per second, all runs together": found}
    file.write_text(json.dumps(about, indent=1) + "\n")
    print(json.dumps(about, indent=1))


def split(file: Path, folder: Path, size: int = PIECE) -> list[Path]:
    """Write a file in pieces of at most `size` bytes, with a checksum of the whole; return the pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    digest, pieces = hashlib.sha256(), []
    with file.open("rb") as source:
        while content := source.read(size):
            digest.update(content)
            pieces.append(folder / f"{file.name}.{len(pieces):03}")
            pieces[-1].write_bytes(content)
    (folder / f"{file.name}.sha256").write_text(digest.hexdigest() + "\n")
    return pieces


def join(folder: Path, target: Path) -> list[Path]:
    """Put the files together whose pieces are all in a folder; return them.

    Raises:
        SystemExit: pieces of a file are missing or damaged.
    """
    target.mkdir(parents=True, exist_ok=True)
    made = []
    for sums in sorted(folder.glob("*.sha256")):
        name, digest = sums.stem, hashlib.sha256()
        whole = target / name
        with whole.open("wb") as file:
            for piece in sorted(folder.glob(f"{name}.[0-9][0-9][0-9]")):
                content = piece.read_bytes()
                digest.update(content)
                file.write(content)
        if digest.hexdigest() != sums.read_text().strip():
            whole.unlink()
            sys.exit(f"pieces of {name} in {folder} are missing or damaged; copy them again")
        made.append(whole)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the stages, or one of the small tasks that serve them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=25, help="for all stages together")
    parser.add_argument("--out", type=Path, default=Path("results/gpu"), help="folder of logs and results")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", nargs="+", metavar="STAGE", help="these stages alone")
    parser.add_argument("--stacks", type=Path, metavar="FILE", help="measure stacks alone, and write them to FILE")
    parser.add_argument("--split", nargs=2, type=Path, metavar=("FILE", "FOLDER"))
    parser.add_argument("--join", nargs=2, type=Path, metavar=("FOLDER", "TARGET"))
    chosen = parser.parse_args(arguments)
    if chosen.split:
        print(*split(*chosen.split), sep="\n")
        return
    if chosen.join:
        print(*join(*chosen.join), sep="\n")
        return
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU here; --device cpu runs the same stages slowly")
    if chosen.stacks:
        stacks(chosen.stacks, torch.device(chosen.device))
        return
    names = [stage.name for stage in STAGES]
    if unknown := sorted({*(chosen.only or ())} - {*names}):
        sys.exit(f"unknown stage {unknown[0]!r}; there are {', '.join(names)}")
    wanted = [stage for stage in STAGES if not chosen.only or stage.name in chosen.only]
    run(wanted, chosen.out, 60 * chosen.minutes, chosen.device)


if __name__ == "__main__":
    main()
