"""Fine-tuning of shared values under a mask.

As in Han et al. 2016, "Deep Compression", Section 3.3: the gradient of a shared value is the sum of those of the
weights that use it. Beside that a weight may change to another shared value: it keeps a value of its own, which moves
by its own gradient, and always uses the shared value nearest to that (the straight-through estimator of Bengio et al.
2013).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import InputError
from tombola.export.packed.share import Shared, as_book

Examples = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Tuning:
    """How shared values are fine-tuned.

    Args:
        iterations: number of steps; Adam, its learning rate falling to zero along half a cosine.
        lr: highest learning rate, of the weights' own values.
        book_lr: highest learning rate of the shared values, as a share of each tensor's largest.
        batch_size: examples in a step.
        seed: of the order of the examples.
    """

    iterations: int = 4000
    lr: float = 1e-3
    book_lr: float = 1e-3
    batch_size: int = 100
    seed: int = 0


class _Tensor:
    """A tensor of shared values in training."""

    def __init__(self, values: Tensor, keep: Tensor, shared: Shared):
        self.shape, self.size = values.shape, values.numel()
        self.places = keep.flatten().nonzero().squeeze(1)
        self.own = values.detach().flatten()[self.places].clone().requires_grad_()
        self.scale = float(np.abs(shared.values).max())
        self.book = torch.tensor(shared.values / self.scale).requires_grad_()

    def value(self) -> Tensor:
        """Return the tensor as the network uses it; gradients reach shared and own values."""
        book = self.book.sort().values * self.scale
        edges = ((book[1:] + book[:-1]) / 2).detach()
        used = book[torch.bucketize(self.own.detach(), edges, right=True)] + (self.own - self.own.detach())
        return torch.zeros(self.size).index_put((self.places,), used).view(self.shape)

    def result(self) -> tuple[Shared, np.ndarray]:
        """Return the shared values as a file holds them, and which of them each kept weight uses."""
        shared = as_book(self.book.detach().double().numpy() * self.scale)
        return shared, shared.nearest(self.own.detach().numpy())


def tuned(
    module: nn.Module,
    keep: Mapping[str, Tensor],
    shared: Mapping[str, Shared],
    examples: Examples,
    tuning: Tuning,
) -> dict[str, tuple[Shared, np.ndarray]]:
    """Return better shared values for parameters of `module`, and the number of each kept weight's one.

    Args:
        module: with the weights to start from; it computes in evaluation mode and is not changed.
        keep: parameter name -> bool tensor: which of its values are not zero, and stay so.
        shared: parameter name -> the shared values to start from.
        examples: inputs as the network takes them, float32 [n, ...], and classes, int64 [n].

    Raises:
        InputError: there are fewer examples than a batch has, or the loss is not finite.
    """
    inputs, targets = examples
    if len(inputs) < tuning.batch_size:
        raise InputError(f"{len(inputs)} examples do not fill a batch of {tuning.batch_size}: lower the batch size")
    parameters = dict(module.named_parameters())
    tensors = {name: _Tensor(parameters[name], keep[name], shared[name]) for name in shared if shared[name].count}
    rates = [
        {"params": [each.own for each in tensors.values()], "lr": tuning.lr},
        {"params": [each.book for each in tensors.values()], "lr": tuning.book_lr},
    ]
    optimizer = torch.optim.Adam(rates)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / tuning.iterations)) / 2
    )
    generator = torch.Generator().manual_seed(tuning.seed)
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        order, at = torch.randperm(len(inputs), generator=generator), 0
        for _ in range(tuning.iterations):
            if at + tuning.batch_size > len(order):
                order, at = torch.randperm(len(inputs), generator=generator), 0
            batch = order[at : at + tuning.batch_size]
            at += tuning.batch_size
            values = {name: each.value() for name, each in tensors.items()}
            outputs = torch.func.functional_call(module, values, (inputs[batch],))
            loss = functional.cross_entropy(outputs, targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    finally:
        for each, training in modes:
            each.training = training
    if not loss.isfinite():
        raise InputError("fine-tuning diverged: lower the learning rate")
    return {name: each.result() for name, each in tensors.items()}
