"""The page's first chart: the metric against weights remaining, and the verdict of each level as a strip below it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import pairwise

import pandas as pd

from tombola.analysis.measures import early_of
from tombola.formatting import axis_label
from tombola.html.density_specs import interval, metric_range
from tombola.html.series import Series
from tombola.html.spec_parts import WHOLE, Spec, density_axis, line, looks, plot, value_axis, value_format
from tombola.html.spec_parts import at_density as placed
from tombola.tasks.metric import Metric

HEIGHT = 270
TABLE = "answer"
STRIP = 20  # height of the strip [pixels]
FAINT = 0.6  # opacity of the other arms
COLUMNS = ["study", "arm", "level", "density", "n", "mean", "std", "low", "high", "min", "max", "verdict", "reason"]
SYMBOLS = {"winning ticket": "●", "matching": "◐", "losing": "○", "inconclusive": "?"}
WASHES = {"winning ticket": "var(--good)", "matching": "var(--fair)", "losing": "var(--bad)"}


def answer_table(statistics: pd.DataFrame, verdicts: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Return each level of each arm with its mean, its verdict, and the ends of its tile on the strip.

    Args:
        statistics: `tombola.analysis.level_statistics`.
        verdicts: `tombola.analysis.verdicts`.
        metric: of the study.

    Returns:
        `study`, `arm`, `level`, `density`, `n`, `mean`, `std`, `low`, `high`, `min`, `max`, as in `statistics`;
        `verdict` and `reason`, empty for the dense network; `left` and `right`, densities between which the tile lies.
    """
    rows = statistics[(statistics["measure"] == early_of(metric)) & (statistics["density"] > 0)]
    if not verdicts.empty:
        rows = rows.merge(verdicts[["study", "arm", "level", "verdict", "reason"]], how="left")
    rows = rows.reindex(columns=COLUMNS).sort_values(["arm", "level"], kind="stable", ignore_index=True)
    if rows.empty:
        return rows
    usual = rows.groupby("level")["density"].mean()
    tiles = [_tiles_of(group, usual) for _, group in rows.groupby("arm", sort=False)]
    return rows.join(pd.concat(tiles))


def _tiles_of(rows: pd.DataFrame, usual: pd.Series) -> pd.DataFrame:
    """Return the tiles of one arm; a level that it lacks keeps its room, at its `usual` density."""
    mine = rows.set_index("level")["density"].combine_first(usual)
    return _tiles(mine).loc[rows["level"]].set_index(rows.index)


def _tiles(densities: pd.Series) -> pd.DataFrame:
    """Return where the tile of each level begins and ends: half-way to its neighbours, on the logarithmic axis.

    Levels of one density share its room.
    """
    falling = sorted(set(densities), reverse=True)
    middles = [math.sqrt(one * other) for one, other in pairwise(falling)]
    first = falling[0] ** 2 / middles[0] if middles else falling[0] * 1.2
    last = falling[-1] ** 2 / middles[-1] if middles else falling[-1] / 1.2
    room = dict(zip(falling, zip([first, *middles], [*middles, last], strict=True), strict=True))
    counts, seen, ends = densities.value_counts(), dict.fromkeys(falling, 0), []
    for density in densities:
        left, right = room[density]
        step = (right / left) ** (1 / counts[density])
        ends.append((left * step ** seen[density], left * step ** (seen[density] + 1)))
        seen[density] += 1
    return pd.DataFrame(ends, columns=["left", "right"], index=densities.index)


