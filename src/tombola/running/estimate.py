"""How long a study would take on this machine, from a few short steps on random data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tombola.data import Part, Splits
from tombola.networks import initialised, network_for
from tombola.pruning.mask import Mask
from tombola.pruning.select import after_round
from tombola.seeds import Seeds
from tombola.studies.plan import Plan
from tombola.training.engine import Engine, ReplicaState
from tombola.training.engines import EngineKind, choose_engine, choose_kind
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.stacked import StackedEngine
from tombola.training.recipe import Recipe
from tombola.work import Item, kind_named

MEASURED_LEVELS = 4
SECONDS = 3.0  # for all measurements together; the one that runs when they are over ends
SECONDS_EACH = 0.2
LARGEST = 2e10  # floating-point operations of a measured step: half a second of one core or so
EXAMPLES = 2000
SAME_AT_ANY_DENSITY = (DenseEngine, StackedEngine)

Clock = Callable[[], float]


@dataclass(frozen=True)
class Pace:
    """What one worker needs, by density.

    Args:
        densities: in rising order, 0 to 1.
        iteration: seconds of a training iteration at each density.
        example: seconds of an evaluated example at each density.
        batch: examples of the iterations that were measured.
        scaled: whether that is less than the study's batch size; `iteration` is then scaled up in proportion.
    """

    densities: tuple[float, ...]
    iteration: tuple[float, ...]
    example: tuple[float, ...]
    batch: int
    scaled: bool

    def seconds(self, item: Item) -> float:
        """Return the seconds that a piece of work takes, evaluations included."""
        cost = item.cost
        density = 1.0 if kind_named(item.kind).computes_zeros else cost.density
        step = float(np.interp(density, self.densities, self.iteration))
        return cost.iterations * step + cost.evaluated * float(np.interp(density, self.densities, self.example))


def measure_pace(
    plan: Plan, engine: str, device: str, threads: int, clock: Clock = time.perf_counter, each: float = SECONDS_EACH
) -> Pace:
    """Time an engine at a few of a plan's densities, on random inputs and random masks.

    On a CPU, a large network is measured with smaller batches. The dense level comes first, then the sparsest one,
    then the two levels between which the engine changes; once `SECONDS` have passed, no further level is measured.
    Engines that compute with pruned weights too are measured once for all densities.

    Args:
        plan: of the study.
        engine: one of `tombola.training.engines.NAMES`.
        device: to train on.
        threads: of one worker.
        clock: returns the time in seconds.
        each: seconds for each measurement.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _Measurement(plan, engine, torch.device(device), clock, each).pace()
    finally:
        torch.set_num_threads(before)


def kind_at(plan: Plan, engine: str, level: int) -> EngineKind:
    """Return the engine that trains a level on the CPU, found with a random mask.

    Args:
        plan: of the study.
        engine: one of `tombola.training.engines.NAMES`.
        level: 0 is dense.
    """
    study, task = plan.study, plan.study.task.make()
    generator = torch.Generator().manual_seed(0)
    mask = random_mask(plan, level, generator)
    example = task.made_up(plan.data, 1, generator).inputs
    build = network_for(study.network, plan.data, task)
    return choose_kind(engine, build, mask, study.training, example, task=task, streams=study.data.stream)


def measured_batch(plan: Plan, device: str) -> int:
    """Return how many examples a measured iteration has: the study's batch size, or fewer where that takes seconds."""
    asked = plan.study.training.batch_size
    if device != "cpu":
        return asked
    return min(asked, max(2, int(LARGEST / (3 * _operations(plan)))))  # batch norm needs two


def _operations(plan: Plan) -> float:
    """Return the floating-point operations of one example's forward pass; a training step takes three times as many."""
    return 2.0 * plan.multiply_adds


def random_mask(plan: Plan, level: int, generator: torch.Generator) -> Mask:
    """Return a random mask in which each layer keeps the share of its weights that a level leaves it.

    With scope "global" the scores decide what each layer keeps. Then every pruned layer keeps an equal share.
    """
    shapes, shares = plan.coverage.shapes(), layer_shares(plan, level)
    keep: dict[str, Tensor] = {
        name: torch.rand(shape, generator=generator) < shares[name] for name, shape in shapes.items()
    }
    return Mask(keep)


