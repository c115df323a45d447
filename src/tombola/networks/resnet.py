"""Residual networks for small images (He et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import InputError, shown
from tombola.networks.shape import image_shape, widened

DEEPEST = 1202  # layers, as He et al. tried


class Block(nn.Module):
    """Two 3x3 convolutions and a way around them: the identity, or a 1x1 convolution where the shape changes.

    Args:
        inputs, outputs: channels.
        stride: of the first convolution; 2 halves height and width.
    """

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.reshapes = stride != 1 or inputs != outputs
        if self.reshapes:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outputs, height / stride, width / stride] of [N, inputs, height, width]."""
        around = self.shortcut_norm(self.shortcut(x)) if self.reshapes else x
        x = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(x)) + around)


class ResNet(nn.Module):
    """A 3x3 convolution, stages of blocks, average pooling over all positions, one linear layer.

    Layers are called `conv`, `stage1.0.conv1`, ..., `stage2.0.shortcut`, ..., `output`.

    Args:
        channels: of the images.
        classes: width of the output layer.
        blocks: number of blocks in each stage; each stage but the first halves height and width.
        widths: channels of each stage.
    """

    def __init__(self, channels: int, classes: int, blocks: Sequence[int], widths: Sequence[int]):
        super().__init__()
        self.first = nn.Conv2d(channels, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        self.stages = len(blocks)
        inputs = widths[0]
        for stage, (count, outputs) in enumerate(zip(blocks, widths, strict=True)):
            first = Block(inputs, outputs, stride=2 if stage else 1)
            others = [Block(outputs, outputs, stride=1) for _ in range(count - 1)]
            self.add_module(f"stage{stage + 1}", nn.Sequential(first, *others))
            inputs = outputs
        self.output = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores [N, classes] of images [N, channels, height, width]."""
        x = functional.relu(self.norm(self.first(x)))
        for stage in range(self.stages):
            x = self.get_submodule(f"stage{stage + 1}")(x)
        return self.output(functional.adaptive_avg_pool2d(x, 1).flatten(1))


def cifar_resnet(input_shape: tuple[int, ...], classes: int, depth: int = 20, width: float = 16.0) -> nn.Module:
    """Return the ResNet for CIFAR-10 of He et al. 2016, Section 4.2, of 6n+2 layers.

    Depth 20 is what Frankle & Carbin 2019 call Resnet-18 (their Figure 2): on 32x32x3 images 267,696 weights in 3x3
    convolutions, 2,560 in the two shortcuts, which are 1x1 convolutions as theirs are (He et al. pad with zeros
    there), and 640 in the output layer.

    Args:
        input_shape: (channels, height, width).
        classes: width of the output layer.
        depth: number of layers, 6n+2: 8, 14, 20, 32, 44, 56, 110, ..., DEEPEST.
        width: channels of the first stage; the others have 2 and 4 times as many, each rounded.

    Raises:
        InputError: another depth or a greater one, or examples that are not images.
    """
    if not 8 <= depth <= DEEPEST or depth % 6 != 2:
        raise InputError(f"depth {shown(depth)} is not 6n+2; choose 8, 14, 20, 32, 44, 56 or 110, at most {DEEPEST}")
    channels, _, _ = image_shape(input_shape)
    return ResNet(channels, classes, [(depth - 2) // 6] * 3, [widened(2**stage, width) for stage in range(3)])


def resnet_18(input_shape: tuple[int, ...], classes: int, width: float = 64.0) -> nn.Module:
    """Return ResNet-18 (He et al. 2016, Table 1) as it is used on CIFAR-10: a 3x3 first layer, no max pooling.

    On 32x32x3 images it has 11,164,352 weights, 40 times those of `resnet-20`, which the lottery ticket paper calls
    Resnet-18.

    Args:
        input_shape: (channels, height, width).
        classes: width of the output layer.
        width: channels of the first stage; the others have 2, 4 and 8 times as many, each rounded.

    Raises:
        InputError: examples that are not images.
    """
    channels, _, _ = image_shape(input_shape)
    return ResNet(channels, classes, [2] * 4, [widened(2**stage, width) for stage in range(4)])
