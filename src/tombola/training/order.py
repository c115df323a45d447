"""The order in which training sees its examples."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.seeds import Seeds


class Order:
    """Batches of example numbers, as a pure function of the iteration.

    Every epoch is a fresh permutation of all `examples`, drawn from (study seed, trial, "order", epoch). An epoch has
    `examples // batch_size` iterations: what does not fill a batch is omitted, another remainder each epoch.

    >>> order = Order(examples=10, batch_size=3, seeds=Seeds(0, 0))
    >>> order.epoch_length, order.batches(2, 2).shape
    (3, torch.Size([2, 3]))
    """

    def __init__(self, examples: int, batch_size: int, seeds: Seeds):
        if batch_size > examples:
            raise ValueError(f"a batch of {batch_size} from {examples} examples")
        self.examples, self.batch_size, self.seeds = examples, batch_size, seeds
        self.epoch_length = examples // batch_size
        self._epoch = -1
        self._permutation: Tensor

    def batches(self, first: int, count: int) -> Tensor:
        """Return int64 [count, batch_size]: the examples of iterations first, ..., first + count - 1."""
        pieces = []
        while count > 0:
            epoch, offset = divmod(first, self.epoch_length)
            take = min(count, self.epoch_length - offset)
            pieces.append(self._batches_of(epoch)[offset : offset + take])
            first, count = first + take, count - take
        return torch.cat(pieces) if pieces else torch.empty(0, self.batch_size, dtype=torch.int64)

    def _batches_of(self, epoch: int) -> Tensor:
        if epoch != self._epoch:
            generator = self.seeds.generator("order", epoch)
            used = self.epoch_length * self.batch_size
            self._permutation = torch.randperm(self.examples, generator=generator)[:used]
            self._epoch = epoch
        return self._permutation.view(self.epoch_length, self.batch_size)
