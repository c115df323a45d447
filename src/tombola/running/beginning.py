"""What a job starts from: its data, its mask, its weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

import tombola.data as data
from tombola.errors import InputError
from tombola.named import resolve
from tombola.networks import examine, initialised
from tombola.pruning import CRITERIA, Mask, Snapshots, select, shuffled
from tombola.running.store import Store
from tombola.seeds import Seeds
from tombola.studies.job import Job, MaskRule
from tombola.training.engine import Weights


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
    # In the module rather than in the dict: a tied weight has several names there, and is masked under one.
    module = initialised(build, "pytorch", 0)
    module.load_state_dict(weights)
    mask.apply_(module)
    return mask, {name: tensor.clone() for name, tensor in module.state_dict().items()}


def found_mask(job: Job, rule: MaskRule, store: Store, build: Callable[[], nn.Module]) -> Mask:
    """Return the mask that a rule gives, from the result of the job that it prunes."""
    prune = rule.prune
    parent = store.load(prune.job)
    criterion = resolve(prune.criterion, CRITERIA, "criterion")

    def prunable(weights: Weights) -> Weights:
        return {name: weights[name] for name in parent.mask}

    snapshots = Snapshots(
        init=prunable(initialised(build, job.network.init, job.seeds.value("init")).state_dict()),
        start=prunable(parent.snapshots["start"]),
        best=prunable(parent.snapshots["best"]),
        final=prunable(parent.snapshots["final"]),
    )
    scores = criterion(snapshots)
    try:
        mask = select(scores, parent.mask, prune.rates, prune.scope, prune.rounds, prune.minimum)
    except ValueError as error:
        raise InputError(f"criterion {prune.criterion!r}: {error}") from error
    if rule.shuffle is not None:
        mask = shuffled(mask, job.seeds.generator("mask", rule.shuffle))
    return mask


@lru_cache(maxsize=1)  # a worker runs many jobs of one trial; a second split would double its memory
def prepared(
    settings: data.DataSettings, seeds: Seeds, root: str | None, device: torch.device, content: str
) -> data.Splits:
    """Return a trial's data on the device; `content` is their fingerprint."""
    dataset = data.load(settings, Path(root) if root else None)
    return data.split(dataset, settings.validation, seeds, device)
