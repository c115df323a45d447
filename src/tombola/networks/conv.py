"""Conv-2, Conv-4 and Conv-6: scaled-down VGGs, the convolutional networks of the paper's Section 3."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

from torch import nn

from tombola.errors import InputError
from tombola.networks.shape import image_shape, widened

Padding = Literal["same", "valid"]
PADDINGS: dict[str, int] = {"same": 1, "valid": 0}  # pixels on each side of a 3x3 convolution's input


def conv(
    input_shape: tuple[int, ...],
    classes: int,
    widths: Sequence[int],
    hidden: Sequence[int] = (256, 256),
    dropout: float = 0.0,
    width: float = 1.0,
    padding: Padding = "same",
) -> nn.Module:
    """Return pairs of 3x3 convolutions, each pair followed by 2x2 max pooling, then fully connected layers.

    On 32x32x3 images Conv-2 has 4,300,992 weights, Conv-4 2,425,024 and Conv-6 2,261,184. (The paper prints 1.7M for
    Conv-6; the network that it describes has 2,261,184, and its percentages fit that count.)

    Args:
        input_shape: (channels, height, width).
        classes: width of the output layer.
        widths: channels of each pair.
        hidden: widths of the fully connected layers before the output.
        dropout: probability, after each hidden fully connected layer (the paper's Figure 6 uses 0.5).
        width: the factor of `widths` and `hidden`.
        padding: "same" keeps height and width in a convolution, as in the paper; "valid" pads nothing, so that each
            convolution takes 2 off both, as Keras does by default.

    Raises:
        InputError: examples that are not images, or too small for so many poolings; or another padding.
    """
    if padding not in PADDINGS:
        raise InputError(f"padding={padding!r} must be one of {', '.join(PADDINGS)}")
    smallest = 2 ** len(widths) if padding == "same" else 5 * 2 ** len(widths) - 4
    channels, height, across = image_shape(input_shape, smallest=smallest)
    lost = 0 if padding == "same" else 4  # by a pair
    widths, hidden = ([widened(each, width) for each in some] for some in (widths, hidden))
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for pair, out_channels in enumerate(widths):
        for number in (2 * pair + 1, 2 * pair + 2):
            layers[f"conv{number}"] = nn.Conv2d(channels, out_channels, 3, padding=PADDINGS[padding])
            layers[f"relu{number}"] = nn.ReLU()
            channels = out_channels
        layers[f"pool{pair + 1}"] = nn.MaxPool2d(2)
        height, across = (height - lost) // 2, (across - lost) // 2
    layers["flatten"] = nn.Flatten()
    inputs = channels * height * across
    for number, outputs in enumerate(hidden, start=1):
        layers[f"fc{number}"] = nn.Linear(inputs, outputs)
        layers[f"fc_relu{number}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{number}"] = nn.Dropout(dropout)
        inputs = outputs
    layers["output"] = nn.Linear(inputs, classes)
    return nn.Sequential(layers)


def conv_2(
    input_shape: tuple[int, ...], classes: int, dropout: float = 0.0, width: float = 1.0, padding: Padding = "same"
) -> nn.Module:
    """Return Conv-2: 64, 64, pool; 256, 256, classes."""
    return conv(input_shape, classes, (64,), dropout=dropout, width=width, padding=padding)


def conv_4(
    input_shape: tuple[int, ...], classes: int, dropout: float = 0.0, width: float = 1.0, padding: Padding = "same"
) -> nn.Module:
    """Return Conv-4: Conv-2's convolutions, then 128, 128, pool."""
    return conv(input_shape, classes, (64, 128), dropout=dropout, width=width, padding=padding)


def conv_6(
    input_shape: tuple[int, ...], classes: int, dropout: float = 0.0, width: float = 1.0, padding: Padding = "same"
) -> nn.Module:
    """Return Conv-6: Conv-4's convolutions, then 256, 256, pool."""
    return conv(input_shape, classes, (64, 128, 256), dropout=dropout, width=width, padding=padding)
