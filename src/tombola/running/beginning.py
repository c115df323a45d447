"""What a job starts from: its data, its mask, its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import tombola.data as data
from tombola.errors import InputError
from tombola.networks import examine, initialised
from tombola.pruning import Goal, Mask, SkipRound, Snapshots, kept_of, scores_of
from tombola.pruning.patterns import select_in, shuffled_in
from tombola.running.collapse import collapse
from tombola.running.files import Damaged
from tombola.running.store import Result, Store
from tombola.seeds import Seeds
from tombola.studies.job import Job, Limit, MaskRule, Prune
from tombola.training.engine import Weights
from tombola.training.engines.dense import copied, own_draws, seed_draws
from tombola.training.loop import ROUNDING, early_stop_accuracy
from tombola.training.order import Order
from tombola.training.popup import signed_constant
from tombola.training.watching import EarlyBird, Watch


@dataclass(frozen=True)
class Beginning:
    """What a job starts from.

    Args:
        mask: which weights may live.
        weights: the masked weights.
        remarks: what the result should say of how the mask was found: "skipped", why a round removed nothing;
            "pruned_from", the run whose mask was pruned, and "factor" of the rates, where `back_off` is set;
            "settled_at", the iteration at which an early-bird mask settled, None where it never did; "examples", which
            training examples of the trial's split a method at initialisation was given; "collapsed" and "no_path",
            see `tombola.running.collapse`.
    """

    mask: Mask
    weights: Weights
    remarks: dict[str, Any]


def beginning(job: Job, store: Store, build: Callable[[], nn.Module], splits: data.Splits) -> Beginning:
    """Return what a job starts from.

    Raises:
        Damaged: the result of a job that this one needs is not there, or not whole.
        InputError: a user's own criterion fails.
    """
    if job.origin.job is None:
        weights = initialised(build, job.network.init, job.seeds.value("init", job.origin.draw)).state_dict()
    else:
        moment = job.origin.moment or (f"iteration-{job.origin.iteration}" if job.origin.iteration else "start")
        weights = store.load(job.origin.job).snapshots[moment]
    module = initialised(build, "pytorch", 0)
    remarks: dict[str, Any] = {}
    if job.mask is None:
        mask = Mask.full(examine(module, splits.input_shape).shapes())
    else:
        mask, remarks = found_mask(job, job.mask, store, build, splits)
        remarks |= collapse(module, mask, splits.input_shape)
    # In the module rather than in the dict: a tied weight has several names there, and is masked under one.
    module.load_state_dict(weights)
    if job.popup is not None and job.popup.weights == "signed-constant":
        with torch.no_grad():
            for name, weight in module.named_parameters():
                if name in mask:
                    weight.copy_(signed_constant(weight))
    mask.apply_(module)
    return Beginning(mask, {name: tensor.clone() for name, tensor in module.state_dict().items()}, remarks)


def found_mask(
    job: Job, rule: MaskRule, store: Store, build: Callable[[], nn.Module], splits: data.Splits
) -> tuple[Mask, dict[str, Any]]:
    """Return the mask that a rule gives, from the result of the job that it prunes, and remarks on it."""
    prune, factor = rule.prune, 1.0
    remarks: dict[str, Any] = {}
    if prune.limit is not None:
        base, factor = _last_good(prune.job, prune.limit, store)
        remarks = {"pruned_from": base, "factor": factor}
        prune = prune.model_copy(update={"job": base})
    if not prune.rates:
        mask = store.mask(prune.job)
    elif prune.early_bird is not None and (found := _settled(prune, prune.early_bird, store)) is not None:
        mask, iteration = found
        remarks |= {"settled_at": iteration}
    else:
        parent = store.load(prune.job)
        if prune.early_bird is not None:
            remarks |= {"settled_at": None, "never_settled": "the mask is that of the final weights"}
        try:
            mask = _pruned(job, prune, factor, parent, build, splits, remarks)
        except SkipRound as reason:
            mask, remarks = parent.mask, remarks | {"skipped": str(reason)}
    if rule.shuffle is not None:
        mask = shuffled_in(rule.prune.pattern, mask, job.seeds.generator("mask", rule.shuffle))
    return mask, remarks


def _settled(prune: Prune, early_bird: EarlyBird, store: Store) -> tuple[Mask, int] | None:
    """Return the mask that settled while the run trained, and the iteration at which it did; None if it never did.

    Raises:
        Damaged: the run did not watch that mask.
    """
    facts, level = store.facts(prune.job), len(prune.schedule)
    watched = [Watch.model_validate(watch) for watch in facts["job"].get("watch", [])]
    for number, watch in enumerate(watched):
        if watch.has(prune.schedule, prune.scope, prune.minimum, early_bird):
            iteration = facts["settling"][number]["settled"][level - 1]
            if iteration is None:
                return None
            bits = store.tensors(prune.job, f"settled-{number}/{level}")
            return Mask.unpack(bits, store.mask(prune.job).shapes()), iteration
    raise Damaged(f"the result of job {prune.job} has no curve of mask distances; run the same command again")


def _last_good(tried: str, limit: Limit, store: Store) -> tuple[str, float]:
    """Return the run whose mask is to be pruned on, and the factor of the rates.

    That is the run `tried`; but where it has lost more than the margin, the one that its mask was made from.
    """
    if tried == limit.dense:
        return tried, 1.0
    facts, dense = store.facts(tried), store.facts(limit.dense)
    lost = early_stop_accuracy(dense["history"]) - early_stop_accuracy(facts["history"])
    if lost <= limit.margin + ROUNDING:
        return tried, facts["remarks"]["factor"]
    return facts["remarks"]["pruned_from"], facts["remarks"]["factor"] * limit.factor


def _pruned(
    job: Job,
    prune: Prune,
    factor: float,
    parent: Result,
    build: Callable[[], nn.Module],
    splits: data.Splits,
    remarks: dict[str, Any],
) -> Mask:
    """Return the mask that a rule's criterion leaves; which examples it was given is added to `remarks`."""

    def prunable(weights: Weights) -> Weights:
        return {name: weights[name] for name in parent.mask}

    def network() -> nn.Module:
        module = initialised(build, "pytorch", 0).eval()
        module.load_state_dict(parent.snapshots["start"])
        return module

    # On the CPU whatever the device: arms that share a mask must find the same one.
    def examples() -> tuple[Tensor, Tensor]:
        if not prune.examples:
            raise ValueError("examples are for methods that prune at initialisation; see snapshots.gradients")
        places = data.balanced(splits.train.targets, prune.examples, job.seeds.generator("examples", prune.draw))
        remarks["examples"] = places.tolist()
        here = places.to(splits.train.inputs.device)
        return splits.train.inputs[here].cpu(), splits.train.targets[here].cpu()

    rounds = [{name: factor * rate for name, rate in rates.items()} for rates in prune.schedule]
    kept = kept_of(parent.mask.counts(), rounds, prune.scope, prune.minimum)
    snapshots = Snapshots(
        init=prunable(initialised(build, job.network.init, job.seeds.value("init")).state_dict()),
        start=prunable(parent.snapshots["start"]),
        best=prunable(parent.snapshots["best"]),
        final=prunable(parent.snapshots["final"]),
        gradients=lambda: prunable(_gradients(parent, build, splits)),
        # By the run that is pruned, so that every level draws anew.
        generator=job.seeds.generator("criterion", int(prune.job, 16) + (prune.draw << 64)),
        goal=Goal(tuple(rounds[0]), kept, prune.minimum),
        network=network,
        examples=examples,
        input_shape=splits.input_shape,
    )
    with torch.random.fork_rng(devices=[]):
        # A module may draw in evaluation mode too; without the job's noise, for copies share their mask.
        torch.manual_seed(Seeds(job.seed, job.trial).value("dropout"))
        scores = scores_of(prune.criterion, snapshots)
    try:
        mask = select_in(prune.pattern, scores, parent.mask, rounds, prune.scope, prune.minimum)
    except ValueError as error:
        raise InputError(f"criterion {prune.criterion!r}: {error}") from error
    if mask == parent.mask:
        raise SkipRound("so few weights are left, at rates so low, that the round removes none")
    return mask


