"""Asking a criterion, ours or a user's own, and saying clearly what is wrong with its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from tombola.data import Description
from tombola.errors import InputError, TombolaError
from tombola.pruning.activations import input_norms
from tombola.pruning.at_init import AT_INIT
from tombola.pruning.at_init.synflow import synflow
from tombola.pruning.criteria import CRITERIA, Criterion, Goal, SkipRound, Snapshots
from tombola.pruning.mask import Mask
from tombola.pruning.select import kept_of, select
from tombola.registry import resolve
from tombola.tasks import CLASSIFICATION, Task

KNOWN: dict[str, Criterion] = CRITERIA | AT_INIT
# Need second derivatives, and a network that runs in double precision, within its range: in the first of all rounds.
# Or the inputs of each layer, which not every kind of layer shows.
TRIED: dict[str, Criterion] = {
    "grasp": AT_INIT["grasp"],
    "synflow": partial(synflow, rounds=1),
    "wanda": CRITERIA["wanda"],
}
EXAMPLES = 2  # of each class, that a method at initialisation is tried with


def scores_of(name: str, snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Return the scores that the criterion of that name gives.

    Raises:
        SkipRound: it has nothing to tell weights apart by.
        InputError: the criterion does not exist, a user's own fails or answers with something else than tensors, or a
            method at initialisation finds no numbers.
    """
    return _answer(name, resolve(name, KNOWN, "criterion"), snapshots)


def _answer(name: str, criterion: Criterion, snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Return the scores that a criterion of that name gives; errors are those of `scores_of`."""
    try:
        scores = criterion(snapshots)
    except (SkipRound, TombolaError):
        raise
    except Exception as error:
        if name in KNOWN:
            raise
        raise InputError(f"criterion {name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(scores, Mapping) or not all(isinstance(score, Tensor) for score in scores.values()):
        raise InputError(f"criterion {name!r} gave {_kinds(scores)}; it must return a dict of layer name -> tensor")
    if unknown := [layer for layer, score in scores.items() if name in AT_INIT and bool(score.isnan().any())]:
        raise InputError(
            f"{name}: scores of {unknown[0]!r} are not numbers: the network can't be differentiated at its "
            "initialisation; use another network.init, or another arm"
        )
    return scores


def try_criterion(
    name: str,
    shapes: Mapping[str, tuple[int, ...]],
    network: Callable[[], nn.Module],
    data: Description,
    task: Task = CLASSIFICATION,
    examples: bool = False,
    pruned: Sequence[str] | None = None,
) -> None:
    """Ask a criterion that may fail about synthetic weights, so that a fault shows before hours of training.

    Args:
        name: of a criterion. Of ours, only those in TRIED ask for something that not every network has.
        shapes: of the prunable weights, by name.
        network: gives the untrained network.
        data: what is known of the data.
        task: the task to learn.
        examples: whether it will be given examples.
        pruned: names of the weights whose scores are needed; None for all.

    Raises:
        InputError: as in `scores_of`, or the scores are not of the weights' names and shapes.
    """
    if name in KNOWN and name not in TRIED:
        return
    criterion = TRIED.get(name) or resolve(name, KNOWN, "criterion")
    generator = torch.Generator().manual_seed(0)

    def weights() -> dict[str, Tensor]:
        return {layer: torch.randn(shape, generator=generator) for layer, shape in shapes.items()}

    batch = task.made_up(data, task.few_count(data, EXAMPLES), generator)
    mask, rates = Mask.full(dict(shapes)), dict.fromkeys(shapes if pruned is None else pruned, 0.5)

    def norms() -> Mapping[str, Tensor]:
        module = network().eval()
        return input_norms(module, shapes, lambda: task.tempered_loss(module, batch), rates)

    snapshots = Snapshots(
        weights(),
        weights(),
        weights(),
        weights(),
        weights,
        generator,
        norms=norms,
        goal=Goal(tuple(rates), kept_of(mask.counts(), [rates])),
        network=lambda: network().eval(),
        input_shape=data.input_shape,
    )
    if examples:
        snapshots = replace(
            snapshots,
            examples=lambda: (batch.inputs, batch.targets),
            loss=lambda module, temperature: task.tempered_loss(module, batch, temperature),
        )
    try:
        with torch.random.fork_rng(devices=[]):  # a module may draw in evaluation mode too
            select(_answer(name, criterion, snapshots), mask, rates)
    except SkipRound:
        return
    except ValueError as error:
        raise InputError(f"criterion {name!r}: {error}") from error


def _kinds(scores: object) -> str:
    if not isinstance(scores, Mapping):
        return f"a {type(scores).__name__}"
    return "a dict of " + " and ".join(sorted({type(score).__name__ for score in scores.values()}))
