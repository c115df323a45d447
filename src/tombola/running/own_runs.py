"""Executing own runs: a user's trainer is called with a run, and what it leaves is stored as every run is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from tombola.errors import InputError
from tombola.networks import factory, initialised
from tombola.pruning import Goal, Mask, SkipRound, Snapshots, kept_of
from tombola.pruning.search import find_mask
from tombola.registry import code_fingerprint, resolve
from tombola.running.heartbeat import Heartbeat
from tombola.running.options import RunOptions
from tombola.running.problem import engine_facts, versions
from tombola.running.store import Store
from tombola.running.user_run import UserRun
from tombola.seeds import own_draws, seed_draws
from tombola.studies.own import Make
from tombola.training.engine import Weights
from tombola.work import Item, OwnInterpolation, OwnMaskSearch, OwnRun


def execute_runs(items: Sequence[Item], store: Store, options: RunOptions) -> None:
    """Call the trainer for each run, and store the results.

    Raises:
        InputError: the code of the network or trainer has changed, or the trainer does not do its part.
        Interrupted: it is to stop; the trainer's checkpoints stay.
    """
    for item in items:
        spec = item.spec
        assert isinstance(spec, OwnRun)
        train = resolve(spec.trainer, {}, "trainer")
        if spec.trainer_code != code_fingerprint(spec.trainer, {}, "trainer"):
            raise InputError(f"the code of {spec.trainer} has changed since the study was planned; start again")
        run = UserRun(item, store, factory_of(spec), options.device)
        run.beat = Heartbeat(store, options, run.progress)
        run.beat()
        run.seed_all()
        train(run, **spec.arguments)
        store_run(run, store, options)


def store_run(run: UserRun, store: Store, options: RunOptions) -> None:
    """End a run and store its result.

    Raises:
        InputError: the trainer did not do its part; see `UserRun.result`.
    """
    item, mask, record, facts = run.result()
    spec = item.spec
    assert isinstance(spec, OwnRun)
    about = {**facts, "engine": engine_facts(options, "own"), "versions": versions(options)}
    store.save_training(item, mask, record, about)


def execute_searches(items: Sequence[Item], store: Store, options: RunOptions) -> None:
    """Find the masks of some items and store them; errors are those of `search_mask`."""
    for item in items:
        spec = item.spec
        assert isinstance(spec, OwnMaskSearch)
        search_mask(item, store, options, factory_of(spec))


def factory_of(spec: OwnRun | OwnMaskSearch | OwnInterpolation) -> Make:
    """Return the function that builds a spec's network from a seed.

    Raises:
        InputError: its code has changed.
    """
    if not spec.network.is_code(spec.network_code):
        raise InputError(f"the code of {spec.network.name} has changed since the study was planned; start again")
    build = factory(spec.network, spec.input_shape, None)
    return partial(initialised, build, spec.network.init)


class _NotKept(Mapping[str, Any]):
    """Stands for weights that a user's own trainer does not leave."""

    def __getitem__(self, name: str) -> Any:
        raise ValueError(
            "a trainer's run does not store the weights at the lowest validation loss; use snapshots.final"
        )

    def __iter__(self) -> Iterator[str]:
        self[""]
        yield from ()

    def __len__(self) -> int:
        return self[""]


def search_mask(item: Item, store: Store, options: RunOptions, make: Make) -> None:
    """Find a mask from the weights of a finished run, or of the untrained network, and store it.

    Args:
        item: an own mask search.
        store: holds the run that is pruned.
        options: for the facts of the result.
        make: builds the network from a seed.

    Raises:
        Damaged: the result of the run is missing or damaged.
        InputError: the criterion fails, or asks for data or gradients.
    """
    begun, search = time.perf_counter(), item.spec
    assert isinstance(search, OwnMaskSearch)
    module = make(search.seeds.value("init"))
    drawn = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    mask, start, final = Mask.full(search.prunable), drawn, drawn
    if search.run is not None:
        found = store.load(search.run)
        mask, start, final = found.mask, found.snapshots["start"], found.snapshots["final"]

    def prunable(weights: Weights) -> Weights:
        return {name: weights[name] for name in mask}

    def network() -> torch.nn.Module:
        module.load_state_dict(start)
        return module.eval()

    snapshots = Snapshots(
        init=prunable(drawn),
        start=prunable(start),
        best=_NotKept(),
        final=prunable(final),
        generator=search.seeds.generator("criterion", f"{search.run}/{search.level}/{search.repeat}"),
        goal=Goal(
            tuple(search.schedule[0]),
            kept_of(mask.counts(), search.schedule, search.scope, search.minimum),
            search.minimum,
        ),
        network=network,
        input_shape=search.input_shape or (),
        kept=dict(mask),
    )
    remarks: dict[str, Any] = {}
    with own_draws():
        seed_draws(search.seeds.value("dropout"))  # a module may draw in evaluation mode too
        try:
            mask = find_mask(
                search.criterion,
                snapshots,
                mask,
                search.schedule,
                search.scope,
                search.minimum,
                search.pattern,
                search.axes,
            )
        except SkipRound as reason:
            remarks["skipped"] = str(reason)
    facts = {
        "remaining": mask.counts(),
        "remarks": remarks,
        "seconds": time.perf_counter() - begun,
        "versions": versions(options),
    }
    store.save_mask(item, mask, facts)
