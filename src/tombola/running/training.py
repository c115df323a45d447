"""Executing trainings: runs and supermasks, from their initial state or their last checkpoint to the stored result."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch

from tombola.errors import InputError
from tombola.networks import initialised
from tombola.pruning import Mask
from tombola.running.collapse import collapse
from tombola.running.energy import metered
from tombola.running.files import under
from tombola.running.heartbeat import Heartbeat
from tombola.running.initial_state import dense_state, frozen_state, masked_state
from tombola.running.options import RunOptions
from tombola.running.problem import build_of, engine_facts, splits_of, versions
from tombola.running.stack_size import evenly, most_together
from tombola.running.store import Store
from tombola.training.engine import Engine, ReplicaState, Weights
from tombola.training.engines import choose_engine
from tombola.training.engines.moving import MovingEngine
from tombola.training.engines.popup import PopupEngine
from tombola.training.engines.sampled import SampledEngine
from tombola.training.loop import Record, lowest_from, new_history, train
from tombola.training.tracking import MaskTracker
from tombola.work import Item, MovingRun, Run, Supermask, Training


@dataclass
class Replica:
    """A training that is about to begin or to continue.

    Args:
        item: the work.
        start: weights, mask and iteration to continue from.
        engine: the class of the engine that serves it.
        record: what is known of it so far.
        remarks: what a person should know of its mask.
        trackers: of the masks that are observed.
        finds_mask: whether training finds the mask, instead of being given it.
        settled_from: the iteration from which on it has as many weights as are asked for.
    """

    item: Item
    start: ReplicaState
    engine: Any
    record: Record
    remarks: dict[str, Any]
    trackers: list[MaskTracker] = field(default_factory=list)
    finds_mask: bool = False
    settled_from: int = 0

    @property
    def spec(self) -> Training:
        """What decides the outcome."""
        assert isinstance(self.item.spec, Training)
        return self.item.spec


SCORERS: dict[str, Any] = {"largest": PopupEngine, "sampled": SampledEngine}
Begin = Callable[[Item, Store, RunOptions], Replica]


def execute_runs(items: Sequence[Item], store: Store, options: RunOptions) -> None:
    """Train runs of one network and recipe, together where an engine can, and store each one's result.

    Raises:
        Interrupted: it is to stop; checkpoints are written.
    """
    _execute(items, store, options, _begin_run)


def execute_supermasks(items: Sequence[Item], store: Store, options: RunOptions) -> None:
    """Train the scores of supermasks and store the results.

    Raises:
        Interrupted: it is to stop; checkpoints are written.
    """
    _execute(items, store, options, _begin_supermask)


def execute_moving(items: Sequence[Item], store: Store, options: RunOptions) -> None:
    """Train runs whose mask moves and store the results.

    Raises:
        Interrupted: it is to stop; checkpoints are written.
    """
    _execute(items, store, options, _begin_moving)


def _execute(items: Sequence[Item], store: Store, options: RunOptions, begin: Begin) -> None:
    replicas = [begin(item, store, options) for item in sorted(items, key=_trial)]
    try:
        _train_in_lockstep(replicas, store, options, begin)
    finally:
        for replica in replicas:
            replica.start.splits.close()


def _train_in_lockstep(replicas: Sequence[Replica], store: Store, options: RunOptions, begin: Begin) -> None:
    """Train together those that are as far as each other: some may continue from a checkpoint."""
    for _, together in groupby(sorted(replicas, key=_lockstep), key=_lockstep):
        _train_together(list(together), store, options, begin)


def _trial(item: Item) -> int:
    assert isinstance(item.spec, Training)
    return item.spec.trial


def _lockstep(replica: Replica) -> tuple[int, str]:
    return replica.start.iteration, replica.engine.name


def _begin_run(item: Item, store: Store, options: RunOptions) -> Replica:
    run, splits = item.spec, splits_of(item, options)
    assert isinstance(run, Run)
    _check_code(run)
    build = build_of(item, splits)
    mask, weights, remarks = masked_state(run, store, build, splits)
    task = run.task.make()
    train, frozen = splits.train, run.mask is not None and run.mask.frozen is not None
    engine = choose_engine(
        options.engine,
        build,
        mask,
        run.training,
        train.example.inputs,
        options.stack > 1,
        task,
        train.streams,
        frozen,
    )
    start = ReplicaState(weights, mask, run.seeds, splits, run.initial.iteration, task=task, frozen=frozen)
    return _resumed(Replica(item, start, engine, Record(_history(item)), remarks), store, options)


def _begin_supermask(item: Item, store: Store, options: RunOptions) -> Replica:
    supermask, splits = item.spec, splits_of(item, options)
    assert isinstance(supermask, Supermask)
    _check_code(supermask)
    mask, weights, remarks = frozen_state(supermask, store, build_of(item, splits), splits)
    task = supermask.task.make()
    start = ReplicaState(
        weights, mask, supermask.seeds, splits, supermask.initial.iteration, popup=supermask.popup, task=task
    )
    # Scores are trained for all weights, and the mask is what is found: "start" holds all of them.
    record = Record(_history(item), snapshots={"start": weights})
    engine = SCORERS[supermask.popup.method]
    return _resumed(Replica(item, start, engine, record, remarks, finds_mask=True), store, options)


def _begin_moving(item: Item, store: Store, options: RunOptions) -> Replica:
    run, splits = item.spec, splits_of(item, options)
    assert isinstance(run, MovingRun)
    _check_code(run)
    build = build_of(item, splits)
    mask, weights, remarks = dense_state(run, store, build, splits)
    task = run.task.make()
    start = ReplicaState(weights, mask, run.seeds, splits, run.initial.iteration, moving=run.moving, task=task)
    # The first mask zeroes weights that later masks may hold: "start" holds all of them.
    record = Record(_history(item), snapshots={"start": weights})
    replica = Replica(item, start, MovingEngine, record, remarks, finds_mask=True, settled_from=run.moving.end)
    return _resumed(replica, store, options)


def _history(item: Item) -> dict[str, list[float]]:
    """Return the history that an item's training begins with."""
    assert isinstance(item.spec, Training)
    return new_history(item.spec.task.make().metrics, train=item.observe.train_every is not None)


