"""A network, criteria and arms as a user writes them. The studies name them as `golden_own:name`.

An edit of this file changes golden numbers.
"""

import torch
from torch import nn
from torch.nn import functional


def small(input_shape, classes, width=6):
    """Return convolution, batch norm, dropout and two linear layers."""
    channels, height, size = input_shape
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(width * (height // 2) * (size // 2), 32),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(32, classes),
    )


def norm(input_shape, classes):
    """Return linear layers with batch norm: no plain chain, and nothing is drawn while it trains."""
    width = torch.Size(input_shape).numel()
    return nn.Sequential(
        nn.Flatten(), nn.Linear(width, 48), nn.BatchNorm1d(48), nn.Tanh(), nn.Linear(48, 24), nn.ReLU(),
        nn.Linear(24, classes),
    )  # fmt: skip


def change(snapshots):
    """Score |best - start| + |final| + |init| / 2: a criterion that looks at every snapshot."""
    return {
        name: (snapshots.best[name] - snapshots.start[name]).abs() + weight.abs() + snapshots.init[name].abs() / 2
        for name, weight in snapshots.final.items()
    }


def sensitivity(snapshots):
    """Score |gradient| of the untrained network: a method at initialisation."""
    module = snapshots.network()
    inputs, targets = snapshots.examples()
    loss = functional.cross_entropy(module(inputs), targets)
    parameters = dict(module.named_parameters())
    gradients = torch.autograd.grad(loss, [parameters[name] for name in snapshots.start])
    return {name: gradient.abs() for name, gradient in zip(snapshots.start, gradients, strict=True)}


def once(trial, level, repeat):
    """An arm: the dense run, pruned once."""
    return trial.rewound, trial.one_shot(level)


def sensitive(trial, level, repeat):
    """An arm at initialisation, pruned by a method of one's own."""
    return trial.initial, trial.at_init("golden_own:sensitivity", level)
