"""Executing an interpolation: the points on the line between two finished runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from torch import nn

from tombola.data import Shape, Splits
from tombola.running.heartbeat import Heartbeat
from tombola.running.options import RunOptions
from tombola.running.problem import build_of, engine_facts, splits_of, versions
from tombola.running.store import Result, Store
from tombola.training.align import aligned, chain_of, check_orders
from tombola.training.engine import Weights
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
    build = build_of(item, splits)
    state: dict[str, Any] = {
        "label": item.label,
        "iteration": 0,
        "budget": spec.points,
        "unit": "points",
    }
    found = interpolate(
        *ends_of(spec, one, other, build, splits.input_shape),
        build,
        splits,
        spec.points,
        precision=spec.precision,
        seed=spec.seeds.value("dropout"),
        task=spec.task.make(),
        check=Heartbeat(store, options, lambda: {item.id: state}),
        reached=lambda point: state.update(iteration=point),
    )
    store.save(item, facts_of((one, other), found, begun, options, "dense"))


def ends_of(
    spec: Interpolation, one: Result, other: Result, build: Callable[[], nn.Module], input_shape: Shape | None
) -> tuple[Weights, Weights]:
    """Return the weights at positions 0 and 1.

    Args:
        spec: says whether they are aligned.
        one, other: results of the two runs.
        build: builds the network.
        input_shape: of one example; None where only the plan of the study knew it, and checked the network.

    Raises:
        InputError: they are aligned, and the units of one can't be permuted.
    """
    first, last = one.snapshots["final"], other.snapshots["final"]
    if not spec.align:
        return first, last
    module = build()
    chain = chain_of(module)
    if input_shape is not None:
        assert isinstance(input_shape, tuple)  # a chain takes one tensor
        module.load_state_dict(first)
        check_orders(chain, module, input_shape)
    return aligned(chain, first, last), last


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
