"""Panels of measures against density or sparsity: one curve per arm, or per arm and study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tombola.analysis.summary import summarise
from tombola.figures.axes import bar_ends, density_axis, padded, points_with_bars, sparsity_axis, value_axis
from tombola.figures.form import Bars, Form
from tombola.figures.page import Entries, legend_line, page, page_title
from tombola.figures.style import GREY, Style, of_study, styles
from tombola.formatting import counted, small_print


@dataclass(frozen=True)
class Panel:
    """One measure of the levels and the words for it."""

    measure: str
    label: str
    is_accuracy: bool = True
    title: str = ""

    @property
    def scale(self) -> float:
        """What the measure is multiplied by: accuracies are drawn in percent."""
        return 100.0 if self.is_accuracy else 1.0


@dataclass(frozen=True)
class Curve:
    """One curve of each panel: rows of the summary, by level, and how they look."""

    rows: pd.DataFrame
    style: Style


def against_density(
    levels: pd.DataFrame,
    arms: Sequence[str],
    panels: Sequence[Panel],
    about: str,
    form: Form,
    style_of: Mapping[str, Style] | None = None,
    sparsity: bool = False,
) -> Figure | None:
    """Return a figure of `panels`, or None where the levels hold nothing for it.

    One study's arms differ in colour, marker and line. Of several studies each has a colour and a marker, and the
    arms differ in line and filling.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level); what `study` says is what the legend says.
        arms: those to draw.
        panels: measures among the columns of `levels`; one that holds no number is left out.
        about: what the figure shows, for its title.
        form: sizes and bars.
        style_of: arm -> style, where it isn't the arm's own.
        sparsity: x is the fraction pruned, linear, instead of the percentage that remains, logarithmic.
    """
    style_of = style_of or styles(str(arm) for arm in levels["arm"])
    summary = summarise(levels[levels["arm"].isin(arms)], [panel.measure for panel in panels])
    summary = summary[summary["density"] > 0]
    panels = [panel for panel in panels if summary[f"{panel.measure}_mean"].notna().any()]
    measured = summary[[f"{panel.measure}_mean" for panel in panels]].notna().any(axis=1)
    if not measured.any():
        return None
    curves: list[Curve] = []
    studies = list(dict.fromkeys(summary.loc[measured, "study"]))
    for place, study in enumerate(studies):
        for arm in arms:
            mine = (summary["study"] == study) & (summary["arm"] == arm)
            if measured[mine].any():
                style = style_of[arm] if len(studies) == 1 else of_study(place, style_of[arm])
                curves.append(Curve(summary[mine], style))
    shown = pd.concat([curve.rows for curve in curves])

    limits = [_limits(shown, panel, form.bars) for panel in panels]
    hidden = sum(
        int((_values(shown, panel, "mean") < padded(*limit)[0]).sum())
        for panel, limit in zip(panels, limits, strict=True)
    )
    figure, all_axes = page(
        page_title(levels, about),
        panels=len(panels),
        legend=_legend(shown, arms, style_of, form),
        small_print=small_print(
            shown,
            "points",
            form.bars,
            f"{counted(hidden, 'point')} below the axes not shown" if hidden else "",
        ),
        form=form,
    )
    for letter, axes, panel, (low, high) in zip("abcdef", all_axes, panels, limits, strict=False):
        _draw_panel(axes, curves, panel, form, sparsity)
        if sparsity:
            sparsity_axis(axes, form)
        else:
            density_axis(axes, shown["density"], form, shared=len(studies) > 1)
        value_axis(axes, panel.label, low, high, form)
        if len(panels) > 1:
            axes.set_title(f"({letter}) {panel.title}", loc="left", size=0.95 * form.label)
    return figure


def _draw_panel(axes: Axes, curves: Sequence[Curve], panel: Panel, form: Form, sparsity: bool) -> None:
    several = len({curve.rows["study"].iloc[0] for curve in curves}) > 1
    drawn: set[tuple[str, float]] = set()
    for curve in curves:
        dense = curve.rows.loc[curve.rows["level"] == 0, ["study", f"{panel.measure}_mean"]].dropna()
        for study, value in dense.itertuples(index=False):
            # The arms of a study mostly share the dense run, and its line.
            if (study, round(value, 9)) not in drawn:
                drawn.add((study, round(value, 9)))
                axes.axhline(panel.scale * value, **_reference(curve.style.color if several else GREY, form))
    for curve in curves:
        low, high = (panel.scale * ends for ends in bar_ends(curve.rows, panel.measure, form.bars))
        density = curve.rows["density"].to_numpy(dtype=float)
        x = 1 - density if sparsity else 100 * density
        points_with_bars(axes, x, _values(curve.rows, panel, "mean"), low, high, curve.style.line_options(form.line))


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


def _limits(shown: pd.DataFrame, panel: Panel, bars: Bars) -> tuple[float, float]:
    """Return the range of y that is worth its room.

    A collapsed control at 11 % would squeeze the half points that the paper is about into one line. Where the
    lowest values lie far below most, the axis ends above them; the curve is seen to leave it, and the small print
    says how many points it hides. No study is hidden whole.
    """
    ends = [_values(shown, panel, "mean"), *(panel.scale * end for end in bar_ends(shown, panel.measure, bars))]
    lowest, top = np.nanmin(ends), np.nanmax(ends)
    if not panel.is_accuracy:
        return 0.0, max(float(top), 1.0)
    # An interval of two trials can reach further than an accuracy.
    lowest, top = max(lowest, 0.0), min(top, 100.0)
    most = min(
        np.nanpercentile(means, 20)
        for _, rows in shown.groupby("study", observed=True)
        if not np.isnan(means := _values(rows, panel, "mean")).all()
    )
    enough = max(3 * (top - most), 0.08 * (top - lowest))
    # Hiding points is worth it only where it gains much.
    hides = top - lowest > 1.6 * enough
    return float(top - enough if hides else lowest), float(top)
