"""A zoo of made-up networks, and tickets of them: what people write, and no example of tombola's uses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from zoo_convolutions import ACTIVATIONS, CONVOLUTIONS, NORMS, POOLS
from zoo_forms import FORMS, SEQUENCES, VIEWS
from zoo_parts import Kind

from tombola.networks import NetworkSettings
from tombola.pruning.mask import Mask
from tombola.running.ticket import Ticket

DEAD = {
    "dead-residual-branch": replace(CONVOLUTIONS["residual"], dead=("second.weight",)),
    "dead-block": replace(CONVOLUTIONS["inverted-bottleneck"], dead=("block.project.weight",)),
    "dead-gate": replace(CONVOLUTIONS["inverted-bottleneck"], dead=("block.squeeze.weight",)),
    "dead-part-of-concatenation": replace(CONVOLUTIONS["dense-block"], dead=("second.weight",)),
    "dead-head-of-two": replace(FORMS["two-branches-of-one-layer"], dead=("both.weight",)),
    "no-live-path": replace(VIEWS["mlp"], dead=("3.weight",)),
}
ZOO: dict[str, Kind] = {**CONVOLUTIONS, **NORMS, **POOLS, **ACTIVATIONS, **VIEWS, **FORMS, **SEQUENCES, **DEAD}
"""The networks by name."""

SIXTEENTHS = 16


def build(name: str) -> nn.Module:
    """Return a network of the zoo: the factory that its ticket names."""
    return ZOO[name].make()


def ticket_of(name: str, density: float = 0.7, seed: int = 0) -> Ticket:
    """Return a ticket of a network of the zoo, with some dead units.

    Its numbers are sixteenths, of which a packed file holds each as it is.
    """
    kind = ZOO[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build(name)
        weights = _weights(module)
        mask = Mask({layer: _kept(each, density) & (layer not in kind.dead) for layer, each in weights.items()})
        _draw(module)
    mask.apply_(module)
    weights = {key: value.clone() for key, value in module.state_dict().items()}
    shape: Any = {key: list(each) for key, each in kind.shape.items()} if isinstance(kind.shape, dict) else kind.shape
    settings = NetworkSettings(name="zoo:build", arguments={"name": name})
    origin = {
        "study": "zoo",
        "arm": "ticket",
        "trial": 0,
        "repeat": 0,
        "level": 1,
        "rewind": 0,
        "job": "",
        "network": settings.model_dump(mode="json"),
        "input_shape": shape if isinstance(shape, dict) else list(shape),
        "classes": 3,
        "tokens": kind.tokens,
    }
    trained = {key: value.clone() for key, value in weights.items()}
    return Ticket(mask, weights, trained, {"mean": [], "std": []}, origin).trusted()


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Return the weights to prune; a weight norm of a dead unit would divide by 0."""
    return {name: each for name, each in module.named_parameters() if each.dim() > 1 and "parametrizations" not in name}


def _kept(weight: Tensor, density: float) -> Tensor:
    """Return a random mask that leaves nothing of one unit's weights, where a layer has four units or more."""
    keep = torch.rand(weight.shape) < density
    keep[:, 0] = True
    if len(weight) >= 4:
        keep[1] = False
    return keep


def _draw(module: nn.Module) -> None:
    """Give all parameters and statistics numbers that are not zero."""
    with torch.no_grad():
        for each in module.modules():
            if isinstance(each, nn.modules.batchnorm._NormBase) and each.running_mean is not None:
                each.running_mean.copy_(_sixteenths(each.running_mean))
                each.running_var.copy_(_sixteenths(each.running_var).abs() + 0.5)
        for parameter in module.parameters():
            parameter.copy_(_sixteenths(parameter))


def _sixteenths(like: Tensor) -> Tensor:
    """Return numbers between -1 and 1, none of them 0."""
    numbers = torch.randint(1, SIXTEENTHS, like.shape) * (torch.randint(2, like.shape) * 2 - 1)
    return numbers.to(like) / SIXTEENTHS


def examples_of(name: str, count: int, seed: int = 1) -> Any:
    """Return random examples of a network."""
    kind = ZOO[name]
    generator = torch.Generator().manual_seed(seed)

    def draw(shape: tuple[int, ...]) -> Tensor:
        if kind.tokens is not None:
            return torch.randint(kind.tokens, (count, *shape), generator=generator)
        return torch.randn(count, *shape, generator=generator)

    if isinstance(kind.shape, dict):
        return {key: draw(shape) for key, shape in kind.shape.items()}
    return draw(kind.shape)


def outputs(module: Any, examples: Any) -> Any:
    with torch.no_grad():
        return module(examples)
