"""A ticket: a mask and the weights it is rewound to, with where they came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tombola.errors import InputError
from tombola.networks import NetworkSettings, factory
from tombola.pruning.mask import Mask
from tombola.running.files import Damaged, pack_tensors, under, unpack_tensors, write_whole
from tombola.training.engine import Weights


@dataclass(frozen=True)
class Ticket:
    """A sparse subnetwork.

    Args:
        mask: which weights are kept.
        weights: the state_dict that it is to be trained from; pruned weights are 0.0.
        trained: the state_dict after it was trained.
        build_network: builds the module.
        origin: study, arm, trial, repeat, level, rewind iteration, job, network, input shape and classes.
    """

    mask: Mask
    weights: Weights
    trained: Weights
    build_network: Callable[[], nn.Module] = field(repr=False)
    origin: dict[str, Any]

    def build(self, trained: bool = False) -> nn.Module:
        """Return the network with the ticket's starting weights, or with the trained ones.

        Pruned weights are exactly 0.0. A training loop of one's own must keep them so: `ticket.mask.hold_(module)`
        does it.
        """
        with torch.random.fork_rng(devices=[]):
            module = self.build_network()
        module.load_state_dict(self.trained if trained else self.weights)
        return module

    def save(self, path: str | Path) -> None:
        """Write mask, weights and origin as one safetensors file."""
        tensors = {f"mask/{name}": bits for name, bits in self.mask.pack().items()}
        for prefix, weights in (("start", self.weights), ("trained", self.trained)):
            tensors |= {f"{prefix}/{name}": tensor for name, tensor in weights.items()}
        about = {"origin": self.origin, "mask": self.mask.shapes()}
        write_whole(Path(path), pack_tensors(tensors, about))

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read what `save` wrote.

        Raises:
            InputError: the file is not there, damaged, or its network can't be built here.
        """
        try:
            tensors, about = unpack_tensors(Path(path))
        except Damaged as error:
            raise InputError(str(error)) from error
        if not isinstance(about, dict) or not {"origin", "mask"} <= about.keys():
            raise InputError(f"{path} is no ticket")
        shapes = {name: tuple(shape) for name, shape in about["mask"].items()}
        origin = about["origin"]
        network = NetworkSettings.model_validate(origin["network"])
        return cls(
            mask=Mask.unpack(under("mask", tensors), shapes),
            weights=under("start", tensors),
            trained=under("trained", tensors),
            build_network=factory(network, tuple(origin["input_shape"]), origin["classes"]),
            origin=origin,
        )
