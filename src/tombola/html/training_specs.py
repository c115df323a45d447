"""The plots of training: learning curves, and weights before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from tombola.analysis.measures import bounds_of
from tombola.figures.ranges import worth_showing
from tombola.figures.training import told_apart
from tombola.formatting import axis_label
from tombola.html.series import Series
from tombola.html.spec_parts import (
    IS_SHOWN,
    TOOLTIP_START,
    WHOLE,
    Spec,
    line,
    looks,
    plot,
    shown,
    value_axis,
    value_format,
)
from tombola.tasks.metric import ACCURACY, Metric


def curves_at_level(
    curves: pd.DataFrame, series: Sequence[Series], level: int, metric: Metric, measured_on: str
) -> Spec | None:
    """Return the metric while training, of every arm at one level; the page's control sets `level`.

    Args:
        curves, measured_on: as in `tombola.html.gather.Found`.
        series: of the page.
        level: shown at first.
        metric: of the curves.
    """
    words = f"{measured_on} {metric.words}"
    x, value = _training_axes(curves, metric, words)
    transform = [IS_SHOWN, {"filter": "datum.level === level"}, *_training(metric)]
    look = looks(series)
    layers = [
        _band({"x": x, "y": value, "color": look["color"]}),
        line({"x": x, "y": value, "color": look["color"], "strokeDash": look["strokeDash"]}),
        _hover({"x": x, "y": value}, words, metric),
    ]
    return plot("curves", layers, [shown(series), WHOLE, {"name": "level", "value": level}], transform)


def curves_of_arm(
    curves: pd.DataFrame, series: Sequence[Series], key: str, metric: Metric, measured_on: str
) -> Spec | None:
    """Return the metric while training, of one arm at several densities; the page's control sets `arm`.

    A colour is a level: the legend names the densities of the chosen arm, which may differ from those of others.
    """
    words = f"{measured_on} {metric.words}"
    x, value = _training_axes(curves, metric, words)
    order = sorted(int(level) for level in curves["level"].unique())
    names = {each.key: _densities(curves[curves["arm"] == each.arm], order) for each in series}
    color = {
        "field": "level",
        "type": "ordinal",
        "title": "weights remaining (%)",
        "sort": order,
        "scale": {"domain": order, "range": [f"var(--r{place})" for place in range(len(order))]},
        "legend": {"labelExpr": f"({json.dumps(names)})[arm][datum.label]"},
    }
    transform = [{"filter": "datum.series === arm"}, *_training(metric)]
    layers = [
        line({"x": x, "y": value, "color": color}),
        _hover({"x": x, "y": value}, words, metric),
    ]
    return plot("curves", layers, [WHOLE, {"name": "arm", "value": key}], transform)


def _densities(rows: pd.DataFrame, levels: Sequence[int]) -> dict[str, str]:
    """Return the density of each level of one arm in percent, as text; levels of one density are told apart."""
    densities = rows.groupby("level")["density"].mean()
    names = told_apart({int(level): f"{100 * density:.3g}" for level, density in densities.items()})
    return {str(level): names.get(level, "none") for level in levels}


def weight_distribution(layer: str, level: int) -> Spec:
    """Return how the kept weights of a layer are distributed at their start and after training."""
    color = {
        "field": "snapshot",
        "type": "nominal",
        "title": None,
        "scale": {"domain": ["start", "final"], "range": ["var(--before)", "var(--after)"]},
        "legend": {"labelExpr": "datum.label === 'start' ? 'at the start' : 'after training'", "symbolOpacity": 1},
    }
    x = {"field": "left", "type": "quantitative", "title": "weight", "scale": {"nice": False, "zero": False}}
    y = {"field": "value", "type": "quantitative", "title": "of the kept weights (%)", "scale": {"domainMin": 0}}
    bars = {
        "mark": {"type": "area", "interpolate": "step-after", "opacity": 0.25, "clip": True},
        "encoding": {"x": x, "y": y | {"stack": None}, "color": color},
    }
    line = {
        "mark": {"type": "line", "interpolate": "step-after", "strokeWidth": 1.5, "clip": True},
        "encoding": {"x": x, "y": y, "color": color},
    }
    hover = _hover({"x": x, "y": y})
    hover["encoding"]["tooltip"] = [
        {"field": "snapshot"},
        {"field": "left", "title": "from", "format": ".3f"},
        {"field": "right", "title": "to", "format": ".3f"},
        {"field": "weights", "title": "weights", "format": ","},
        {"field": "value", "title": "of the kept weights (%)", "format": ".2f"},
    ]
    params: list[Spec] = [{"name": "layer", "value": layer}, {"name": "level", "value": level}]
    transform: list[Spec] = [
        {"filter": "datum.layer === layer && datum.level === level"},
        {"calculate": "100 * datum.share", "as": "value"},
    ]
    return plot("weights", [bars, line, hover], params, transform)


def _training(metric: Metric) -> list[Spec]:
    return [
        {"calculate": f"{metric.scale:g} * datum.mean", "as": "value"},
        {"calculate": f"{metric.scale:g} * datum.min", "as": "from"},
        {"calculate": f"{metric.scale:g} * datum.max", "as": "to"},
        {"calculate": "100 * datum.density", "as": "pm"},
    ]


def _training_axes(curves: pd.DataFrame, metric: Metric, words: str) -> tuple[Spec, Spec]:
    # The first evaluations are far worse than all that matters: the axis leaves out the beginning of training.
    late = curves[curves["iteration"] >= 0.1 * curves["iteration"].max()]
    means, lows, highs = (metric.scale * late[column].to_numpy(dtype=float) for column in ("mean", "min", "max"))
    found = worth_showing([means], lows, highs, metric.better, bounds_of(metric))
    every = metric.scale * curves["mean"]
    found = replace(found, whole_low=min(found.whole_low, every.min()), whole_high=max(found.whole_high, every.max()))
    x = {
        "field": "iteration",
        "type": "quantitative",
        "title": "training iteration",
        "scale": {"nice": False, "zero": False},
        "axis": {"format": ",.0f", "tickCount": 6, "labelOverlap": "greedy", "labelSeparation": 8},
    }
    return x, value_axis(axis_label(words, metric.unit), found)


def _band(encoding: Spec) -> Spec:
    spread = encoding | {"y": encoding["y"] | {"field": "from"}, "y2": {"field": "to"}}
    return {"mark": {"type": "area", "opacity": 0.12, "clip": True}, "encoding": spread}


def _hover(encoding: Spec, words: str = "", metric: Metric = ACCURACY) -> Spec:
    """Return invisible points that answer the pointer, where a line would only say which line it is."""
    form = value_format(metric)
    tooltip = [
        *TOOLTIP_START,
        {"field": "iteration", "format": ",.0f"},
        {"field": "value", "title": axis_label(f"{words}, mean", metric.unit), "format": form},
        {"field": "from", "title": "lowest run", "format": form},
        {"field": "to", "title": "highest run", "format": form},
    ]
    mark = {"type": "point", "filled": True, "size": 120, "opacity": 0, "clip": True}
    return {"mark": mark, "encoding": encoding | {"tooltip": tooltip}}
