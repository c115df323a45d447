"""Engines: the same training by different means."""

from __future__ import annotations

from collections.abc import Callable

from tombola.errors import InputError, nearest
from tombola.training.engine import Engine
from tombola.training.engines.dense import DenseEngine

ENGINES: dict[str, Callable[..., Engine]] = {
    "dense": DenseEngine,
}


def engine_class(name: str) -> Callable[..., Engine]:
    """Return the engine of that name.

    Raises:
        InputError: there is none.
    """
    if name not in ENGINES:
        raise InputError(f"unknown engine {name!r}{nearest(name, ['auto', *ENGINES])}")
    return ENGINES[name]
