"""What all plots have in common: how they look, their axes, zoom, and the curves that a reader has switched on.

A plot is a Vega-Lite specification, which names a table of the page but does not hold it. Names from users' files never
stand in an expression: curves go by their keys, and all else is compared with a signal's value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from tombola.figures import ranges
from tombola.figures.ranges import Range
from tombola.html.series import Series
from tombola.tables.captions import FEWEST
from tombola.tasks.metric import Metric

Spec = dict[str, Any]

ENDS = (("low", -1, "from"), ("high", 1, "to"))  # of a bar: in tables, the side of the mean, in plots
HALF_OF_TWO = math.sqrt(0.5)  # two trials lie this many standard deviations off their mean
SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
HEIGHT = 300
LABEL_WIDTH = 1 / 9  # of a number on the density axis, as a share of its width
FONT = "system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif"
# Colours are names that the style sheet explains, so a drawn plot follows a change to dark or to print by itself.
CONFIG: Spec = {
    "aria": False,  # the figure has one description; a label for each of 500 points helps nobody
    "background": None,
    "font": FONT,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "gridColor": "var(--grid)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 500,
        "titlePadding": 10,
        "labelPadding": 5,
    },
    "axisX": {"grid": False},
    "axisY": {"domain": False, "ticks": False},
    "legend": {
        "orient": "bottom",
        "labelColor": "var(--ink)",
        "titleColor": "var(--soft)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": 500,
        "symbolStrokeWidth": 2,
        "symbolSize": 90,
        "labelLimit": 130,
        "columns": {"expr": "width < 420 ? 2 : width < 900 ? 4 : 8"},
    },
}
# Without a modifier the wheel scrolls the page, as it does everywhere else.
ZOOM = "wheel![event.ctrlKey || event.metaKey || event.altKey]"


def plot(
    table: str, layers: list[Spec], params: Iterable[Spec] = (), transform: Iterable[Spec] = (), zoom: bool = True
) -> Spec:
    """Return a plot as wide as its figure.

    Args:
        table: of the page, by name.
        layers: the first one carries the zoom.
        params: signals that the page's controls set.
        transform: what is done to the rows before any layer sees them.
        zoom: whether it can be zoomed and moved.
    """
    zooming = {"name": "zoom", "select": {"type": "interval", "zoom": ZOOM}, "bind": "scales"}
    first = layers[0] | ({"params": [zooming]} if zoom else {})
    return {
        "$schema": SCHEMA,
        "width": "container",
        "height": HEIGHT,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": CONFIG,
        "params": list(params),
        "data": {"name": table},
        "transform": list(transform),
        "layer": [first, *layers[1:]],
    }


def shown(series: Sequence[Series]) -> Spec:
    """Return the signal that holds the keys of the curves that are switched on."""
    return {"name": "shown", "value": [each.key for each in series]}


TOOLTIP_START: list[Spec] = [
    {"field": "label", "title": "arm"},
    {"field": "level", "title": "level"},
    {"field": "pm", "title": "weights remaining (%)", "format": ".3~g"},
]
IS_SHOWN: Spec = {"filter": "indexof(shown, datum.series) >= 0"}


def looks(series: Sequence[Series]) -> Spec:
    """Return the encodings that tell the series apart."""
    keys = [each.key for each in series]

    def scale(values: list[Any]) -> Spec:
        return {"field": "series", "type": "nominal", "legend": None, "scale": {"domain": keys, "range": values}}

    return {
        "color": scale([each.color for each in series]),
        "strokeDash": scale([list(each.dash) for each in series]),
        "shape": scale([each.shape for each in series]),
        "fill": scale([each.fill for each in series]),
    }


def shades(count: int) -> list[str]:
    """Return a colour for each of some ordered things, such as layers: between the two ends of the style sheet."""
    shares = [round(100 * place / max(1, count - 1)) for place in range(count)]
    return [f"color-mix(in oklch, var(--last) {share}%, var(--first))" for share in shares]


def density_axis(
    densities: Iterable[float], field: str = "x", shared: bool = False, ticks: Iterable[float] | None = None
) -> Spec:
    """Return a logarithmic axis of weights remaining that falls to the right: see `tombola.figures.ranges`.

    Args:
        densities: from 0 to 1, of the levels.
        field: holds what is drawn, in percent.
        shared: curves of different densities meet here.
        ticks: the densities that get a number; by default all.
    """
    axis = ranges.density_axis(densities, LABEL_WIDTH, shared) or ranges.density_axis([1.0], LABEL_WIDTH)
    assert axis is not None
    if ticks is not None and (numbered := ranges.density_axis(ticks, LABEL_WIDTH)):
        axis = replace(axis, numbered=numbered.numbered, labels=numbered.labels)
    return {
        "field": field,
        "type": "quantitative",
        "title": "weights remaining (%)",
        "scale": {"type": "log", "reverse": True, "nice": False, "domainMin": axis.right, "domainMax": axis.left},
        "axis": {
            "values": list(axis.numbered),
            "labelExpr": _label_of(axis.numbered, axis.labels),
            "labelSeparation": 6,
            "labelOverlap": "greedy",
        },
    }


def _label_of(falling: Sequence[float], labels: Sequence[str]) -> str:
    """Return the expression that gives each tick its label; the labels are numbers of ours, never a user's text."""
    middles = [math.sqrt(one * other) for one, other in pairwise(falling)]
    cases = [f"datum.value > {middle:.6g} ? '{label}' : " for middle, label in zip(middles, labels, strict=False)]
    return "".join(cases) + f"'{labels[-1]}'"


