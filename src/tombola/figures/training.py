"""Figure 3 of the paper: the metric while training, at a few densities."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tombola.analysis.learning_curves import WORDS, mean_curves, of_sound_runs
from tombola.analysis.measures import bounds_of
from tombola.analysis.spread import spread
from tombola.analysis.summary import summarise
from tombola.figures.axes import bar_ends, iteration_axis, points_with_bars, value_axis
from tombola.figures.form import SCREEN, Form
from tombola.figures.page import legend_line, page, page_title
from tombola.figures.style import DENSITIES, LOOKS, Style
from tombola.formatting import axis_label, percent
from tombola.tables.captions import direction, small_print
from tombola.tasks.metric import Metric, metric_of

PAPER_DENSITIES = (1.0, 0.513, 0.211, 0.070, 0.036, 0.019)
TOLERANCE = 1.25
BARS_PER_CURVE = 7


@dataclass(frozen=True)
class TrainingCurve:
    """One mean curve, in shown units, with the ends of its bars."""

    label: str
    style: Style
    iteration: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def figure_3(levels: pd.DataFrame, curves: pd.DataFrame, form: Form = SCREEN) -> Figure | None:
    """Return Figure 3: larger tickets, smaller tickets, and tickets against their reinitialised controls."""
    whole = of_sound_runs(levels, curves)
    if whole.empty or not (whole["arm"] == "ticket").any():
        return None
    metric = metric_of(levels)
    means = mean_curves(whole, metric)
    curves, part = means.rows, means.part
    tickets = curves[curves["arm"] == "ticket"]
    if not (tickets["level"] > 0).any():
        return None
    density_of = tickets.groupby("level")["density"].mean()
    chosen = choose_levels({int(level): float(density) for level, density in density_of.items()})
    statistics = spread(curves[curves["level"].isin(chosen)], ["arm", "level", "iteration"], [f"{part}_{metric.name}"])

    names = told_apart({level: f"{percent(float(density_of[level]))} %" for level in chosen})
    ticket: dict[int, TrainingCurve] = {}
    reinit: dict[int, TrainingCurve] = {}
    for place, level in enumerate(chosen):
        name = names[level]
        for arm, found in (("ticket", ticket), ("reinit", reinit)):
            rows = statistics[(statistics["arm"] == arm) & (statistics["level"] == level)]
            # The dense network belongs to every arm; drawn once, as the tickets' first level.
            if rows.empty or (arm == "reinit" and level == 0):
                continue
            color, marker = DENSITIES[place]
            style = Style(color, marker, LOOKS[arm].line, LOOKS[arm].hollow)
            found[level] = _curve(rows, metric, part, name if arm == "ticket" else f"{name} reinit", style, form)

    large, small = chosen[:3], chosen[3:]
    dense = [level for level in chosen if level == 0]
    panels = [("larger tickets", [ticket[level] for level in large])]
    if small:
        panels.append(("smaller tickets", [ticket[level] for level in dense + small]))
    if compared := [level for level in large if level in reinit] or [level for level in small if level in reinit]:
        shown = [ticket[level] for level in dict.fromkeys(dense + compared)]
        panels.append(("tickets and reinit", shown + [reinit[level] for level in compared]))

    def drawn(rows: pd.DataFrame) -> pd.DataFrame:
        of_ticket = rows["arm"].eq("ticket") & rows["level"].isin(chosen)
        return rows[of_ticket | (rows["arm"].eq("reinit") & rows["level"].isin(compared))]

    return _drawn(levels, drawn(levels), panels, WORDS[part], means.note(drawn), form)


def choose_levels(density_of: dict[int, float]) -> list[int]:
    """Return at most six levels, densest first: those of the paper's Figure 3, or evenly chosen ones.

    A level stands for a density of the paper where it lies within a quarter of it. A study that has fewer than
    three of those (few rounds, another rate) is shown by what it has.
    """
    density_of = {level: density for level, density in density_of.items() if density > 0}
    falling = sorted(density_of, key=lambda level: (-density_of[level], level))
    chosen: list[int] = []
    for wanted in PAPER_DENSITIES:
        free = [level for level in falling if level not in chosen]
        if not free:
            break
        best = min(free, key=lambda level: abs(math.log(density_of[level] / wanted)))
        if max(density_of[best] / wanted, wanted / density_of[best]) <= TOLERANCE:
            chosen.append(best)
    if len(chosen) < min(3, len(falling)):
        places = np.linspace(0, len(falling) - 1, min(len(PAPER_DENSITIES), len(falling)))
        chosen = [falling[round(place)] for place in places]
    return sorted(chosen, key=falling.index)


def told_apart(names: Mapping[int, str]) -> dict[int, str]:
    """Return level -> name; a name that several levels share gets the level's number: pruning may have backed off."""
    counts = Counter(names.values())
    return {level: name if counts[name] == 1 else f"{name} (level {level})" for level, name in names.items()}


