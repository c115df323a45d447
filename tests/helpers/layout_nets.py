"""Networks whose weights are not stored as [outputs, inputs], named in studies as `layout_nets:name`."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Conv1D(nn.Module):
    """A linear layer as transformers' GPT-2 has it: [inputs, outputs]."""

    def __init__(self, nf: int, nx: int):
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(0.02 * torch.randn(nx, nf)), nn.Parameter(torch.zeros(nf))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.reshape(-1, x.shape[-1]), self.weight)
        return flat.view(*x.shape[:-1], self.nf)


class Turned(nn.Module):
    """A transposed convolution of two groups, a Conv1D and a bare matrix, before a linear layer."""

    def __init__(self, classes: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2)
        self.hidden = Conv1D(12, 384)
        self.matrix = nn.Parameter(torch.randn(12, 8) / 12**0.5)
        self.output = nn.Linear(8, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.up(functional.pixel_unshuffle(x.view(-1, 1, 8, 8), 2)))
        return self.output(functional.relu(functional.relu(self.hidden(x.flatten(1))) @ self.matrix))


def turned(input_shape, classes):
    return Turned(classes)


class Mixing(nn.Module):
    """The matrix is multiplied from both sides, so neither of its axes is the input."""

    def __init__(self, size: int, classes: int):
        super().__init__()
        self.mix, self.output = nn.Parameter(torch.randn(size, size) / size**0.5), nn.Linear(size, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(functional.relu(x.flatten(1) @ self.mix @ self.mix.T))


def mixing(input_shape, classes):
    return Mixing(torch.Size(input_shape).numel(), classes)
