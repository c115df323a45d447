"""The plots against the weights that remain."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tombola.html.series import Series
from tombola.html.spec_parts import (
    IS_SHOWN,
    LAYER_COLORS,
    TOOLTIP_START,
    WHOLE,
    Spec,
    at_density,
    density_axis,
    limits,
    line,
    looks,
    plot,
    shown,
    value_axis,
)


def against_density(
    name: str, statistics: pd.DataFrame, measure: str, title: str, series: Sequence[Series], scale: float = 100.0
) -> Spec | None:
    """Return a measure against the weights that remain, means and intervals over trials; None where there is nothing.

    Args:
        name: of the table.
        statistics: `tombola.analysis.level_statistics`.
        measure: one of its measures.
        title: of the value axis.
        series: the curves.
        scale: 100 where a fraction is shown as a percentage.
    """
    rows = statistics[(statistics["measure"] == measure) & statistics["mean"].notna() & (statistics["density"] > 0)]
    if rows.empty:
        return None
    low, high, whole = limits(*(scale * rows[column] for column in ("mean", "low", "high")))
    if scale == 1.0:  # iterations start at 0, and an interval beyond the budget is worth no room
        low, high, whole = 0.0, 1.08 * rows["mean"].max(), 0.0
    value = value_axis(title, low, high, whole, form=",.0f" if scale == 1.0 else "")
    form = ",.0f" if scale == 1.0 else ".2f"
    transform = [
        IS_SHOWN,
        {"filter": f"datum.measure === '{measure}' && isValid(datum.mean)"},
        *at_density(series, scale),
        {
            "calculate": f"isValid(datum.low) ? format(datum.from, '{form}') + ' to ' + format(datum.to, '{form}')"
            " : 'none: one trial'",
            "as": "interval",
        },
    ]
    tooltip = [
        *TOOLTIP_START,
        {"field": "value", "title": "mean", "format": form},
        {"field": "interval", "title": "95 % interval"},
        {"field": "n", "title": "trials"},
    ]
    x = density_axis(rows["density"])
    dense = {
        "transform": [{"filter": "datum.level === 0"}],
        "mark": {"type": "rule", "color": "var(--soft)", "strokeDash": [1.5, 3], "clip": True},
        "encoding": {"y": value},
    }
    return plot(name, [*_curve(x, value, series, tooltip), dense], [shown(series), WHOLE], transform)


def gains(differences: pd.DataFrame, series: Sequence[Series], arm: str) -> Spec | None:
    """Return how much more accurate `arm` is than its controls, in percentage points, paired by trial."""
    rows = differences[differences["mean"].notna() & (differences["density"] > 0)]
    if rows.empty:
        return None
    low, high, whole = limits(*(-rows[column] for column in ("mean", "high", "low")))
    low, high, whole = -high, -low, -whole  # here it is the large differences, of collapsed controls, that may go
    value = value_axis(f"{arm} minus control (points)", min(low, 0.0), max(high, 0.0), min(low, 0.0), form="+.2~f")
    value["scale"]["domainMax"] = {"expr": f"whole ? {max(whole, high):.6g} : {max(high, 0.0):.6g}"}
    transform = [
        IS_SHOWN,
        {"filter": "isValid(datum.mean)"},
        *at_density(series, 1.0),
        {
            "calculate": "isValid(datum.low) ? format(datum.from, '+.2f') + ' to ' + format(datum.to, '+.2f')"
            " : 'none: one trial'",
            "as": "interval",
        },
    ]
    tooltip = [
        {"field": "label", "title": "control"},
        *TOOLTIP_START[1:],
        {"field": "value", "title": "gain (points)", "format": "+.2f"},
        {"field": "interval", "title": "95 % interval"},
        {"field": "p_holm", "title": "p, Holm", "format": ".2~g"},
        {"field": "n", "title": "trials"},
    ]
    zero = {
        "data": {"values": [{"value": 0}]},
        "mark": {"type": "rule", "color": "var(--soft)", "strokeDash": [1.5, 3]},
        "encoding": {"y": {"field": "value", "type": "quantitative"}},
    }
    x = density_axis(rows["density"])
    return plot("gains", [*_curve(x, value, series, tooltip), zero], [shown(series), WHOLE], transform)


def layers_against_density(layers: pd.DataFrame, key: str) -> Spec:
    """Return each layer's density against that of the whole network; the page's control sets `arm`."""
    names = [str(name) for name in dict.fromkeys(layers["layer"])]
    lowest = layers.loc[layers["layer_density"] > 0, "layer_density"].min()
    y = {
        "field": "value",
        "type": "quantitative",
        "title": "of the layer's weights remaining (%)",
        "scale": {"type": "log", "nice": False, "domainMin": 100 * lowest / 1.2, "domainMax": 110},
        "axis": {
            "values": [100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01],
            "labelExpr": "format(datum.value, '.2~r')",
        },
    }
    transform = [
        {"filter": "datum.series === arm && datum.layer_density > 0"},
        {"calculate": "100 * datum.density", "as": "x"},
        {"calculate": "100 * datum.layer_density", "as": "value"},
        {"calculate": "100 * datum.density", "as": "pm"},
    ]
    x = density_axis(layers["density"])
    tooltip = [
        {"field": "layer"},
        *TOOLTIP_START[1:],
        {"field": "value", "title": "of the layer's weights (%)", "format": ".3~g"},
        {"field": "size", "title": "weights of the layer, dense", "format": ","},
    ]
    return plot("layers", _by_layer(x, y, names, tooltip), [{"name": "arm", "value": key}], transform)


def dead_units_against_density(dead: pd.DataFrame) -> Spec:
    """Return what share of each layer's units no live path leads through."""
    names = [str(name) for name in dict.fromkeys(dead["layer"]) if name != "all"]
    y = {
        "field": "value",
        "type": "quantitative",
        "title": "units without a live path (%)",
        "scale": {"domainMin": 0, "nice": True},
        "axis": {"tickCount": 6},
    }
    transform: list[Spec] = [
        {"filter": "datum.layer !== 'all' && datum.units > 0"},
        {"calculate": "100 * datum.density", "as": "x"},
        {"calculate": "100 * datum.density", "as": "pm"},
        {"calculate": "100 * datum.dead / datum.units", "as": "value"},
    ]
    tooltip = [
        {"field": "layer"},
        *TOOLTIP_START[1:],
        {"field": "dead", "title": "units without a live path", "format": ","},
        {"field": "units", "format": ","},
        {"field": "remaining", "title": "weights remaining", "format": ","},
        {"field": "live", "title": "of them on a live path", "format": ","},
    ]
    return plot("dead_units", _by_layer(density_axis(dead["density"]), y, names, tooltip), (), transform)


