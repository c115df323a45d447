"""The figures of the page: plots with captions and controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tombola.analysis.measures import STOP, early_of, final_of
from tombola.formatting import axis_label, percent, plain
from tombola.html import density_specs, training_specs
from tombola.html.gather import Found
from tombola.html.series import Series
from tombola.html.spec_parts import Spec
from tombola.tasks.metric import Metric

INTERVALS = "Points are means over trials. Bars are 95 % intervals (Student's t). The dotted line is the dense network."
ONE_TRIAL = "One trial: points are its values, without intervals. The dotted line is the dense network."


@dataclass(frozen=True)
class Choice:
    """A control of one figure: the signal that it sets, its values, and the initial one."""

    signal: str
    label: str
    options: tuple[tuple[Any, str], ...]
    chosen: Any


@dataclass(frozen=True)
class PlotFigure:
    """A plot in the page.

    Args:
        key: of the element, safe anywhere.
        title, caption: for a person; the caption also says what a screen reader should.
        spec: in Vega-Lite; None where there is nothing to plot, and then the caption says why.
        choices: controls of this figure alone.
        whole: whether the page's "full axis" control does something here.
    """

    key: str
    title: str
    caption: str
    spec: Spec | None
    choices: tuple[Choice, ...] = ()
    whole: bool = False


def density_figures(statistics: pd.DataFrame, series: Sequence[Series], metric: Metric) -> list[PlotFigure]:
    """Return the metric and early stopping against density, of one study or of several."""
    early, final = f"test {metric.words} at early stop", f"test {metric.words} at the end"
    measures: tuple[tuple[str, str, str, Metric | None], ...] = (
        (early_of(metric), _capital(early), axis_label(early, metric.unit), metric),
        (STOP, "Early-stopping iteration", "early-stop iteration", None),
        (final_of(metric), f"{_capital(final)} of training", axis_label(final, metric.unit), metric),
    )
    about = INTERVALS if statistics["low"].notna().any() else ONE_TRIAL
    found = []
    for measure, title, axis, of in measures:
        spec = density_specs.against_density("statistics", statistics, measure, axis, series, of)
        if spec is not None:
            found.append(PlotFigure(measure.replace("_", "-"), title, about, spec, whole=of is not None))
    return found


def gain_figure(found: Found, series: Sequence[Series]) -> PlotFigure | None:
    """Return the gain over the controls; None for a study without controls."""
    if found.gains.empty or found.arm is None:
        return None
    arm = plain(found.arm)
    metric = found.metric
    sides = (arm, "each control") if metric.better == "higher" else ("each control", arm)
    unit = {"%": ", in percentage points", "": ""}.get(metric.unit, f", in {metric.unit}")
    caption = f"Test {metric.words} at early stop of {sides[0]} minus that of {sides[1]}{unit}, paired by trial"
    caption += "; bars are 95 % intervals." if found.gains["low"].notna().any() else ". One trial: no intervals."
    spec = density_specs.gains(found.gains, series, arm, metric)
    return PlotFigure("gains", f"Gain of {arm} over its controls", caption, spec, whole=True) if spec else None


def curve_figures(found: Found, series: Sequence[Series]) -> list[PlotFigure]:
    """Return learning curves: arms at one density, and densities of one arm."""
    if found.curves.empty or found.arm is None:
        return []
    thinned = f" The plot shows one evaluation in {found.every}." if found.every > 1 else ""
    levels = _levels(found.curves)
    level = levels[len(levels) // 2][0]
    arms = _arms(found.curves, series)
    return [
        PlotFigure(
            "curves-at-level",
            "Learning curves: all arms at one density",
            f"Lines are means over trials. Bands span the lowest to the highest run.{thinned}",
            training_specs.curves_at_level(found.curves, series, level, found.metric, found.measured_on),
            (Choice("level", "Weights remaining", tuple(levels), level),),
            whole=True,
        ),
        PlotFigure(
            "curves-of-arm",
            "Learning curves: one arm at several densities",
            f"Lines are means over trials.{thinned}",
            training_specs.curves_of_arm(found.curves, _key(series, found.arm), found.metric, found.measured_on),
            (Choice("arm", "Arm", tuple(arms), _key(series, found.arm)),),
            whole=True,
        ),
    ]


def layer_figure(found: Found, series: Sequence[Series]) -> PlotFigure | None:
    """Return the density of each layer."""
    if found.layers.empty or found.arm is None:
        return None
    key = _key(series, found.arm)
    return PlotFigure(
        "layers",
        "Density of each layer",
        "Weights remaining in each layer, against weights remaining in the whole network. Means over trials.",
        density_specs.layers_against_density(found.layers, key),
        (Choice("arm", "Arm", tuple(_arms(found.layers, series)), key),),
    )


def weight_figure(found: Found) -> PlotFigure | None:
    """Return the distribution of the kept weights."""
    if found.histograms.empty or found.arm is None:
        return None
    layers = tuple((name, plain(name)) for name in dict.fromkeys(found.histograms["layer"]))
    levels = _levels(found.histograms)
    level = levels[len(levels) // 2][0]
    return PlotFigure(
        "weights",
        "Kept weights at the start and after training",
        f"Arm {plain(found.arm)}, trial 0. The outermost bins include the few weights beyond them.",
        training_specs.weight_distribution(layers[0][0], level),
        (Choice("layer", "Layer", layers, layers[0][0]), Choice("level", "Weights remaining", tuple(levels), level)),
    )


def dead_figure(found: Found) -> PlotFigure | None:
    """Return the units without a live path."""
    if found.dead.empty or found.arm is None:
        return None
    last = found.dead[(found.dead["layer"] == "all") & (found.dead["level"] == found.dead["level"].max())].iloc[0]
    caption = (
        "Inputs, neurons or channels without a path of kept weights from input to output. Arm "
        f"{plain(found.arm)}, trial 0. The sparsest level keeps {percent(last['density'])} % of the weights; without "
        f"the weights at these units, {percent(last['effective_density'])} %."
    )
    spec = density_specs.dead_units_against_density(found.dead)
    return PlotFigure("dead-units", "Units without a live path", caption, spec)


def overlap_figure(found: Found, series: Sequence[Series]) -> PlotFigure | None:
    """Return the overlap of the masks of different trials."""
    if found.overlap.empty:
        return None
    names = list(dict.fromkeys(found.overlap["layer"]))
    names.sort(key=lambda name: name != "all")
    layers = tuple((name, "all layers" if name == "all" else plain(name)) for name in names)
    return PlotFigure(
        "overlap",
        "Overlap of the masks of different trials",
        "Weights kept in both masks of a pair / kept in either. Points are means over pairs of trials. Bars span the "
        "lowest to the highest pair. The dotted line is the overlap by chance of masks with the same layer densities.",
        density_specs.overlap_against_density(found.overlap, series, layers[0][0]),
        (Choice("layer", "Layer", layers, layers[0][0]),),
    )


def flip_figure(found: Found) -> PlotFigure | None:
    """Return the share of signs that training flips in each layer."""
    if found.flips.empty or found.arm is None:
        return None
    caption = (
        f"Kept weights whose sign after training differs from that at the initialisation. Arm {plain(found.arm)}, "
        "means over trials."
    )
    return PlotFigure(
        "sign-flips", "Signs that training flips", caption, density_specs.flips_against_density(found.flips)
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _levels(rows: pd.DataFrame) -> list[tuple[int, str]]:
    densities = rows.groupby("level")["density"].mean().sort_index()
    return [(int(level), f"{percent(density)} %") for level, density in densities.items()]


def _arms(rows: pd.DataFrame, series: Sequence[Series]) -> list[tuple[str, str]]:
    names = set(rows["arm"])
    return [(each.key, each.label) for each in series if each.arm in names]


def _key(series: Sequence[Series], arm: str) -> str:
    return next(each.key for each in series if each.arm == arm)
