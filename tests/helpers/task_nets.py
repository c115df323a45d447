"""Networks, tasks and made-up data of every task, as a user would write them; named as `task_nets:name`."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from tombola.data import Dataset
from tombola.tasks import Classification, Metric, Regression, Task


def mlp(input_shape, classes, hidden=16):
    """Two layers for feature vectors."""
    return nn.Sequential(nn.Linear(input_shape[0], hidden), nn.ReLU(), nn.Linear(hidden, classes))


def small_cnn(input_shape, classes):
    """Two convolutions and an output layer."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


class Lstm(nn.Module):
    """Token ids through an embedding and an LSTM to class scores."""

    def __init__(self, classes, tokens, width=12):
        super().__init__()
        self.embedding = nn.Embedding(tokens, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.output = nn.Linear(width, classes)

    def forward(self, ids):
        return self.output(self.lstm(self.embedding(ids))[0][:, -1])


class Block(nn.Module):
    """A transformer block of one head, causal unless told otherwise."""

    def __init__(self, width, causal=True):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = nn.MultiheadAttention(width, 1, batch_first=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.causal = causal

    def forward(self, x):
        length = x.shape[1]
        hidden = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1) if self.causal else None
        seen = self.norms[0](x)
        x = x + self.attention(seen, seen, seen, attn_mask=hidden, need_weights=False)[0]
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Transformer(nn.Module):
    """A language model of one block."""

    def __init__(self, input_shape, classes, width=12, causal=True):
        super().__init__()
        self.embedding = nn.Embedding(classes, width)
        self.position = nn.Parameter(torch.randn(input_shape[0], width) * 0.02)
        self.block = Block(width, causal)
        self.output = nn.Linear(width, classes)

    def forward(self, ids):
        return self.output(self.block(self.embedding(ids) + self.position))


class UNet(nn.Module):
    """One step down, one step up, and the skip connection."""

    def __init__(self, input_shape, classes, width=4):
        super().__init__()
        self.down = nn.Conv2d(input_shape[0], width, 3, padding=1)
        self.bottom = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.up = nn.Conv2d(2 * width + width, width, 3, padding=1)
        self.output = nn.Conv2d(width, classes, 1)

    def forward(self, images):
        high = functional.relu(self.down(images))
        low = functional.relu(self.bottom(functional.max_pool2d(high, 2)))
        both = torch.cat([functional.interpolate(low, scale_factor=2), high], 1)
        return self.output(functional.relu(self.up(both)))


class Named(nn.Module):
    """Takes its inputs by name and returns its scores among other things, as Hugging Face models do."""

    def __init__(self, classes, tokens, width=8):
        super().__init__()
        self.embedding = nn.Embedding(tokens["ids"], width)
        self.hidden, self.output = nn.Linear(width, width), nn.Linear(width, classes)

    def forward(self, ids, attention_mask):
        weight = attention_mask[..., None].float()
        mean = (self.embedding(ids) * weight).sum(1) / weight.sum(1).clamp(min=1)
        return {"logits": self.output(functional.relu(self.hidden(mean))), "mean": mean}


class Pair(nn.Module):
    """Takes two float inputs."""

    def __init__(self, classes):
        super().__init__()
        self.left, self.right, self.output = nn.Linear(3, 6), nn.Linear(2, 6), nn.Linear(6, classes)

    def forward(self, left, right):
        return self.output(torch.tanh(self.left(left) + self.right(right)))


KINDS = ("regression", "regression-2", "multilabel", "tokens", "text", "hidden-text", "segmentation", "dict", "pair")


def dataset(kind, train=72, test=24):
    """Return made-up data that a network can learn something from."""
    examples, rng = train + test, np.random.default_rng(sum(map(ord, kind)))
    classes, targets = None, None
    if kind in ("regression", "regression-2"):
        inputs = rng.normal(size=(examples, 5)).astype(np.float32)
        targets = 20 + 3 * np.sin(inputs[:, 0]) + inputs[:, 1] + 0.1 * rng.normal(size=examples)
        if kind == "regression-2":
            targets = np.stack([targets, -targets / 5], 1)
    elif kind == "multilabel":
        targets = rng.integers(0, 2, size=(examples, 3))
        inputs = rng.normal(size=(examples, 3, 8, 8)).astype(np.float32) * 0.5
        inputs += targets[:, :, None, None].astype(np.float32)
    elif kind == "tokens":
        targets = rng.integers(0, 2, size=examples)
        inputs = rng.integers(0, 9, size=(examples, 7))
        inputs[:, -1] = 9 + targets
        classes = 2
    elif kind == "text":
        start = rng.integers(0, 6, size=(examples, 1))
        inputs = (start + np.arange(9)) % 6
    elif kind == "hidden-text":
        inputs = rng.integers(0, 6, size=(examples, 9))
        targets = (inputs + 1) % 6
        classes = 6
    elif kind == "segmentation":
        inputs = rng.normal(size=(examples, 1, 8, 8)).astype(np.float32)
        targets = (inputs[:, 0] > 0).astype(np.int64) + (inputs[:, 0] > 1)
        classes = 3
    elif kind == "dict":
        targets = rng.integers(0, 2, size=examples)
        inputs = {"ids": rng.integers(0, 7, size=(examples, 5)), "attention_mask": np.ones((examples, 5), np.int64)}
        inputs["ids"][:, 0] = 7 + targets
        classes = 2
    elif kind == "pair":
        targets = rng.integers(0, 3, size=examples)
        inputs = (
            rng.normal(size=(examples, 3)).astype(np.float32) + targets[:, None].astype(np.float32),
            rng.normal(size=(examples, 2)),
        )
        classes = 3
    else:
        raise ValueError(kind)

    def part(arrays, rows):
        if arrays is None:
            return None
        if isinstance(arrays, dict):
            return {name: array[rows] for name, array in arrays.items()}
        return tuple(array[rows] for array in arrays) if isinstance(arrays, tuple) else arrays[rows]

    first, last = slice(train), slice(train, None)
    return Dataset(kind, part(inputs, first), part(targets, first), part(inputs, last), part(targets, last), classes)


# Tasks of a user's own


class Distance(Task):
    """Mean distance of points in the plane."""

    metrics: ClassVar = (Metric("distance", "lower", "cm"), Metric("near", "higher", "%"))
    radius: float = 1.0

    def prepared(self, targets):
        return targets.float()

    def outputs(self, data):
        return 2

    def loss(self, output, batch):
        return (output - batch.targets).norm(dim=1).mean()

    def sums(self, output, batch):
        distances = (output - batch.targets).norm(dim=1).double()
        return torch.stack(
            [distances.sum(), (distances < self.radius).sum().double(), distances.new_tensor(len(distances))]
        )

    def scores(self, sums):
        total, near, examples = sums
        return total / examples, total / examples, near / examples


def distance(radius=2.0):
    """A factory of a task."""
    return Distance(radius=radius)


class Other(Distance):
    """A task that computes with what tasks of tombola only show."""

    metric: str = "near"
    unit: str = "cm"


class Shown(Other):
    """One that says that it only shows it."""

    only_shown: ClassVar = ("unit",)


def shown(unit="cm"):
    """A factory of one, which may do anything with its options."""
    return Shown(radius=1.0 if unit == "cm" else 2.0)


def named(names=()):
    """A task with metrics of such names."""
    own = tuple(Metric(name, "lower") for name in names)

    class Named(Distance):
        metrics: ClassVar = own

    return Named()


class Row(Distance):
    """Its loss is a row of losses."""

    def loss(self, output, batch):
        return (output - batch.targets).norm(dim=1)


class NotFinite(Distance):
    """Its loss is not finite."""

    def loss(self, output, batch):
        return (output - batch.targets).norm(dim=1).mean() / 0


class Detached(Distance):
    """Its loss depends on nothing."""

    def loss(self, output, batch):
        return super().loss(output.detach(), batch)


class Batchwise(Distance):
    """Its metric is a mean of means over blocks."""

    def sums(self, output, batch):
        distances = (output - batch.targets).norm(dim=1).double()
        return torch.stack([distances.sum(), distances.max(), distances.new_tensor(len(distances))])

    def scores(self, sums):
        return sums[0] / sums[2], sums[1], 0.5


class Reversed(Classification):
    """A loss of its own for classes: engines must not take it for cross-entropy."""

    def loss(self, output, batch):
        return -super().loss(-output, batch) + output.square().mean()


class Failing(Regression):
    """Fails on any batch."""

    def loss(self, output, batch):
        raise RuntimeError("no such table")


class Sevenfold(Distance):
    """Trains on another loss than the one that it reports."""

    def loss(self, output, batch):
        return 7 * super().loss(output, batch)
