"""Loss and error along the straight line between two trained networks (Frankle et al. 2020, Section 2)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.data import Part, Splits
from tombola.networks import initialised
from tombola.training.engine import NetworkFactory, Weights
from tombola.training.engines.dense import EVALUATION_BLOCK, for_half, logits_of, own_draws, score, seed_draws

COLUMNS = ("position", "train_loss", "train_error", "test_loss", "test_error")


def along(
    one: Weights,
    other: Weights,
    build: NetworkFactory,
    splits: Splits,
    points: int,
    half: bool = False,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
    reached: Callable[[int], None] = lambda point: None,
) -> dict[str, list[float]]:
    """Evaluate a network at evenly spaced points of the line from `one` (position 0) to `other` (position 1).

    Parameters and floating buffers are interpolated; then the statistics of batch norm layers are taken anew from the
    training examples, at every point, both ends included: those of the ends say nothing of what is in between.

    Args:
        one, other: state_dicts.
        build: builds the network.
        splits: its data, on the device to compute on.
        points: how many, both ends included.
        half: compute products and convolutions in bfloat16.
        seed: of what a module draws even in evaluation; every point sees the same.
        check: called between blocks of examples; may raise to stop.
        reached: told how many points are done.

    Returns:
        A list for each of COLUMNS: losses are mean cross-entropies in nats, errors fractions of all examples of
        the part.
    """
    device = splits.train.inputs.device
    module = initialised(build, "pytorch", 0).to(device)
    if half:
        module = for_half(module)
    found: dict[str, list[float]] = {column: [] for column in COLUMNS}
    with own_draws(device):
        for point in range(points):
            reached(point)
            position = point / (points - 1)
            module.load_state_dict(between(one, other, position))
            seed_draws(seed, device)
            renew_statistics(module, splits.train, half, check)
            module.eval()
            train, test = (score(module, part, half, check) for part in (splits.train, splits.test))
            row = (position, train.loss, 1 - train.accuracy, test.loss, 1 - test.accuracy)
            for column, value in zip(COLUMNS, row, strict=True):
                found[column].append(value)
    return found


def between(one: Weights, other: Weights, position: float) -> Weights:
    """Return the weights at a position from 0 to 1; what is no float, such as a count, is the nearer end's."""
    nearer = one if position < 0.5 else other
    return {
        name: torch.lerp(tensor, other[name], position) if tensor.is_floating_point() else nearer[name]
        for name, tensor in one.items()
    }


@torch.no_grad()
def renew_statistics(module: nn.Module, examples: Part, half: bool, check: Callable[[], None]) -> None:
    """Set the running statistics of batch norm layers to means over batches of all `examples`, not augmented.

    Everything else computes as in evaluation: no dropout. Batches are equally large, to within one example, and each
    takes its examples from all over the part, whatever the order in which a data file has them.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _BatchNorm) and layer.track_running_stats]
    if not layers:
        return
    batches = -(-len(examples) // EVALUATION_BLOCK)
    with _cumulative(module, layers):
        for batch in range(batches):
            check()
            logits_of(module, examples.inputs[batch::batches], half)


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
