"""The initial state of a training: its weights, its mask, and what is to be said of that mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import tombola.data as data
from tombola.networks import examined, initialised
from tombola.pruning import Mask
from tombola.pruning.patterns import shuffled_in
from tombola.pruning.redraws import REDRAWS, Kept
from tombola.running.collapse import collapse
from tombola.running.store import Store
from tombola.training.engine import Weights
from tombola.training.popup import signed_constant
from tombola.work import Frozen, Run, Supermask, Training


def masked_state(
    run: Run, store: Store, build: Callable[[], nn.Module], splits: data.Splits
) -> tuple[Mask, Weights, dict[str, Any]]:
    """Return the mask of a run, its masked starting weights, and remarks on the mask.

    The remarks are those of the search that found the mask, with "collapsed" and "no_path"; see
    `tombola.running.collapse`.

    Raises:
        Damaged: a result that the run needs is missing or damaged.
    """

    def full() -> Mask:
        return Mask.full(examined(build, splits.description, run.network).shapes())

    def drawn(seed: int) -> Weights:
        return initialised(build, run.network.init, seed).state_dict()

    return state_under_mask(run, store, initialised(build, "pytorch", 0), drawn, full, splits.input_shape)


def state_under_mask(
    run: Run,
    store: Store,
    module: nn.Module,
    drawn: Callable[[int], Weights],
    full: Callable[[], Mask],
    input_shape: Any,
) -> tuple[Mask, Weights, dict[str, Any]]:
    """Return the mask of a run, its masked starting weights, and remarks on the mask, as `masked_state` does.

    Args:
        run: what decides them.
        store: holds the results that the run needs.
        module: of the run's network; it is changed.
        drawn: returns the initial weights of a seed.
        full: returns the mask of the dense network.
        input_shape: of one example; None where it is not that of a single tensor.

    Raises:
        Damaged: a result that the run needs is missing or damaged.
    """
    remarks: dict[str, Any] = {}
    if run.mask is None:
        mask = full()
    else:
        mask = store.mask(run.mask.source)
        if run.mask.head is not None:
            mask = mask_with_head(mask, run.mask.head, full(), run.seeds.generator("mask", f"head/{run.mask.source}"))
            remarks["head"] = (
                f"{run.mask.head} has other outputs in the source, so it has the study's own starting weights and a "
                "random mask"
            )
        if run.mask.search is not None:
            remarks |= store.facts(run.mask.search)["remarks"]
        if run.mask.shuffle is not None:
            shuffle = run.mask.shuffle
            generator = run.seeds.generator("mask", shuffle.counter())
            mask = shuffled_in(shuffle.pattern, mask, generator, shuffle.axes)
        if run.mask.frozen is None:
            remarks |= collapse(module, mask, input_shape)
    # In the module rather than in the dict: a tied weight has several names there, and is masked under one.
    module.load_state_dict(_with_head(_weights(run, store, drawn), run, drawn))
    whole = _copied(module)
    mask.apply_(module)
    weights, initial = _copied(module), run.initial
    if initial.redraw is not None:
        kept = Kept(
            weights,
            mask,
            run.seeds.generator("redraw", f"{initial.redraw}/{initial.repeat}/{initial.level}"),
            initial=lambda: drawn(run.seeds.value("init")),
            fresh=lambda: drawn(run.seeds.value("init", initial.repeat + 1)),
        )
        redrawn = REDRAWS[initial.redraw](kept)
        with torch.no_grad():  # not load_state_dict: a tied weight's other names hold the ticket's values
            for name in mask:
                module.get_parameter(name).copy_(redrawn[name])
        weights = _copied(module)  # a tied weight under all its names
    if run.mask is not None and run.mask.frozen is not None:
        _freeze(run.mask.frozen, store, module, whole, mask)
        weights = _copied(module)
    return mask, weights, remarks


def mask_with_head(mask: Mask, head: str, full: Mask, generator: torch.Generator) -> Mask:
    """Return a source's mask with an output layer of the target's shape: the same density, places drawn at random.

    Args:
        mask: of the source.
        head: name of the output layer's weight.
        full: mask of the target's dense network.
        generator: draws the places.
    """
    size = full[head].numel()
    count = round(float(mask[head].double().mean()) * size)
    keep = torch.zeros(size, dtype=torch.bool)
    keep[torch.randperm(size, generator=generator)[:count]] = True
    return Mask({name: keep.view(full[head].shape) if name == head else mask[name] for name in full})


def _with_head(weights: Weights, run: Run, drawn: Callable[[int], Weights]) -> Weights:
    """Return weights whose output layer, where it comes from a network with other outputs, has new random weights."""
    if run.mask is None or run.mask.head is None:
        return weights
    fresh, layer = drawn(run.seeds.value("init")), run.mask.head.rpartition(".")[0]
    return {
        name: own if name.rpartition(".")[0] == layer and weights[name].shape != own.shape else weights[name]
        for name, own in fresh.items()
    }


def _freeze(frozen: Frozen, store: Store, module: nn.Module, whole: Weights, mask: Mask) -> None:
    """Give the pruned weights of a module the values that they are frozen at.

    Args:
        frozen: which of them keep their values.
        store: holds the run whose movement decides that.
        module: that is changed.
        whole: the starting weights, before the mask was applied.
        mask: which weights are trained.
    """
    moved = None if frozen.moved_in is None else store.load(frozen.moved_in).snapshots
    with torch.no_grad():
        for name, keep in mask.items():
            stays = ~keep
            if moved is not None:
                stays = stays & (moved["final"][name].abs() > moved["start"][name].abs())
            weight = module.get_parameter(name)
            weight[stays] = whole[name].to(weight)[stays]


def frozen_state(
    supermask: Supermask, store: Store, build: Callable[[], nn.Module], splits: data.Splits
) -> tuple[Mask, Weights, dict[str, Any]]:
    """Return a full mask, the weights that scores are trained for, and no remarks.

    Raises:
        Damaged: a result that this work needs is missing or damaged.
    """
    mask, weights, remarks = dense_state(supermask, store, build, splits)
    if supermask.popup.weights == "init":
        return mask, weights, remarks
    module = initialised(build, "pytorch", 0)
    module.load_state_dict(weights)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if name in mask:
                weight.copy_(signed_constant(weight))
    return mask, _copied(module), remarks


def dense_state(
    training: Training, store: Store, build: Callable[[], nn.Module], splits: data.Splits
) -> tuple[Mask, Weights, dict[str, Any]]:
    """Return a full mask, the whole starting weights, and no remarks.

    Raises:
        Damaged: a result that this work needs is missing or damaged.
    """
    module = initialised(build, "pytorch", 0)
    mask = Mask.full(examined(build, splits.description, training.network).shapes())
    module.load_state_dict(
        _weights(training, store, lambda seed: initialised(build, training.network.init, seed).state_dict())
    )
    return mask, _copied(module), {}


def _weights(training: Training, store: Store, drawn: Callable[[int], Weights]) -> Weights:
    initial = training.initial
    if initial.run is not None:
        return store.load(initial.run).snapshots[initial.snapshot]
    return drawn(training.seeds.value("init", initial.draw))


def _copied(module: nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
