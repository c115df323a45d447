"""How many signs training flips in each layer, against the weights that remain."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.figure import Figure

from tombola.analysis.layers import ALL
from tombola.analysis.order import in_order
from tombola.analysis.spread import spread
from tombola.analysis.summary import summarise
from tombola.figures.axes import bar_ends, density_axis, points_with_bars, value_axis
from tombola.figures.form import SCREEN, Form
from tombola.figures.page import legend_line, page, page_title
from tombola.figures.setting import Setting
from tombola.figures.style import DENSITIES, Style
from tombola.formatting import plain
from tombola.tables.captions import small_print

MOST_PANELS = 3


def sign_flips(levels: pd.DataFrame, setting: Setting, form: Form = SCREEN) -> Figure | None:
    """Return the share of flipped signs by layer and level, a panel for each of the first three arms; None without any.

    Figures of papers show the share of one network; a curve for each layer tells where signs change.
    """
    flips = setting.flips() if setting.flips is not None else pd.DataFrame()
    flips = flips if flips.empty else flips[(flips["layer"] != ALL) & (flips["density"] > 0)]
    if flips.empty:
        return None
    arms = in_order(flips["arm"])[:MOST_PANELS]
    flips = flips[flips["arm"].isin(arms)]
    style_of = _styles(list(dict.fromkeys(flips["layer"])))
    statistics = spread(flips, ["arm", "layer", "level"], ["share"])
    densities = flips.groupby(["arm", "level"])["density"].mean()
    statistics["density"] = [densities[arm, level] for arm, level in zip(statistics.arm, statistics.level, strict=True)]
    figure, all_axes = page(
        page_title(levels, "signs that training flips, by layer"),
        panels=len(arms),
        legend=[[(legend_line(style, form), layer.removesuffix(".weight")) for layer, style in style_of.items()]],
        small_print=small_print(summarise(levels[levels["arm"].isin(arms)]), "points", form.bars),
        form=form,
    )
    highest = 100 * float(np.nanmax(statistics["share_max"]))
    for letter, axes, arm in zip("abc", all_axes, arms, strict=False):
        for layer, style in style_of.items():
            rows = statistics[(statistics["arm"] == arm) & (statistics["layer"] == layer)].sort_values("level")
            low, high = (100 * ends for ends in bar_ends(rows, "share", form.bars))
            x, mean = (100 * rows[name].to_numpy(dtype=float) for name in ("density", "share_mean"))
            points_with_bars(axes, x, mean, low, high, style.line_options(form.line))
        density_axis(axes, statistics.loc[statistics["arm"] == arm, "density"], form)
        value_axis(axes, "flipped signs (% of kept weights)", 0.0, highest, form)
        axes.set_title(f"({letter}) {plain(arm)}", loc="left", size=0.95 * form.label)
    return figure


def _styles(layers: list[str]) -> dict[str, Style]:
    """Return a style for each layer: those of densities, or, of many layers, shades from the first to the last."""
    if len(layers) <= len(DENSITIES):
        return {layer: Style(*DENSITIES[place], "-") for place, layer in enumerate(layers)}
    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(layers)))
    markers = [marker for _, marker in DENSITIES]
    return {
        layer: Style(
            str("#" + "".join(f"{round(255 * part):02x}" for part in shades[place][:3])), markers[place % 6], "-"
        )
        for place, layer in enumerate(layers)
    }
