"""How far the masks still move while the dense network trains, and when they settle."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tombola.analysis.order import in_order
from tombola.analysis.spread import spread
from tombola.analysis.summary import summarise
from tombola.figures.axes import iteration_axis, value_axis
from tombola.figures.form import SCREEN, Form
from tombola.figures.page import page, page_title
from tombola.figures.rounds import MARGIN, add_colour_bar, density_colours
from tombola.figures.setting import Setting
from tombola.figures.style import GREY
from tombola.tables.captions import small_print


def mask_distance(levels: pd.DataFrame, setting: Setting, form: Form = SCREEN) -> Figure | None:
    """Return the mask distances of every level against the iteration, means over trials; None if none exists.

    A dot stands where a trial's mask settled (You et al. 2020, Section 3.3).
    """
    settling = setting.settling
    if settling is None or settling.empty:
        return None
    statistics = spread(settling, ["level", "iteration"], ["distance"]).sort_values("iteration")
    density_of = settling.groupby("level")["density"].mean().sort_values(ascending=False)
    dense = levels[(levels["level"] == 0) & (levels["arm"] == in_order(levels["arm"])[0])]
    figure, (axes,) = page(
        page_title(levels, "mask distance during the dense run"),
        panels=1,
        legend=[],
        small_print=small_print(
            summarise(dense),
            "curves",
            None,
            f"dots: iterations at which a mask settles; the threshold (dashed) is {100 * setting.settles_below:g} %",
        ),
        form=form,
        margin=MARGIN,
    )
    colours = density_colours(density_of)
    for level, density in density_of.items():
        rows, color = statistics[statistics["level"] == level], colours.to_rgba(density)
        axes.plot(rows["iteration"], 100 * rows["distance_mean"], color=color, linewidth=0.75 * form.line)
        settled = settling[(settling["level"] == level) & settling["settled"]]
        first = settled.sort_values("iteration").groupby("trial").first()
        axes.plot(first["iteration"], 100 * first["distance"], "o", color=color, markersize=2.5 * form.line)
    axes.axhline(100 * setting.settles_below, color=GREY, linestyle="--", linewidth=0.6 * form.line)
    highest_shown = max(100 * float(np.nanmax(settling["distance"])), 100 * setting.settles_below)
    value_axis(axes, "mask distance (% of weights)", 0.0, highest_shown, form)
    iteration_axis(axes, form)
    add_colour_bar(figure, colours, density_of.to_numpy(), form)
    return figure
