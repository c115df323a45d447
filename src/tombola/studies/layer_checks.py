"""Checks, before training, that masks can be found in a network's layers: that scores tell weights apart, and so on."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import nn

from tombola.data import Description
from tombola.errors import InputError
from tombola.pruning.at_init.weights import differentiable, without_gradient
from tombola.pruning.patterns import Pattern
from tombola.seeds import own_draws, seed_draws
from tombola.tasks import Task
from tombola.work import MaskSearch

# Criteria that ask how far training moved a weight, with their forms by sign.
OF_MOVES = ("movement", "magnitude-increase", "stability")
FORMS = ("-same-sign", "-diff-sign")


def check_sparse_gradients(module: nn.Module, what: str) -> None:
    """Refuse embeddings whose gradients are sparse tensors, which engines and most optimisers can't use.

    Raises:
        InputError: a trained layer has `sparse=True`.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse and layer.weight.requires_grad:
            raise InputError(f"{what} has sparse gradients in layer {name!r}; set sparse=False in that layer")


def frozen_weights(module: nn.Module) -> frozenset[str]:
    """Return the names of the parameters that are not trained."""
    return frozenset(name for name, weight in module.named_parameters() if not weight.requires_grad)


def check_moves(arm: str, counts: Iterable[str], frozen: Collection[str]) -> None:
    """Refuse a mask that should move in a layer that is not trained.

    Args:
        arm: its name.
        counts: names of the weights whose mask moves.
        frozen: names of the weights that are not trained.

    Raises:
        InputError: there is such a layer.
    """
    if still := [name for name in counts if name in frozen]:
        raise InputError(
            f"arm {arm!r}: layer {_layer(still[0])!r} has requires_grad=False, so its mask can't move; exclude it: "
            f"pruning.exclude: [{', '.join(map(_layer, still))}]"
        )


def check_search(search: MaskSearch, frozen: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a search that scores all weights, or all groups, of a layer alike: their places would decide.

    Args:
        search: for a mask.
        frozen: names of the weights that are not trained.
        shapes: of all prunable weights.

    Raises:
        InputError: there is such a layer.
    """
    criterion, pattern, names = search.criterion, search.pattern, search.pruned
    still = [name for name in names if name in frozen]
    if still and any(criterion in (name, *(name + form for form in FORMS)) for name in OF_MOVES):
        raise InputError(
            f"criterion {criterion!r} scores how far training moves a weight, and layer {_layer(still[0])!r} has "
            f"requires_grad=False; exclude it: pruning.exclude: [{', '.join(map(_layer, still))}]"
        )
    if criterion != "wanda":
        return
    for name in names:
        if math.prod(shapes[name][1:]) <= _wide(pattern):
            groups = "single weights" if pattern is None else f"the pattern {pattern.label}"
            raise InputError(
                f"criterion 'wanda' ranks the weights of each output alone, so it can't choose among whole outputs, "
                f"which {groups} of layer {_layer(name)!r} are; exclude the layer in pruning.exclude, or use the "
                "criterion magnitude or gradient"
            )


def check_gradients(module: nn.Module, task: Task, data: Description, names: Iterable[str]) -> None:
    """Refuse frozen weights that no gradient reaches, on a synthetic batch, for the criterion `gradient`.

    Args:
        module: the untrained network.
        task, data: what it learns.
        names: of the frozen weights that are pruned, one or more.

    Raises:
        InputError: there are such weights.
    """
    weights = differentiable(module.eval(), names)
    with own_draws():
        seed_draws(0)
        try:
            loss = task.tempered_loss(module, task.made_up(data))
            gradients = torch.autograd.grad(loss, [*weights.values()], allow_unused=True)
        except RuntimeError as error:
            raise InputError(
                f"criterion 'gradient' can't differentiate the layers with requires_grad=False ({error}); exclude "
                f"them: pruning.exclude: [{', '.join(map(_layer, weights))}]"
            ) from error
    for name, gradient in zip(weights, gradients, strict=True):
        if gradient is None:
            raise without_gradient(name)


def _wide(pattern: Pattern | None) -> float:
    """Return how many weights of an output are kept or pruned as one."""
    if pattern is None or pattern.is_fine:
        return 1
    return math.inf if pattern.block is None else pattern.block[1]


def _layer(name: str) -> str:
    return name.removesuffix(".weight")