def overlap_against_density(overlap: pd.DataFrame, series: Sequence[Series], layer: str) -> Spec:
    """Return how alike the masks of different trials are, and how alike chance would make them."""
    x = density_axis(overlap["density"])
    values = [*overlap["jaccard"], *overlap["chance"]]
    lowest = min([value for value in values if value > 0], default=0.1)
    y = {
        "field": "value",
        "type": "quantitative",
        "title": "Jaccard index",
        "scale": {"type": "log", "nice": False, "domainMin": lowest / 1.3, "domainMax": 1.0},
        "axis": {"values": [1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001], "format": ".1~g"},
    }
    tooltip = [
        *TOOLTIP_START,
        {"field": "layer"},
        {"field": "value", "title": "mean over pairs of trials", "format": ".3f"},
        {"field": "low", "title": "lowest", "format": ".3f"},
        {"field": "high", "title": "highest", "format": ".3f"},
        {"field": "chance", "title": "by chance", "format": ".3f"},
    ]
    chance = {
        "transform": [{"filter": "datum.chance > 0"}],
        "mark": {"type": "line", "color": "var(--soft)", "strokeDash": [1.5, 3], "clip": True},
        "encoding": {"x": x, "y": y | {"field": "chance"}, "detail": {"field": "series"}},
    }
    params = [shown(series), {"name": "layer", "value": layer}]
    transform = [
        IS_SHOWN,
        {"filter": "datum.layer === layer && datum.jaccard > 0"},
        *at_density(series, 1.0, "jaccard"),
    ]
    layers = [*_curve(x, y, series, tooltip), chance]
    return plot("overlap", layers, params, transform)


def _by_layer(x: Spec, y: Spec, names: list[str], tooltip: list[Spec]) -> list[Spec]:
    """Return the layers of a plot with a curve for each layer of the network."""
    color = {
        "field": "layer",
        "type": "nominal",
        "title": None,
        "sort": names,
        "scale": {"domain": names, "range": [LAYER_COLORS[place % len(LAYER_COLORS)] for place in range(len(names))]},
    }
    point = {
        "mark": {"type": "point", "filled": True, "size": 40, "opacity": 1, "clip": True},
        "encoding": {"x": x, "y": y, "color": color, "tooltip": tooltip},
    }
    return [line({"x": x, "y": y, "color": color}), point]


def _curve(x: Spec, y: Spec, series: Sequence[Series], tooltip: list[Spec]) -> list[Spec]:
    """Return the layers of mean curves with an interval at each point."""
    look = looks(series)
    interval = {
        "transform": [{"filter": "isValid(datum.from) && isValid(datum.to)"}],
        "mark": {"type": "rule", "strokeWidth": 1.2, "opacity": 0.6, "clip": True},
        "encoding": {"x": x, "y": y | {"field": "from"}, "y2": {"field": "to"}, "color": look["color"]},
    }
    point = {
        "mark": {"type": "point", "size": 46, "strokeWidth": 1.6, "opacity": 1, "clip": True},
        "encoding": {
            "x": x,
            "y": y,
            "stroke": look["color"],
            "fill": look["fill"],
            "shape": look["shape"],
            "tooltip": tooltip,
        },
    }
    mean = line({"x": x, "y": y, "color": look["color"], "strokeDash": look["strokeDash"]})
    return [interval, mean, point]
