"""How long a study would take on this machine, from a few short steps on random data."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tombola.data import Part, Splits
from tombola.networks import initialised, network_for
from tombola.pruning.mask import Mask
from tombola.pruning.select import after_round
from tombola.seeds import Seeds
from tombola.studies.plan import Plan
from tombola.training.engine import Engine, ReplicaState
from tombola.training.engines import EngineKind, choose_kind, must_compile
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.stacked import StackedEngine
from tombola.training.recipe import Recipe
from tombola.work import Item, kind_named

MEASURED_LEVELS = 4
SECONDS = 3.0  # for all measurements together; the one that runs when they are over ends
SECONDS_OF_TWO = 4 * SECONDS  # within which the sparsest level is measured too: else all count as dense
SECONDS_EACH = 0.2
LARGEST = 2e10  # floating-point operations of a measured step: half a second of one core or so
EXAMPLES = 2000
CPU = torch.device("cpu")
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
    plan: Plan,
    engine: str,
    device: str,
    threads: int,
    clock: Clock = time.perf_counter,
    each: float = SECONDS_EACH,
    compiling: Callable[[], None] = lambda: None,
) -> Pace:
    """Time an engine at a few of a plan's densities, on random inputs and random masks.

    On a CPU, a large network is measured with smaller batches. The dense level comes first, then the sparsest one,
    then the two levels between which the engine changes. Once `SECONDS` have passed, no further level is measured; the
    sparsest one still is within `SECONDS_OF_TWO`. Engines that compute with pruned weights too are measured once for
    all densities.

    Args:
        plan: of the study.
        engine: one of `tombola.training.engines.NAMES`.
        device: to train on.
        threads: of one worker.
        clock: returns the time in seconds.
        each: seconds for each measurement.
        compiling: called before an engine is compiled, which takes half a minute or so.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return _Measurement(Levels(plan, engine, torch.device(device)), clock, each).pace(compiling)
    finally:
        torch.set_num_threads(before)


class Levels:
    """The levels of a study, each by a random mask, and the engines that train them.

    Args:
        plan: of the study.
        engine: one of `tombola.training.engines.NAMES`.
        device: to train on.

    Attributes:
        build: builds the network.
        module: the network, which is built once and only looked at.
        example: a batch of one.
    """

    def __init__(self, plan: Plan, engine: str, device: torch.device = CPU):
        study = plan.study
        self.plan, self.engine, self.device, self.task = plan, engine, device, study.task.make()
        self.generator = torch.Generator().manual_seed(0)
        self.build = network_for(study.network, plan.data, self.task)
        self.module = initialised(self.build, study.network.init, 0)
        self.example = self.made_up(1).inputs

    def made_up(self, examples: int) -> Part:
        """Return examples drawn at random, on the device."""
        return self.task.made_up(self.plan.data, examples, self.generator).to(self.device)

    def mask(self, level: int) -> Mask:
        """Return a random mask of a level; 0 is dense. See `random_mask`."""
        return random_mask(self.plan, level, self.generator)

    def kind(self, mask: Mask) -> EngineKind:
        """Return the engine that trains one run under a mask.

        Raises:
            InputError: the engine that was asked for can't.
        """
        study = self.plan.study
        return choose_kind(
            self.engine,
            self.build,
            mask,
            study.training,
            self.example,
            task=self.task,
            streams=study.data.stream,
            built=self.module,
        )


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

    def __init__(self, levels: Levels, clock: Clock, each: float):
        self.levels, self.plan, self.clock, self.each = levels, levels.plan, clock, each
        data, kind = self.plan.data, levels.device.type
        self.batch = measured_batch(self.plan, kind)
        few = EXAMPLES if kind != "cpu" else int(LARGEST / (3 * _operations(self.plan)))
        test = levels.made_up(min(data.test, EXAMPLES, max(few, 16)))
        train = levels.made_up(max(self.batch, len(test)))
        self.splits = Splits(train, test, test, (0.0,), (1.0,), data.classes, data.tokens)

    def pace(self, compiling: Callable[[], None]) -> Pace:
        """Measure levels until the time is over; see `measure_pace`."""
        last = len(self.plan.remaining) - 1
        sparsest = self.levels.kind(self.levels.mask(last))
        if must_compile(sparsest):
            compiling()
        sparsest.load()  # before the time counts: it may compile
        change = self._change(last, sparsest)
        begun = self.clock()
        between = np.linspace(change, last, MEASURED_LEVELS)
        levels = dict.fromkeys(round(level) for level in (0, last, max(0, change - 1), *between))
        found: dict[float, tuple[float, float]] = {}
        at_any_density: dict[type, tuple[float, float]] = {}
        for level in levels:
            mask = self.levels.mask(level)
            made = self.levels.kind(mask).load()
            late = self.clock() >= begun + (SECONDS_OF_TWO if level == last else SECONDS)
            if found and late and made not in at_any_density:
                continue
            seconds = at_any_density.get(made) or self._times(made, mask)
            if made in SAME_AT_ANY_DENSITY:
                at_any_density[made] = seconds
            found[self.plan.density(level)] = seconds
        densities = sorted(found)
        iteration, example = zip(*(found[density] for density in densities), strict=True)
        return Pace(tuple(densities), iteration, example, self.batch, self.batch < self._recipe.batch_size)

    def _change(self, last: int, sparsest: EngineKind) -> int:
        """Return the first level that the last level's engine trains; 0 where one engine trains all levels."""
        if self.levels.kind(self.levels.mask(0)).name == sparsest.name:
            return 0
        before, after = 0, last
        while after - before > 1:
            middle = (before + after) // 2
            same = self.levels.kind(self.levels.mask(middle)).name == sparsest.name
            before, after = (before, middle) if same else (middle, after)
        return after

    @property
    def _recipe(self) -> Recipe:
        return self.plan.study.training

    def _times(self, made: Callable[..., Engine], mask: Mask) -> tuple[float, float]:
        """Return the seconds of an iteration with the study's batches, and of an evaluated example."""
        levels = self.levels
        start = ReplicaState(mask.apply(levels.module.state_dict()), mask, Seeds(0, 0), self.splits, task=levels.task)
        recipe = self._recipe.changed({"batch_size": self.batch})
        runner = made(levels.build, [start], recipe, self.plan.budget(), levels.device)
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
