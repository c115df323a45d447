"""The size of the gradient alone, before any training."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.pruning.at_init.weights import differentiable
from tombola.pruning.criteria import Snapshots


def gradient_at_init(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score |dL/dw| at the initialisation (`grad` in the code of Zhou et al. 2019): SNIP without the weight.

    L is the mean loss of `snapshots.examples`; the authors take one training step's batch.
    """
    module = snapshots.network()
    weights = differentiable(module, snapshots.start)
    with torch.enable_grad():
        loss = snapshots.loss(module, 1.0)
    found = torch.autograd.grad(loss, [*weights.values()], allow_unused=True, materialize_grads=True)
    return {name: gradient.abs() for name, gradient in zip(weights, found, strict=True)}