def value_axis(title: str, shown: Range, form: str = "") -> Spec:
    """Return an axis of the values that are worth showing; of all values while the reader asks for the full axis."""
    axis: Spec = {"tickCount": 6}
    if form:
        axis["labelExpr"] = f"datum.value ? format(datum.value, '{form}') : '0'"
    low, high = ranges.padded(shown.low, shown.high)
    whole_low, whole_high = ranges.padded(shown.whole_low, shown.whole_high)
    return {
        "field": "value",
        "type": "quantitative",
        "title": title,
        "scale": {
            "zero": False,
            "nice": False,
            "domainMin": {"expr": f"whole ? {whole_low:.6g} : {low:.6g}"},
            "domainMax": {"expr": f"whole ? {whole_high:.6g} : {high:.6g}"},
        },
        "axis": axis,
    }


def value_format(metric: Metric | None) -> str:
    """Return how a value is written: percentages to two decimals, iterations whole, all else to three digits."""
    if metric is None:
        return ",.0f"
    return ".2f" if metric.unit == "%" else ",.3~r"


WHOLE: Spec = {"name": "whole", "value": False}


def at_density(series: Sequence[Series], scale: float, field: str = "mean", intervals: bool = False) -> list[Spec]:
    """Return the transforms that place a level on the density axis and scale its value and the ends of its bar.

    Args:
        series: the curves.
        scale: from stored values to shown ones.
        field: of the value.
        intervals: bars are intervals over trials: see `drawn_bars`.
    """
    return [
        {"calculate": _dodged(series), "as": "x"},
        {"calculate": "100 * datum.density", "as": "pm"},
        {"calculate": f"{scale:g} * datum.{field}", "as": "value"},
        *({"calculate": _end(end, side, scale, intervals), "as": name} for end, side, name in ENDS),
    ]


def _end(end: str, side: int, scale: float, intervals: bool) -> str:
    known = f"isValid(datum.{end}) ? {scale:g} * datum.{end} : null"
    two = f"{scale:g} * (datum.mean + {side * HALF_OF_TWO:.9f} * datum.std)"
    few = f"datum.n < {FEWEST} ? (isValid(datum.std) ? {two} : null) : "
    return f"{few}{known}" if intervals else known


def drawn_bars(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the bars that a plot of intervals draws; NaN where it draws none.

    An interval of two trials is thirteen times as long as their distance: it fills the plot and says nothing. There,
    the bar joins the means of the two, where a table has their standard deviation. One trial has none, and no bar.
    """
    few = rows["n"].to_numpy() < FEWEST
    mean, deviation = (rows.get(name, pd.Series(np.nan, rows.index)).astype(float) for name in ("mean", "std"))
    found = [np.where(few, mean + side * HALF_OF_TWO * deviation, rows[end]).astype(float) for end, side, _ in ENDS]
    return found[0], found[1]


def _dodged(series: Sequence[Series]) -> str:
    """Return the expression of a level's place on the density axis.

    Curves stand side by side by a hair, so that their intervals do not hide one another. The dense network is one run
    in all of them.
    """
    keys = "[" + ",".join(f"'{each.key}'" for each in series) + "]"
    middle = (len(series) - 1) / 2
    hair = min(1.012, 1.06 ** (1 / len(series)))
    return (
        f"100 * datum.density * (datum.level === 0 ? 1 : pow({hair:.5g}, {middle:g} - indexof({keys}, datum.series)))"
    )


def line(encoding: Spec) -> Spec:
    """Return a layer of lines."""
    return {"mark": {"type": "line", "strokeWidth": 1.8, "clip": True}, "encoding": encoding}
