"""What tickets look like: densities of layers, overlap of masks, signs that training flips, pixels that live."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tombola.analysis.layers import ALL
from tombola.analysis.order import in_order
from tombola.analysis.spread import spread
from tombola.analysis.summary import summarise
from tombola.figures.axes import bar_ends, density_axis, points_with_bars, value_axis
from tombola.figures.form import SCREEN, Form
from tombola.figures.page import legend_line, page, page_title
from tombola.figures.setting import Setting
from tombola.figures.style import GREY, Style, layer_styles
from tombola.figures.training import choose_levels
from tombola.formatting import percent, plain
from tombola.tables.captions import Bars, small_print

MOST_PANELS = 3
PER_ARM = ["arm", "layer", "level"]


def sign_flips(levels: pd.DataFrame, setting: Setting, form: Form = SCREEN) -> Figure | None:
    """Return the share of flipped signs by layer and level, a panel for each of the first three arms; None without any.

    Figures of papers show the share of one network; a curve for each layer tells where signs change.
    """
    flips = _known(setting, "flips")
    if flips.empty:
        return None
    flips = flips[flips["layer"] != ALL]
    about, label = "signs that training flips, by layer", "flipped signs (% of kept weights)"
    statistics = _with_density(spread(flips, PER_ARM, ["share"]), flips)
    return _by_layer(levels, statistics, "share", about, label, form, "", form.bars)


def layer_densities(levels: pd.DataFrame, setting: Setting, form: Form = SCREEN) -> Figure | None:
    """Return what each layer keeps against what the network keeps, a panel for each of the first three arms."""
    layers = _known(setting, "layers")
    if layers.empty:
        return None
    layers = layers.rename(columns={"density": "share"})
    whole = levels.groupby(["arm", "level"])["density"].mean().rename("density")
    layers = layers.merge(whole, on=["arm", "level"])
    statistics = _with_density(spread(layers, PER_ARM, ["share"]), layers)
    label = "weights remaining in the layer (%)"
    return _by_layer(levels, statistics, "share", "density of each layer", label, form, "", form.bars)


def mask_overlap(levels: pd.DataFrame, setting: Setting, form: Form = SCREEN) -> Figure | None:
    """Return the overlap of the masks of each two trials, and that of chance, dotted; None with a single trial."""
    overlap = _known(setting, "overlap")
    if overlap.empty:
        return None
    ends = {"jaccard": "jaccard_mean", "low": "jaccard_min", "high": "jaccard_max", "pairs": "runs"}
    statistics = overlap[overlap["layer"] != ALL].drop(columns="density")
    statistics = statistics.rename(columns=ends).assign(jaccard_std=np.nan, jaccard_n=1, n=1)
    statistics = statistics.join(levels.groupby(["arm", "level"])["density"].mean(), on=["arm", "level"])
    about, label = "overlap of the masks of two trials", "kept in both (% of kept in either)"
    # Pairs share trials, so Student's interval of their mean would be too narrow.
    if form.bars == "interval":
        more = "means are of pairs of trials, which are not independent, so no intervals"
        return _by_layer(levels, statistics, "jaccard", about, label, form, more)
    more = "means and bars are of pairs of trials"
    return _by_layer(levels, statistics, "jaccard", about, label, form, more, form.bars)


def live_pixels(levels: pd.DataFrame, setting: Setting, form: Form = SCREEN) -> Figure | None:
    """Return the pixels that tickets still look at, at up to six levels; None where examples are not images."""
    pixels = _known(setting, "pixels")
    if pixels.empty:
        return None
    density_of = pixels.groupby("level")["density"].mean()
    chosen = choose_levels({int(level): float(density) for level, density in density_of.items()})
    shown = levels[(levels["arm"] == pixels["arm"].iloc[0]) & levels["level"].isin(chosen)]
    figure, all_axes = page(
        page_title(levels, "pixels from which a path of kept weights leads to an output"),
        panels=len(chosen),
        legend=[],
        small_print=small_print(
            summarise(shown), "panels", None, "brightness: the share of trials, from none (dark) to all (bright)"
        ),
        form=form,
    )
    for axes, level in zip(all_axes, chosen, strict=True):
        rows = pixels[pixels["level"] == level]
        picture = rows.pivot(index="row", columns="column", values="share").to_numpy(dtype=float)
        axes.imshow(picture, cmap="viridis", vmin=0.0, vmax=1.0, interpolation="nearest")
        axes.set_xticks([])
        axes.set_yticks([])
        weights, live = percent(float(density_of[level])), percent(float(picture.mean()))
        axes.set_title(f"{weights} % of weights: {live} % of pixels", size=0.85 * form.label)
    return figure


def _known(setting: Setting, name: str) -> pd.DataFrame:
    """Return a table that reads masks or weights; empty where they are not known."""
    reads = setting.reads.get(name)
    table = reads() if reads is not None else pd.DataFrame()
    return table if table.empty else table[table["density"] > 0]


def _with_density(statistics: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    densities = rows.groupby(["arm", "level"])["density"].mean()
    keys = zip(statistics["arm"], statistics["level"], strict=True)
    return statistics.assign(density=[densities[key] for key in keys])


def _by_layer(
    levels: pd.DataFrame,
    statistics: pd.DataFrame,
    measure: str,
    about: str,
    label: str,
    form: Form,
    more: str = "",
    bars: Bars | None = None,
) -> Figure:
    """Return a panel for each of the first three arms, with a curve for each layer; arms with equal curves share one.

    Args:
        levels: a row per (arm, trial, repeat, level).
        statistics: a row per (arm, layer, level), as `spread` returns them, with a column `density`; where it has a
            column `chance`, that is drawn dotted.
        measure: a share from 0 to 1, drawn in percent.
        about, label: for the title and the axis.
        form: sizes and bars.
        more: for the small print.
        bars: the meaning of the bars; None for a figure without bars.
    """
    panels = _equal_arms(statistics)[:MOST_PANELS]
    arms = [arm for panel in panels for arm in panel]
    statistics = statistics[statistics["arm"].isin(arms)]
    style_of = layer_styles(list(dict.fromkeys(statistics["layer"])))
    entries = [(legend_line(style, form), layer.removesuffix(".weight")) for layer, style in style_of.items()]
    if "chance" in statistics:
        entries.append((legend_line(Style(GREY, "", ":"), form), "chance"))
    figure, all_axes = page(
        page_title(levels, about),
        panels=len(panels),
        legend=[entries],
        small_print=small_print(summarise(levels[levels["arm"].isin(arms)]), "points", bars, more),
        form=form,
    )
    highest = 100 * float(np.nanmax(statistics[f"{measure}_max"]))
    for letter, axes, panel in zip("abc", all_axes, panels, strict=False):
        of_panel = statistics[statistics["arm"] == panel[0]]
        for layer, style in style_of.items():
            rows = of_panel[of_panel["layer"] == layer].sort_values("level")
            low, high = (100 * ends for ends in bar_ends(rows, measure, form.bars))
            x, mean = (100 * rows[name].to_numpy(dtype=float) for name in ("density", f"{measure}_mean"))
            points_with_bars(axes, x, mean, low, high, style.line_options(form.line))
            if "chance" in rows:
                chance = 100 * rows["chance"].to_numpy(dtype=float)
                axes.plot(x, chance, color=style.color, linestyle=":", linewidth=0.75 * form.line)
        density_axis(axes, of_panel["density"], form)
        value_axis(axes, label, 0.0, highest, form)
        axes.set_title(f"({letter}) {', '.join(plain(arm) for arm in panel)}", loc="left", size=0.95 * form.label)
    return figure


def _equal_arms(statistics: pd.DataFrame) -> list[list[str]]:
    """Return the arms in order, those with equal curves together: a control often has the masks of its ticket."""
    panels: list[list[str]] = []
    curves: list[pd.DataFrame] = []
    for arm in in_order(statistics["arm"]):
        curve = statistics[statistics["arm"] == arm].drop(columns="arm").sort_values(["layer", "level"])
        curve = curve.reset_index(drop=True)
        same = next((panel for panel, other in zip(panels, curves, strict=True) if curve.equals(other)), None)
        if same is None:
            panels.append([arm])
            curves.append(curve)
        else:
            same.append(arm)
    return panels