def _gradients(parent: Result, build: Callable[[], nn.Module], splits: data.Splits) -> Weights:
    """Return the gradient at the end of a run, on the batch that would have come next, not augmented, in float32."""
    run = Job.model_validate(parent.facts["job"])
    iteration = int(parent.history["iteration"][-1])
    device = splits.train.inputs.device
    module = initialised(build, "pytorch", 0).to(device).eval()
    module.load_state_dict(parent.snapshots["final"])
    (batch,) = Order(len(splits.train), run.training.batch_size, run.seeds).batches(iteration, 1).to(device)
    with own_draws(device):
        seed_draws(run.seeds.value("dropout", iteration), device)  # a module may draw in evaluation mode too
        loss = functional.cross_entropy(module(splits.train.inputs[batch]), splits.train.targets[batch])
        loss.backward()
    return {
        name: torch.zeros_like(parameter, device="cpu") if parameter.grad is None else copied(parameter.grad)
        for name, parameter in module.named_parameters()
    }


@lru_cache(maxsize=1)  # a worker runs many jobs of one trial; a second split would double its memory
def prepared(
    settings: data.DataSettings, seeds: Seeds, root: str | None, device: torch.device, content: str
) -> data.Splits:
    """Return a trial's data on the device; `content` is their fingerprint."""
    dataset = data.load(settings, Path(root) if root else None)
    return data.split(dataset, settings.validation, seeds, device)