def _check_code(training: Training) -> None:
    """Check that the user's functions are those that the study was planned with.

    Raises:
        InputError: one has changed since.
    """
    present = training.training.code()
    for name, code in training.recipe_code.items():
        if present.get(name) != code:
            raise InputError(f"the code of {name} has changed since the study was planned; start again")


def _resumed(replica: Replica, store: Store, options: RunOptions) -> Replica:
    """Return a replica at its last checkpoint, or as it is if there is none that fits."""
    item, start = replica.item, replica.start
    replica.trackers = [MaskTracker(tracked, start.mask) for tracked in item.observe.masks]
    found = store.load_checkpoint(item.id)
    if found is None:
        return replica
    facts, tensors, record = found
    snapshots = {f"iteration-{k}" for k in item.observe.snapshots if start.iteration <= k <= facts["iteration"]}
    same = facts.get("engine") == engine_facts(options, replica.engine.name)
    same = same and facts.get("tracked", []) == _tracked(item)
    # Of a checkpoint from before test_every existed each evaluation has a test value.
    measured = {"test_every": facts.get("test_every", 1), "train_every": facts.get("train_every")}
    known = item.observe.model_copy(update=measured)
    same = same and known.with_(item.observe) == known
    if not (same and facts.get("mask") == _digest(start.mask) and snapshots <= record.snapshots.keys()):
        return replica
    weights, optimizer = under("weights", tensors), under("optimizer", tensors)
    replica.start = replace(start, weights=weights, iteration=facts["iteration"], optimizer=optimizer)
    replica.record = record
    replica.trackers = [
        MaskTracker(tracked, start.mask, facts["tracking"][number], under(f"tracked-{number}", tensors))
        for number, tracked in enumerate(item.observe.masks)
    ]
    return replica


def _tracked(item: Item) -> list[Any]:
    return [tracked.model_dump(mode="json") for tracked in item.observe.masks]


def _digest(mask: Mask) -> str:
    """Return what a checkpoint knows its mask by: the mask may have been searched again since."""
    bits = b"".join(bits.numpy().tobytes() for bits in mask.pack().values())
    return hashlib.sha256(bits).hexdigest()


