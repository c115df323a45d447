"""How every level of an arm learns: metric and loss against iteration, coloured by density."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

from tombola.analysis.learning_curves import cut_note, of_all_runs, of_sound_runs, shared_note, to_the_shortest
from tombola.analysis.order import in_order
from tombola.analysis.spread import spread
from tombola.analysis.summary import summarise
from tombola.figures.axes import iteration_axis, value_axis
from tombola.figures.form import SCREEN, Form
from tombola.figures.page import page, page_title
from tombola.figures.style import DENSITIES, shades
from tombola.formatting import axis_label, percent, plain
from tombola.tables.captions import direction, small_print
from tombola.tasks.metric import metric_of

BAR, BAR_WIDTH, BAR_LABELS = 0.2, 0.13, 0.58  # inches: left of the colour bar, the bar, its numbers and label
MARGIN = BAR + BAR_WIDTH + BAR_LABELS
MOST_NUMBERS = 8  # beside the colour bar


def rounds(levels: pd.DataFrame, curves: pd.DataFrame, form: Form = SCREEN) -> Figure | None:
    """Return the learning curves of all levels of the tickets, or of the first arm if none exists.

    Two panels more show the training examples, if a study measures them (`training.train_every`).
    """
    curves = of_sound_runs(levels, curves)
    if curves.empty:
        return None
    arm = next(arm for arm in in_order(curves["arm"]))
    whole = curves[(curves["arm"] == arm) & (curves["density"] > 0)]
    curves = to_the_shortest(whole)
    metric = metric_of(levels)
    panels = [
        panel
        for part, word in (("val", "validation"), ("train", "training"))
        for panel in (
            (f"{part}_{metric.name}", axis_label(f"{word} {metric.words}", metric.unit), metric.scale),
            (f"{part}_loss", f"{word} loss", 1.0),
        )
    ]
    measures = [panel for panel in panels if panel[0] in curves and _has_curve(curves, panel[0])]
    density_of = curves.groupby("level")["density"].mean().sort_values(ascending=False)
    if len(density_of) < 2 or not measures:
        return None
    # The training examples may be measured less often, and at a run's own end.
    of_measure = {name: of_all_runs(curves, name) for name, _, _ in measures}
    whole_of = {name: curves[np.isfinite(curves[name])] for name in of_measure}
    notes = dict.fromkeys(shared_note(found, whole_of[name]) for name, found in of_measure.items())
    measures = [panel for panel in measures if len(of_measure[panel[0]])]
    if not measures:
        return None

    shown = levels[(levels["arm"] == arm) & levels["level"].isin(density_of.index)]
    figure, all_axes = page(
        page_title(levels, f"learning curves of every level of {plain(arm)}"),
        panels=len(measures),
        legend=[],
        small_print=small_print(summarise(shown), "curves", None, cut_note(curves, whole), *notes, direction(metric)),
        form=form,
        margin=MARGIN,
    )
    colours = density_colours(density_of)
    for letter, axes, (name, label, scale) in zip("abcd", all_axes, measures, strict=False):
        values = []
        statistics = spread(of_measure[name], ["level", "iteration"], [name]).sort_values("iteration")
        for level, density in density_of.items():
            rows = statistics[statistics["level"] == level]
            values.append(scale * rows[f"{name}_mean"].to_numpy(dtype=float))
            axes.plot(rows["iteration"], values[-1], color=colours.to_rgba(density), linewidth=0.75 * form.line)
        value_axis(axes, label, *_limits(values, rising=not name.endswith("_loss") and metric.better == "higher"), form)
        iteration_axis(axes, form)
        axes.set_title(f"({letter})", loc="left", size=0.95 * form.label)
    add_colour_bar(figure, colours, density_of.to_numpy(), form)
    return figure


def _has_curve(curves: pd.DataFrame, measure: str) -> bool:
    """Return whether any level has a measure at two iterations: a point is not a curve."""
    known = curves[np.isfinite(curves[measure])]
    return bool((known.groupby("level")["iteration"].nunique() > 1).any())


def _limits(values: list[np.ndarray], rising: bool) -> tuple[float, float]:
    """Return limits that show all but the steep beginning of each curve."""
    finite = [curve[np.isfinite(curve)] for curve in values]
    finite = [curve for curve in finite if len(curve)]
    low, high = min(curve.min() for curve in finite), max(curve.max() for curve in finite)
    # Later than a twentieth of training nothing is beginning any more.
    settled = [curve[len(curve) // 20 :] for curve in finite]
    if rising:
        return float(min(curve.min() for curve in settled)), float(high)
    return float(low), float(max(curve.max() for curve in settled))


def density_colours(densities: pd.Series) -> ScalarMappable:
    """Return what gives each density its colour, from the lowest of these to the highest."""
    lowest, highest = float(densities.min()), float(densities.max())
    colors = shades([color for color, _ in reversed(DENSITIES)])
    return ScalarMappable(LogNorm(lowest, max(highest, 1.001 * lowest)), colors)


def add_colour_bar(figure: Figure, colours: ScalarMappable, densities: np.ndarray, form: Form) -> None:
    """Add the colour bar of densities, falling, in the margin to the right of the panels."""
    width, height = figure.get_size_inches()
    last = figure.axes[-1].get_position()
    first = figure.axes[0].get_position()
    place = (last.x1 + BAR / width, last.y0, BAR_WIDTH / width, first.y1 - last.y0)
    bar = figure.colorbar(colours, cax=figure.add_axes(place, label="<colorbar>"))
    room = max(2, min(MOST_NUMBERS, int((first.y1 - last.y0) * height / (0.033 * form.tick))))
    span = math.log(densities[0] / densities[-1])
    numbered = [float(densities[0])]
    for density in map(float, densities[1:]):
        if math.log(numbered[-1] / density) >= span / room:
            numbered.append(density)
    bar.ax.yaxis.set_major_locator(FixedLocator(numbered))
    bar.ax.yaxis.set_major_formatter(FixedFormatter([percent(density) for density in numbered]))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.tick_params(labelsize=form.tick)
    bar.set_label("weights remaining (%)", size=form.label)
    bar.outline.set_visible(False)