def _curve(rows: pd.DataFrame, metric: Metric, part: str, label: str, style: Style, form: Form) -> TrainingCurve:
    rows = rows.sort_values("iteration")
    mean = metric.scale * rows[f"{part}_{metric.name}_mean"].to_numpy(dtype=float)
    low, high = (metric.scale * ends for ends in bar_ends(rows, f"{part}_{metric.name}", form.bars))
    return TrainingCurve(label, style, rows["iteration"].to_numpy(), mean, low, high)


def _drawn(
    levels: pd.DataFrame,
    shown: pd.DataFrame,
    panels: Sequence[tuple[str, list[TrainingCurve]]],
    measured_on: str,
    note: str,
    form: Form,
) -> Figure | None:
    panels = [(name, [curve for curve in found if np.isfinite(curve.mean).any()]) for name, found in panels]
    panels = [(name, found) for name, found in panels if found]
    if not panels:
        return None
    metric = metric_of(levels)
    entries = {curve.label: curve.style for _, found in panels for curve in found}
    figure, all_axes = page(
        page_title(levels, f"{measured_on} {metric.words} during training"),
        panels=len(panels),
        legend=[[(legend_line(style, form), label) for label, style in entries.items()]],
        small_print=small_print(
            summarise(shown), "curves", form.bars, "percentages are weights remaining", note, direction(metric)
        ),
        form=form,
    )
    for letter, axes, (name, found) in zip("abc", all_axes, panels, strict=False):
        low, high = _limits(found, metric)
        for place, curve in enumerate(found):
            _draw_curve(axes, curve, place, len(found), (low, high), form)
        value_axis(axes, axis_label(f"{measured_on} {metric.words}", metric.unit), low, high, form)
        iteration_axis(axes, form)
        axes.set_title(f"({letter}) {name}", loc="left", size=0.95 * form.label)
    return figure


def _draw_curve(
    axes: Axes, curve: TrainingCurve, place: int, count: int, limits: tuple[float, float], form: Form
) -> None:
    options = curve.style.line_options(form.line)
    # Hundreds of evaluations make a band of a thick line.
    width = (0.6 if len(curve.mean) > 150 else 1.0) * form.line
    axes.plot(curve.iteration, curve.mean, **{**options, "marker": "", "linewidth": width})
    # Each curve has its bars at places of its own, so that they do not lie on one another's.
    steps = (np.arange(BARS_PER_CURVE) + (place + 0.5) / count) / BARS_PER_CURVE
    at = np.unique(np.minimum((steps * len(curve.mean)).astype(int), len(curve.mean) - 1))
    # The bar of a point beyond the axis would stand there like a spike without a foot.
    at = at[(curve.mean[at] >= limits[0]) & (curve.mean[at] <= limits[1])]
    points_with_bars(
        axes,
        curve.iteration[at],
        curve.mean[at],
        curve.low[at],
        curve.high[at],
        {**options, "linestyle": "none", "zorder": 3},
    )


def _limits(found: Sequence[TrainingCurve], metric: Metric) -> tuple[float, float]:
    """Return limits that show where the curves differ: all but the steep beginning of each."""
    if metric.better == "lower":
        low = min(float(np.nanmin([curve.mean, curve.low])) for curve in found)
        high = max(float(np.nanpercentile(curve.mean, 75)) for curve in found)
        return low, high + 0.15 * (high - low)
    low = min(float(np.nanpercentile(curve.mean, 25)) for curve in found)
    high = max(float(np.nanmax([curve.mean, curve.high])) for curve in found)
    return max(bounds_of(metric)[0], low - 0.15 * (high - low)), high
