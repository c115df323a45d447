"""What the networks of the zoo are made of: a module whose forward pass is a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn


class Net(nn.Module):
    """Layers by name, and a forward pass `function(net, x)`."""

    def __init__(self, function: Callable[..., Any], **layers: Any):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs: Any) -> Any:
        return self.function(self, *inputs)


@dataclass(frozen=True)
class Kind:
    """A network of the zoo.

    Args:
        shape: of one example, or {name: shape} of several inputs.
        make: builds it.
        tokens: number of token ids that the examples are made of; None for numbers.
        counts: numbers of examples that it takes.
        dead: weights of which the mask keeps nothing.
    """

    shape: Any
    make: Callable[[], nn.Module]
    tokens: int | None = None
    counts: tuple[int, ...] = (1, 3)
    dead: tuple[str, ...] = ()


def chain(shape: tuple[int, ...], *layers: Callable[[], nn.Module]) -> Kind:
    """Return layers one after another, each newly made."""
    return Kind(shape, lambda: nn.Sequential(*(layer() for layer in layers)))


def net(shape: Any, function: Callable[..., Any], tokens: int | None = None, **layers: Callable[[], Any]) -> Kind:
    """Return a network of a forward pass and layers, each newly made."""
    return Kind(shape, lambda: Net(function, **{name: layer() for name, layer in layers.items()}), tokens)


def linear(inputs: int, outputs: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(inputs, outputs, **options)


def conv(inputs: int, outputs: int, kernel: Any = 3, stride: Any = 1, padding: Any = 1, **options: Any) -> Any:
    """Return a maker of a convolution of two axes."""
    return lambda: nn.Conv2d(inputs, outputs, kernel, stride, padding, **options)
