"""Convolutional networks at the densities that the paper's pruning schedule leaves: one thread, float32.

Each measure is tombola's pace over that of the better plain loop, in float32 or in bfloat16, measured in turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from benchmarks import workload
from benchmarks.measure import Measure, at_least, summed_up
from benchmarks.plain import pace, plain_evaluation, plain_loop
from tombola.data import Part, Splits
from tombola.networks import NETWORKS, examine, initialised
from tombola.pruning import Mask
from tombola.seeds import Seeds
from tombola.training.engine import Engine, ReplicaState
from tombola.training.engines import choose_engine


class Schedule(NamedTuple):
    """What a round of pruning removes, and the batch that the paper trains with (its Figure 2)."""

    linear: float
    conv: float
    output: float
    batch: int


# ResNet-20 is pruned globally; here every layer but those the paper excludes has the same density.
SCHEDULES = {
    "conv-2": Schedule(0.2, 0.1, 0.1, 60),
    "conv-4": Schedule(0.2, 0.1, 0.1, 60),
    "conv-6": Schedule(0.2, 0.15, 0.1, 60),
    "resnet-20": Schedule(0.0, 0.2, 0.0, 128),
}
GOALS = {20: 1.3, 10: 2.0, 5: 3.5, 2: 7.0}  # Conv-2: per cent of the weights that remain -> times as fast
LEVELS = 20
EVALUATED = 1_000  # of the 15,000 images of an evaluation; the pace of the others is the same


def density(network: str, name: str, shape: tuple[int, ...], level: int) -> float:
    """Return the share of a layer's weights that `level` rounds leave."""
    schedule = SCHEDULES[network]
    rate = schedule.conv if len(shape) == 4 else schedule.linear
    if name.startswith("output"):
        rate = schedule.output
    return float((1 - (0.0 if "shortcut" in name else rate)) ** level)


def mask_after(network: str, level: int) -> Mask:
    """Return a random mask with the densities that `level` rounds leave."""
    generator = torch.Generator().manual_seed(level)
    shapes = _shapes(network)
    return Mask({n: torch.rand(s, generator=generator) < density(network, n, s, level) for n, s in shapes.items()})


def level_at(network: str, remaining: float) -> int:
    """Return the level that leaves a share of all weights closest to `remaining`."""
    sizes = {name: torch.Size(shape).numel() for name, shape in _shapes(network).items()}

    def left(level: int) -> float:
        kept = sum(size * density(network, name, _shapes(network)[name], level) for name, size in sizes.items())
        return kept / sum(sizes.values())

    return min(range(41), key=lambda level: abs(left(level) - remaining))


@lru_cache
def _shapes(network: str) -> Mapping[str, tuple[int, ...]]:
    return examine(NETWORKS[network](workload.IMAGES, 10), workload.IMAGES).shapes()


@lru_cache(maxsize=1)
def _data() -> Splits:
    parts: list[Part] = [workload.part(size, workload.IMAGES) for size in (2_000, EVALUATED)]
    return Splits(parts[0], parts[1], parts[1], (0.0,), (1.0,), 10)


def engine_after(network: str, level: int) -> Engine:
    """Return the engine that `auto` chooses for a level, ready to train."""

    def build() -> torch.nn.Module:
        return NETWORKS[network](workload.IMAGES, 10)

    mask = mask_after(network, level)
    recipe = workload.recipe().changed({"batch_size": SCHEDULES[network].batch})
    weights = mask.apply(initialised(build, "glorot-normal", 0).state_dict())
    make = choose_engine("auto", build, mask, recipe, _data().train.inputs[:1])
    return make(build, [ReplicaState(weights, mask, Seeds(0, 0), _data())], recipe, 10_000_000, torch.device("cpu"))  # type: ignore[no-any-return]


def engine_paces(network: str, level: int, seconds: float) -> tuple[float, float]:
    """Return tombola's seconds a step, and seconds an evaluation of 15,000 images."""
    engine = engine_after(network, level)
    step = pace(engine.advance, 1, seconds)
    return step, pace(lambda _: engine.evaluate("test"), 1, seconds / 2) * 15_000 / EVALUATED


