"""Interpolations between runs: the error or loss on them, and barriers against rewind iteration and density."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator

from tombola.analysis.connectivity import barriers as barriers_of
from tombola.analysis.connectivity import height_of
from tombola.analysis.measures import bounds_of
from tombola.analysis.spread import spread
from tombola.figures.axes import bar_ends, chosen_iterations_axis, density_axis, points_with_bars, value_axis
from tombola.figures.form import SCREEN, Form
from tombola.figures.page import legend_line, page, page_title
from tombola.figures.setting import Setting
from tombola.figures.style import DENSITIES, GREY, REWINDS, Style
from tombola.formatting import axis_label, counted, percent
from tombola.tables.captions import BETWEEN, HEIGHTS, bars_are
from tombola.tasks.metric import Metric

MOST = len(DENSITIES)  # panels, and curves of one panel
TRAIN = (0, (3, 1.5))
ENDS = {"copies": ("one copy", "another"), "dense-ticket": ("ticket", "dense"), "levels": ("ticket", "level before")}


@dataclass(frozen=True)
class BarrierCurve:
    """One curve of a panel: rows of `spread`, in the order of what they stand against."""

    label: str
    style: Style
    rows: pd.DataFrame


def error_curves(levels: pd.DataFrame, points: pd.DataFrame, kind: str, form: Form = SCREEN) -> Figure | None:
    """Return test and training error (or loss) on the interpolations of a kind, or None if none exists.

    There is a panel for each level and a curve for each iteration from which runs part, or the other way round,
    whichever are fewer panels.
    """
    if points.empty or not (points["kind"] == kind).any():
        return None
    points = points[points["kind"] == kind]
    panel_by, curve_by = _sides(points)
    panels = _chosen(points[panel_by])
    looks = _looks(points, curve_by, "-")
    name = height_of(points)
    height = HEIGHTS[name].metric
    errors = [f"test_{name}", f"train_{name}"]
    by = [panel_by, curve_by, "position"]
    shown = points[points[panel_by].isin(panels) & points[curve_by].isin(looks)]
    statistics = _with_gaps(spread(shown, by, errors), shown, by, errors).sort_values("position", kind="stable")
    low, high = _reach(statistics, errors, height, form)
    figure, all_axes = page(
        page_title(levels, f"{name} on the interpolation between {BETWEEN[kind]}"),
        panels=len(panels),
        legend=[
            [(legend_line(replace(style, marker=""), form), label) for label, style in looks.values()],
            [
                (legend_line(Style(GREY, "", "-"), form), "test"),
                (legend_line(Style(GREY, "", TRAIN), form), "training"),
            ],
        ],
        small_print=_small_print(shown, points, form, "curves", "bands", _gaps_note(shown, errors)),
        form=form,
    )
    for letter, axes, panel in zip("abcdef", all_axes, panels, strict=False):
        for value, (_, style) in looks.items():
            rows = statistics[(statistics[panel_by] == panel) & (statistics[curve_by] == value)]
            for error, line in zip(errors, ("-", TRAIN), strict=True):
                _draw_band(axes, rows, error, height.scale, style.color, line, form)
        value_axis(axes, axis_label(name, height.unit), low, high, form)
        _position_axis(axes, kind, form)
        title = _name(points, panel_by, panel)
        axes.set_title(f"({letter}) {title}" if len(panels) > 1 else title, loc="left", size=0.95 * form.label)
    return figure


def _with_gaps(statistics: pd.DataFrame, shown: pd.DataFrame, by: list[str], errors: list[str]) -> pd.DataFrame:
    """Return statistics without those of places where an interpolation has no finite value: a curve has a gap there.

    `spread` gives the mean of the others, which is too low.
    """
    for error in errors:
        broken = _broken(shown, error).groupby([shown[name] for name in by]).any().rename("broken")
        gap = statistics.join(broken, on=by)["broken"].to_numpy(dtype=bool)
        statistics.loc[gap, [f"{error}_{name}" for name in ("mean", "std", "min", "max")]] = np.nan
    return statistics


def _gaps_note(shown: pd.DataFrame, errors: list[str]) -> str:
    broken = np.any([_broken(shown, error) for error in errors], axis=0)
    count = int(shown.loc[broken, "line"].nunique())
    return f"curves have gaps where {counted(count, 'interpolation')} had no finite value" if count else ""


def _broken(points: pd.DataFrame, error: str) -> pd.Series:
    """Return which points have no finite value of a measure that their study measured."""
    measured = points[error].notna().groupby(points["study"], observed=True).transform("any")
    return measured & ~np.isfinite(points[error].astype(float))


def barriers(
    levels: pd.DataFrame, points: pd.DataFrame, settings: Mapping[str, Setting], form: Form = SCREEN
) -> Figure | None:
    """Return test barriers against the iteration from which copies part, and against density.

    A panel needs two places on its axis: without two iterations or two levels there is None.
    """
    if points.empty:
        return None
    pairs = barriers_of(points)
    copies = pairs[pairs["kind"] == "copies"]
    panels: list[tuple[str, str, list[BarrierCurve]]] = []  # title, axis, curves
    if copies["rewind"].nunique() > 1:
        panels.append(("copies", "rewind", _curves(copies, "level", "rewind", _looks(copies, "level", "-"))))
    iterations = _looks(pairs, "rewind", "--")  # the same in every panel, for they share a legend
    for kind, of_kind in pairs.groupby("kind", sort=False):
        of_kind = of_kind[of_kind["density"] > 0]
        if of_kind["level"].nunique() > 1:
            panels.append((BETWEEN[str(kind)], "density", _curves(of_kind, "rewind", "level", iterations)))
    if not panels:
        return None
    every = [curve for _, _, curves in panels for curve in curves]
    height = HEIGHTS[height_of(points)]
    name, scale = height.metric.name, height.metric.scale
    stable = settings[str(points["study"].iloc[0])].stable_below
    threshold = scale * stable
    drawn = pd.concat([curve.rows for curve in every])
    infinite = drawn["infinite"].any()
    low, high = _reach(drawn, ["test_barrier"], height.metric, form)
    sides: dict[str, dict[str, Style]] = {}  # what curves stand for, against iterations and against density
    for _, against, curves in panels:
        sides.setdefault(against, {}).update({curve.label: curve.style for curve in curves})
    entries = [[(legend_line(style, form), label) for label, style in side.items()] for side in sides.values()]
    dotted: dict[str, Any] = {"color": GREY, "linewidth": 0.65 * form.line, "linestyle": (0, (1, 1.5))}
    figure, all_axes = page(
        page_title(levels, f"test {name} barriers on interpolations between runs"),
        panels=len(panels),
        legend=[*entries, [(Line2D([], [], **dotted), f"stable at or below {height.threshold(stable)}")]],
        small_print=_small_print(points, points, form, "points", "bars", _infinite_note(pairs) if infinite else ""),
        form=form,
    )
    for letter, axes, (title, against, curves) in zip("abcd", all_axes, panels, strict=False):
        axes.axhline(threshold, **dotted, zorder=1.5)
        for curve in curves:
            least, most = (scale * end for end in bar_ends(curve.rows, "test_barrier", form.bars))
            x = curve.rows["rewind"] if against == "rewind" else 100 * curve.rows["density"]
            mean = scale * curve.rows["test_barrier_mean"]
            points_with_bars(axes, x, mean, least, most, curve.style.line_options(form.line))
            _mark_infinite(axes, x[curve.rows["infinite"]], curve.style, form)
        value_axis(
            axes,
            axis_label(f"test {name} barrier", height.metric.difference_unit),
            min(low, 0.0),
            max(high, threshold),
            form,
        )
        if against == "rewind":
            _parting_axis(axes, copies["rewind"], form)
        else:
            density_axis(axes, pairs["density"], form)
        axes.set_title(f"({letter}) {title}" if len(panels) > 1 else title, loc="left", size=0.95 * form.label)
    return figure


def _curves(pairs: pd.DataFrame, by: str, against: str, looks: Mapping[int, tuple[str, Style]]) -> list[BarrierCurve]:
    """Return a curve of barriers for each level or iteration that has any, with the densities of its points."""
    groups = pairs.assign(infinite=np.isinf(pairs["test_barrier"])).groupby([by, against])
    known = groups.agg(density=("density", "mean"), infinite=("infinite", "any")).reset_index()
    rows = spread(pairs, [by, against], ["test_barrier"]).merge(known).sort_values(against)
    # The mean over trials is infinite where one barrier is; `spread` gives that of the others.
    rows.loc[rows["infinite"], [name for name in rows if str(name).startswith("test_barrier_")]] = np.nan
    found = set(rows[by])
    return [BarrierCurve(label, style, rows[rows[by] == k]) for k, (label, style) in looks.items() if k in found]


def _mark_infinite(axes: Axes, x: pd.Series, style: Style, form: Form) -> None:
    """Draw arrow heads at the top of the panel, where an infinite mean would leave it."""
    options = {**style.line_options(form.line), "linestyle": "none", "marker": "^"}
    if len(x):
        axes.plot(x, np.full(len(x), 0.97), transform=axes.get_xaxis_transform(), **options)


def _infinite_note(pairs: pd.DataFrame) -> str:
    count = int(pairs.loc[np.isinf(pairs["test_barrier"]), "line"].nunique())
    return f"arrow heads at the top: infinite means, because of {counted(count, 'interpolation')} without finite values"


def _sides(points: pd.DataFrame) -> tuple[str, str]:
    """Return what panels stand for and what curves stand for: level and iteration, the fewer as panels."""
    return ("rewind", "level") if points["rewind"].nunique() <= points["level"].nunique() else ("level", "rewind")


def _chosen(values: pd.Series) -> list[int]:
    """Return all values, or as many as there is room for, evenly chosen with both ends among them."""
    found = sorted(int(value) for value in values.unique())
    if len(found) <= MOST:
        return found
    return [found[round(place)] for place in np.linspace(0, len(found) - 1, MOST)]


def _looks(points: pd.DataFrame, by: str, line: str) -> dict[int, tuple[str, Style]]:
    """Return the label and style of each value of `level` or `rewind`; rewinds have the colours of rewound arms."""
    colors = REWINDS if by == "rewind" else [color for color, _ in DENSITIES]
    return {
        value: (_name(points, by, value), Style(colors[place], DENSITIES[place][1], line, hollow=line != "-"))
        for place, value in enumerate(_chosen(points[by]))
    }


def _name(points: pd.DataFrame, by: str, value: int) -> str:
    if by == "rewind":
        return f"from iteration {value:,}"
    density = float(points.loc[points["level"] == value, "density"].mean())
    return f"{percent(density)} % of weights"


def _draw_band(axes: Axes, rows: pd.DataFrame, error: str, scale: float, color: str, line: Any, form: Form) -> None:
    low, high = (scale * end for end in bar_ends(rows, error, form.bars))
    axes.plot(rows["position"], scale * rows[f"{error}_mean"], color=color, linestyle=line, linewidth=form.line)
    if not np.isnan(low).all():
        axes.fill_between(rows["position"], low, high, color=color, alpha=0.13, linewidth=0)


def _reach(rows: pd.DataFrame, measures: Sequence[str], height: Metric, form: Form) -> tuple[float, float]:
    """Return the lowest and the highest value that is drawn, in shown units; no error lies below 0 or above 100."""
    ends = [height.scale * rows[f"{measure}_mean"].to_numpy(dtype=float) for measure in measures]
    ends += [height.scale * end for measure in measures for end in bar_ends(rows, measure, form.bars)]
    lowest, highest = bounds_of(height)
    if not any(np.isfinite(end).any() for end in ends):
        return 0.0, 0.0
    return max(float(np.nanmin(ends)), lowest), min(float(np.nanmax(ends)), highest)


def _position_axis(axes: Axes, kind: str, form: Form) -> None:
    one, other = ENDS[kind]
    axes.set_xlim(-0.02, 1.02)
    axes.set_xlabel(f"position on the interpolation (0: {one}, 1: {other})", size=form.label)
    axes.xaxis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
    axes.xaxis.set_major_formatter(FixedFormatter(["0", "0.25", "0.5", "0.75", "1"]))


def _parting_axis(axes: Axes, rewinds: pd.Series, form: Form) -> None:
    """Make x the iteration at which copies part: logarithmic except for 0, which is mostly among them."""
    found = sorted(int(value) for value in rewinds.unique())
    axes.set_xscale("symlog", linthresh=min(value for value in found if value))
    axes.margins(x=0.05)
    chosen_iterations_axis(axes, found, "iteration from which copies part", form)


def _small_print(shown: pd.DataFrame, points: pd.DataFrame, form: Form, marks: str, bars: str, more: str = "") -> str:
    """Return sample size, what is drawn, and what is omitted."""
    trials, pairs = shown["trial"].nunique(), shown["line"].nunique()
    if pairs < 2 or (form.bars == "interval" and trials < 2):
        spans = "single pairs" if pairs < 2 else "one trial, so no intervals"
    else:
        spans = f"{marks} are means over trials, {bars_are([trials], form.bars, bars, 'pair')}"
    left = points["line"].nunique() - pairs
    parts = [f"n = {counted(trials, 'trial')}, {counted(pairs, 'interpolation')}", spans]
    parts += [f"{counted(left, 'interpolation')} not shown"] * bool(left) + [more] * bool(more)
    return "; ".join(parts) + "."
