"""What a job starts from: its data, its mask, its weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

import tombola.data as data
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