def _plain_step(network: str, half: bool, seconds: float) -> tuple[torch.nn.Module, float]:
    """Return the plain loop's network, and its seconds a step at any level."""
    train = _data().train
    module = initialised(lambda: NETWORKS[network](workload.IMAGES, 10), "glorot-normal", 0)
    masks = dict(mask_after(network, 10))
    loop = plain_loop(module, masks, train.inputs, train.targets, 1.2e-3, SCHEDULES[network].batch, half)
    return module, pace(loop, 1, seconds)


def plain_paces(network: str, half: bool, seconds: float) -> tuple[float, float]:
    """Return the plain loop's seconds a step, and seconds an evaluation of 15,000 images, at any level."""
    module, step = _plain_step(network, half, seconds)
    test = _data().test

    def evaluate(_count: int) -> None:
        plain_evaluation(module, test.inputs, test.targets, half)

    return step, pace(evaluate, 1, seconds / 2) * 15_000 / EVALUATED


def step_operations(network: str, level: int) -> float:
    """Return the floating-point operations of a training step in which only live weights cost anything."""
    first, *others = examine(NETWORKS[network](workload.IMAGES, 10), workload.IMAGES).layers
    each = {layer.name: density(network, layer.name, layer.shape, level) * layer.size * layer.uses for layer in others}
    begin = density(network, first.name, first.shape, level) * first.size * first.uses
    return 2 * SCHEDULES[network].batch * (2 * begin + 3 * sum(each.values()))


def levels(network: str, seconds: float, repeats: int) -> Iterator[Measure]:
    """Measure the training step of some levels of a network against the better plain loop."""
    torch.set_num_threads(1)
    chosen = {remaining: level_at(network, remaining / 100) for remaining in GOALS}
    found, single, shares = ({remaining: [] for remaining in GOALS} for _ in range(3))  # type: ignore[var-annotated]
    for _ in range(repeats):
        ceiling = workload.product_rate(network, seconds / 2)
        full, half = (_plain_step(network, each, seconds)[1] for each in (False, True))
        for remaining, level in chosen.items():
            ours = pace(engine_after(network, level).advance, 1, seconds)
            found[remaining].append(min(full, half) / ours)
            single[remaining].append(full / ours)
            shares[remaining].append(100 * step_operations(network, level) / ours / ceiling)
    for remaining, goal in GOALS.items():
        wanted = goal if network == "conv-2" else None
        note = f"one thread; against plain float32 {statistics.median(single[remaining]):.2f}; live multiply-adds at "
        note += f"{statistics.median(shares[remaining]):.0f} % of the matrix-product ceiling"
        yield summed_up(
            f"{network}, one level at Pm {remaining} (round {chosen[remaining]}), against the better plain loop",
            found[remaining],
            f">= {wanted}x" if wanted else "-",
            at_least(wanted) if wanted else lambda value: None,
            note,
        )


def chain(seconds: float, repeats: int) -> Iterator[Measure]:
    """Measure Conv-2's dense level and 20 more, with the preset's evaluations on both sides."""
    torch.set_num_threads(1)
    measured = (0, 1, 2, 4, 7, 10, 13, 16, LEVELS)
    ratios: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(repeats):
        costs = [_cost(engine_paces("conv-2", level, seconds / 2)) for level in measured]
        ours = float(np.interp(range(LEVELS + 1), measured, costs).sum())
        for name, half in (("float32", False), ("bfloat16", True)):
            ratios[name].append((LEVELS + 1) * _cost(plain_paces("conv-2", half, seconds)) / ours)
    for name, values in ratios.items():
        label = f"conv-2, a chain of {LEVELS} levels with evaluation, against plain {name}"
        goal = (">= 3x", at_least(3)) if name == "float32" else ("-", lambda value: None)
        yield summed_up(label, values, *goal, "one thread")


def _cost(paces: tuple[float, float]) -> float:
    """Return the seconds of 100 steps and an evaluation, as the preset conv2-cifar10 evaluates."""
    return 100 * paces[0] + workload.evaluation_share(1000) * paces[1]
