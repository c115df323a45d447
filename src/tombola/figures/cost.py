"""What accuracy costs: the test metric at equal density, and at equal total cost of training."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tombola.analysis.measures import bounds_of, early_of
from tombola.analysis.order import in_order
from tombola.analysis.summary import diverged, summarise
from tombola.figures.axes import bar_ends, density_axis, points_with_bars, value_axis
from tombola.figures.curves import Curve, curves_of
from tombola.figures.form import SCREEN, Form
from tombola.figures.page import legend_line, page, page_title
from tombola.figures.ranges import beyond, worth_showing
from tombola.formatting import axis_label
from tombola.tables.captions import beyond_axes, direction, early_stop_note, small_print
from tombola.tasks.metric import metric_of


def cost(levels: pd.DataFrame, form: Form = SCREEN) -> Figure | None:
    """Return the test metric at early stop against weights remaining, and against total cost; None without costs.

    The cost of a point is that of training its network and all that finding it needs, in dense runs: see
    `tombola.running.relative_cost`. A ticket has its rounds in it, and a method without rounds only its own run.
    """
    if "cost" not in levels or not (levels["cost"] > 0).any():
        return None
    metric = metric_of(levels)
    measure = early_of(metric)
    summary = summarise(levels[levels["density"] > 0], [measure])
    costs = levels[~diverged(levels)].groupby(["arm", "level"])["cost"].mean()
    places = zip(summary["arm"], summary["level"], strict=True)
    summary["cost"] = [costs.get(place, np.nan) for place in places]
    shown = summary[summary[f"{measure}_mean"].notna() & (summary["cost"] > 0)]
    if shown.empty:
        return None
    arms = in_order(shown["arm"])
    curves = curves_of(shown, arms)
    low, high = (metric.scale * end for end in bar_ends(shown, measure, form.bars))
    means = metric.scale * shown[f"{measure}_mean"].to_numpy(dtype=float)
    limit = worth_showing([means], low, high, metric.better, bounds_of(metric))
    figure, all_axes = page(
        page_title(levels, f"test {metric.words} at equal density, and at equal cost"),
        panels=2,
        legend=[[(legend_line(curve.style, form), curve.label) for curve in curves]],
        small_print=small_print(
            shown,
            "points",
            form.bars,
            beyond_axes(*beyond(means, limit)),
            "cost: of training the network and all that it needs",
            early_stop_note(levels),
            direction(metric),
        ),
        form=form,
    )
    for letter, axes, measured in zip("ab", all_axes, ("density", "cost"), strict=True):
        for curve in curves:
            _draw(axes, curve.of(shown).sort_values("level"), measured, measure, metric.scale, curve, form)
        label = axis_label(f"test {metric.words} at early stop", metric.unit)
        value_axis(axes, label, limit.low, limit.high, form)
        axes.set_title(f"({letter})", loc="left", size=0.95 * form.label)
    density_axis(all_axes[0], shown["density"], form)
    _cost_axis(all_axes[1], form)
    return figure


def _draw(axes: Axes, rows: pd.DataFrame, measured: str, measure: str, scale: float, curve: Curve, form: Form) -> None:
    low, high = (scale * ends for ends in bar_ends(rows, measure, form.bars))
    x = (100 if measured == "density" else 1) * rows[measured].to_numpy(dtype=float)
    mean = scale * rows[f"{measure}_mean"].to_numpy(dtype=float)
    points_with_bars(axes, x, mean, low, high, curve.style.line_options(form.line))


def _cost_axis(axes: Axes, form: Form) -> None:
    """Make x a logarithmic axis of dense runs, which rises to the right."""
    axes.set_xscale("log")
    axes.set_xlabel("training cost (dense runs)", size=form.label)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
