"""VGG with batch norm, as it is used on CIFAR-10: convolutions, one average pooling, one linear layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from tombola.errors import InputError
from tombola.networks.shape import image_shape, widened

# How many 3x3 convolutions stand before each pooling (Simonyan & Zisserman 2015, Table 1: columns A, B, D and E).
GROUPS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}


def vgg(input_shape: tuple[int, ...], classes: int, depth: int = 19, width: float = 64.0) -> nn.Module:
    """Return the VGG of Frankle & Carbin 2019, Figure 2: max pooling between groups, average pooling at the end.

    On 32x32x3 images VGG-19 has 20,024,000 weights, 20,018,880 of them in convolutions. Every convolution is followed
    by batch norm, and so has no bias. Layers are called `conv1`, `norm1`, ..., and `output`.

    Args:
        input_shape: (channels, height, width); 16x16 at least.
        classes: width of the output layer.
        depth: 11, 13, 16 or 19 layers, as Simonyan & Zisserman count them.
        width: channels of the first group; the others have 2, 4, 8 and 8 times as many, each rounded.

    Raises:
        InputError: no such depth, or images that are too small.
    """
    if depth not in GROUPS:
        raise InputError(f"depth {depth!r} is unknown; choose one of {', '.join(map(str, GROUPS))}")
    channels, _, _ = image_shape(input_shape, smallest=16)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    number = 0
    for group, count in enumerate(GROUPS[depth]):
        if group:
            layers[f"pool{group}"] = nn.MaxPool2d(2)
        for _ in range(count):
            number += 1
            outputs = widened(2 ** min(group, 3), width)
            layers[f"conv{number}"] = nn.Conv2d(channels, outputs, 3, padding=1, bias=False)
            layers[f"norm{number}"] = nn.BatchNorm2d(outputs)
            layers[f"relu{number}"] = nn.ReLU()
            channels = outputs
    layers["average"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["output"] = nn.Linear(channels, classes)
    return nn.Sequential(layers)
