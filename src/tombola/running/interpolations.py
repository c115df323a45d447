"""Executing an interpolation: the points on the line between two finished runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from tombola.data import Splits
from tombola.running.heartbeat import Heartbeat
from tombola.running.options import RunOptions
from tombola.running.problem import build_of, engine_facts, splits_of, versions
from tombola.running.store import Result, Store
from tombola.training.interpolation import interpolate
from tombola.work import Interpolation, Item


def execute(items: Sequence[Item], store: Store, options: RunOptions) -> None:
    """Evaluate interpolations and store what was found; an interrupted one starts from its first point again.

    Raises:
        Interrupted: it is to stop.
    """
    for item in items:
        with closing(splits_of(item, options)) as splits:
            _interpolate(item, splits, store, options)


def _interpolate(item: Item, splits: Splits, store: Store, options: RunOptions) -> None:
    begun, spec = time.perf_counter(), item.spec
    assert isinstance(spec, Interpolation)
    one, other = store.load(spec.one), store.load(spec.other)
    state: dict[str, Any] = {
        "label": item.label,
        "iteration": 0,
        "budget": spec.points,
        "unit": "points",
    }
    found = interpolate(
        one.snapshots["final"],
        other.snapshots["final"],
        build_of(item, splits),
        splits,
        spec.points,
        precision=spec.precision,
        seed=spec.seeds.value("dropout"),
        task=spec.task.make(),
        check=Heartbeat(store, options, lambda: {item.id: state}),
        reached=lambda point: state.update(iteration=point),
    )
    store.save(item, facts_of((one, other), found, begun, options, "dense"))


def facts_of(
    ends: Sequence[Result], found: Mapping[str, Any], begun: float, options: RunOptions, engine: str
) -> dict[str, Any]:
    """Return what the result of an interpolation says.

    Args:
        ends: results of the two runs.
        found: the columns of its points, by name.
        begun: `time.perf_counter()` at its start.
        options: for the facts of the machine.
        engine: name of what evaluated the points.
    """
    return {
        "engine": engine_facts(options, engine),
        "remaining": [sum(result.mask.counts().values()) for result in ends],
        "seconds": time.perf_counter() - begun,
        "versions": versions(options),
        "along": found,
    }
