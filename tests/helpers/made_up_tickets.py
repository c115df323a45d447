"""Tickets that no training has made: a network of random weights under a random mask."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from tombola.networks import NetworkSettings, examine, factory
from tombola.pruning.mask import Mask
from tombola.running.ticket import Ticket


def ticket_of(
    name: str = "lenet-300-100",
    input_shape: tuple[int, ...] = (1, 6, 6),
    density: float = 0.1,
    seed: int = 0,
    classes: int = 4,
    **arguments: Any,
) -> Ticket:
    """Return a ticket of a network whose biases and batch norms are not zero; its start is its trained state."""
    settings = NetworkSettings(name=name, arguments=arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = factory(settings, input_shape, classes)()
        shapes = examine(module, input_shape).shapes()
        mask = Mask({layer: torch.rand(shape) < density for layer, shape in shapes.items()})
        scramble(module)
    mask.apply_(module)
    weights = {key: value.clone() for key, value in module.state_dict().items()}
    origin = {
        "study": "made-up",
        "arm": "ticket",
        "trial": 0,
        "repeat": 0,
        "level": 1,
        "rewind": 0,
        "job": "",
        "network": settings.model_dump(mode="json"),
        "input_shape": list(input_shape),
        "classes": classes,
    }
    trained = {key: value.clone() for key, value in weights.items()}
    return Ticket(mask, weights, trained, {"mean": [0.5], "std": [0.25]}, origin).trusted()


def scramble(module: nn.Module) -> None:
    """Give biases and batch norms numbers that are not zero."""
    with torch.no_grad():
        for each in module.modules():
            if isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                each.running_mean.normal_(0, 0.5)
                each.running_var.uniform_(0.5, 2)
                each.num_batches_tracked.fill_(7)
        for parameter in module.parameters():
            if parameter.dim() == 1:
                parameter.normal_(0, 0.3)
