"""What later rewinding is worth: the test metric against the rewind iteration, by density."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tombola.analysis.order import in_order
from tombola.analysis.spread import spread, trial_means
from tombola.analysis.summary import diverged, summarise
from tombola.figures.axes import bar_ends, chosen_iterations_axis, points_with_bars, value_axis
from tombola.figures.density import panels_of
from tombola.figures.form import SCREEN, Form
from tombola.figures.page import legend_line, page, page_title
from tombola.figures.style import DENSITIES, GREY, LOOKS, Style
from tombola.figures.training import choose_levels
from tombola.formatting import percent
from tombola.tables.captions import direction, early_stop_note, small_print
from tombola.tasks.metric import metric_of


def rewinding(levels: pd.DataFrame, form: Form = SCREEN) -> Figure | None:
    """Return the test metric at early stop and at the end against k, for the arms of a study that rewinds to several k.

    A row of panels shows the tickets and, dashed, `late-reinit`; where there are neither, the first such arm. Only
    arms with a curve for each k, "ticket@500", have a place here.
    """
    split = levels["arm"].str.extract(r"^(?P<base>.+)@(?P<k>\d+)$")
    rewound = levels.assign(base=split["base"], k=split["k"].astype(float))[split["k"].notna()]
    pruned = rewound[(rewound["level"] > 0) & ~diverged(rewound)]
    several = pruned.groupby("base")["k"].nunique() > 1
    arms = in_order(several.index[several])
    if not arms:
        return None
    arms = [arm for arm in ("ticket", "late-reinit") if arm in arms] or arms[:1]
    rewound, pruned = rewound[rewound["base"].isin(arms)], pruned[pruned["base"].isin(arms)]
    density_of = pruned.groupby("level")["density"].mean().to_dict()
    chosen = choose_levels(density_of)
    metric = metric_of(levels)
    panels = [panel for panel in panels_of(metric)[1:3] if pruned[panel.measure].notna().any()]
    if not panels:
        return None
    measures = [panel.measure for panel in panels]
    statistics = spread(pruned, ["base", "level", "k"], measures).sort_values("k")
    sound = rewound[(rewound["level"] == 0) & ~diverged(rewound)]
    # Repeats of a trial are averaged, and arms share dense runs.
    dense = trial_means(sound, ["arm"], measures).groupby("trial")[measures].mean()

    look = {level: DENSITIES[place] for place, level in enumerate(chosen)}
    entries = [(legend_line(_style(look[level], arms[0]), form), f"{percent(density_of[level])} %") for level in chosen]
    kinds = [(legend_line(_style(("#404040", "o"), arm), form), arm) for arm in arms]
    kinds += [(Line2D([], [], color=GREY, linewidth=form.line), "dense")] if len(dense) else []
    lost = rewound[(rewound["level"] == 0) & diverged(rewound)]
    shared = lost.drop_duplicates(["base", "trial", "repeat"])  # one run, shown at each iteration
    shown = pd.concat([rewound[rewound["level"].isin(chosen)], shared])
    # A group for each iteration, so that runs of several are not taken for repeats of one.
    place = shown["level"] + shown["k"] / (1 + shown["k"].max())
    groups = summarise(shown.assign(arm=shown["base"], level=place.where(shown["level"] > 0, 0)))
    figure, all_axes = page(
        page_title(levels, f"test {metric.words} against the rewind iteration"),
        panels=len(panels),
        legend=[entries, kinds],
        small_print=small_print(
            groups,
            "points",
            form.bars,
            "percentages are weights remaining",
            early_stop_note(levels),
            direction(metric),
        ),
        form=form,
    )
    for letter, axes, panel in zip("ab"[: len(panels)], all_axes, panels, strict=True):
        ends = []
        for arm in arms:
            for level in chosen:
                rows = statistics[(statistics["base"] == arm) & (statistics["level"] == level)]
                mean = metric.scale * rows[f"{panel.measure}_mean"].to_numpy(dtype=float)
                low, high = (metric.scale * end for end in bar_ends(rows, panel.measure, form.bars))
                style = _style(look[level], arm)
                points_with_bars(axes, rows["k"].to_numpy(), mean, low, high, style.line_options(form.line))
                ends += [mean, low, high]
        if len(dense):
            reference = metric.scale * float(dense[panel.measure].mean())
            axes.axhline(reference, color=GREY, linewidth=form.line, zorder=1)
            ends.append(np.array([reference]))
        value_axis(
            axes, panel.label, float(np.nanmin(np.concatenate(ends))), float(np.nanmax(np.concatenate(ends))), form
        )
        _iterations(axes, sorted(pruned["k"].unique()), form)
        axes.set_title(f"({letter})", loc="left", size=0.95 * form.label)
    return figure


def _style(look: tuple[str, str], arm: str) -> Style:
    return Style(*look, LOOKS[arm].line, LOOKS[arm].hollow) if arm in LOOKS else Style(*look, "-")


def _iterations(axes: Axes, found: list[float], form: Form) -> None:
    """Make x the iterations, logarithmic from the first that is not 0 on; 0 has a place of its own at the left."""
    first = next(k for k in found if k > 0)
    axes.set_xscale("symlog", linthresh=first, linscale=0.5)
    axes.set_xlim(-0.15 * first if found[0] == 0 else first / 1.3, found[-1] * 1.3)
    chosen_iterations_axis(axes, found, "rewound to iteration", form)
