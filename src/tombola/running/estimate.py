"""How long a study would take on this machine, from a few steps on made-up data."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch

from tombola.data import Part, Splits
from tombola.networks import initialised, network_for
from tombola.pruning.mask import Mask
from tombola.seeds import Seeds
from tombola.studies.plan import Plan
from tombola.training.engine import Start
from tombola.training.engines import choose_engine
from tombola.work import Item

MEASURED_LEVELS = 4
SECONDS_EACH = 0.4


@dataclass(frozen=True)
class Pace:
    """What one worker needs, by density: seconds an iteration, and seconds an evaluated example."""

    densities: tuple[float, ...]
    iteration: tuple[float, ...]
    example: tuple[float, ...]

    def seconds(self, item: Item) -> float:
        """Return the seconds that a piece of work takes, evaluations included."""
        cost = item.cost
        step = float(np.interp(cost.density, self.densities, self.iteration))
        return cost.iterations * step + cost.evaluated * float(np.interp(cost.density, self.densities, self.example))


def measure_pace(plan: Plan, engine: str, device: str, threads: int) -> Pace:
    """Time an engine at a few of a plan's densities, on random inputs and random masks."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        levels = sorted({round(level) for level in np.linspace(0, len(plan.remaining) - 1, MEASURED_LEVELS)})
        found = [
            (plan.remaining[level] / plan.remaining[0], *_measure(plan, level, engine, device)) for level in levels
        ]
    finally:
        torch.set_num_threads(before)
    densities, iteration, example = zip(*sorted(found), strict=True)
    return Pace(densities, iteration, example)


def _measure(plan: Plan, level: int, engine: str, device: str) -> tuple[float, float]:
    study, data, place = plan.study, plan.data, torch.device(device)
    task = study.task.make()
    generator = torch.Generator().manual_seed(0)

    def part(examples: int) -> Part:
        return task.made_up(data, examples, generator).to(place)

    examined = part(min(2000, data.test))
    train = part(max(study.training.batch_size, min(2000, data.train)))
    splits = Splits(train, examined, examined, (0.0,), (1.0,), data.classes, data.tokens)
    build = network_for(study.network, data, task)
    density = plan.remaining[level] / plan.remaining[0]
    keep = {name: torch.rand(shape, generator=generator) < density for name, shape in plan.coverage.shapes().items()}
    mask = Mask(keep) if level else Mask.full(plan.coverage.shapes())
    weights = mask.apply(initialised(build, study.network.init, 0).state_dict())
    made = choose_engine(engine, build, mask, study.training, train.select(slice(1)).inputs, task=task)
    runner = made(build, [Start(weights, mask, Seeds(0, 0), splits, task=task)], study.training, plan.budget(), place)
    runner.advance(2)
    runner.evaluate("test")  # what is compiled at the first call is not the pace
    return _time(lambda: runner.advance(1)), _time(lambda: runner.evaluate("test")) / len(examined)


def _time(action: object) -> float:
    """Return the median seconds of an action, repeated for a while."""
    assert callable(action)
    times: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < SECONDS_EACH / 2 or len(times) < 2:
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return float(np.median(times))
