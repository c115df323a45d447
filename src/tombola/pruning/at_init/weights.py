"""The weights of an untrained network, as something to differentiate by."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn


def differentiable(module: nn.Module, names: Iterable[str]) -> dict[str, Tensor]:
    """Return those weights of a module by name, frozen ones too: all of them are to be scored."""
    parameters = dict(module.named_parameters())
    return {name: parameters[name].requires_grad_() for name in names}