def _train_together(replicas: Sequence[Replica], store: Store, options: RunOptions, begin: Begin) -> None:
    """Train replicas that are at the same iteration, as many at a time as the engine and the memory allow."""
    first = replicas[0]
    recipe, splits = first.spec.training, first.start.splits
    if len(replicas) > 1 and (first.engine.name != "stacked" or recipe.patience):  # each ends when its patience does
        for replica in replicas:
            _train_together([replica], store, options, begin)
        return
    budget = recipe.budget(len(splits.train) // recipe.batch_size)
    build, device = build_of(first.item, splits), torch.device(options.device)

    def engine_of(starts: Sequence[ReplicaState]) -> Engine:
        made: Engine = first.engine(build, starts, recipe, budget, device)
        return made

    refused = False
    try:
        snapshots = max(len(replica.item.observe.snapshots) for replica in replicas)
        starts = [replica.start for replica in replicas]
        parts = evenly(replicas, most_together(starts, snapshots, recipe, engine_of, device))
        if len(parts) == 1:
            _train_engine(engine_of(starts), replicas, store, options, budget)
            return
    except torch.OutOfMemoryError:
        if len(replicas) == 1:
            raise
        refused, parts = True, evenly(replicas, (len(replicas) + 1) // 2)
    # Out here, because the exception holds on to all that filled the memory.
    if refused and torch.cuda.is_available():
        torch.cuda.empty_cache()
    for part in parts:
        if refused:  # from their checkpoints, of which memory may have sufficed for some
            _train_in_lockstep([begin(replica.item, store, options) for replica in part], store, options, begin)
        else:
            _train_together(part, store, options, begin)


def _train_engine(engine: Engine, replicas: Sequence[Replica], store: Store, options: RunOptions, budget: int) -> None:
    facts = engine_facts(options, engine.name)
    records = [replica.record for replica in replicas]

    def save() -> None:
        note_energy()
        for number, replica in enumerate(replicas):
            tensors = {f"weights/{name}": tensor for name, tensor in engine.weights(number).items()}
            tensors |= {f"optimizer/{name}": tensor for name, tensor in engine.optimizer_state(number).items()}
            about = {"engine": facts, "mask": _digest(replica.start.mask), "iteration": engine.iteration}
            about |= {name: getattr(replica.item.observe, name) for name in ("test_every", "train_every")}
            about |= {"tracked": _tracked(replica.item), "tracking": [tracker.facts for tracker in replica.trackers]}
            for place, tracker in enumerate(replica.trackers):
                tensors |= {f"tracked-{place}/{name}": tensor for name, tensor in tracker.tensors.items()}
            store.save_checkpoint(replica.item.id, about, tensors, replica.record)

    def observe(number: int) -> None:
        for tracker in replicas[number].trackers:
            tracker.note(engine.iteration, engine.weights(number))

    spec, splits = replicas[0].spec, replicas[0].start.splits
    recipe = spec.training
    end = min(budget, spec.until or budget)  # the schedule is that of the whole budget
    with metered(records, options.energy) as note_energy:
        train(
            engine,
            records,
            budget=end,
            evaluate_every=recipe.interval(len(splits.train) // recipe.batch_size),
            # Early stop may be no new lowest loss where the mask still moved at the lowest.
            test_every=[1 if replica.settled_from else replica.item.observe.test_every for replica in replicas],
            train_every=[replica.item.observe.train_every for replica in replicas],
            patience=recipe.patience,
            validates=len(splits.validation) > 0,
            keep={iteration for replica in replicas for iteration in replica.item.observe.snapshots},
            observe=observe,
            save=save,
            save_every=options.checkpoint_every,
            check=Heartbeat(
                store, options, lambda: {replica.item.id: _state(replica, engine, end) for replica in replicas}
            ),
        )
        note_energy()
    for replica in replicas:
        _store_result(replica, engine, facts, store, options)


def _store_result(replica: Replica, engine: Engine, facts: dict[str, Any], store: Store, options: RunOptions) -> None:
    splits, mask, remarks = replica.start.splits, replica.start.mask, replica.remarks
    if replica.finds_mask:
        mask = engine.mask  # type: ignore[attr-defined]  # of an engine that trains scores
        module = initialised(build_of(replica.item, splits), "pytorch", 0)
        remarks |= collapse(module, mask, splits.input_shape)
    lost = replica.record.diverged_at  # the others of a stack have trained on
    about = {
        "engine": facts | getattr(engine, "facts", {}),
        "iterations": (engine.iteration if lost is None else lost) - replica.spec.initial.iteration,
        "zeros": zeros(replica.record.snapshots["final"], mask),
        "remarks": remarks,
        "normalisation": {"mean": splits.mean, "std": splits.std},
        "versions": versions(options),
    }
    if replica.settled_from:  # before that it had more weights than the level
        about["early_stop"] = lowest_from(replica.record, replica.settled_from)
    used = {name: getattr(replica.record, name) for name in ("energy_kwh", "co2_kg")}
    about |= {name: value for name, value in used.items() if value is not None}
    if replica.trackers:
        about["settling"] = [tracker.facts for tracker in replica.trackers]
    settled = {
        f"settled-{number}/{name.removeprefix('settled/')}": bits
        for number, tracker in enumerate(replica.trackers)
        for name, bits in tracker.tensors.items()
        if name.startswith("settled/")
    }
    store.save_training(replica.item, mask, replica.record, about, settled)


def _state(replica: Replica, engine: Engine, budget: int) -> dict[str, Any]:
    """Return how far a training is, with the latest value of each metric on the validation examples."""
    history = replica.record.history
    measured = {metric.name: history[f"val_{metric.name}"] for metric in replica.start.task.metrics}
    return {
        "label": replica.item.label,
        "iteration": engine.iteration,
        "budget": budget,
        "metrics": {name: values[-1] for name, values in measured.items() if values and not math.isnan(values[-1])},
    }


def zeros(weights: Weights, mask: Mask) -> int:
    """Return how many prunable weights are exactly 0.0, whether they are masked or not."""
    return sum(int((weights[name] == 0).sum()) for name in mask)
