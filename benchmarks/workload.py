"""What is timed: Lenet and Conv-2 with the paper's batches, on made-up data of the right shape."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Executor
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.plain import pace, plain_evaluation, plain_loop
from tombola.data import Part, Splits
from tombola.data.parts import held
from tombola.networks import NETWORKS, examine, initialised
from tombola.pruning import Mask
from tombola.seeds import Seeds
from tombola.studies.trial import NEW_BEST
from tombola.training.engine import Engine, ReplicaState, Score
from tombola.training.engines import choose_engine
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.stacked import StackedEngine
from tombola.training.loop import Record, train
from tombola.training.recipe import Recipe

IMAGES = (3, 32, 32)
SHAPES = {"lenet-300-100": (1, 28, 28)} | dict.fromkeys(("conv-2", "conv-4", "conv-6", "resnet-20"), IMAGES)
BATCH = 60
LENET = "lenet-300-100"
AT_A_TIME = 50  # steps on a GPU between two looks at the clock


def evaluation_share(test_every: int) -> float:
    """Return the share of 15,000 images that an evaluation of a preset measures on average.

    All of 5,000 validation examples, every 100 iterations; the 10,000 test examples every `test_every` iterations, and
    at each lowest validation loss.
    """
    curve = 100 / test_every
    return (5_000 + 10_000 * (curve + NEW_BEST * (1 - curve))) / 15_000


def part(examples: int, shape: tuple[int, ...]) -> Part:
    """Return made-up examples whose class can be learnt from their inputs."""
    generator = torch.Generator().manual_seed(examples)
    targets = torch.randint(10, (examples,), generator=generator)
    inputs = torch.randn(examples, *shape, generator=generator) + targets.view(-1, *[1] * len(shape)) / 10
    return Part(inputs, targets)


@lru_cache(maxsize=1)
def made_up(network: str, evaluated: int = 15_000) -> Splits:
    """Return splits of which a third of `evaluated` is validation, the rest test."""
    shape = SHAPES[network]
    validation, test = part(evaluated // 3, shape), part(evaluated - evaluated // 3, shape)
    return Splits(part(10_000, shape), validation, test, (0.0,), (1.0,), 10)


def recipe(precision: str = "float32") -> Recipe:
    """Return the paper's recipe for Lenet, long enough for any measurement."""
    return Recipe(lr=1.2e-3, batch_size=BATCH, iterations=10_000_000, precision=precision)


def mask_at(network: str, density: float) -> Mask:
    """Return a random mask of that density in each layer; the output layer keeps the square root of it."""
    shapes = examine(NETWORKS[network](SHAPES[network], 10), SHAPES[network]).shapes()
    generator = torch.Generator().manual_seed(1)
    keep = {}
    for name, shape in shapes.items():
        wanted = density**0.5 if name.startswith("output") else density
        keep[name] = torch.rand(shape, generator=generator) < wanted
    return Mask(keep)


def engine_at(network: str, density: float, engine: str = "auto", precision: str = "float32") -> Engine:
    """Return the engine that a run of that density gets."""

    def build() -> torch.nn.Module:
        return NETWORKS[network](SHAPES[network], 10)

    mask, splits = mask_at(network, density), made_up(network)
    weights = mask.apply(initialised(build, "glorot-normal", 0).state_dict())
    make = choose_engine(engine, build, mask, recipe(precision), splits.train.inputs[:1])
    start = ReplicaState(weights, mask, Seeds(0, 0), splits)
    return make(build, [start], recipe(precision), 10_000_000, torch.device("cpu"))  # type: ignore[no-any-return]


def plain_step(network: str, threads: int, seconds: float) -> float:
    """Return the plain loop's seconds a step; its cost does not depend on the density."""
    torch.set_num_threads(threads)
    data, masks = made_up(network).train, dict(mask_at(network, 0.5))
    module = initialised(lambda: NETWORKS[network](SHAPES[network], 10), "glorot-normal", 0)
    return pace(plain_loop(module, masks, data.inputs, data.targets, 1.2e-3, BATCH), 20, seconds)


def plain_evaluation_pace(network: str, threads: int, seconds: float) -> float:
    """Return the plain loop's seconds an evaluation of validation and test."""
    torch.set_num_threads(threads)
    splits = made_up(network)
    module = NETWORKS[network](SHAPES[network], 10)

    def both(_count: int) -> None:
        plain_evaluation(module, splits.validation.inputs, splits.validation.targets)
        plain_evaluation(module, splits.test.inputs, splits.test.targets)

    return pace(both, 1, seconds)


def engine_pace(
    network: str, density: float, seconds: float, engine: str = "auto", precision: str = "float32"
) -> tuple[float, float]:
    """Return tombola's seconds a step and an evaluation, in this process."""
    torch.set_num_threads(1)
    runner = engine_at(network, density, engine, precision)
    runner.advance(100)
    step = pace(runner.advance, 20, seconds)

    def both(_count: int) -> None:
        runner.evaluate("validation")
        runner.evaluate("test")

    return step, pace(both, 1, seconds / 4)


