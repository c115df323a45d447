"""Networks that no example uses."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def tied(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a network whose two hidden layers share a weight."""
    size = input_shape[0]
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, size), nn.Linear(size, classes)
    )
    module[3].weight = module[1].weight
    return module


class Mixed(nn.Module):
    """Grouped, depthwise, strided and dilated convolutions, concatenation, residual sum, gate, slice and padding."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.one = nn.Conv2d(channels, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8)
        self.pointwise = nn.Conv2d(8, 6, 1)
        self.grouped = nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2)
        self.side = nn.Conv2d(6, 5, (3, 2), stride=2, padding=(1, 0), bias=False)
        self.after = nn.Conv2d(9, 9, 3, padding=1)
        self.gate = nn.Linear(9, 9)
        self.hidden = nn.Linear(9, 10)
        self.output = nn.Linear(7, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.one(x)))
        x = functional.leaky_relu(self.pointwise(functional.max_pool2d(functional.silu(self.depthwise(x)), 2)))
        x = torch.cat([self.grouped(x), functional.pad(self.side(x), (0, 0))[:, :, :, : (x.shape[3] + 1) // 2]], 1)
        x = functional.relu(x + self.after(x))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.output(functional.gelu(self.hidden(x))[:, 2:9])


def mixed(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Mixed(input_shape[0], classes)


class PaddedShortcut(nn.Module):
    """A residual block whose shortcut pads channels with zeros, as in He et al. 2016, option A."""

    def __init__(self, channels: int, classes: int):
        super().__init__()
        self.first = nn.Conv2d(channels, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.output = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        around = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 2))
        x = functional.relu(self.norm(self.second(x)) + around)
        return self.output(x.mean((2, 3)))


def padded_shortcut(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return PaddedShortcut(input_shape[0], classes)


def series(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return a network of 1-D convolutions."""
    return nn.Sequential(
        nn.Conv1d(input_shape[0], 6, 5, stride=2, padding=2),
        nn.BatchNorm1d(6),
        nn.Tanh(),
        nn.AvgPool1d(2),
        nn.Conv1d(6, 8, 3),
        nn.ReLU(),
        nn.AdaptiveMaxPool1d(2),
        nn.Flatten(),
        nn.Linear(16, 12),
        nn.Sigmoid(),
        nn.Linear(12, classes),
    )


class Recurrent(nn.Module):
    """Has a layer that no export can hold."""

    def __init__(self, inputs: int, classes: int):
        super().__init__()
        self.memory = nn.LSTM(inputs, 5, batch_first=True)
        self.output = nn.Linear(5, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.memory(x)[0][:, -1])


def recurrent(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return Recurrent(input_shape[-1], classes)
