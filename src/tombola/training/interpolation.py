"""Loss and error along the straight line between two trained networks (Frankle et al. 2020, Section 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.data import Examples, Splits
from tombola.networks import initialised
from tombola.seeds import own_draws, seed_draws
from tombola.tasks import CLASSIFICATION, Metric, Task
from tombola.training.engine import NetworkFactory, Weights
from tombola.training.engines.dense import as_precise, for_half, output_of, score


def point_columns(task: Task) -> tuple[str, ...]:
    """Return the known facts about a point: its position, and loss and metrics of training and test examples.

    Of plain classification the error takes the place of the accuracy.
    """
    return (
        "position",
        *(f"{part}_{name}" for part in ("train", "test") for name in ("loss", *measures_of(task.metrics))),
    )


def measures_of(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Return what is measured beside the loss: the metrics, or "error" where accuracy is the only one.

    The error is 1 - accuracy, as in the papers on linear mode connectivity.
    """
    return ("error",) if is_error(metrics) else tuple(metric.name for metric in metrics)


def is_error(metrics: Sequence[Metric]) -> bool:
    """Return whether points show an error instead of metrics."""
    return tuple(metrics) == CLASSIFICATION.metrics


def interpolate(
    one: Weights,
    other: Weights,
    build: NetworkFactory,
    splits: Splits,
    points: int,
    precision: str = "float32",
    seed: int = 0,
    task: Task = CLASSIFICATION,
    check: Callable[[], None] = lambda: None,
    reached: Callable[[int], None] = lambda point: None,
) -> dict[str, list[float]]:
    """Evaluate a network at evenly spaced points of the line from `one` (position 0) to `other` (position 1).

    Parameters and floating buffers are interpolated; then the statistics of batch norm layers are taken again from the
    training examples, at every point, both ends included: those of the ends say nothing of what is in between.

    Args:
        one, other: state_dicts.
        build: builds the network.
        splits: its data, on the device to compute on.
        points: how many, both ends included.
        precision: as in the recipe.
        seed: of what a module draws even in evaluation; every point sees the same.
        task: the task to learn.
        check: called between blocks of examples; may raise to stop.
        reached: told how many points are done.

    Returns:
        A list for each column of `point_columns`: losses and metrics are the task's, errors fractions of all examples
        of the part.
    """
    device = splits.train.device
    module = initialised(build, "pytorch", 0).to(device)
    half = precision == "bfloat16"
    if half:
        module = for_half(module)
    elif precision == "float64":
        module = module.double()
    found: dict[str, list[float]] = {column: [] for column in point_columns(task)}
    with own_draws(device):
        for point in range(points):
            reached(point)
            position = point / (points - 1)
            module.load_state_dict(between(one, other, position))
            seed_draws(seed, device)
            renew_statistics(module, splits.train, half, check, task)
            module.eval()
            scores = [score(module, part, half, check, task=task) for part in (splits.train, splits.test)]
            shown = [(each.loss, 1 - each.metric) if is_error(task.metrics) else each.values for each in scores]
            row = (position, *shown[0], *shown[1])
            for values, value in zip(found.values(), row, strict=True):
                values.append(value)
    return found


def between(one: Weights, other: Weights, position: float) -> Weights:
    """Return the weights at a position from 0 to 1.

    What is not a float, such as a count, is the nearer end's. What both ends have stays, such as -inf in a buffer that
    masks attention: between two infinities lies NaN.
    """
    nearer = one if position < 0.5 else other
    return {
        name: torch.where(tensor == other[name], tensor, torch.lerp(tensor, other[name], position))
        if tensor.is_floating_point()
        else nearer[name]
        for name, tensor in one.items()
    }


@torch.no_grad()
def renew_statistics(
    module: nn.Module, examples: Examples, half: bool, check: Callable[[], None], task: Task = CLASSIFICATION
) -> None:
    """Set the running statistics of batch norm layers to means over batches of all `examples`, not augmented.

    Everything else computes as in evaluation: no dropout. Batches are equally large, to within one example, and each
    takes its examples from all over the part, whatever the order in which a data file has them.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not layers:
        return
    batches = -(-len(examples) // task.block)
    with _cumulative(module, layers):
        for batch in examples.blocks(slice(first, None, batches) for first in range(batches)):
            check()
            output_of(task, module, as_precise(batch, module), half)


@contextmanager
def _cumulative(module: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """Let these layers alone be trained, and average from nothing; their statistics stay as found."""
    momenta = [layer.momentum for layer in layers]
    module.eval()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # which stands for a cumulative average
        layer.train()
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.eval()
