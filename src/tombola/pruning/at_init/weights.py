"""The weights of an untrained network, as something to differentiate by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tombola.errors import InputError


def differentiable(module: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return those weights of a module by name, frozen ones too: all of them will be scored."""
    parameters = dict(module.named_parameters())
    return {name: parameters[name].requires_grad_() for name in names}


def without_gradient(name: str) -> InputError:
    """Return the error of a frozen weight that no gradient reaches: all its scores would be 0."""
    layer = name.removesuffix(".weight")
    return InputError(
        f"criterion 'gradient': layer {layer!r} has requires_grad=False, and no gradient reaches it; let forward "
        f"compute it with gradients, or exclude it: pruning.exclude: [{layer}]"
    )


def times_gradient(weights: Mapping[str, Tensor], value: Tensor) -> dict[str, Tensor]:
    """Return w * d value / d w of each layer; zero where the value does not depend on it."""
    gradients = torch.autograd.grad(value, [*weights.values()], allow_unused=True, materialize_grads=True)
    return {
        name: weight.detach() * gradient for (name, weight), gradient in zip(weights.items(), gradients, strict=True)
    }
