"""Engines: the same training by different means."""

from __future__ import annotations

from typing import Any

import torch

from tombola.errors import InputError, nearest
from tombola.pruning.mask import Mask
from tombola.training.engine import NetworkFactory
from tombola.training.engines.dense import DenseEngine

ENGINES: dict[str, Any] = {
    "dense": DenseEngine,
}


def engine_class(name: str) -> Any:
    """Return the engine of that name: called with (build, starts, recipe, budget, device) it gives an `Engine`.

    Raises:
        InputError: there is none.
    """
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}{nearest(name, ['auto', *ENGINES])}")
    return ENGINES[name]


def choose_engine(name: str, build: NetworkFactory, mask: Mask, device: torch.device) -> Any:
    """Return the engine that is asked for; for "auto", the fastest that serves this network at this density."""
    return engine_class("dense" if name == "auto" else name)
