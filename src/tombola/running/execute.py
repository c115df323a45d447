"""Running jobs from their specs and the store's address: all that a worker needs to know."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import nn

import tombola.data as data
from tombola import __version__
from tombola.errors import InputError
from tombola.networks import factory
from tombola.pruning import Mask
from tombola.running.beginning import beginning, prepared
from tombola.running.commit import commit
from tombola.running.energy import metered
from tombola.running.files import under
from tombola.running.machine import machine
from tombola.running.store import PROGRESS, Store
from tombola.seeds import Seeds
from tombola.studies.job import Job
from tombola.training.engine import Engine, Start, Weights
from tombola.training.engines import choose_engine
from tombola.training.engines.popup import PopupEngine
from tombola.training.loop import Interrupted, Record, train
from tombola.training.watching import Watcher

PROGRESS_EVERY = 0.5  # seconds between two notes of how far a job is


@dataclass(frozen=True)
class Means:
    """By what means jobs are run. None of this decides an outcome beyond rounding, so it is no part of a job.

    Args:
        root: folder of data sets.
        device: of the training, such as "cpu" or "cuda".
        engine: forces one; "auto" chooses.
        threads: that PyTorch uses in each worker.
        stack: the most jobs that are trained together, where the engine can do that.
        checkpoint_every: seconds between checkpoints.
        go_file: all workers stop when it is gone.
        parent: process identity; a worker whose parent is gone stops too.
        energy: measure what each job takes.
    """

    root: str | None = None
    device: str = "cpu"
    engine: str = "auto"
    threads: int = 1
    stack: int = 1
    checkpoint_every: float = 30.0
    go_file: str | None = None
    parent: int | None = None
    energy: bool = False


@dataclass
class Lane:
    """A job that is about to be trained: where it starts, what is known of it and its mask so far, who watches it."""

    job: Job
    start: Start
    record: Record
    remarks: dict[str, Any]
    watchers: list[Watcher]


def run_jobs(specs: Sequence[str], address: str, means: Means) -> list[str]:
    """Run jobs of one network and recipe, and store each one's result.

    Args:
        specs: the jobs as JSON.
        address: of the store, where the results that they need are.
        means: how to run them.

    Returns:
        For each job "done"; "diverged", also stored; "busy" where another process has it; or "stopped" where it was
        interrupted and a checkpoint written.
    """
    jobs, store = [Job.model_validate_json(spec) for spec in specs], Store(address)
    with contextlib.ExitStack() as held:
        busy = {job.id for job in jobs if not held.enter_context(store.claim(job.id))}
        # Another run may have finished some meanwhile.
        mine = [store.with_snapshots(job) for job in jobs if job.id not in busy and not store.has(job)]
        with contextlib.suppress(Interrupted):
            _train(mine, store, means)
        return ["busy" if job.id in busy else _outcome(job, store) for job in jobs]


def _outcome(job: Job, store: Store) -> str:
    return store.outcome(job.id) if store.has(job) else "stopped"


def _train(jobs: Sequence[Job], store: Store, means: Means) -> None:
    torch.set_num_threads(means.threads)
    lanes = [_lane(job, store, means) for job in sorted(jobs, key=lambda job: job.trial)]
    # Lanes train in lockstep, so those that go on from a checkpoint go with others that are as far.
    for _, together in groupby(sorted(lanes, key=_iteration), key=_iteration):
        _train_together(list(together), store, means)


def _iteration(lane: Lane) -> int:
    return lane.start.iteration


def _lane(job: Job, store: Store, means: Means) -> Lane:
    """Return a job's lane: from its last checkpoint, or from its beginning."""
    root = Path(means.root) if means.root else None
    if job.data_code and job.data_code != data.fingerprint(job.data, root):
        raise InputError(f"{job.data.path} has changed since the study was planned; run the command again")
    if job.network_code != job.network.code():
        raise InputError(f"the code of {job.network.name} has changed since the study was planned; start again")
    splits = prepared(job.data, Seeds(job.seed, job.trial), means.root, torch.device(means.device), job.data_code)
    build = _build(job, splits)
    begun = beginning(job, store, build, splits)
    mask, weights = begun.mask, begun.weights
    found = store.load_checkpoint(job.id)
    if found is not None:
        facts, tensors, record = found
        needed = {f"iteration-{k}" for k in job.keep if job.origin.iteration <= k <= facts["iteration"]}
        same = facts.get("means") == _facts(means, _engine(job, build, mask, splits, means).name)
        same = same and facts.get("watch", []) == _watch(job)
        if same and facts.get("mask") == _digest(mask) and needed <= record.snapshots.keys():
            weights, optimizer = under("weights", tensors), under("optimizer", tensors)
            start = Start(weights, mask, job.seeds, splits, facts["iteration"], optimizer, job.popup)
            watchers = [
                Watcher(watch, mask, facts["watched"][number], under(f"watch-{number}", tensors))
                for number, watch in enumerate(job.watch)
            ]
            return Lane(job, start, record, begun.remarks, watchers)
    # What scores are trained for starts from all weights, and the mask is what is found: "start" has them all.
    record = Record(snapshots={"start": weights} if job.popup else {})
    start = Start(weights, mask, job.seeds, splits, job.origin.iteration, popup=job.popup)
    return Lane(job, start, record, begun.remarks, [Watcher(watch, mask) for watch in job.watch])


