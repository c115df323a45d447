"""Engines: the same training by different means."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tombola.errors import InputError, nearest
from tombola.pruning.mask import Mask
from tombola.training.engine import NetworkFactory
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.stacked import StackedEngine

ENGINES: dict[str, Any] = {
    "dense": DenseEngine,
    "stacked": StackedEngine,
}


def engine_class(name: str) -> Any:
    """Return the engine of that name: called with (build, starts, recipe, budget, device) it gives an `Engine`.

    Raises:
        InputError: there is none.
    """
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}{nearest(name, ['auto', *ENGINES])}")
    return ENGINES[name]


def choose_engine(name: str, build: NetworkFactory, mask: Mask, example: Tensor, many: bool = False) -> Any:
    """Return the engine that is asked for; for "auto", the fastest that serves this network at this density.

    Args:
        name: of an engine, or "auto".
        build: builds the network.
        mask: which of its weights live.
        example: a batch of one, on the device to train on.
        many: whether several jobs could be trained together.
    """
    if name == "auto":
        name = "stacked" if many and example.device.type == "cuda" else "dense"
    if name == "stacked" and not StackedEngine.fits(build, example):
        name = "dense"
    return engine_class(name)
