"""Executing own interpolations: a user's function evaluates the points between two runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tombola.errors import InputError
from tombola.registry import code_fingerprint, resolve
from tombola.running.heartbeat import Heartbeat
from tombola.running.interpolations import ends_of, facts_of
from tombola.running.options import RunOptions
from tombola.running.own_runs import factory_of
from tombola.running.store import Store
from tombola.seeds import own_draws, seed_draws
from tombola.studies.own import Make
from tombola.tasks import Metric
from tombola.training.interpolation import between, is_error, measures_of
from tombola.work import Item, OwnInterpolation

Evaluate = Callable[[nn.Module], Mapping[str, Any]]


def execute(items: Sequence[Item], store: Store, options: RunOptions) -> None:
    """Evaluate interpolations and store what was found.

    Raises:
        InputError: the code of the network or of `evaluate` has changed, or `evaluate` does not do its part.
        Interrupted: it is to stop.
    """
    for item in items:
        spec = item.spec
        assert isinstance(spec, OwnInterpolation)
        if spec.evaluate_code != code_fingerprint(spec.evaluate, {}, "trainer.evaluate"):
            raise InputError(f"the code of {spec.evaluate} has changed since the study was planned; start again")
        interpolate(item, store, options, factory_of(spec), resolve(spec.evaluate, {}, "trainer.evaluate"))


def interpolate(item: Item, store: Store, options: RunOptions, make: Make, evaluate: Evaluate) -> None:
    """Evaluate the points between two runs and store what was found.

    Args:
        item: an own interpolation.
        store: holds the two runs.
        options: for the device, and the facts of the result.
        make: builds the network from a seed.
        evaluate: returns the metrics of a module, by the names under which a trainer reports them.

    Raises:
        Damaged: the result of a run is missing or damaged.
        InputError: `evaluate` fails, or its result lacks the metric.
        Interrupted: it is to stop.
    """
    begun, spec = time.perf_counter(), item.spec
    assert isinstance(spec, OwnInterpolation)
    one, other = store.load(spec.one), store.load(spec.other)
    state: dict[str, Any] = {"label": item.label, "iteration": 0, "budget": spec.points, "unit": "points"}
    beat = Heartbeat(store, options, lambda: {item.id: state})
    module = make(0).to(options.device)
    ends = ends_of(spec, one, other, lambda: make(0), spec.input_shape)
    found: dict[str, list[float]] = {}
    for point in range(spec.points):
        state["iteration"] = point
        beat()
        position = point / (spec.points - 1)
        module.load_state_dict(between(*ends, position))
        with own_draws():
            seed_draws(spec.seeds.value("dropout"))  # equal draws at every point
            values = _values(evaluate, module.eval(), item.label)
        for name, value in _row(values, spec.primary, position, item.label).items():
            found.setdefault(name, []).append(value)
    store.save(item, facts_of((one, other), found, begun, options, "own"))


def _values(evaluate: Evaluate, module: nn.Module, label: str) -> dict[str, float]:
    try:
        with torch.no_grad():
            found = evaluate(module)
    except Exception as error:
        raise InputError(f"{label}: evaluate failed: {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping):
        raise InputError(f"{label}: evaluate returned a {type(found).__name__}; return metrics by name, in a dict")
    try:
        return {str(name): float(value) for name, value in found.items()}
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{label}: evaluate returned {found!r:.200}; each value must be one number") from error


def _row(values: Mapping[str, float], metric: Metric, position: float, label: str) -> dict[str, float]:
    """Return a point's columns, NaN for what `evaluate` does not give.

    Raises:
        InputError: the value that barriers are measured in is missing.
    """
    shows_error = is_error((metric,))
    needed = metric.name if shows_error else "loss"
    if needed not in values:
        raise InputError(
            f"{label}: evaluate returned {', '.join(values) or 'nothing'}, and barriers are measured in {needed}; "
            f"return {needed} too"
        )
    row = {"position": position}
    for part, prefix in (("train", "train_"), ("test", "")):
        for name in dict.fromkeys((*measures_of((metric,)), "loss")):
            known = values.get(f"{prefix}{metric.name if name == 'error' else name}", math.nan)
            row[f"{part}_{name}"] = 1 - known if shows_error and name == "error" else known
    return row
