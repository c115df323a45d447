"""Lenet-300-100: the fully connected network of the paper's Section 2 (LeCun et al. 1998)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from tombola.errors import InputError

MAX_HIDDEN = 1000


def lenet(input_shape: tuple[int, ...], classes: int, hidden: Sequence[int] = (300, 100)) -> nn.Module:
    """Return a fully connected ReLU network: 266,200 weights on MNIST.

    Args:
        input_shape: of one example; flattened.
        classes: width of the output layer, `output`.
        hidden: widths of the hidden layers, `fc1`, `fc2`, ...

    Raises:
        InputError: there are more than MAX_HIDDEN.
    """
    if len(hidden) > MAX_HIDDEN:
        raise InputError(f"{len(hidden):,} hidden layers; at most {MAX_HIDDEN:,} are built")
    widths = [math.prod(input_shape), *hidden]
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    for number, (inputs, outputs) in enumerate(zip(widths, hidden, strict=False), start=1):
        layers[f"fc{number}"] = nn.Linear(inputs, outputs)
        layers[f"relu{number}"] = nn.ReLU()
    layers["output"] = nn.Linear(widths[-1], classes)
    return nn.Sequential(layers)
