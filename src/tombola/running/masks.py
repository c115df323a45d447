"""Executing a mask search: what a criterion may look at is loaded from the store, and the mask is stored."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import tombola.data as data
from tombola.networks import examined, initialised
from tombola.pruning import Goal, Mask, SkipRound, Snapshots, kept_of
from tombola.pruning.activations import input_norms
from tombola.pruning.at_init.weights import differentiable, without_gradient
from tombola.pruning.search import find_mask
from tombola.running.files import Damaged
from tombola.running.options import RunOptions
from tombola.running.problem import build_of, splits_of, versions
from tombola.running.store import Result, Store
from tombola.seeds import own_draws, seed_draws
from tombola.training.engine import Weights
from tombola.training.engines.dense import copied
from tombola.training.loop import ROUNDING, early_stop_metric
from tombola.training.order import Order
from tombola.training.tracking import EarlyBird
from tombola.work import Item, MaskSearch, Training, kind_named


@dataclass(frozen=True)
class Parent:
    """What a search prunes: the weights and the mask of a finished run, or of the untrained network.

    Args:
        mask: what is kept so far.
        start, best, final: whole state_dicts.
        iteration: at which `final` was reached.
        run: the run's spec; None for the untrained network.
    """

    mask: Mask
    start: Weights
    best: Weights
    final: Weights
    iteration: int
    run: Training | None

    @classmethod
    def of_result(cls, result: Result) -> Parent:
        """Return the parent that a finished run is."""
        snapshots = result.snapshots
        iteration = int(result.history["iteration"][-1])
        run = kind_named(result.facts["kind"]).spec.model_validate(result.facts["spec"])
        assert isinstance(run, Training)
        return cls(result.mask, snapshots["start"], snapshots["best"], snapshots["final"], iteration, run)


def execute(items: Sequence[Item], store: Store, options: RunOptions) -> None:
    """Find the masks of some items and store them.

    Raises:
        Damaged: the result of a run that a search needs is missing or damaged.
        InputError: a criterion fails.
    """
    for item in items:
        begun = time.perf_counter()
        mask, remarks = _found(item, store, options)
        facts = {
            "remaining": mask.counts(),
            "remarks": remarks,
            "seconds": time.perf_counter() - begun,
            "versions": versions(options),
        }
        store.save_mask(item, mask, facts)


def _found(item: Item, store: Store, options: RunOptions) -> tuple[Mask, dict[str, Any]]:
    """Return the mask, and what a person should know of how it was found.

    The remarks are "skipped", why a round removed nothing; "pruned_from", the run whose mask was pruned, and "factor"
    of the rates, where `back_off` is set; "settled_at", the iteration at which an early-bird mask settled, None where
    it never did; "examples", which training examples of the trial's split a method at initialisation was given.
    """
    search = item.spec
    assert isinstance(search, MaskSearch)
    run, factor = search.run, 1.0
    remarks: dict[str, Any] = {}
    if search.limit is not None:
        assert run is not None
        run, factor = _last_good(search, run, store)
        remarks = {"pruned_from": run, "factor": factor}
    if search.early_bird is not None:
        assert run is not None
        found = _settled(search, search.early_bird, run, store)
        if found is not None:
            return found[0], remarks | {"settled_at": found[1]}
        remarks |= {"settled_at": None, "never_settled": "the mask comes from the final weights"}
    rounds = [{name: factor * rate for name, rate in rates.items()} for rates in search.schedule]
    with closing(splits_of(item, options)) as splits:
        build = build_of(item, splits)
        parent = _untrained(search, build, splits) if run is None else Parent.of_result(store.load(run))
        return _searched(search, parent, rounds, _snapshots(search, parent, rounds, build, splits, remarks), remarks)


def _searched(
    search: MaskSearch,
    parent: Parent,
    rounds: Sequence[dict[str, float]],
    snapshots: Snapshots,
    remarks: dict[str, Any],
) -> tuple[Mask, dict[str, Any]]:
    with own_draws():
        seed_draws(search.seeds.value("dropout"))  # a module may draw in evaluation mode too
        try:
            mask = find_mask(
                search.criterion,
                snapshots,
                parent.mask,
                rounds,
                search.scope,
                search.minimum,
                search.pattern,
                search.axes,
            )
        except SkipRound as reason:
            mask, remarks = parent.mask, remarks | {"skipped": str(reason)}
    return mask, remarks


def _untrained(search: MaskSearch, build: Callable[[], nn.Module], splits: data.Splits) -> Parent:
    module = initialised(build, search.network.init, search.seeds.value("init"))
    weights = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    mask = Mask.full(examined(build, splits.description, search.network).shapes())
    return Parent(mask, weights, weights, weights, 0, None)


def _settled(search: MaskSearch, early_bird: EarlyBird, run: str, store: Store) -> tuple[Mask, int] | None:
    """Return the mask that settled while the run trained, and the iteration at which it did; None if it never did.

    Raises:
        Damaged: the run did not track that mask.
    """
    facts, level = store.facts(run), len(search.schedule)
    for number, tracked in enumerate(store.observed(run).masks):
        if tracked.has(search.schedule, search.scope, search.minimum, early_bird):
            iteration = facts["settling"][number]["settled"][level - 1]
            if iteration is None:
                return None
            bits = store.tensors(run, f"settled-{number}/{level}")
            return Mask.unpack(bits, store.mask(run).shapes()), iteration
    raise Damaged(f"the result of run {run} has no mask distances; run the same command again")


def _last_good(search: MaskSearch, tried: str, store: Store) -> tuple[str, float]:
    """Return the run whose mask will be pruned on, and the factor of the rates.

    That is the run `tried`; but where it has lost more than the margin, the one that its mask was made from.
    """
    limit = search.limit
    assert limit is not None
    if tried == limit.dense:
        return tried, 1.0
    facts, dense = store.facts(tried), store.facts(limit.dense)
    metric = limit.compared
    before, after = (early_stop_metric(each, metric.name) for each in (dense, facts))
    lost = metric.gain(before, after)
    if lost <= limit.margin + ROUNDING:
        return tried, facts["remarks"]["factor"]
    return facts["remarks"]["pruned_from"], facts["remarks"]["factor"] * limit.factor


def _snapshots(
    search: MaskSearch,
    parent: Parent,
    rounds: Sequence[dict[str, float]],
    build: Callable[[], nn.Module],
    splits: data.Splits,
    remarks: dict[str, Any],
) -> Snapshots:
    """Return what the criterion may look at; which examples it was given is added to `remarks`."""

    def prunable(weights: Weights) -> Weights:
        return {name: weights[name] for name in parent.mask}

    def network() -> nn.Module:
        module = initialised(build, "pytorch", 0).eval()
        module.load_state_dict(parent.start)
        return module

    # On the CPU whatever the device: arms that share a mask must find the same one.
    task = search.task.make()

    def batch() -> data.Part:
        if not search.examples:
            raise ValueError("examples exist only for methods at initialisation; use snapshots.gradients instead")
        generator = search.seeds.generator("examples", search.repeat)
        places = task.few(splits.train, search.examples, generator)
        remarks["examples"] = places.tolist()
        return splits.train.select(places.to(splits.train.device)).to("cpu")

    def examples() -> tuple[Any, Any]:
        chosen = batch()
        return chosen.inputs, chosen.targets

    kept = kept_of(parent.mask.counts(), rounds, search.scope, search.minimum)
    return Snapshots(
        init=prunable(initialised(build, search.network.init, search.seeds.value("init")).state_dict()),
        start=prunable(parent.start),
        best=prunable(parent.best),
        final=prunable(parent.final),
        gradients=lambda: prunable(_gradients(search, parent, build, splits)),
        generator=search.seeds.generator("criterion", f"{search.run}/{search.level}/{search.repeat}"),
        norms=lambda: _norms(search, parent, build, splits),
        goal=Goal(tuple(rounds[0]), kept, search.minimum),
        network=network,
        examples=examples,
        loss=lambda module, temperature: task.tempered_loss(module, batch(), temperature),
        input_shape=splits.input_shape,
        kept=dict(parent.mask),
    )


def _gradients(search: MaskSearch, parent: Parent, build: Callable[[], nn.Module], splits: data.Splits) -> Weights:
    """Return the gradient at the end of a run, on the batch that would have come next, not augmented, in float32.

    Frozen layers that are pruned have one too: their weights will be scored.

    Raises:
        InputError: none reaches such a layer.
    """
    module = _after(parent, build, splits)
    pruned = search.pruned
    frozen = [name for name, weight in module.named_parameters() if name in pruned and not weight.requires_grad]
    weights = differentiable(module, frozen)
    _of_next_batch(search, parent, module, splits).backward()
    if missing := [name for name, weight in weights.items() if weight.grad is None]:
        raise without_gradient(missing[0])
    return {
        name: torch.zeros_like(parameter, device="cpu") if parameter.grad is None else copied(parameter.grad.to_dense())
        for name, parameter in module.named_parameters()
    }


def _norms(search: MaskSearch, parent: Parent, build: Callable[[], nn.Module], splits: data.Splits) -> Weights:
    """Return the norms of the inputs of each weight at the end of a run, on the same batch as `_gradients`."""
    module = _after(parent, build, splits)
    found = input_norms(module, list(parent.mask), lambda: _of_next_batch(search, parent, module, splits), search.rates)
    return {name: copied(norms) for name, norms in found.items()}


def _after(parent: Parent, build: Callable[[], nn.Module], splits: data.Splits) -> nn.Module:
    """Return the network at the end of a run, in evaluation mode."""
    module = initialised(build, "pytorch", 0).to(splits.train.device).eval()
    module.load_state_dict(parent.final)
    return module


def _of_next_batch(search: MaskSearch, parent: Parent, module: nn.Module, splits: data.Splits) -> torch.Tensor:
    """Return the loss of a network on the batch that would have come next."""
    if parent.run is None:
        raise ValueError("the untrained network has no next batch; use snapshots.examples instead")
    device, seeds = splits.train.device, parent.run.seeds
    (batch,) = Order(len(splits.train), parent.run.training.batch_size, seeds).batches(parent.iteration, 1)
    with own_draws(device):
        seed_draws(seeds.value("dropout", parent.iteration), device)  # a module may draw in evaluation mode too
        return search.task.make().tempered_loss(module, splits.train.select(batch.to(device)))
