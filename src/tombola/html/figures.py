"""The figures of the page: plots with captions and controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tombola.analysis.measures import STOP, early_of, final_of
from tombola.analysis.roles import role_of
from tombola.figures.training import told_apart
from tombola.formatting import axis_label, percent, plain
from tombola.html import answer_chart, density_specs, training_specs
from tombola.html.gather import Found
from tombola.html.series import Series
from tombola.html.spec_parts import FEWEST, Spec
from tombola.tables.captions import densities_differ, densities_of
from tombola.tasks.metric import Metric

INTERVALS = "Points are means over trials. Bars are 95 % intervals (Student's t)."
TWO_TRIALS = "Points are means of two trials, bars join the two: a 95 % interval of two trials would fill the plot."
TWO_PAIRS = "Points are means of two trials, without bars: a 95 % interval of two trials would fill the plot."
ONE_TRIAL = "One trial: points are its values, without intervals."
OF_TWO = "With two trials, the bar joins the two."
OF_TWO_PAIRS = "With two trials, a point has no bar."
OF_ONE = "With one trial, a point has no bar."
DENSE = "The dotted line is the dense network."
ARMS_DIFFER = "Arms of one level can differ in density: point at a curve to read its own."
_UNPAIRED = "has results of the same trials at the densities of"


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
        spec: in Vega-Lite; None where there is nothing to plot: the caption then says why.
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
    found = []
    for measure, title, axis, of in measures:
        rows = statistics[statistics["measure"] == measure]
        about = f"{_bars(rows, TWO_TRIALS)} {DENSE}"
        spec = density_specs.against_density("statistics", statistics, measure, axis, series, of)
        key, why = measure.replace("_", "-"), "No pruned level has such values."
        found.append(PlotFigure(key, title, about if spec else why, spec, whole=of is not None))
    return found


def answer_figure(found: Found, table: pd.DataFrame, series: Sequence[Series]) -> PlotFigure:
    """Return the page's first chart: the metric against weights remaining, with the verdicts of one arm.

    Args:
        found: of the study.
        table: `answer_chart.answer_table`.
        series: the curves to draw.
    """
    title = f"Test {found.metric.words} against weights remaining"
    if found.arm is None:
        return PlotFigure("answer", title, "No run has finished yet.", None)
    key = _key(series, found.arm)
    level = None if found.answer.at is None else found.answer.at.level
    spec = answer_chart.answer_spec(table, series, key, found.metric, level)
    caption = f"{_bars(table, TWO_TRIALS)} {DENSE}" if spec else "No pruned level has results to draw."
    choice = Choice("arm", "Verdicts of", tuple(_arms(table, series)), key)
    return PlotFigure("answer", title, caption, spec, (choice,) if len(choice.options) > 1 else (), whole=True)


def gain_figures(found: Found, series: Sequence[Series]) -> list[PlotFigure]:
    """Return the gains of the ticket arm over its controls, and over the other arms."""
    arm = "" if found.arm is None else plain(found.arm)
    others = set(found.levels["arm"]) - {found.arm} if found.arm else set()
    found_roles = {other: role_of(other, str(found.arm), found.controls) for other in others}
    if found.gains.empty:
        known = {"control", "other"} & set(found_roles.values())
        why = f"No other arm {_UNPAIRED} {arm}." if known else "The study has no other arm."
        return [PlotFigure("gains", f"Gain of {arm} over its controls", why, None)]
    kinds = (
        ("gains", "control", f"Gain of {arm} over its controls", "control"),
        ("gains-over-others", "other", f"Gain of {arm} over other arms", "other arm"),
    )
    figures = []
    for key, role, title, other in kinds:
        rows = found.gains[found.gains["baseline"].map(found_roles) == role]
        mine = [each for each in series if found_roles.get(each.arm) == role and each.arm in set(rows["baseline"])]
        sides = f"{arm} minus {other}" if found.metric.better == "higher" else f"{other} minus {arm}"
        spec = density_specs.gains("gains", rows, mine, sides, found.metric)
        there = role in found_roles.values()
        why = f"No {other} {_UNPAIRED} {arm}." if there else f"The study has no {other} with results."
        caption = _gain_caption(found.metric, sides, rows) if spec else why
        figures.append(PlotFigure(key, title, caption, spec, whole=True))
    return figures


def rewind_figures(found: Found, series: Sequence[Series]) -> list[PlotFigure]:
    """Return the gains of later rewinds over the first one; none of a study with one rewind."""
    if found.rewinds.empty or found.arm is None:
        return []
    arm, later = plain(found.arm), set(found.rewinds["arm"])
    sides = f"later rewind minus {arm}" if found.metric.better == "higher" else f"{arm} minus later rewind"
    mine = [each for each in series if each.arm in later]
    spec = density_specs.gains("rewinds", found.rewinds, mine, sides, found.metric)
    caption = _gain_caption(found.metric, sides, found.rewinds) if spec else "No trial has both rewinds yet."
    return [PlotFigure("rewinds", f"Gain of later rewinds over {arm}", caption, spec, whole=True)]


def _gain_caption(metric: Metric, sides: str, rows: pd.DataFrame) -> str:
    unit = {"%": ", in percentage points", "": ""}.get(metric.unit, f", in {metric.unit}")
    return f"Test {metric.words} at early stop, {sides}{unit}, paired by trial. {_bars(rows, TWO_PAIRS)}"


def _bars(rows: pd.DataFrame, two: str) -> str:
    """Return what points and bars are, also of points with fewer trials; `two` says it where none has three."""
    trials = set(rows.loc[rows["mean"].notna() & (rows["density"] > 0), "n"])
    most = max(trials, default=0)
    if most < 2:
        return ONE_TRIAL
    of_two = OF_TWO if two == TWO_TRIALS else OF_TWO_PAIRS
    texts = [INTERVALS, *([of_two] if 2 in trials else [])] if most >= FEWEST else [two]
    return " ".join([*texts, *([OF_ONE] if 1 in trials else [])])


def curve_figures(found: Found, series: Sequence[Series]) -> list[PlotFigure]:
    """Return learning curves: arms at one density, and densities of one arm."""
    if found.curves.empty or found.arm is None:
        why = f"{found.cut_note.capitalize()}." if found.cut_note else "No run was evaluated more than once."
        return [PlotFigure("curves-at-level", "Learning curves", why, None)]
    about = f" {found.cut_note.capitalize()}." if found.cut_note else ""
    about += f" The plot shows one evaluation in {found.every}." if found.every > 1 else ""
    levels = _levels(found.curves)
    level = levels[len(levels) // 2][0]
    arms = _arms(found.curves, series)
    differ = any(densities_differ(rows["density"]) for _, rows in found.curves.groupby("level"))
    apart = f" {ARMS_DIFFER}" if differ else ""
    return [
        PlotFigure(
            "curves-at-level",
            f"Learning curves: all arms at one {'level' if differ else 'density'}",
            f"Lines are means over trials. Bands span the lowest to the highest run.{about}{apart}",
            training_specs.curves_at_level(found.curves, series, level, found.metric, found.measured_on),
            (Choice("level", "Weights remaining", tuple(levels), level),),
            whole=True,
        ),
        PlotFigure(
            "curves-of-arm",
            "Learning curves: one arm at several densities",
            f"Lines are means over trials.{about}",
            training_specs.curves_of_arm(
                found.curves, series, _key(series, found.arm), found.metric, found.measured_on
            ),
            (Choice("arm", "Arm", tuple(arms), _key(series, found.arm)),),
            whole=True,
        ),
    ]


def layer_figure(found: Found, series: Sequence[Series]) -> PlotFigure:
    """Return the density of each layer."""
    if found.layers.empty or found.arm is None:
        return _absent("layers", "Density of each layer", "It needs the masks of a finished pruned level.")
    key = _key(series, found.arm)
    return PlotFigure(
        "layers",
        "Density of each layer",
        "Weights remaining in each layer, against weights remaining in the whole network. Means over trials.",
        density_specs.layers_against_density(found.layers, key),
        (Choice("arm", "Arm", tuple(_arms(found.layers, series)), key),),
    )


def weight_figure(found: Found) -> PlotFigure:
    """Return the distribution of the kept weights."""
    if found.histograms.empty or found.arm is None:
        return _absent("weights", "Kept weights at the start and after training", "It needs the first trial's weights.")
    layers = tuple((name, plain(name)) for name in dict.fromkeys(found.histograms["layer"]))
    levels = _levels(found.histograms)
    level = levels[len(levels) // 2][0]
    return PlotFigure(
        "weights",
        "Kept weights at the start and after training",
        f"Arm {plain(found.arm)}, trial {found.first_trial}. The outermost bins include the few weights beyond them.",
        training_specs.weight_distribution(layers[0][0], level),
        (Choice("layer", "Layer", layers, layers[0][0]), Choice("level", "Weights remaining", tuple(levels), level)),
    )


def dead_figure(found: Found) -> PlotFigure:
    """Return the units without a live path."""
    if found.dead.empty or found.arm is None:
        return _absent(
            "dead-units", "Units without a live path", "It needs masks, and a network whose paths tombola can follow."
        )
    last = found.dead[(found.dead["layer"] == "all") & (found.dead["level"] == found.dead["level"].max())].iloc[0]
    none = "" if (found.dead["dead"] > 0).any() else "Every unit has a live path. "
    caption = (
        f"{none}Inputs, neurons or channels without a path of kept weights from input to output. "
        f"Arm {plain(found.arm)}, trial {found.first_trial}. "
        f"The sparsest level keeps {percent(last['layer_density'])} % of the prunable weights; "
        f"without the weights at these units, {percent(last['effective_density'])} %."
    )
    spec = density_specs.dead_units_against_density(found.dead)
    return PlotFigure("dead-units", "Units without a live path", caption, spec)


def overlap_figure(found: Found, series: Sequence[Series]) -> PlotFigure:
    """Return the overlap of the masks of different trials."""
    if found.overlap.empty:
        return _absent("overlap", "Overlap of the masks of different trials", "It needs masks of two trials or more.")
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


def flip_figure(found: Found) -> PlotFigure:
    """Return the share of signs that training flips in each layer."""
    if found.flips.empty or found.arm is None:
        return _absent(
            "sign-flips",
            "Signs that training flips",
            "It needs the weights of a pruned level before and after training.",
        )
    caption = (
        f"Kept weights whose sign after training differs from that at the initialisation. Arm {plain(found.arm)}, "
        "means over trials."
    )
    return PlotFigure(
        "sign-flips", "Signs that training flips", caption, density_specs.flips_against_density(found.flips)
    )


def _absent(key: str, title: str, why: str) -> PlotFigure:
    return PlotFigure(key, title, why, None)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _levels(rows: pd.DataFrame) -> list[tuple[int, str]]:
    """Return each level with the density of its rows, or the range of densities where they differ."""
    names = {
        int(level): f"{densities_of(some) if densities_differ(some) else percent(some.mean())} %"
        for level, some in rows.groupby("level")["density"]
    }
    return list(told_apart(names).items())


def _arms(rows: pd.DataFrame, series: Sequence[Series]) -> list[tuple[str, str]]:
    names = set(rows["arm"])
    return [(each.key, each.label) for each in series if each.arm in names]


def _key(series: Sequence[Series], arm: str) -> str:
    return next(each.key for each in series if each.arm == arm)
