"""Checks, before training, that a study's recipes fit its network and data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from tombola.data import DataSettings, Description, Tensors, is_one_shape
from tombola.data.augment import KINDS, changed_by
from tombola.data.dataset import each_leaf
from tombola.errors import InputError
from tombola.registry import resolve
from tombola.tasks import Task
from tombola.training.optimizers import check_optimizer
from tombola.training.recipe import Recipe


def check_recipe(
    recipe: Recipe, budget: int, build: Callable[[], nn.Module], data: Description, task: Task, settings: DataSettings
) -> None:
    """Check the optimiser, schedule and augmentation of a recipe against the network and the data.

    Args:
        recipe: the training recipe.
        budget: in iterations.
        build: makes the untrained network; called only for a user's own optimiser.
        data, task: the data and the task.
        settings: the `data` section.

    Raises:
        InputError: warmup does not fit the budget, augmentation does not fit the inputs, or a user's function fails.
    """
    recipe.check_budget(budget)
    is_image = is_one_shape(data.input_shape) and len(data.input_shape) == 3 and data.input_dtype == "float32"
    moves = any(kind in KINDS for kind in recipe.augment)
    if moves and not is_image:
        raise InputError(
            f"training.augment needs images (channels, height, width), but an example of {settings.source} has "
            f"shape {data.input_shape}; remove augment"
        )
    if moves and settings.normalise == "feature":
        raise InputError(
            "training.augment moves pixels, but data.normalise=feature gives each place its own constants; set "
            "normalise: channel"
        )
    target = data.output_shape or ()  # None: the task takes its targets from the inputs
    targets = [target] if is_one_shape(target) else each_leaf(target)
    if moves and (shapes := [shape for shape in targets if len(shape) >= 2]):
        raise InputError(
            f"training.augment moves the pixels of inputs, but not those of targets, and {settings.source} has "
            f"targets of shape {shapes[0]}; remove flip and crop"
        )
    if settings.normalise in ("channel", "feature") and not is_one_shape(data.input_shape):
        raise InputError(
            f"data.normalise={settings.normalise} needs one input, but {settings.source} has {len(data.input_shape)}; "
            "scale the inputs in that function, and set data.normalise: none"
        )
    if settings.normalise == "channel" and len(data.input_shape) not in (1, 3):
        raise InputError(
            f"data.normalise=channel needs images or feature vectors, but an example of {settings.source} has shape "
            f"{data.input_shape}; set normalise: feature, or remove normalise"
        )
    if recipe.own_augment:
        inputs = task.made_up(data).inputs
        for name in recipe.own_augment:
            function = resolve(name, {}, "augmentation")
            twice = [changed_by(name, function, inputs, torch.Generator().manual_seed(0)) for _ in range(2)]
            if not _equal(*twice):
                raise InputError(
                    f"training.augment={name!r} gave two results from equal generators; draw only from the generator "
                    "that it receives, or no run can resume"
                )
    if recipe.optimizer == "muon" or not recipe.knows_optimizer:
        check_optimizer(recipe, build())


def _equal(one: Tensors, other: Tensors) -> bool:
    """Return whether two structures hold the same numbers; NaN is like NaN."""
    pairs = zip(tree_leaves(one), tree_leaves(other), strict=True)
    return all(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in pairs)


def unreached_milestones(recipe: Recipe, budget: int) -> str:
    """Return one line about milestones that training never reaches; "" if it reaches all."""
    beyond = recipe.beyond(budget)
    if not beyond:
        return ""
    return (
        f"note: training ends at iteration {budget}, so milestones {', '.join(map(str, beyond))} have no effect; lower "
        "training.milestones, or raise the budget"
    )