def product_rate(_network: str, seconds: float) -> float:
    """Return floating-point operations a second of a large float32 matrix product on one thread: the ceiling."""
    torch.set_num_threads(1)
    size = 1024
    left, right = torch.randn(size, size), torch.randn(size, size)
    return 2 * size**3 / pace(lambda count: [left @ right for _ in range(count)], 2, seconds)


def step_operations(network: str, density: float) -> float:
    """Return the floating-point operations of a training step in which only live weights cost anything.

    Forward, gradient of the weights, and gradient of the inputs of all layers but the first; two for a multiply-add.
    """
    first, *others = examine(NETWORKS[network](SHAPES[network], 10), SHAPES[network]).layers
    return 2 * density * BATCH * (2 * first.size * first.uses + 3 * sum(layer.size * layer.uses for layer in others))


def in_all_workers(pool: Executor, workers: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Run the same measurement in every worker at the same time."""
    futures = [pool.submit(_after, time.time() + 1.0, function, arguments) for _ in range(workers)]
    return [future.result() for future in futures]


def _after(moment: float, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    # What a first call does once (compiling, making data) must not be counted, nor shift the workers apart.
    made_up(arguments[0])
    time.sleep(max(0.0, moment - time.time()))
    return function(*arguments)


def loop_overhead(seconds: float) -> tuple[float, float]:
    """Return seconds of the same work by tombola's loop on the dense engine, and by the plain loop: one thread.

    The work is training with an evaluation every 100 steps; the two are done in turn, and the medians compared.
    """
    torch.set_num_threads(1)
    network, steps = "lenet-300-100", 400
    splits = made_up(network)
    runner = engine_at(network, 0.5, "dense")
    module = initialised(lambda: NETWORKS[network](SHAPES[network], 10), "glorot-normal", 0)
    loop = plain_loop(module, dict(mask_at(network, 0.5)), splits.train.inputs, splits.train.targets, 1.2e-3, BATCH)
    ours, plain = [], []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(ours) < 3:
        begun = time.perf_counter()
        for _ in range(steps // 100):
            loop(100)
            plain_evaluation(module, splits.validation.inputs, splits.validation.targets)
            plain_evaluation(module, splits.test.inputs, splits.test.targets)
        plain.append(time.perf_counter() - begun)
        record = Record()
        record.history = {column: [float(runner.iteration)] for column in record.history}
        record.snapshots["start"] = {}
        begun = time.perf_counter()
        train(_WithoutEnd(runner), [record], budget=runner.iteration + steps, evaluate_every=100)
        ours.append(time.perf_counter() - begun)
    return sorted(ours)[len(ours) // 2], sorted(plain)[len(plain) // 2]


class _WithoutEnd:
    """An engine whose final evaluation on the training set is left out: the plain loop has none."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def evaluate(self, name: str, check: Callable[[], None]) -> Any:
        return [Score(0.0, 0.0)] if name == "train" else self._engine.evaluate(name, check)


def on_device(splits: Splits, device: torch.device) -> Splits:
    """Return splits whose examples lie on a device."""
    parts = (splits.train, splits.validation, splits.test)
    return Splits(*(held(each).to(device) for each in parts), splits.mean, splits.std, splits.classes)


def stack_pace(
    make: Any, replicas: int, device: torch.device, seconds: float, network: str = LENET, precision: str = "float32"
) -> dict[str, Any]:
    """Return the steps per second of runs with a fifth of the weights, all runs of one engine together.

    Args:
        make: the engine's class.
        replicas: how many runs there are.
        device: to train on.
        seconds: to measure.
        network: its name.
        precision: of training.

    Returns:
        "steps": per second; "evaluations": of 1,000 images per second; and what the engine says of its steps.
    """
    splits, mask = on_device(made_up(network, 1_500), device), mask_at(network, 0.2)

    def build() -> torch.nn.Module:
        return NETWORKS[network](SHAPES[network], 10)

    weights = mask.apply(initialised(build, "glorot-normal", 0).state_dict())
    starts = [ReplicaState(weights, mask, Seeds(0, replica), splits) for replica in range(replicas)]
    runner = make(build, starts, recipe(precision), 10_000_000, device)
    runner.advance(10)
    # `advance` ends by reading the loss, and `evaluate` by reading scores: the GPU is done then.
    steps = replicas / pace(runner.advance, AT_A_TIME, seconds)
    evaluations = replicas / pace(lambda _: runner.evaluate("test"), 1, seconds / 4)
    return {"steps": steps, "evaluations": evaluations} | getattr(runner, "facts", {})


def best_stack_ratio(stacks: tuple[int, ...] = (16, 64, 256), seconds: float = 3.0) -> float:
    """Return the steps per second of the best stack of Lenet runs on a GPU, over those of one eager run at a time."""
    device = torch.device("cuda")
    eager: float = stack_pace(DenseEngine, 1, device, seconds)["steps"]
    best: float = max(stack_pace(StackedEngine, replicas, device, seconds)["steps"] for replicas in stacks)
    return best / eager


def peak_memory() -> float:
    """Return this process's peak resident memory in bytes (Linux; `getrusage` would count the parent's before exec)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
