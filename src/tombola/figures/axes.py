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
from tombola.formatting import percent

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from tombola.figures.form import Bars, Form


def density_axis(axes: Axes, densities: Iterable[float], form: Form, shared: bool = False) -> None:
    """Make x a logarithmic axis of percentages that falls from the dense network at the left, as in the paper.

    The ticks stand at densities that occur; those without room for a number are left bare. With `shared`, where
    curves of different densities meet, they stand at round percentages instead.
    """
    found = np.unique([100 * density for density in densities if density > 0])[::-1]
    axes.set_xscale("log")
    axes.set_xlabel("weights remaining (%)", size=form.label)
    if not found.size:
        return
    span = max(math.log(found[0] / found[-1]), math.log(1.5))
    margin = math.exp(0.04 * span)
    axes.set_xlim(found[0] * margin, found[-1] / margin)
    if shared:
        steps = [digit * 10.0**power for power in range(2, -5, -1) for digit in (5, 2, 1)]
        found = np.array([step for step in steps if found[-1] / margin <= step <= found[0] * margin] or found[:1])
    # Three digits and a point are about four times as wide as the text is high.
    numbered = _with_room(found, 0.0425 * form.tick / _inches_wide(axes) * span)
    axes.xaxis.set_major_locator(FixedLocator(numbered))
    axes.xaxis.set_major_formatter(FixedFormatter([_rounded(value, shared) for value in numbered]))
    axes.xaxis.set_minor_locator(FixedLocator([value for value in found if value not in numbered]))
    axes.xaxis.set_minor_formatter(NullFormatter())


def sparsity_axis(axes: Axes, form: Form) -> None:
    """Make x the fraction of weights that are pruned, from 0 to 1."""
    axes.set_xlim(-0.03, 1.03)
    axes.set_xlabel("sparsity", size=form.label)
    axes.xaxis.set_major_locator(MultipleLocator(0.2))


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
    axes.set_ylim(*padded(low, high))
    axes.set_ylabel(label, size=form.label)
    axes.yaxis.set_major_locator(MaxNLocator(7 if form.panel_height > 2 else 5, steps=[1, 2, 5, 10]))
    # "+9.79e1" beside the axis is how matplotlib would write accuracies that differ little.
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False) if high <= 100 else thousands())
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.5 * form.line)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=form.tick)
    axes.spines[["top", "right"]].set_visible(False)


def padded(low: float, high: float) -> tuple[float, float]:
    """Return the limits of an axis on which points at `low` and `high` are seen whole."""
    pad = 0.05 * (high - low) or 0.5
    return low - pad, high + pad


def bar_ends(rows: pd.DataFrame, measure: str, bars: Bars) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and upper end of each row's bar; NaN where there is too little to draw one from.

    Arguments:
        rows: as `tombola.analysis.spread` returns them.
        measure: one of its measures.
        bars: "range": lowest and highest run; "interval": the 95 % confidence interval of the mean over trials,
            by Student's t with n - 1 degrees of freedom.
    """
    if bars == "range":
        low, high = (rows[f"{measure}_{end}"].to_numpy(dtype=float) for end in ("min", "max"))
        # A single run has no spread: a bar of length nought would draw its caps and look like a tiny one.
        some = rows["runs"].to_numpy() > 1
        return np.where(some, low, np.nan), np.where(some, high, np.nan)
    trials = rows["n"].to_numpy(dtype=float)
    deviation = rows[f"{measure}_std"].to_numpy(dtype=float)
    errors = [critical(int(n) - 1, 0.95) / np.sqrt(n) if n > 1 else np.nan for n in trials]
    half = np.array(errors) * deviation
    mean = rows[f"{measure}_mean"].to_numpy(dtype=float)
    return mean - half, mean + half


def points_with_bars(axes: Axes, x: Any, mean: Any, low: Any, high: Any, options: dict[str, Any]) -> None:
    """Draw means, each with a bar from `low` to `high`, but for those where these are NaN."""
    mean = np.asarray(mean, dtype=float)
    # Rounding can put a mean a hair outside its own extremes, which matplotlib refuses.
    lengths = np.clip([mean - np.asarray(low), np.asarray(high) - mean], 0, None)
    width = 0.6 * options["linewidth"]
    axes.errorbar(
        np.asarray(x),
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


def _rounded(value: float, shared: bool) -> str:
    return f"{value:g}" if shared else percent(value / 100)


def _with_room(falling: np.ndarray, distance: float) -> list[float]:
    """Return those values that stand at least `distance` apart on the logarithmic axis, both ends among them."""
    chosen = [float(falling[0])]
    last = float(falling[-1])
    for value in map(float, falling[1:-1]):
        if math.log(chosen[-1] / value) >= distance and math.log(value / last) >= distance:
            chosen.append(value)
    if len(falling) > 1 and math.log(chosen[-1] / last) >= distance:
        chosen.append(last)
    return chosen
