"""Tickets without a study: a mask drawn at random and weights as they are initialised."""

from __future__ import annotations

import torch

from tombola.networks import NetworkSettings, factory
from tombola.pruning.mask import Mask
from tombola.running.ticket import Ticket


def random_ticket(network="lenet-300-100", input_shape=(1, 6, 6), classes=4, density=0.3, seed=0, **arguments):
    """Return a ticket whose output layer is dense, with two sets of weights."""
    settings = NetworkSettings(name=network, arguments=arguments)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        start, trained = (factory(settings, input_shape, classes)().state_dict() for _ in range(2))
    keep = {
        name: torch.rand(tensor.shape, generator=generator) < density
        for name, tensor in start.items()
        if tensor.dim() > 1 and not name.startswith("output")
    }
    mask = Mask(keep)
    return Ticket(
        mask=mask,
        weights=mask.apply(start),
        trained=mask.apply(trained),
        normalisation={"mean": [0.3] * input_shape[0], "std": [0.7] * input_shape[0]},
        origin={
            "study": "made-up",
            "arm": "ticket",
            "trial": 0,
            "repeat": 0,
            "level": 3,
            "rewind": 0,
            "job": "0",
            "network": settings.model_dump(mode="json"),
            "input_shape": list(input_shape),
            "classes": classes,
        },
    ).trusted()
