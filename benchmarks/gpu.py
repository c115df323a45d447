"""`make gpu`: on a machine with a card, the CUDA tests, the GPU benchmarks, then as many full studies as fit.

    python -m benchmarks.gpu --minutes 25 --out results/gpu
    python -m benchmarks.gpu --publish results/gpu/gpu.tar.gz          # where the repository is
    python -m benchmarks.gpu --split cifar-10-python.tar.gz pieces     # where a link takes small files alone
    python -m benchmarks.gpu --join pieces data                        # on the machine with the card

Any Python with PyTorch and tombola's other requirements will do; nothing is installed or fetched. Stages run in the
order of their worth. Each has a limit; those that met it continue after the others. A study that is stopped has saved
its work. The same command, given again, skips what is done and continues the rest.

After each stage, `log.json` says what became of each, and `gpu.tar.gz` holds logs, measurements and a page for each
study: all that `--publish` needs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.gpu_stacks import measure

ROOT = Path(__file__).parent.parent
PIECE = 48 * 2**20  # bytes
SAVING = 40.0  # seconds that a stopped stage has to save its work
PAGE = 60.0  # seconds to make the page of a study
ARCHIVE = "gpu.tar.gz"
LOG_ENDS = 20_000  # bytes of a log that the archive holds


@dataclass(frozen=True)
class Stage:
    """One part of the run.

    Args:
        name: of its log, and of its results folder where it is a study.
        command: what is executed, after the interpreter.
        minutes: its limit, as long as later stages wait.
        is_study: whether a page is made of its results.
        data: what names of files in the folder of data begin with, without which it can't begin.
    """

    name: str
    command: tuple[str, ...]
    minutes: float = 60.0
    is_study: bool = False
    data: str = ""


def study(name: str, minutes: float, *changes: str) -> Stage:
    """Return the stage that runs a study into its folder under `--out`."""
    command = ("-m", "tombola", "run", name, *changes, "--out", f"{{out}}/{name}", "--device", "{device}")
    # Two workers: one reads and writes files while the other trains.
    convolves = "cifar10" in name
    rounding = ("{tf32}",) if convolves else ()  # else products of float32 leave most of a GPU idle
    return Stage(name, (*command, "--workers", "2", *rounding), minutes, True, "cifar-10" if convolves else "MNIST")


# The paper's Section 2; study D at full size; Figure 5; Section 4's network at its three learning rates.
STUDIES = (
    study("lenet-mnist", 10),
    *(study(f"conv4-cifar10-{each}", 4, "trials=3") for each in ("stability", "magnitude", "random", "gradient")),
    *(study(f"{network}-cifar10", 4) for network in ("conv2", "conv4", "conv6")),
    *(study(f"resnet18-cifar10{each}", 4) for each in ("-lr0.1", "-lr0.01", "-warmup")),
)
STAGES = (
    Stage("tests", ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", "tests/training/test_cuda.py"), 3),
    Stage("stacks", ("-m", "benchmarks.gpu", "--stacks", "{out}/stacks.json", "--device", "{device}"), 4),
    *STUDIES,
)


def run(stages: Sequence[Stage], out: Path, seconds: float, device: str) -> list[dict[str, object]]:
    """Run stages until the time is over, and return what became of each.

    Args:
        stages: in the order of their worth.
        out: folder of logs and results; what its log calls done is not done again.
        seconds: for all of them.
        device: "cuda" or "cpu".
    """
    out = out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    file, end = out / "log.json", time.monotonic() + seconds
    before = json.loads(file.read_text()) if file.exists() else []
    log: dict[str, dict[str, object]] = {line["stage"]: line for line in before}
    todo = [stage for stage in stages if log.get(stage.name, {}).get("status") != "done"]
    for limited in (True, False):
        for stage in todo:
            begun = time.monotonic()
            status = log.get(stage.name, {}).get("status")
            if not limited and status != "stopped":
                continue
            left = min(end - begun, 60 * stage.minutes if limited else end - begun)
            if left <= SAVING and status == "stopped":
                continue  # it stays so
            status = _run(stage, out, left, device) if left > SAVING else "no time left"
            took = round(time.monotonic() - begun, 1)
            log[stage.name] = {"stage": stage.name, "status": status, "seconds": took}
            file.write_text(json.dumps(list(log.values()), indent=1) + "\n")
            print(f"{stage.name:<28} {status:<24} {took:>8} s", flush=True)
            if stage.is_study and status in ("done", "stopped"):
                _make_page(stage, out)
            pack(out)
    return list(log.values())


def _run(stage: Stage, out: Path, seconds: float, device: str) -> str:
    """Run one stage, and stop it when its time is over: "done", "stopped", "no data" or "failed (status)"."""
    folder = os.environ.get("TOMBOLA_DATA")
    if stage.data and folder and not list(Path(folder).glob(f"{stage.data}*")):
        return f"no {stage.data} in the data"
    tf32 = "--tf32" if device == "cuda" else ""
    parts = [part.format(out=out, device=device, tf32=tf32) for part in stage.command]
    command = [sys.executable, *filter(None, parts)]
    with (out / f"{stage.name}.log").open("a") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True, cwd=ROOT, env=_environment()
        )
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


def _environment() -> dict[str, str]:
    """Return the environment of a stage, which finds tombola without an installation."""
    paths = [str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


def _make_page(stage: Stage, out: Path) -> None:
    """Make the page of a study, also of an unfinished one; its log says why there is none."""
    command = [sys.executable, str(ROOT / "docs/results/publish.py"), str(out / stage.name)]
    with (out / f"{stage.name}.log").open("a") as file:
        try:
            subprocess.run(
                [*command, str(out / "pages" / stage.name)],
                timeout=PAGE,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=_environment(),
            )
        except subprocess.TimeoutExpired:
            file.write(f"the page took more than {PAGE:.0f} s; make it with docs/results/publish.py\n")


def pack(out: Path) -> Path:
    """Write the archive of what can be published: logs, measurements and pages; return it."""
    whole, aside = out / ARCHIVE, out / f"{ARCHIVE}.part"
    ends = out / "logs"
    ends.mkdir(exist_ok=True)
    for file in out.glob("*.log"):
        (ends / file.name).write_bytes(file.read_bytes()[-LOG_ENDS:])
    with tarfile.open(aside, "w:gz") as archive:
        for name in ("log.json", "stacks.json", "logs", "pages"):
            if (out / name).exists():
                archive.add(out / name, name)
    aside.replace(whole)
    return whole


def publish(archive: Path, root: Path = ROOT) -> list[Path]:
    """Put an archive's measurements into benchmarks/results and its pages into docs/results; return what is new."""
    target = root / "benchmarks" / "results" / "gpu"
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as packed:
        packed.extractall(target, filter="data")
    made = [target]
    for page in sorted((target / "pages").glob("*")):
        place = root / "docs" / "results" / f"{page.name}-gpu"
        place.mkdir(parents=True, exist_ok=True)
        for file in page.iterdir():
            file.replace(place / file.name)
        page.rmdir()
        made.append(place)
    if (target / "pages").exists():
        (target / "pages").rmdir()
    return made


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
    parser.add_argument("--publish", type=Path, metavar="ARCHIVE", help="put the results of such a run into the docs")
    parser.add_argument("--split", nargs=2, type=Path, metavar=("FILE", "FOLDER"))
    parser.add_argument("--join", nargs=2, type=Path, metavar=("FOLDER", "TARGET"))
    chosen = parser.parse_args(arguments)
    if chosen.publish:
        print(*publish(chosen.publish), sep="\n")
        return
    if chosen.split:
        print(*split(*chosen.split), sep="\n")
        return
    if chosen.join:
        print(*join(*chosen.join), sep="\n")
        return
    if chosen.device == "cuda" and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU here; --device cpu runs the same stages slowly")
    if chosen.stacks:
        measure(chosen.stacks, torch.device(chosen.device))
        return
    names = [stage.name for stage in STAGES]
    if unknown := sorted({*(chosen.only or ())} - {*names}):
        sys.exit(f"unknown stage {unknown[0]!r}; there are {', '.join(names)}")
    wanted = [stage for stage in STAGES if not chosen.only or stage.name in chosen.only]
    run(wanted, chosen.out, 60 * chosen.minutes, chosen.device)


if __name__ == "__main__":
    main()