def layer_shares(plan: Plan, level: int) -> dict[str, float]:
    """Return the share of each layer's weights, 0 to 1, that remains at a level; see `random_mask`."""
    pruning, sizes = plan.study.pruning, plan.coverage.sizes()
    rounds = pruning.resolve(plan.coverage)[:level]
    if pruning.scope == "global" and rounds:
        pool = sum(sizes[name] for name in rounds[0])
        share = 1 - (plan.remaining[0] - plan.remaining[level]) / pool
        return {name: share if name in rounds[0] else 1.0 for name in sizes}
    counts = dict(sizes)
    for rates in rounds:
        counts = after_round(counts, rates, pruning.scope, sizes, pruning.minimum)
    return {name: counts[name] / size for name, size in sizes.items()}


class _Measurement:
    """Times steps and evaluations of one network, level by level."""

    def __init__(self, plan: Plan, engine: str, device: torch.device, clock: Clock, each: float):
        self.plan, self.engine, self.device, self.clock, self.each = plan, engine, device, clock, each
        self.batch = measured_batch(plan, device.type)
        self.generator = torch.Generator().manual_seed(0)
        study, data, self.task = plan.study, plan.data, plan.study.task.make()
        few = EXAMPLES if device.type != "cpu" else int(LARGEST / (3 * _operations(plan)))
        test = self._part(min(data.test, EXAMPLES, max(few, 16)))
        train = self._part(max(self.batch, len(test)))
        self.splits = Splits(train, test, test, (0.0,), (1.0,), data.classes, data.tokens)
        self.build = network_for(study.network, data, self.task)
        self.module = initialised(self.build, study.network.init, 0)

    def pace(self) -> Pace:
        """Measure levels until the time is over."""
        last = len(self.plan.remaining) - 1
        change = self._change(last)  # the first look at an engine may compile it
        end = self.clock() + SECONDS
        between = np.linspace(change, last, MEASURED_LEVELS)
        levels = dict.fromkeys(round(level) for level in (0, last, max(0, change - 1), *between))
        found: dict[float, tuple[float, float]] = {}
        at_any_density: dict[type, tuple[float, float]] = {}
        for level in levels:
            if found and self.clock() >= end:
                break
            density = self.plan.density(level)
            mask = random_mask(self.plan, level, self.generator)
            made = self._engine_for(mask)
            seconds = at_any_density.get(made) or self._times(made, mask)
            if made in SAME_AT_ANY_DENSITY:
                at_any_density[made] = seconds
            found[density] = seconds
        densities = sorted(found)
        iteration, example = zip(*(found[density] for density in densities), strict=True)
        return Pace(tuple(densities), iteration, example, self.batch, self.batch < self._recipe.batch_size)

    def _change(self, last: int) -> int:
        """Return the first level that the sparsest level's engine trains; 0 where one engine trains all levels."""
        engines = {level: self._engine_for(random_mask(self.plan, level, self.generator)) for level in (0, last)}
        if engines[0] is engines[last]:
            return 0
        before, after = 0, last
        while after - before > 1:
            middle = (before + after) // 2
            same = self._engine_for(random_mask(self.plan, middle, self.generator)) is engines[last]
            before, after = (before, middle) if same else (middle, after)
        return after

    def _engine_for(self, mask: Mask) -> Any:
        example, streams = self.splits.train.example.inputs, self.plan.study.data.stream
        return choose_engine(
            self.engine, self._same_module, mask, self._recipe, example, task=self.task, streams=streams
        )

    @property
    def _recipe(self) -> Recipe:
        return self.plan.study.training

    def _same_module(self) -> nn.Module:
        return self.module  # it is only looked at, and a large one takes a while to build

    def _part(self, examples: int) -> Part:
        return self.task.made_up(self.plan.data, examples, self.generator).to(self.device)

    def _times(self, made: Callable[..., Engine], mask: Mask) -> tuple[float, float]:
        """Return the seconds of an iteration with the study's batches, and of an evaluated example."""
        start = ReplicaState(mask.apply(self.module.state_dict()), mask, Seeds(0, 0), self.splits, task=self.task)
        recipe = self._recipe.changed({"batch_size": self.batch})
        runner = made(self.build, [start], recipe, self.plan.budget(), self.device)
        iteration = self._time(lambda: runner.advance(1))
        evaluation = self._time(lambda: runner.evaluate("test"))
        return iteration * self._recipe.batch_size / self.batch, evaluation / len(self.splits.test)

    def _time(self, action: Callable[[], object]) -> float:
        """Return the median seconds of an action after its first call, which may load compiled code."""
        action()
        times: list[float] = []
        begun = self.clock()
        while not times or self.clock() - begun < self.each:
            start = self.clock()
            action()
            times.append(self.clock() - start)
        return float(np.median(times))
