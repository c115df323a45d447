"""Random masks with layer densities that no training has found: the least that a method at initialisation must beat."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from tombola.pruning.criteria import Goal, Snapshots

STEPS = 200  # of the bisection: more than a float has bits, whatever its size


def random_uniform(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Choose at random, the same share of each layer."""
    return _chosen(snapshots, {name: snapshots.start[name].numel() for name in snapshots.goal.layers})


def random_erk(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Choose at random with the densities of an Erdos-Renyi-kernel graph (Evci et al. 2020, "RigL", Section 3).

    A layer's density is in proportion to (inputs + outputs + kernel height + width) / (inputs * outputs * height *
    width), and at most 1; what a full layer can't take goes to the others. (Mocanu et al. 2018 without kernels.)
    """
    return _chosen(snapshots, {name: sum(snapshots.start[name].shape) for name in snapshots.goal.layers})


def _chosen(snapshots: Snapshots, proportions: Mapping[str, int]) -> dict[str, Tensor]:
    """Return scores of which selection keeps as many in each layer as `apportioned` gives it, at random places."""
    counts = apportioned(
        proportions, {name: weight.numel() for name, weight in snapshots.start.items()}, snapshots.goal
    )
    scores = {}
    for name, weight in snapshots.start.items():
        drawn = torch.rand(weight.shape, generator=snapshots.generator)
        if name in counts:
            first = torch.randperm(weight.numel(), generator=snapshots.generator)[: counts[name]]
            drawn.view(-1)[first] += 1
        scores[name] = drawn
    return scores


def apportioned(proportions: Mapping[str, int], sizes: Mapping[str, int], goal: Goal) -> dict[str, int]:
    """Return layer -> number of weights, in the given proportions, `goal.keep` in all.

    No layer gets more than it has or fewer than `goal.minimum`; the others share the rest. Fractions of a weight go to
    the layers that lack most of one, the first of equals.

    Raises:
        ValueError: the layers have fewer weights than are to be kept, or their minima are more.
    """
    names = list(goal.layers)
    weights = np.array([proportions[name] for name in names], dtype=float)
    high = np.array([sizes[name] for name in names], dtype=float)
    low = np.minimum(goal.minimum, high)
    if not low.sum() <= goal.keep <= high.sum():
        raise ValueError(f"{goal.keep:,} weights can't be kept: the layers allow {low.sum():,.0f} to {high.sum():,.0f}")
    less, more = 0.0, float((high / weights).max())
    for _ in range(STEPS):
        middle = (less + more) / 2
        less, more = (middle, more) if np.clip(middle * weights, low, high).sum() < goal.keep else (less, middle)
    shares = np.clip(more * weights, low, high)
    counts = np.floor(shares)
    missing = int(goal.keep - counts.sum())
    lacking = np.argsort(-(shares - counts), kind="stable")
    counts[lacking[:missing]] += 1
    return {name: int(count) for name, count in zip(names, counts, strict=True)}