def answer_spec(
    table: pd.DataFrame, series: Sequence[Series], key: str, metric: Metric, at: int | None = None
) -> Spec | None:
    """Return the chart, or None without a pruned level.

    The page's control sets `arm`, whose intervals and verdicts the chart shows, and `at`, a level.

    Args:
        table: `answer_table`.
        series: the curves to draw.
        key: of the arm shown first.
        metric: of the study.
        at: the level that stands out at first.
    """
    rows = table[table["arm"].isin([each.arm for each in series]) & table["mean"].notna()]
    if not (rows["level"] > 0).any():
        return None
    y = value_axis(axis_label(f"test {metric.words} at early stop", metric.unit), metric_range(rows, metric))
    mine = rows[rows["arm"].isin([each.arm for each in series if each.key == key])]
    x = density_axis([*rows["density"], rows["left"].max(), rows["right"].min()], ticks=mine["density"])
    x["axis"] |= {"labelPadding": STRIP + 8, "tickSize": 0, "titlePadding": 6}
    look, chosen = looks(series), {"filter": "datum.series === arm"}
    keys = json.dumps([each.key for each in series])
    faint = {"condition": {"test": "datum.series === arm", "value": 1}, "value": FAINT}
    hover = {
        "transform": [chosen],
        "mark": {"type": "rect", "color": "var(--ink)", "cursor": "crosshair"},
        "encoding": {
            **_between(x, 0, HEIGHT + STRIP + 4),
            "opacity": {"condition": {"test": "datum.level === at", "value": 0.09}, "value": 0},
            "tooltip": _tooltip(metric),
        },
    }
    bar = {
        "transform": [chosen, {"filter": "isValid(datum.from) && isValid(datum.to)"}],
        "mark": {"type": "rule", "strokeWidth": 2, "opacity": 0.75, "clip": True},
        "encoding": {"x": x, "y": y | {"field": "from"}, "y2": {"field": "to"}, "color": look["color"]},
    }
    curve = line({"x": x, "y": y | {"aggregate": "mean"}, "color": look["color"], "strokeDash": look["strokeDash"]})
    curve["encoding"]["opacity"] = {"field": "faint", "type": "quantitative", "scale": None, "legend": None}
    point = {
        "mark": {"type": "point", "size": 46, "strokeWidth": 1.6, "clip": True},
        "encoding": {
            "x": x, "y": y, "stroke": look["color"], "fill": look["fill"], "shape": look["shape"], "opacity": faint,
        },
    }  # fmt: skip
    dense = {
        "transform": [{"filter": "datum.level === 0"}],
        "mark": {"type": "rule", "color": "var(--soft)", "strokeDash": [1.5, 3], "clip": True},
        "encoding": {"y": y},
    }
    transform = [
        {"filter": f"indexof({keys}, datum.series) >= 0 && isValid(datum.mean)"},
        *placed(series, metric.scale, intervals=True),
        {"calculate": "100 * datum.left", "as": "begin"},
        {"calculate": "100 * datum.right", "as": "end"},
        {"calculate": f"datum.series === arm ? 1 : {FAINT}", "as": "faint"},
        interval(value_format(metric), metric.scale),
    ]
    params = [WHOLE, {"name": "arm", "value": key}, {"name": "at", "value": at}]
    layers = [bar, dense, curve, point, *_strip(x, chosen), hover]
    return plot(TABLE, layers, params, transform, zoom=False) | {"height": HEIGHT}


def _between(x: Spec, top: float, bottom: float) -> Spec:
    """Return the encodings of a tile between two heights in pixels; below the axis a height exceeds HEIGHT."""
    return {"x": x | {"field": "begin"}, "x2": {"field": "end"}, "y": {"value": top}, "y2": {"value": bottom}}


def _strip(x: Spec, mine: Spec) -> list[Spec]:
    """Return the tiles of the verdicts below the axis, each with its symbol."""
    only = {"transform": [mine, {"filter": "isValid(datum.verdict)"}]}
    colors = [{"test": f"datum.verdict === '{verdict}'", "value": color} for verdict, color in WASHES.items()]
    symbols = "".join(f"datum.verdict === '{verdict}' ? '{symbol}' : " for verdict, symbol in SYMBOLS.items()) + "''"
    tile = only | {
        "mark": {"type": "rect", "stroke": "var(--paper)", "strokeWidth": 1.5},
        "encoding": {
            **_between(x, HEIGHT + 4, HEIGHT + 4 + STRIP),
            "color": {"condition": colors, "value": "var(--undecided)"},
        },
    }
    glyph = {
        "transform": [
            *only["transform"],
            {"calculate": symbols, "as": "symbol"},
            {"calculate": "sqrt(datum.begin * datum.end)", "as": "middle"},
        ],
        "mark": {"type": "text", "fontSize": 11, "fontWeight": 700, "color": "var(--paper)", "baseline": "middle"},
        "encoding": {
            "x": x | {"field": "middle"},
            "y": {"value": HEIGHT + 4.5 + STRIP / 2},
            "text": {"field": "symbol"},
        },
    }
    return [tile, glyph]


def _tooltip(metric: Metric) -> list[Spec]:
    return [
        {"field": "label", "title": "arm"},
        {"field": "pm", "title": "weights remaining (%)", "format": ".3~g"},
        {"field": "value", "title": axis_label(metric.words, metric.unit), "format": value_format(metric)},
        {"field": "interval", "title": "95 % interval"},
        {"field": "n", "title": "trials"},
        {"field": "verdict"},
        {"field": "reason"},
    ]


def shown_first(series: Sequence[Series], main: str, most: int = 6) -> tuple[Series, ...]:
    """Return the curves that a page shows before its reader chooses: the arm it is about, and the first others."""
    some = [*(each for each in series if each.arm == main), *(each for each in series if each.arm != main)][:most]
    return tuple(each for each in series if each in some)
