"""Panels of measures against density, sparsity or round: one curve per arm, or per arm and study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tombola.analysis.measures import STOP, bounds_of, early_of
from tombola.analysis.summary import summarise
from tombola.figures.axes import (
    bar_ends,
    density_axis,
    points_with_bars,
    round_axis,
    sparsity_axis,
    value_axis,
)
from tombola.figures.curves import Curve, curves_of
from tombola.figures.form import Form
from tombola.figures.page import Entries, legend_line, page, page_title
from tombola.figures.ranges import Range, beyond, from_zero, worth_showing
from tombola.figures.style import GREY, Style, of_study, styles
from tombola.tables.captions import Bars, beyond_axes, direction, early_stop_note, small_print
from tombola.tasks.metric import Metric

X = Literal["density", "sparsity", "round"]


@dataclass(frozen=True)
class Panel:
    """One measure of the levels and the words for it.

    Args:
        measure: a column.
        label: of the axis, with the unit.
        metric: that the measure is of; None for iterations.
        title: beside the panel's letter.
    """

    measure: str
    label: str
    metric: Metric | None
    title: str = ""

    @property
    def scale(self) -> float:
        """Factor from stored to shown values: shares are drawn in percent."""
        return 1.0 if self.metric is None else self.metric.scale


def against_density(
    levels: pd.DataFrame,
    arms: Sequence[str],
    panels: Sequence[Panel],
    about: str,
    form: Form,
    style_of: Mapping[str, Style] | None = None,
    x: X = "density",
) -> Figure | None:
    """Return a figure of `panels`, or None without a measured level below the dense network.

    `curves_of` says how curves look.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level); what `study` says is what the legend says.
        arms: those to draw.
        panels: measures among the columns of `levels`; one that holds no number is omitted.
        about: what the figure shows, for its title.
        form: sizes and bars.
        style_of: arm -> style, where it isn't the arm's own.
        x: "density", the percentage that remains, logarithmic; "sparsity", the fraction pruned; "round", the level.
    """
    style_of = style_of or styles(str(arm) for arm in levels["arm"])
    summary = summarise(levels[levels["arm"].isin(arms)], [panel.measure for panel in panels])
    summary = summary[summary["density"] > 0]
    panels = [panel for panel in panels if summary[f"{panel.measure}_mean"].notna().any()]
    measured = summary[[f"{panel.measure}_mean" for panel in panels]].notna().any(axis=1)
    if not measured[summary["level"] > 0].any():
        return None
    curves = [curve for curve in curves_of(summary, arms, style_of) if measured[curve.of(summary).index].any()]
    studies = list(dict.fromkeys(curve.study for curve in curves))
    shown = pd.concat([curve.of(summary) for curve in curves])

    limits = [_limits(shown, panel, form.bars) for panel in panels]
    hidden = [beyond(_values(shown, panel, "mean"), limit) for panel, limit in zip(panels, limits, strict=True)]
    early = any(panel.measure == STOP or (panel.metric and panel.measure == early_of(panel.metric)) for panel in panels)
    figure, all_axes = page(
        page_title(levels, about),
        panels=len(panels),
        legend=_legend(shown, arms, style_of, form),
        small_print=small_print(
            shown,
            "points",
            form.bars,
            beyond_axes(*(sum(side) for side in zip(*hidden, strict=True))),
            early_stop_note(levels) if early else "",
            next((direction(panel.metric) for panel in panels if panel.metric is not None), ""),
        ),
        form=form,
    )
    for letter, axes, panel, limit in zip("abcdef", all_axes, panels, limits, strict=False):
        _draw_panel(axes, shown, curves, panel, form, x)
        if x == "sparsity":
            sparsity_axis(axes, form)
        elif x == "round":
            round_axis(axes, form)
        else:
            density_axis(axes, shown["density"], form, shared=len(studies) > 1)
        value_axis(axes, panel.label, limit.low, limit.high, form)
        if len(panels) > 1:
            axes.set_title(f"({letter}) {panel.title}", loc="left", size=0.95 * form.label)
    return figure


def _draw_panel(axes: Axes, shown: pd.DataFrame, curves: Sequence[Curve], panel: Panel, form: Form, x: X) -> None:
    several = len({curve.study for curve in curves}) > 1
    drawn: set[tuple[str, float]] = set()
    for curve in curves:
        rows = curve.of(shown)
        dense = rows.loc[rows["level"] == 0, ["study", f"{panel.measure}_mean"]].dropna()
        for study, value in dense.itertuples(index=False):
            # The arms of a study mostly share the dense run, and its line.
            if (study, float(f"{value:.12g}")) not in drawn:
                drawn.add((study, float(f"{value:.12g}")))
                axes.axhline(panel.scale * value, **_reference(curve.style.color if several else GREY, form))
    for curve in curves:
        rows = curve.of(shown)
        low, high = (panel.scale * ends for ends in bar_ends(rows, panel.measure, form.bars))
        density = rows["density"].to_numpy(dtype=float)
        places = {"density": 100 * density, "sparsity": 1 - density, "round": rows["level"].to_numpy(dtype=float)}
        points_with_bars(axes, places[x], _values(rows, panel, "mean"), low, high, curve.style.line_options(form.line))


def _reference(color: str, form: Form) -> dict[str, Any]:
    return {"color": color, "linewidth": 0.65 * form.line, "linestyle": (0, (1, 1.5)), "zorder": 1.5}


def _legend(shown: pd.DataFrame, arms: Sequence[str], style_of: Mapping[str, Style], form: Form) -> list[Entries]:
    studies = list(dict.fromkeys(shown["study"]))
    drawn = [arm for arm in arms if (shown["arm"] == arm).any()]
    dense = []
    if (shown["level"] == 0).any():
        dense = [(Line2D([], [], **_reference(GREY, form)), "dense network")]
    if len(studies) == 1:
        return [[*((legend_line(style_of[arm], form), arm) for arm in drawn), *dense]]
    colors = [
        (legend_line(of_study(place, Style("", "", "-")), form), str(study)) for place, study in enumerate(studies)
    ]
    lines = [(legend_line(Style(GREY, "o", style_of[arm].line, style_of[arm].hollow), form), arm) for arm in drawn]
    return [colors, [*lines, *dense]]


def _values(rows: pd.DataFrame, panel: Panel, statistic: str) -> np.ndarray:
    return panel.scale * rows[f"{panel.measure}_{statistic}"].to_numpy(dtype=float)


def _limits(shown: pd.DataFrame, panel: Panel, bars: Bars) -> Range:
    lows, highs = (panel.scale * ends for ends in bar_ends(shown, panel.measure, bars))
    if panel.metric is None:
        return from_zero(_values(shown, panel, "mean"), highs)
    groups = [_values(rows, panel, "mean") for _, rows in shown.groupby("study", observed=True)]
    return worth_showing(groups, lows, highs, panel.metric.better, bounds_of(panel.metric))
