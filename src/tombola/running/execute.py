"""Running one job from its spec and the store's address: all that a worker needs to know."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

import tombola.data as data
from tombola.errors import InputError
from tombola.named import resolve
from tombola.networks import examine, factory, initialised
from tombola.pruning import CRITERIA, Mask, Snapshots, select, shuffled
from tombola.running.store import PROGRESS, Store
from tombola.seeds import Seeds
from tombola.studies.job import Job, MaskRule
from tombola.training.engine import Engine, Start, Weights
from tombola.training.engines import choose_engine
from tombola.training.loop import Interrupted, Record, train

PROGRESS_EVERY = 0.5  # seconds between two notes of how far a job is


@dataclass(frozen=True)
class Means:
    """By what means jobs are run. None of this decides an outcome beyond rounding, so it is no part of a job.

    Args:
        root: folder of data sets.
        device: of the training, such as "cpu" or "cuda".
        engine: forces one; "auto" chooses.
        threads: that PyTorch uses in each worker.
        checkpoint_every: seconds between checkpoints.
        stop_file: all workers stop when it exists.
        parent: process identity; a worker whose parent is gone stops too.
    """

    root: str | None = None
    device: str = "cpu"
    engine: str = "auto"
    threads: int = 1
    checkpoint_every: float = 30.0
    stop_file: str | None = None
    parent: int | None = None


def run_job(spec: str, address: str, means: Means) -> str:
    """Run a job and store its result.

    Args:
        spec: the job as JSON.
        address: of the store, whose parents' results are there.
        means: how to run it.

    Returns:
        "done"; "diverged", also stored; "busy" where another process has the job; "stopped" where it was interrupted
        and a checkpoint written.
    """
    job, store = Job.model_validate_json(spec), Store(address)
    with store.claim(job.id) as mine:
        if not mine:
            return "busy"
        if not store.has(job):  # another run may have finished it meanwhile
            try:
                _train(job, store, means)
            except Interrupted:
                return "stopped"
        return "diverged" if store.facts(job.id)["diverged_at"] is not None else "done"


def _train(job: Job, store: Store, means: Means) -> None:
    torch.set_num_threads(means.threads)
    device = torch.device(means.device)
    if job.data_code and job.data_code != data.fingerprint(job.data, Path(means.root) if means.root else None):
        raise InputError(f"{job.data.path} has changed since the study was planned; run the command again")
    splits = prepared(job.data, job.seeds, means.root, device)
    build = factory(job.network, tuple(splits.train.inputs.shape[1:]), splits.classes)
    mask, weights = beginning(job, store, build, tuple(splits.train.inputs.shape[1:]))
    budget = job.training.budget(len(splits.train) // job.training.batch_size)

    make = choose_engine(means.engine, build, mask, device)
    facts = {"name": make.name, "threads": means.threads, "device": means.device}
    record, start = Record(), Start(weights, mask, job.seeds, splits, job.origin.iteration)
    found = store.load_checkpoint(job.id)
    if found is not None and {key: found[0].get(key) for key in facts} == facts:
        engine_facts, tensors, record = found
        start = Start(
            _under("weights", tensors),
            mask,
            job.seeds,
            splits,
            engine_facts["iteration"],
            _under("optimizer", tensors),
        )
    engine = make(build, [start], job.training, budget, device)

    def save() -> None:
        tensors = {f"weights/{name}": tensor for name, tensor in engine.weights().items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in engine.optimizer_state().items()}
        store.save_checkpoint(job.id, facts | {"iteration": engine.iteration}, tensors, record)

    train(
        engine,
        [record],
        budget=budget,
        evaluate_every=job.training.evaluate_every,
        keep=job.keep,
        save=save,
        save_every=means.checkpoint_every,
        check=Watch(job, store, means, engine, record, budget),
    )
    store.save(
        job,
        mask,
        record,
        {
            "label": job.label,
            "engine": facts,
            "iterations": budget - job.origin.iteration,
            "normalisation": {"mean": splits.mean, "std": splits.std},
            "versions": {
                "torch": torch.__version__,
                "python": platform.python_version(),
                "machine": platform.machine(),
            },
        },
    )


def beginning(
    job: Job, store: Store, build: Callable[[], nn.Module], input_shape: tuple[int, ...]
) -> tuple[Mask, Weights]:
    """Return the mask of a job, and the masked weights that it starts from.

    Raises:
        Damaged: the result of a job that this one needs is not there, or not whole.
    """
    if job.origin.job is None:
        weights = initialised(build, job.network.init, job.seeds.value("init", job.origin.draw)).state_dict()
    else:
        moment = f"iteration-{job.origin.iteration}" if job.origin.iteration else "start"
        weights = store.load(job.origin.job).snapshots[moment]
    if job.mask is None:
        mask = Mask.full(examine(initialised(build, "pytorch", 0), input_shape).shapes())
    else:
        mask = found_mask(job, job.mask, store, build)
    return mask, mask.apply(weights)


def found_mask(job: Job, rule: MaskRule, store: Store, build: Callable[[], nn.Module]) -> Mask:
    """Return the mask that a rule gives, from the result of the job that it prunes."""
    prune = rule.prune
    parent = store.load(prune.job)
    criterion = resolve(prune.criterion, CRITERIA, "criterion")
    snapshots = Snapshots(
        init=initialised(build, job.network.init, job.seeds.value("init")).state_dict(),
        start=parent.snapshots["start"],
        best=parent.snapshots["best"],
        final=parent.snapshots["final"],
    )
    mask = select(criterion(snapshots), parent.mask, prune.rates, prune.scope, prune.rounds, prune.minimum)
    if rule.shuffle is not None:
        mask = shuffled(mask, job.seeds.generator("mask", rule.shuffle))
    return mask


@lru_cache(maxsize=1)  # a worker runs many jobs of one trial; a second split would double its memory
def prepared(settings: data.DataSettings, seeds: Seeds, root: str | None, device: torch.device) -> data.Splits:
    """Return a trial's data on the device."""
    dataset = data.load(settings, Path(root) if root else None)
    return data.split(dataset, settings.validation, seeds, device)


class Watch:
    """Called several times a second while a job trains: notes its progress, and ends it when that is asked for."""

    def __init__(self, job: Job, store: Store, means: Means, engine: Engine, record: Record, budget: int):
        self._means, self._engine, self._record = means, engine, record
        self._path = store.part(job.id) / PROGRESS
        self._fixed = {"label": job.label, "budget": budget, "first": engine.iteration, "pid": os.getpid()}
        self._noted = 0.0
        self._path.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self) -> None:
        """Note progress if that is due.

        Raises:
            Interrupted: the stop file is there, or the parent process is gone.
        """
        now = time.monotonic()
        if now - self._noted > PROGRESS_EVERY:
            self._noted = now
            history = self._record.history
            accuracy = history["val_accuracy"][-1] if history["val_accuracy"] else None
            state = {"iteration": self._engine.iteration, "val_accuracy": accuracy, "time": time.time()}
            # A full disk must not end a job for the sake of a progress note; saving will say it.
            with contextlib.suppress(OSError):
                aside = self._path.with_suffix(".tmp")
                aside.write_text(json.dumps(self._fixed | state))
                os.replace(aside, self._path)
        means = self._means
        orphaned = means.parent is not None and os.getppid() != means.parent
        if orphaned or (means.stop_file is not None and os.path.exists(means.stop_file)):
            raise Interrupted


def _under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names start with "prefix/", without it."""
    return {
        name.removeprefix(f"{prefix}/"): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}/")
    }
