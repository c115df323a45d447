"""Figures 1 and 4 of the paper: what is reached, and how soon, against the weights that remain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tombola.analysis.summary import summarise
from tombola.report.page import density_axis, padded, page, page_title, points_with_bars, value_axis
from tombola.report.style import GREY, Style, styles
from tombola.report.words import counted, in_order, small_print

REFERENCE: dict[str, Any] = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (1, 1.5)), "zorder": 1.5}


@dataclass(frozen=True)
class Panel:
    """One measure of the summary and the words for it."""

    measure: str
    label: str
    scale: float = 100.0

    @property
    def is_accuracy(self) -> bool:
        return self.measure.endswith("accuracy")


EARLY_STOP = Panel("early_stop_iteration", "early-stop iteration", scale=1.0)
EARLY_ACCURACY = Panel("early_stop_test_accuracy", "test accuracy at early stop (%)")
FINAL_ACCURACY = Panel("final_test_accuracy", "test accuracy at the end (%)")
TRAIN_ACCURACY = Panel("final_train_accuracy", "training accuracy at the end (%)")


def figure_1(levels: pd.DataFrame) -> Figure | None:
    """Return Figure 1: tickets and random sparse networks, early-stop iteration and accuracy there."""
    arms = [arm for arm in in_order(levels["arm"]) if arm in ("ticket", "random-mask")]
    return _against_density(levels, arms, [EARLY_STOP, EARLY_ACCURACY], "early stopping against weights remaining")


def figure_4(levels: pd.DataFrame) -> Figure | None:
    """Return Figure 4: iterative and one-shot tickets and their reinitialised controls, at early stop and at the end.

    A user's own arms belong here too: this is where an idea is compared with the paper's.
    """
    arms = [arm for arm in in_order(levels["arm"]) if arm != "random-mask"]
    panels = [EARLY_STOP, EARLY_ACCURACY, FINAL_ACCURACY, TRAIN_ACCURACY]
    return _against_density(levels, arms, panels, "early stopping and end of training against weights remaining")


def _against_density(levels: pd.DataFrame, arms: Sequence[str], panels: Sequence[Panel], about: str) -> Figure | None:
    style_of = styles(str(arm) for arm in levels["arm"])
    summary = summarise(levels[levels["arm"].isin(arms)])
    summary = summary[summary["density"] > 0]
    panels = [panel for panel in panels if summary[f"{panel.measure}_mean"].notna().any()]
    if not panels:
        return None
    measured = summary[[f"{panel.measure}_mean" for panel in panels]].notna().any(axis=1)
    drawn = [arm for arm in arms if measured[summary["arm"] == arm].any()]
    shown = summary[summary["arm"].isin(drawn)]

    limits = [_limits(shown, panel) for panel in panels]
    hidden = sum(
        int((_values(shown, panel, "mean") < padded(*limit)[0]).sum())
        for panel, limit in zip(panels, limits, strict=True)
    )
    legend = [(Line2D([], [], **style_of[arm].line_options()), arm) for arm in drawn]
    if not _dense(shown, panels[0]).empty:
        legend.append((Line2D([], [], **REFERENCE), "dense network"))
    figure, all_axes = page(
        page_title(levels, about),
        rows=-(-len(panels) // 2),
        columns=min(2, len(panels)),
        panel_width=3.6,
        legend=legend,
        small_print=small_print(
            shown, "points", f"{counted(hidden, 'point')} below the axes not shown" if hidden else ""
        ),
    )
    for letter, axes, panel, (low, high) in zip("abcd", all_axes, panels, limits, strict=False):
        dense = _dense(shown, panel)
        if not dense.empty:
            axes.axhline(dense.iloc[0], **REFERENCE)
        for arm in drawn:
            _draw_arm(axes, shown[shown["arm"] == arm], panel, style_of[arm])
        density_axis(axes, shown["density"])
        value_axis(axes, panel.label, low, high)
        axes.set_title(f"({letter})", loc="left", size=9)
    for axes in all_axes[len(panels) :]:
        axes.set_visible(False)
    return figure


def _draw_arm(axes: Axes, rows: pd.DataFrame, panel: Panel, style: Style) -> None:
    mean, low, high = (_values(rows, panel, statistic) for statistic in ("mean", "min", "max"))
    points_with_bars(axes, 100 * rows["density"], mean, low, high, rows["runs"], style.line_options())


def _values(rows: pd.DataFrame, panel: Panel, statistic: str) -> np.ndarray:
    return panel.scale * rows[f"{panel.measure}_{statistic}"].to_numpy(dtype=float)


def _dense(rows: pd.DataFrame, panel: Panel) -> pd.Series:
    """Return the dense network's mean, or nothing; all arms share that run, so any arm's will do."""
    return (panel.scale * rows.loc[rows["level"] == 0, f"{panel.measure}_mean"]).dropna().head(1)


def _limits(rows: pd.DataFrame, panel: Panel) -> tuple[float, float]:
    """Return the range of y that is worth its room.

    A collapsed control at 11 % would squeeze the half points that the paper is about into one line. Where the
    lowest values lie far below most, the axis ends above them; the curve is seen to leave it, and the small print
    says how many points it hides.
    """
    means = _values(rows, panel, "mean")
    lowest, top = np.nanmin(_values(rows, panel, "min")), np.nanmax(_values(rows, panel, "max"))
    if not panel.is_accuracy:
        return 0.0, max(float(top), 1.0)
    most = np.nanpercentile(means, 20)
    enough = max(3 * (top - most), 0.08 * (top - lowest))
    # Hiding points is worth it only where it gains much.
    hides = top - lowest > 1.6 * enough
    return float(top - enough if hides else lowest), float(top)
