"""The axes of a panel: their scales, ticks and labels, and points with bars on them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    MultipleLocator,
    NullFormatter,
    NullLocator,
    ScalarFormatter,
)

from tombola.analysis.student import critical
from tombola.figures import ranges
from tombola.tables.captions import FEWEST

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from tombola.figures.form import Bars, Form


def density_axis(axes: Axes, densities: Iterable[float], form: Form, shared: bool = False) -> None:
    """Make x a logarithmic axis of percentages that falls from the dense network at the left: see `ranges`."""
    axes.set_xscale("log")
    axes.set_xlabel("weights remaining (%)", size=form.label)
    # Three digits and a point are about four times as wide as the text is high.
    axis = ranges.density_axis(densities, 0.0425 * form.tick / _inches_wide(axes), shared)
    if axis is None:
        return
    axes.set_xlim(axis.left, axis.right)
    axes.xaxis.set_major_locator(FixedLocator(axis.numbered))
    axes.xaxis.set_major_formatter(FixedFormatter(axis.labels))
    axes.xaxis.set_minor_locator(FixedLocator(axis.bare))
    axes.xaxis.set_minor_formatter(NullFormatter())


def sparsity_axis(axes: Axes, form: Form) -> None:
    """Make x the fraction of weights that are pruned, from 0 to 1."""
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("sparsity", size=form.label)
    axes.xaxis.set_major_locator(MultipleLocator(0.2))


def round_axis(axes: Axes, form: Form) -> None:
    """Make x the number of pruning rounds, from 0 for the dense network."""
    axes.set_xlabel("round", size=form.label)
    axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 2, 5, 10], integer=True))


def iteration_axis(axes: Axes, form: Form) -> None:
    """Make x the training iteration."""
    axes.set_xlabel("training iteration", size=form.label)
    # "50,000" and the gap beside it are about five times as wide as the text is high.
    most = max(2, int(_inches_wide(axes) / (0.066 * form.tick)))
    axes.xaxis.set_major_locator(MaxNLocator(most, steps=[1, 2, 5, 10], integer=True))
    axes.xaxis.set_major_formatter(thousands())


def chosen_iterations_axis(axes: Axes, found: Sequence[float], label: str, form: Form) -> None:
    """Number x at the iterations that a study names, and nowhere else; the scale is the caller's."""
    axes.set_xlabel(label, size=form.label)
    axes.xaxis.set_major_locator(FixedLocator(found))
    axes.xaxis.set_major_formatter(FixedFormatter([f"{value:,.0f}" for value in found]))
    axes.xaxis.set_minor_locator(NullLocator())


def value_axis(axes: Axes, label: str, low: float, high: float, form: Form) -> None:
    """Give y a label, and limits a little beyond `low` and `high`."""
    axes.set_ylim(*ranges.padded(low, high))
    axes.set_ylabel(label, size=form.label)
    axes.yaxis.set_major_locator(MaxNLocator(7 if form.panel_height > 2 else 5, steps=[1, 2, 5, 10]))
    # "+9.79e1" beside the axis is how matplotlib would write values that differ little.
    whole = high > 100 and high - low > 10
    axes.yaxis.set_major_formatter(thousands() if whole else ScalarFormatter(useOffset=False))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.5 * form.line)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=form.tick)
    axes.spines[["top", "right"]].set_visible(False)


def bar_ends(rows: pd.DataFrame, measure: str, bars: Bars) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper end of each row's bar; NaN where there is too little to draw one from.

    Arguments:
        rows: as `tombola.analysis.spread` returns them.
        measure: one of its measures.
        bars: "range": lowest and highest run; "interval": the 95 % confidence interval of the mean over trials,
            by Student's t with n - 1 degrees of freedom. With two trials, the bar joins the two, as in the report:
            their interval would fill the plot.
    """
    if bars == "range":
        low, high = (rows[f"{measure}_{end}"].to_numpy(dtype=float) for end in ("min", "max"))
        # A single run has no spread: a bar of length nought would draw its caps and look like a tiny one.
        some = rows["runs"].to_numpy() > 1
        return np.where(some, low, np.nan), np.where(some, high, np.nan)
    trials = rows[f"{measure}_n"].fillna(0).to_numpy(dtype=float)
    deviation = rows[f"{measure}_std"].to_numpy(dtype=float)
    half = deviation * np.array([_half_width(int(n)) for n in trials])
    mean = rows[f"{measure}_mean"].to_numpy(dtype=float)
    return mean - half, mean + half


def _half_width(n: int) -> float:
    """Return half of a bar's length in standard deviations of n trials; two trials lie 1 / sqrt(2) off their mean."""
    if n < 2:
        return math.nan
    return (critical(n - 1, 0.95) if n >= FEWEST else 1.0) / math.sqrt(n)


def points_with_bars(axes: Axes, x: Any, mean: Any, low: Any, high: Any, options: dict[str, Any]) -> None:
    """Draw means, each with a bar from `low` to `high`, except for those where these are NaN."""
    mean = np.asarray(mean, dtype=float)
    # Rounding can put a mean a hair outside its own extremes, which matplotlib refuses.
    lengths = np.clip([mean - np.asarray(low), np.asarray(high) - mean], 0, None)
    width = 0.6 * options["linewidth"]
    x, places = np.asarray(x, dtype=float), np.unique(x)
    if len(places) < len(x):  # several levels of one density: the line goes through their mean
        through = [np.nanmean(mean[x == place]) if np.isfinite(mean[x == place]).any() else np.nan for place in places]
        axes.plot(places, through, **options | {"marker": ""})
        options = options | {"linestyle": "none"}
    axes.errorbar(
        x,
        mean,
        yerr=None if np.isnan(lengths).all() else lengths,
        elinewidth=width,
        capsize=1.5 * options["linewidth"],
        capthick=width,
        **options,
    )


def thousands() -> FuncFormatter:
    """Return a formatter that writes 12,500."""
    return FuncFormatter(lambda value, _: f"{value:,.0f}")


def _inches_wide(axes: Axes) -> float:
    figure = axes.get_figure(root=True)
    assert figure is not None
    return float(axes.get_position().width * figure.get_figwidth())
