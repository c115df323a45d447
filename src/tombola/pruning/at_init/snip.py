"""SNIP: how much the loss depends on whether a weight is there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.pruning.at_init.weights import differentiable, times_gradient
from tombola.pruning.criteria import Snapshots


def snip(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score |w * dL/dw| at the initialisation (Lee et al. 2019, "SNIP", Section 4.1).

    L is the mean loss of `snapshots.examples`. The paper divides by the sum over all weights, which changes
    no order.
    """
    module = snapshots.network()
    weights = differentiable(module, snapshots.start)
    with torch.enable_grad():
        loss = snapshots.loss(module, 1.0)
    return {name: product.abs() for name, product in times_gradient(weights, loss).items()}
