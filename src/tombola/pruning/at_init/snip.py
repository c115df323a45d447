"""SNIP: how much the loss depends on whether a weight is there."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from tombola.pruning.at_init.weights import differentiable, times_gradient
from tombola.pruning.criteria import Snapshots


def snip(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score |w * dL/dw| at the initialisation (Lee et al. 2019, "SNIP", Section 4.1).

    L is the mean cross-entropy of `snapshots.examples`. The paper divides by the sum over all weights, which changes
    no order.
    """
    module = snapshots.network()
    weights = differentiable(module, snapshots.start)
    inputs, targets = snapshots.examples()
    with torch.enable_grad():
        loss = functional.cross_entropy(module(inputs), targets)
    return {name: product.abs() for name, product in times_gradient(weights, loss).items()}