def _watch(job: Job) -> list[Any]:
    return [watch.model_dump(mode="json") for watch in job.watch]


def _build(job: Job, splits: data.Splits) -> Callable[[], nn.Module]:
    return factory(job.network, splits.input_shape, splits.classes)


def _engine(job: Job, build: Callable[[], nn.Module], mask: Mask, splits: data.Splits, means: Means) -> Any:
    if job.popup is not None:
        return PopupEngine
    return choose_engine(means.engine, build, mask, job.training, splits.train.inputs[:1], means.stack > 1)


def _facts(means: Means, engine: str) -> dict[str, Any]:
    """Return by what means a result was made: what makes its last bits repeatable."""
    return {"name": engine, "threads": means.threads, "device": means.device, "torch": torch.__version__}


def _digest(mask: Mask) -> str:
    """Return what a checkpoint knows its mask by: the run that the mask was found in may have been done anew."""
    bits = b"".join(bits.numpy().tobytes() for bits in mask.pack().values())
    return hashlib.sha256(bits).hexdigest()


def _train_together(lanes: Sequence[Lane], store: Store, means: Means) -> None:
    """Train lanes that are at the same iteration, as many at a time as the engine and the memory allow."""
    job, splits = lanes[0].job, lanes[0].start.splits
    build = _build(job, splits)
    make = _engine(job, build, lanes[0].start.mask, splits, means)
    if len(lanes) > 1 and (make.name != "stacked" or job.training.patience):  # each ends when its patience does
        for lane in lanes:
            _train_together([lane], store, means)
        return
    budget = job.training.budget(len(splits.train) // job.training.batch_size)
    parts: list[Sequence[Lane]] = []
    try:
        engine = make(build, [lane.start for lane in lanes], job.training, budget, torch.device(means.device))
        _train_engine(engine, lanes, store, means, budget)
    except torch.OutOfMemoryError:
        if len(lanes) == 1:
            raise
        parts = [lanes[: len(lanes) // 2], lanes[len(lanes) // 2 :]]
    # Out here, because the exception holds on to all that filled the memory.
    engine = None
    if parts and torch.cuda.is_available():
        torch.cuda.empty_cache()
    for part in parts:
        _train_together([_lane(lane.job, store, means) for lane in part], store, means)


def _train_engine(engine: Engine, lanes: Sequence[Lane], store: Store, means: Means, budget: int) -> None:
    facts = _facts(means, engine.name)
    records = [lane.record for lane in lanes]

    def save() -> None:
        note_energy()
        for number, lane in enumerate(lanes):
            tensors = {f"weights/{name}": tensor for name, tensor in engine.weights(number).items()}
            tensors |= {f"optimizer/{name}": tensor for name, tensor in engine.optimizer_state(number).items()}
            about = {"means": facts, "mask": _digest(lane.start.mask), "iteration": engine.iteration}
            about |= {"watch": _watch(lane.job), "watched": [watcher.facts for watcher in lane.watchers]}
            for place, watcher in enumerate(lane.watchers):
                tensors |= {f"watch-{place}/{name}": tensor for name, tensor in watcher.tensors.items()}
            store.save_checkpoint(lane.job.id, about, tensors, lane.record)

    def observe(number: int) -> None:
        for watcher in lanes[number].watchers:
            watcher.note(engine.iteration, engine.weights(number))

    training, splits = lanes[0].job.training, lanes[0].start.splits
    end = min(budget, lanes[0].job.until or budget)  # the schedule is that of the whole budget
    with metered(records, means.energy) as note_energy:
        train(
            engine,
            records,
            budget=end,
            evaluate_every=training.interval(len(splits.train) // training.batch_size),
            patience=training.patience,
            keep={iteration for lane in lanes for iteration in lane.job.keep},
            observe=observe,
            save=save,
            save_every=means.checkpoint_every,
            check=Watch(lanes, store, means, engine, end),
        )
        note_energy()
    for lane in lanes:
        splits = lane.start.splits
        mask = engine.mask if isinstance(engine, PopupEngine) else lane.start.mask
        about = {
            "label": lane.job.label,
            "engine": facts,
            "iterations": engine.iteration - lane.job.origin.iteration,
            "zeros": zeros(lane.record.snapshots["final"], mask),
            "remarks": lane.remarks,
            "normalisation": {"mean": splits.mean, "std": splits.std},
            "versions": {
                "tombola": __version__,
                "commit": commit(),
                "torch": torch.__version__,
                "python": platform.python_version(),
                "machine": machine(means.device),
            },
        }
        if lane.record.energy_kwh is not None:
            about["energy_kwh"] = lane.record.energy_kwh
        if lane.watchers:
            about["settling"] = [watcher.facts for watcher in lane.watchers]
        settled = {
            f"settled-{number}/{name.removeprefix('settled/')}": bits
            for number, watcher in enumerate(lane.watchers)
            for name, bits in watcher.tensors.items()
            if name.startswith("settled/")
        }
        store.save(lane.job, mask, lane.record, about, settled)


def zeros(weights: Weights, mask: Mask) -> int:
    """Return how many prunable weights are exactly 0.0, whether they are masked or not."""
    return sum(int((weights[name] == 0).sum()) for name in mask)


class Watch:
    """Called several times a second while a job trains: notes its progress, and ends it when that is asked for."""

    def __init__(self, lanes: Sequence[Lane], store: Store, means: Means, engine: Engine, budget: int):
        self._lanes, self._store, self._means = lanes, store, means
        self._engine, self._budget = engine, budget
        self._noted = 0.0

    def __call__(self) -> None:
        """Note progress if that is due.

        Raises:
            Interrupted: the go file or the parent process is gone.
        """
        now = time.monotonic()
        if now - self._noted > PROGRESS_EVERY:
            self._noted = now
            for lane in self._lanes:
                # A full disk must not end a job for the sake of a progress note; saving will say it.
                with contextlib.suppress(OSError):
                    self._note(lane)
        means = self._means
        orphaned = means.parent is not None and os.getppid() != means.parent
        if orphaned or (means.go_file is not None and not os.path.exists(means.go_file)):
            raise Interrupted

    def _note(self, lane: Lane) -> None:
        accuracies = lane.record.history["val_accuracy"]
        state = {
            "label": lane.job.label,
            "iteration": self._engine.iteration,
            "budget": self._budget,
            "val_accuracy": accuracies[-1] if accuracies else None,
            "time": time.time(),
        }
        path = self._store.part(lane.job.id) / PROGRESS
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".tmp")
        aside.write_text(json.dumps(state))
        os.replace(aside, path)
