"""The plots against the weights that remain."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pandas as pd

from tombola.analysis.measures import bounds_of
from tombola.figures.ranges import Range, from_zero, worth_showing
from tombola.formatting import axis_label
from tombola.html.series import Series
from tombola.html.spec_parts import (
    IS_SHOWN,
    TOOLTIP_START,
    WHOLE,
    Spec,
    at_density,
    density_axis,
    drawn_bars,
    line,
    looks,
    plot,
    shades,
    shown,
    value_axis,
    value_format,
)
from tombola.tasks.metric import Metric


def against_density(
    name: str, statistics: pd.DataFrame, measure: str, title: str, series: Sequence[Series], metric: Metric | None
) -> Spec | None:
    """Return a measure against the weights that remain, means and intervals over trials; None without a pruned level.

    Args:
        name: of the table.
        statistics: `tombola.analysis.level_statistics`.
        measure: one of its measures.
        title: of the value axis.
        series: the curves.
        metric: that the measure is of; None for iterations.
    """
    rows = statistics[(statistics["measure"] == measure) & statistics["mean"].notna() & (statistics["density"] > 0)]
    if not (rows["level"] > 0).any():
        return None
    scale, form = 1.0 if metric is None else metric.scale, value_format(metric)
    value = value_axis(title, metric_range(rows, metric), form=",.0f" if metric is None else "")
    transform = [
        IS_SHOWN,
        {"filter": f"datum.measure === {json.dumps(measure)} && isValid(datum.mean)"},
        *at_density(series, scale, intervals=True),
        interval(form, scale),
    ]
    tooltip = [
        *TOOLTIP_START,
        {"field": "value", "title": "mean", "format": form},
        {"field": "interval", "title": "95 % interval"},
        {"field": "n", "title": "trials"},
    ]
    x = density_axis(rows["density"], shared=rows["study"].nunique() > 1)
    dense = {
        "transform": [{"filter": "datum.level === 0"}],
        "mark": {"type": "rule", "color": "var(--soft)", "strokeDash": [1.5, 3], "clip": True},
        "encoding": {"y": value},
    }
    return plot(name, [*_curve(x, value, series, tooltip), dense], [shown(series), WHOLE], transform)


def metric_range(rows: pd.DataFrame, metric: Metric | None) -> Range:
    """Return what an axis of a metric shows, or, with None, one of iterations: means and the bars that are drawn."""
    scale = 1.0 if metric is None else metric.scale
    lows, highs = (scale * ends for ends in drawn_bars(rows))
    if metric is None:
        return from_zero(rows["mean"].to_numpy(dtype=float), highs)
    groups = [scale * some["mean"].to_numpy(dtype=float) for _, some in rows.groupby("study", observed=True)]
    return worth_showing(groups, lows, highs, metric.better, bounds_of(metric))


def interval(form: str, scale: float = 1.0) -> Spec:
    """Return the transform that writes an interval, or why there is none."""
    ends = [f"format({scale:g} * datum.{end}, '{form}')" for end in ("low", "high")]
    return {"calculate": f"isValid(datum.low) ? {ends[0]} + ' to ' + {ends[1]} : 'none: one trial'", "as": "interval"}


def gains(table: str, differences: pd.DataFrame, series: Sequence[Series], sides: str, metric: Metric) -> Spec | None:
    """Return gains of one arm over another, paired by trial.

    Args:
        table: of the page, by name.
        differences: its rows that are drawn, of `tombola.analysis.paired_gains`, in the metric's unit.
        series: the curves: one for each arm that varies between the rows.
        sides: what is subtracted from what.
        metric: of the study.
    """
    rows = differences[differences["mean"].notna() & (differences["density"] > 0)]
    if rows.empty:
        return None
    means, (lows, highs) = rows["mean"].to_numpy(dtype=float), drawn_bars(rows)
    # Here the large gains, over collapsed controls, may leave the axis; 0 never does.
    found = worth_showing([means], lows, highs, better="lower")
    found = Range(min(found.low, 0.0), max(found.high, 0.0), min(found.whole_low, 0.0), max(found.whole_high, 0.0))
    form = "+.2f" if metric.unit == "%" else "+,.3~r"
    value = value_axis(axis_label(sides, metric.difference_unit), found, form="+.2~f" if metric.unit == "%" else form)
    transform = [
        IS_SHOWN,
        {"filter": f"isValid(datum.mean) && indexof({json.dumps([each.key for each in series])}, datum.series) >= 0"},
        *at_density(series, 1.0, intervals=True),
        interval(form),
    ]
    tooltip = [
        {"field": "label", "title": "arm"},
        *TOOLTIP_START[1:],
        {"field": "value", "title": axis_label("gain", metric.difference_unit), "format": form},
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
    return plot(table, [*_curve(x, value, series, tooltip), zero], [shown(series), WHOLE], transform)


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
        "scale": {"domainMin": 0, "nice": True} | ({} if (dead["dead"] > 0).any() else {"domainMax": 1}),
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


def flips_against_density(flips: pd.DataFrame) -> Spec:
    """Return what share of each layer's kept weights has another sign after training than at the initialisation."""
    names = [str(name) for name in dict.fromkeys(flips["layer"]) if name != "all"]
    y = {
        "field": "value",
        "type": "quantitative",
        "title": "flipped signs (% of kept weights)",
        "scale": {"domainMin": 0, "nice": True},
        "axis": {"tickCount": 6},
    }
    transform: list[Spec] = [
        {"filter": "datum.layer !== 'all' && datum.density > 0 && isValid(datum.share)"},
        {"calculate": "100 * datum.density", "as": "x"},
        {"calculate": "100 * datum.density", "as": "pm"},
        {"calculate": "100 * datum.share", "as": "value"},
    ]
    tooltip = [
        {"field": "layer"},
        *TOOLTIP_START[1:],
        {"field": "value", "title": "flipped signs (%)", "format": ".3~g"},
        {"field": "n", "title": "trials"},
    ]
    return plot("sign_flips", _by_layer(density_axis(flips["density"]), y, names, tooltip), (), transform)


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
    layer = {"field": "layer", "type": "ordinal", "title": None, "sort": names}
    color = layer | {"scale": {"domain": names, "range": shades(len(names))}}
    point = {
        "mark": {"type": "point", "filled": True, "size": 40, "opacity": 1, "clip": True},
        "encoding": {"x": x, "y": y, "color": color, "tooltip": tooltip},
    }
    # Layers of one density lie on one another: the first ones are wider, so that they show.
    widths = {
        "type": "ordinal",
        "domain": names,
        "range": [4.5 - 3 * place / max(1, len(names) - 1) for place in range(len(names))],
    }
    lines = {
        "mark": {"type": "line", "clip": True},
        "encoding": {"x": x, "y": y, "color": color, "strokeWidth": layer | {"scale": widths}},
    }
    return [lines, point]


def _curve(x: Spec, y: Spec, series: Sequence[Series], tooltip: list[Spec]) -> list[Spec]:
    """Return the layers of mean curves with an interval at each point."""
    look = looks(series)
    bar = {
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
    # Where several levels have one density, the line goes through their mean.
    through = y | {"aggregate": "mean"}
    mean = line({"x": x, "y": through, "color": look["color"], "strokeDash": look["strokeDash"]})
    return [bar, mean, point]
