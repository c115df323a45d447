"""The initial state of a training: its weights, its mask, and what is to be said of that mask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import tombola.data as data
from tombola.networks import examined, initialised
from tombola.pruning import Mask
from tombola.pruning.controls import shuffled_weights, sign_preserving_redraw
from tombola.pruning.patterns import shuffled_in
from tombola.running.collapse import collapse
from tombola.running.store import Store
from tombola.training.engine import Weights
from tombola.training.popup import signed_constant
from tombola.work import Run, Supermask, Training

REDRAWS = {"shuffled": shuffled_weights, "signs": sign_preserving_redraw}


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
        if run.mask.search is not None:
            remarks |= store.facts(run.mask.search)["remarks"]
        if run.mask.shuffle is not None:
            shuffle = run.mask.shuffle
            mask = shuffled_in(shuffle.pattern, mask, run.seeds.generator("mask", shuffle.counter()))
        remarks |= collapse(module, mask, input_shape)
    # In the module rather than in the dict: a tied weight has several names there, and is masked under one.
    module.load_state_dict(_weights(run, store, drawn))
    mask.apply_(module)
    weights = _copied(module)
    if run.initial.redraw is not None:
        generator = run.seeds.generator("redraw", f"{run.initial.redraw}/{run.initial.repeat}/{run.initial.level}")
        module.load_state_dict(REDRAWS[run.initial.redraw](weights, mask, generator))
        weights = _copied(module)  # a tied weight under all its names
    return mask, weights, remarks


def frozen_state(
    supermask: Supermask, store: Store, build: Callable[[], nn.Module], splits: data.Splits
) -> tuple[Mask, Weights, dict[str, Any]]:
    """Return a full mask, the weights that scores are trained for, and no remarks.

    Raises:
        Damaged: a result that this work needs is missing or damaged.
    """
    module = initialised(build, "pytorch", 0)
    mask = Mask.full(examined(build, splits.description, supermask.network).shapes())
    module.load_state_dict(
        _weights(supermask, store, lambda seed: initialised(build, supermask.network.init, seed).state_dict())
    )
    if supermask.popup.weights == "signed-constant":
        with torch.no_grad():
            for name, weight in module.named_parameters():
                if name in mask:
                    weight.copy_(signed_constant(weight))
    return mask, _copied(module), {}


def _weights(training: Training, store: Store, drawn: Callable[[int], Weights]) -> Weights:
    initial = training.initial
    if initial.run is not None:
        return store.load(initial.run).snapshots[initial.snapshot]
    return drawn(training.seeds.value("init", initial.draw))


def _copied(module: nn.Module) -> Weights:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}
