"""Running jobs from their specs and the store's address: all that a worker needs to know."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn

import tombola.data as data
from tombola import __version__
from tombola.errors import InputError
from tombola.networks import factory, initialised
from tombola.pruning import Mask
from tombola.running.beginning import beginning, prepared
from tombola.running.collapse import collapse
from tombola.running.commit import commit
from tombola.running.energy import metered
from tombola.running.files import under
from tombola.running.line import along
from tombola.running.machine import machine
from tombola.running.store import Store
from tombola.running.watch import Watch
from tombola.seeds import Seeds
from tombola.studies.connectivity import Line, Work
from tombola.studies.job import Job
from tombola.training.engine import Engine, Start, Weights
from tombola.training.engines import choose_engine
from tombola.training.engines.popup import PopupEngine
from tombola.training.loop import Interrupted, Record, train
from tombola.training.watching import Watcher

_WORK: TypeAdapter[Work] = TypeAdapter(Work)


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
    """Run jobs of one network and recipe, or a line, and store each one's result.

    Args:
        specs: the jobs as JSON, or a single line.
        address: of the store, where the results that they need are.
        means: how to run them.

    Returns:
        For each job "done"; "diverged", also stored; "busy" where another process has it; or "stopped" where it was
        interrupted and a checkpoint written.
    """
    jobs, store = [_WORK.validate_json(spec) for spec in specs], Store(address)
    with contextlib.ExitStack() as held:
        busy = {job.id for job in jobs if not held.enter_context(store.claim(job.id))}
        # Another run may have finished some meanwhile.
        mine = [job for job in jobs if job.id not in busy and not store.has(job)]
        torch.set_num_threads(means.threads)
        with contextlib.suppress(Interrupted):
            for line in mine:
                if isinstance(line, Line):
                    _follow(line, store, means)
            _train([store.with_snapshots(job) for job in mine if isinstance(job, Job)], store, means)
        return ["busy" if job.id in busy else _outcome(job, store) for job in jobs]


def _outcome(job: Work, store: Store) -> str:
    return store.outcome(job.id) if store.has(job) else "stopped"


def _train(jobs: Sequence[Job], store: Store, means: Means) -> None:
    lanes = [_lane(job, store, means) for job in sorted(jobs, key=lambda job: job.trial)]
    # Lanes train in lockstep, so those that go on from a checkpoint go with others that are as far.
    for _, together in groupby(sorted(lanes, key=_iteration), key=_iteration):
        _train_together(list(together), store, means)


def _iteration(lane: Lane) -> int:
    return lane.start.iteration


def _lane(job: Job, store: Store, means: Means) -> Lane:
    """Return a job's lane: from its last checkpoint, or from its beginning."""
    splits = _splits(job, means)
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


def _splits(job: Work, means: Means) -> data.Splits:
    """Return a job's data; InputError where these, or the code of the network, are not what was planned."""
    root = Path(means.root) if means.root else None
    if job.data_code and job.data_code != data.fingerprint(job.data, root):
        raise InputError(f"{job.data.path} has changed since the study was planned; run the command again")
    if job.network_code != job.network.code():
        raise InputError(f"the code of {job.network.name} has changed since the study was planned; start again")
    return prepared(job.data, Seeds(job.seed, job.trial), means.root, torch.device(means.device), job.data_code)


def _build(job: Work, splits: data.Splits) -> Callable[[], nn.Module]:
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
            check=Watch(store, means, lambda: {lane.job.id: _state(lane, engine, end) for lane in lanes}),
        )
        note_energy()
    for lane in lanes:
        splits = lane.start.splits
        mask = lane.start.mask
        if isinstance(engine, PopupEngine):
            mask = engine.mask
            module = initialised(_build(lane.job, splits), "pytorch", 0)
            lane.remarks |= collapse(module, mask, splits.input_shape)
        about = {
            "label": lane.job.label,
            "engine": facts,
            "iterations": engine.iteration - lane.job.origin.iteration,
            "zeros": zeros(lane.record.snapshots["final"], mask),
            "remarks": lane.remarks,
            "normalisation": {"mean": splits.mean, "std": splits.std},
            "versions": _versions(means),
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


def _state(lane: Lane, engine: Engine, budget: int) -> dict[str, Any]:
    accuracies = lane.record.history["val_accuracy"]
    return {
        "label": lane.job.label,
        "iteration": engine.iteration,
        "budget": budget,
        "val_accuracy": accuracies[-1] if accuracies else None,
    }


def _versions(means: Means) -> dict[str, str | None]:
    return {
        "tombola": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": machine(means.device),
    }


def _follow(line: Line, store: Store, means: Means) -> None:
    """Evaluate a line and store what was found; interrupted, it is begun anew."""
    begun = time.perf_counter()
    splits = _splits(line, means)
    one, other = store.load(line.one), store.load(line.other)
    state = {"label": line.label, "iteration": 0, "budget": line.points, "val_accuracy": None, "unit": "points"}
    found = along(
        one.snapshots["final"],
        other.snapshots["final"],
        _build(line, splits),
        splits,
        line.points,
        half=line.precision == "bfloat16",
        seed=Seeds(line.seed, line.trial).value("dropout"),
        check=Watch(store, means, lambda: {line.id: state}),
        reached=lambda point: state.update(iteration=point),
    )
    facts = {
        "label": line.label,
        "engine": _facts(means, "dense"),
        "remaining": [sum(result.mask.counts().values()) for result in (one, other)],
        "seconds": time.perf_counter() - begun,
        "versions": _versions(means),
    }
    store.save_line(line, found, facts)


def zeros(weights: Weights, mask: Mask) -> int:
    """Return how many prunable weights are exactly 0.0, whether they are masked or not."""
    return sum(int((weights[name] == 0).sum()) for name in mask)
