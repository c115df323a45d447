"""The measures of a level: columns of a results table, by the study's metric."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from tombola.tasks.metric import ACCURACY, Direction, Metric

if TYPE_CHECKING:
    import pandas as pd

STOP = "early_stop_iteration"
ITERATIONS = "iterations"  # the unit of STOP
PLACES = ("early_stop_test", "final_test", "final_train")  # what a metric's columns begin with


def early_of(metric: Metric) -> str:
    """Return the column of the test metric at early stop."""
    return f"early_stop_test_{metric.name}"


def final_of(metric: Metric) -> str:
    """Return the column of the test metric at the end of training."""
    return f"final_test_{metric.name}"


def train_of(metric: Metric) -> str:
    """Return the column of the training metric at the end of training."""
    return f"final_train_{metric.name}"


def measures_of(metric: Metric = ACCURACY) -> tuple[str, ...]:
    """Return the measures of a level."""
    return STOP, early_of(metric), final_of(metric), train_of(metric)


def stops_at_the_end(levels: pd.DataFrame) -> bool:
    """Return whether early stop is the end of training in every run: no validation example tells an earlier one."""
    columns = {STOP, ITERATIONS, "early_stop_val_loss"}
    if not columns <= set(levels) or levels["early_stop_val_loss"].notna().any():
        return False
    stops = levels[levels[STOP].notna()]
    # The run's own iterations are fewer where it starts from a later one.
    return len(stops) > 0 and bool((stops[STOP] >= stops[ITERATIONS]).all())


def may_be_a_measure(name: object) -> bool:
    """Return whether some metric has a measure of this name."""
    if not isinstance(name, str):
        return False
    metrics = [name.removeprefix(f"{place}_") for place in PLACES if name.startswith(f"{place}_")]
    return name == STOP or any(metric.isidentifier() for metric in metrics)


def scale_of(measure: str, metric: Metric) -> float:
    """Return the factor from stored values to those that a person sees: 100 for shares that are shown in percent."""
    return 1.0 if measure == STOP else metric.scale


def bounds_of(metric: Metric) -> tuple[float, float]:
    """Return what no shown value can exceed: 0 and 100 for percentages."""
    return (0.0, 100.0) if metric.unit == "%" else (-math.inf, math.inf)


def better_of(measure: str, metric: Metric) -> Direction:
    """Return the direction in which a measure is better: earlier stopping is."""
    return "lower" if measure == STOP else metric.better


def unit_of(measure: str, metric: Metric) -> str:
    """Return the unit of differences of shown values: "iterations", "points", "kW", or "" if none exists."""
    return ITERATIONS if measure == STOP else metric.difference_unit


def allowed_loss(metric: Metric, margin: float, dense: float) -> float:
    """Return how much a network may be worse than the dense one and still count as equal, in stored units.

    Shares have a scale of their own: there the margin is the loss itself, and 0.001 is 0.1 percentage points. Other
    metrics have none, so the margin is a share of the dense network's value: 0.001 of an RMSE of 2.5 kW is 0.0025 kW.

    Arguments:
        metric: of the study.
        margin: a fraction.
        dense: the dense network's value.
    """
    return margin if metric.unit == "%" else margin * abs(dense)


def rounded(differences: np.ndarray, values: Iterable[np.ndarray], metric: Metric) -> np.ndarray:
    """Return differences without the noise of floating point, so that equal ones are equal numbers.

    Arguments:
        differences: of shown values.
        values: the shown values that they are differences of.
        metric: percentages are rounded to 9 decimals, all else to 12 significant digits of the largest value.
    """
    if metric.unit == "%":
        return differences.round(9)
    largest = max((float(np.abs(each).max()) for each in values if len(each)), default=0.0)
    if largest == 0.0 or not math.isfinite(largest):
        return differences
    return differences.round(11 - math.floor(math.log10(largest)))
