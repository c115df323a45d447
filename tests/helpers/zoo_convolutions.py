"""Made-up networks with convolutions, pooling and normalisation, for every export format."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from zoo_parts import Kind, Net, chain, conv, linear, net

IMAGE = (3, 8, 7)


def pooled(pool: nn.Module, inputs: int = 4 * 4 * 3) -> Kind:
    """Return a convolution, a pooling, and a linear layer."""
    return net(
        IMAGE,
        lambda m, x: m.output(m.pool(functional.relu(m.conv(x))).flatten(1)),
        conv=conv(3, 4),
        pool=lambda: pool,
        output=linear(inputs, 3),
    )


def activated(activation: nn.Module) -> Kind:
    return net(
        IMAGE,
        lambda m, x: m.output(m.activation(m.conv(x)).mean((2, 3))),
        conv=conv(3, 6),
        activation=lambda: activation,
        output=linear(6, 3),
    )


def normed(norm: nn.Module) -> Kind:
    return net(
        IMAGE,
        lambda m, x: m.output(functional.relu(m.norm(m.conv(x))).mean((2, 3))),
        conv=conv(3, 4),
        norm=lambda: norm,
        output=linear(4, 3),
    )


class Inverted(nn.Module):
    """An inverted bottleneck with squeeze and excite, and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Conv2d(4, 10, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(10)
        self.depthwise = nn.Conv2d(10, 10, 3, padding=1, groups=10, bias=False)
        self.norm2 = nn.BatchNorm2d(10)
        self.squeeze = nn.Conv2d(10, 3, 1)
        self.excite = nn.Conv2d(3, 10, 1)
        self.project = nn.Conv2d(10, 4, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.hardswish(self.norm1(self.expand(x)))
        y = functional.relu6(self.norm2(self.depthwise(y)))
        gate = functional.hardsigmoid(self.excite(functional.relu(self.squeeze(functional.adaptive_avg_pool2d(y, 1)))))
        return x + self.norm3(self.project(y * gate))


def _dense_block(m: Net, x: Tensor) -> Tensor:
    first = functional.relu(m.first(x))
    second = functional.relu(m.second(torch.cat([x, first], 1)))
    return m.output(torch.cat([x, first, second], 1).amax((2, 3)) if m.training else m.pool(m, x, first, second))


def _concatenated(m: Net, *parts: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(torch.cat(parts, 1), 1).flatten(1)


CONVOLUTIONS: dict[str, Kind] = {
    "depthwise-separable": net(
        IMAGE,
        lambda m, x: m.output(functional.relu(m.pointwise(m.depthwise(functional.relu(m.stem(x))))).mean((2, 3))),
        stem=conv(3, 6),
        depthwise=conv(6, 6, groups=6),
        pointwise=conv(6, 8, 1, padding=0),
        output=linear(8, 3),
    ),
    "depthwise-multiplier": net(
        IMAGE, lambda m, x: m.point(m.deep(x)), deep=conv(3, 6, groups=3), point=conv(6, 2, 1, padding=0)
    ),
    "grouped": chain(IMAGE, conv(3, 6), nn.ReLU, conv(6, 9, groups=3), nn.ReLU, conv(9, 2, 1, padding=0)),
    "strided": chain(IMAGE, conv(3, 5, (3, 2), (2, 3), (1, 0)), nn.ReLU, conv(5, 3, 1, 2, 0)),
    "dilated": chain(IMAGE, conv(3, 5, padding=2, dilation=2), nn.ReLU, conv(5, 3, 3, padding=(3, 1), dilation=(3, 1))),
    "asymmetric-padding": chain(IMAGE, partial(nn.ZeroPad2d, (1, 0, 2, 1)), conv(3, 4, padding=0), nn.ReLU, conv(4, 2)),
    "constant-padding": chain(IMAGE, partial(nn.ConstantPad2d, (0, 2, 1, 0), 0.5), conv(3, 4, padding=0)),
    "same-padding-even-kernel": chain(IMAGE, conv(3, 4, (4, 2), padding="same"), nn.ReLU, conv(4, 2)),
    "reflect-padding": chain(IMAGE, conv(3, 4, padding_mode="reflect"), nn.ReLU, conv(4, 2)),
    "circular-padding": chain(IMAGE, conv(3, 4, padding_mode="circular"), nn.ReLU, conv(4, 2)),
    "cropping": net(
        IMAGE, lambda m, x: m.last(functional.pad(m.conv(x), (-1, 0, 0, -2))), conv=conv(3, 4), last=conv(4, 2)
    ),
    "one-axis": chain(
        (2, 20), lambda: nn.Conv1d(2, 5, 5, 2, 2), lambda: nn.BatchNorm1d(5), nn.Tanh, lambda: nn.Conv1d(5, 3, 3)
    ),
    "one-axis-dilated": chain((3, 17), lambda: nn.Conv1d(3, 6, 3, dilation=4, groups=3), nn.ReLU, nn.Flatten),
    "three-axes": chain((2, 4, 5, 4), lambda: nn.Conv3d(2, 4, 3, padding=1), nn.ReLU, lambda: nn.Conv3d(4, 2, 2)),
    "transposed": net(
        IMAGE, lambda m, x: m.last(functional.relu(m.up(x))), up=lambda: nn.ConvTranspose2d(3, 4, 2, 2), last=conv(4, 2)
    ),
    "transposed-one-axis": chain((2, 9), lambda: nn.Conv1d(2, 4, 3), nn.ReLU, lambda: nn.ConvTranspose1d(4, 2, 3, 2)),
    "upsampled": chain(IMAGE, conv(3, 4), lambda: nn.Upsample(scale_factor=2), conv(4, 2)),
    "pixel-shuffle": chain(IMAGE, conv(3, 8), nn.ReLU, lambda: nn.PixelShuffle(2), conv(2, 2)),
    "channel-shuffle": net(
        IMAGE,
        lambda m, x: m.last(m.first(x).view(-1, 2, 3, 8, 7).transpose(1, 2).reshape(-1, 6, 8, 7)),
        first=conv(3, 6),
        last=conv(6, 4, groups=2),
    ),
    "dense-block": net(
        IMAGE,
        _dense_block,
        first=conv(3, 4),
        second=conv(7, 4),
        output=linear(11, 3),
        pool=lambda: _concatenated,
    ),
    "inception": net(
        IMAGE,
        lambda m, x: m.last(torch.cat([m.one(x), m.three(x), functional.max_pool2d(x, 3, 1, 1), x], 1)),
        one=conv(3, 2, 1, padding=0),
        three=conv(3, 4),
        last=conv(12, 3),
    ),
    "residual": net(
        IMAGE,
        lambda m, x: m.output((m.stem(x) + m.second(functional.relu(m.first(m.stem(x))))).flatten(1)),
        stem=conv(3, 4),
        first=conv(4, 6),
        second=conv(6, 4),
        output=linear(4 * 56, 3),
    ),
    "residual-strided": net(
        IMAGE,
        lambda m, x: functional.relu(m.main(x) + m.around(x)).mean((2, 3)),
        main=conv(3, 6, stride=2),
        around=conv(3, 6, 1, 2, 0, bias=False),
    ),
    "inverted-bottleneck": net(
        IMAGE,
        lambda m, x: m.output(m.block(m.stem(x)).mean((2, 3))),
        stem=conv(3, 4),
        block=Inverted,
        output=linear(4, 3),
    ),
    "fire": net(
        IMAGE,
        lambda m, x: torch.cat([functional.relu(e(functional.relu(m.squeeze(x)))) for e in (m.one, m.three)], 1),
        squeeze=conv(3, 2, 1, padding=0),
        one=conv(2, 4, 1, padding=0),
        three=conv(2, 4),
    ),
}

NORMS: dict[str, Kind] = {
    "batch-norm": normed(nn.BatchNorm2d(4)),
    "batch-norm-not-affine": normed(nn.BatchNorm2d(4, affine=False)),
    "batch-norm-without-statistics": normed(nn.BatchNorm2d(4, track_running_stats=False)),
    "batch-norm-first": net(
        (6,), lambda m, x: m.output(m.norm(x)), norm=partial(nn.BatchNorm1d, 6), output=linear(6, 3)
    ),
    "layer-norm": net(
        (6,),
        lambda m, x: m.output(m.norm(m.first(x))),
        first=linear(6, 8),
        norm=lambda: nn.LayerNorm(8),
        output=linear(8, 3),
    ),
    "group-norm": normed(nn.GroupNorm(2, 4)),
    "instance-norm": normed(nn.InstanceNorm2d(4)),
    "rms-norm": net(
        (6,),
        lambda m, x: m.output(m.norm(m.first(x))),
        first=linear(6, 8),
        norm=lambda: nn.RMSNorm(8),
        output=linear(8, 3),
    ),
    "local-response-norm": normed(nn.LocalResponseNorm(2)),
}

POOLS: dict[str, Kind] = {
    "max-pool": pooled(nn.MaxPool2d(2)),
    "max-pool-overlapping": pooled(nn.MaxPool2d(3, 2, 1), 4 * 4 * 4),
    "max-pool-ceil": pooled(nn.MaxPool2d(3, 2, ceil_mode=True), 4 * 4 * 3),
    "max-pool-dilated": pooled(nn.MaxPool2d(2, 1, dilation=2), 4 * 6 * 5),
    "average-pool": pooled(nn.AvgPool2d(2)),
    "average-pool-ceil": pooled(nn.AvgPool2d(3, 2, 1, ceil_mode=True), 4 * 5 * 4),
    "average-pool-inside": pooled(nn.AvgPool2d(3, 2, 1, count_include_pad=False), 4 * 4 * 4),
    "average-pool-divisor": pooled(nn.AvgPool2d((2, 3), divisor_override=5), 4 * 4 * 2),
    "adaptive-average": pooled(nn.AdaptiveAvgPool2d((3, 2)), 4 * 6),
    "adaptive-maximum": pooled(nn.AdaptiveMaxPool2d((3, 4)), 4 * 12),
    "power-average-pool": pooled(nn.LPPool2d(2, 2), 4 * 12),
    "one-axis-pools": chain(
        (3, 20),
        lambda: nn.Conv1d(3, 4, 3),
        lambda: nn.MaxPool1d(3, 2, ceil_mode=True),
        lambda: nn.AvgPool1d(2, ceil_mode=True),
        lambda: nn.Conv1d(4, 3, 1),
    ),
    "one-axis-adaptive-maximum": net(
        (3, 20),
        lambda m, x: m.output(m.pool(m.conv(x)).flatten(1)),
        conv=lambda: nn.Conv1d(3, 4, 3),
        pool=lambda: nn.AdaptiveMaxPool1d(4),
        output=linear(16, 3),
    ),
    "global-average": net(IMAGE, lambda m, x: m.output(m.conv(x).mean((2, 3))), conv=conv(3, 5), output=linear(5, 3)),
    "global-maximum": net(IMAGE, lambda m, x: m.output(m.conv(x).amax((2, 3))), conv=conv(3, 5), output=linear(5, 3)),
}

ACTIVATIONS: dict[str, Kind] = {
    name: activated(activation)
    for name, activation in {
        "relu": nn.ReLU(),
        "relu-in-place": nn.ReLU(inplace=True),
        "relu6": nn.ReLU6(),
        "leaky-relu": nn.LeakyReLU(0.2),
        "leaky-relu-in-place": nn.LeakyReLU(0.1, inplace=True),
        "prelu": nn.PReLU(6),
        "elu": nn.ELU(0.5),
        "selu": nn.SELU(),
        "celu": nn.CELU(0.7),
        "gelu": nn.GELU(),
        "gelu-tanh": nn.GELU("tanh"),
        "sigmoid": nn.Sigmoid(),
        "hardsigmoid": nn.Hardsigmoid(),
        "tanh": nn.Tanh(),
        "silu": nn.SiLU(),
        "mish": nn.Mish(),
        "hardswish": nn.Hardswish(),
        "hardtanh": nn.Hardtanh(-0.5, 0.25),
        "softplus": nn.Softplus(),
        "softsign": nn.Softsign(),
        "softmax": nn.Softmax(1),
        "glu": nn.Sequential(nn.Conv2d(6, 12, 1), nn.GLU(1)),
    }.items()
}
