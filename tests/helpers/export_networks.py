"""Networks that no example uses, to export."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Separable(nn.Module):
    """Depthwise separable, grouped, strided and dilated convolutions, concatenation, a channel shuffle, a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 12, 1)
        self.dilated = nn.Conv2d(8, 12, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(24, 12, 5, padding="same", groups=4)
        self.squeeze = nn.Conv2d(12, 12, 1)
        self.down = nn.Conv2d(12, 10, (3, 2), stride=(2, 3), padding=(0, 1))
        self.output = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores [N, 5] of images [N, 3, height, width]."""
        x = functional.relu6(self.norm(self.stem(x)))
        left = functional.hardswish(self.pointwise(self.depthwise(x)))
        both = torch.cat([left, self.dilated(x)], 1)
        shuffled = both.view(len(x), 2, 12, *both.shape[2:]).transpose(1, 2).reshape(both.shape)
        x = functional.silu(self.grouped(shuffled))
        x = x * torch.sigmoid(self.squeeze(functional.adaptive_avg_pool2d(x, 1)))
        first, second = x.chunk(2, 1)
        x = functional.leaky_relu(self.down(torch.cat([second, first], 1)), 0.2)
        return self.output(x.mean((2, 3)))


class Series(nn.Module):
    """One-dimensional convolutions, an average pooling, a linear layer at each step, a sum of two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv1d(4, 9, 5, stride=2, padding=3)
        self.norm = nn.BatchNorm1d(9)
        self.second = nn.Conv1d(9, 9, 3, padding=4, dilation=4)
        self.steps = nn.Linear(9, 6)
        self.output = nn.Linear(6 * 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return probabilities [N, 4] of series [N, 4, 40]."""
        x = functional.gelu(self.norm(self.first(x)))
        x = x + torch.tanh(self.second(x))
        x = functional.avg_pool1d(x, 3, 2, padding=1, count_include_pad=False)
        x = functional.adaptive_max_pool1d(x, 8)
        x = functional.elu(self.steps(x.transpose(1, 2)))
        return torch.softmax(self.output(x.flatten(1)), 1)


def randomised(module: nn.Module, density: float, seed: int = 0) -> nn.Module:
    """Return the module with random statistics and biases, and a random part of its weights exactly 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.dim() > 1:
                tensor.mul_(torch.rand(tensor.shape, generator=generator) < density)
            elif tensor.dim() == 1:
                values = torch.rand(tensor.shape, generator=generator)
                tensor.copy_(values + 0.5 if "var" in name or "norm" in name else values - 0.5)
    return module.eval()
