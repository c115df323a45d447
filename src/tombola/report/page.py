"""The page a figure is laid out on: panels, title, legend and small print, placed in inches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.textpath import text_to_path
from matplotlib.ticker import (
    FixedFormatter,
    FixedLocator,
    FuncFormatter,
    MaxNLocator,
    NullFormatter,
    ScalarFormatter,
)

from tombola.report.words import percent, plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

PANEL_HEIGHT, GAP_BELOW_PANEL = 2.7, 0.62
TITLE_LINE, LEGEND_ROW, SMALL_LINE = 0.2, 0.19, 0.125
LEFT, RIGHT = 0.74, 0.12
TITLE_SIZE, LABEL_SIZE, LEGEND_SIZE, SMALL_SIZE = 11, 9.5, 8, 7


def page(
    title: str,
    rows: int,
    columns: int,
    panel_width: float,
    legend: Sequence[tuple[Line2D, str]],
    small_print: str,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with `rows` times `columns` empty panels, its title, its legend above them, its small print.

    Everything outside the panels has a place of its own in inches, so that nothing covers data or is cut off.
    """
    width = columns * (LEFT + panel_width + RIGHT)
    labels = [drawable(plain(label)) for _, label in legend]
    per_row = _entries_per_row(labels, width)
    title_lines = _wrapped(drawable(title), TITLE_SIZE, width - 0.3)
    small_lines = _wrapped(drawable(small_print), SMALL_SIZE, width - 0.2)
    legend_top = 0.14 + TITLE_LINE * len(title_lines)
    top = legend_top + LEGEND_ROW * math.ceil(len(labels) / per_row) + 0.28
    bottom = 0.12 + SMALL_LINE * len(small_lines)
    height = top + rows * (PANEL_HEIGHT + GAP_BELOW_PANEL) + (rows - 1) * 0.2 + bottom

    figure = Figure(figsize=(width, height))
    panels = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=LEFT / width,
        right=1 - RIGHT / width,
        top=1 - top / height,
        bottom=(bottom + GAP_BELOW_PANEL - 0.12) / height,
        wspace=(LEFT + RIGHT) / panel_width,
        hspace=(GAP_BELOW_PANEL + 0.2) / PANEL_HEIGHT,
    )
    for number, line in enumerate(title_lines):
        y = 1 - (0.09 + TITLE_LINE * number) / height
        figure.text(0.5, y, line, ha="center", va="top", size=TITLE_SIZE, parse_math=False)
    for number, line in enumerate(reversed(small_lines)):
        y = (0.08 + SMALL_LINE * number) / height
        figure.text(0.1 / width, y, line, size=SMALL_SIZE, color="#404040", parse_math=False)
    _add_legend(figure, [handle for handle, _ in legend], labels, per_row, 1 - legend_top / height)
    return figure, list(panels.flat)


def page_title(levels: pd.DataFrame, about: str) -> str:
    """Return "study (network): what about", the names shortened."""
    networks = list(dict.fromkeys(levels.get("network", [])))
    inside = f" ({plain(networks[0])})" if len(networks) == 1 else ""
    return f"{plain(levels['study'].iloc[0])}{inside}: {about}"


def drawable(text: str) -> str:
    """Return `text` with a box for each character that matplotlib's default font lacks, instead of a warning."""
    font = font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
    return "".join(c if font.get_char_index(ord(c)) else "□" for c in text)


def density_axis(axes: Axes, densities: Iterable[float]) -> None:
    """Make x a logarithmic axis of percentages that falls from the dense network at the left, as in the paper.

    The ticks stand at densities that occur; those without room for a number are left bare.
    """
    found = np.unique([100 * density for density in densities if density > 0])[::-1]
    axes.set_xscale("log")
    axes.set_xlabel("weights remaining (%)", size=LABEL_SIZE)
    if not found.size:
        return
    span = max(math.log(found[0] / found[-1]), math.log(1.5))
    margin = math.exp(0.04 * span)
    axes.set_xlim(found[0] * margin, found[-1] / margin)
    numbered = _with_room(found, 0.095 * span)
    axes.xaxis.set_major_locator(FixedLocator(numbered))
    axes.xaxis.set_major_formatter(FixedFormatter([percent(value / 100) for value in numbered]))
    axes.xaxis.set_minor_locator(FixedLocator([value for value in found if value not in numbered]))
    axes.xaxis.set_minor_formatter(NullFormatter())


def padded(low: float, high: float) -> tuple[float, float]:
    """Return the limits of an axis on which points at `low` and `high` are seen whole."""
    pad = 0.05 * (high - low) or 0.5
    return low - pad, high + pad


def value_axis(axes: Axes, label: str, low: float, high: float) -> None:
    """Give y a label, and limits a little beyond `low` and `high`."""
    axes.set_ylim(*padded(low, high))
    axes.set_ylabel(label, size=LABEL_SIZE)
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    # "+9.79e1" beside the axis is how matplotlib would write accuracies that differ little.
    axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False) if high <= 100 else thousands())
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def points_with_bars(axes: Axes, x: Any, mean: Any, low: Any, high: Any, runs: Any, options: dict[str, Any]) -> None:
    """Draw means, each with a bar from `low` to `high` where it stands for several runs."""
    mean = np.asarray(mean, dtype=float)
    # A single run has no spread: a bar of length nought would draw its caps and look like a tiny one.
    single = np.asarray(runs) < 2
    # Rounding can put a mean a hair outside its own extremes, which matplotlib refuses.
    lengths = np.clip([mean - np.asarray(low), np.asarray(high) - mean], 0, None)
    bars = None if single.all() else np.where(single, np.nan, lengths)
    axes.errorbar(np.asarray(x), mean, yerr=bars, elinewidth=0.7, capsize=1.8, capthick=0.7, **options)


def thousands() -> FuncFormatter:
    """Return a formatter that writes 12,500."""
    return FuncFormatter(lambda value, _: f"{value:,.0f}")


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


def _inches(text: str, size: float) -> float:
    width, _, _ = text_to_path.get_text_width_height_descent(text, font_manager.FontProperties(size=size), ismath=False)
    # Hinting makes drawn text a little wider than its outlines, most at a low resolution.
    return 1.04 * width / 72


def _wrapped(text: str, size: float, width: float) -> list[str]:
    """Break `text` into lines that fit into `width` inches, between words where it can be done."""
    lines: list[str] = []
    line = ""
    # No name is longer than 40 characters, so a single word that is wider than a page can't occur.
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and _inches(longer, size) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line] if line else lines


def _entries_per_row(labels: Sequence[str], width: float) -> int:
    # A column of a legend is as wide as its longest label, plus its piece of line and the gaps.
    widest = max((_inches(label, LEGEND_SIZE) for label in labels), default=1.0) + 0.7
    fitting = max(1, min(len(labels), int((width - 0.3) / widest)))
    # Rows of equal length look better than a full one and a remnant.
    return math.ceil(len(labels) / math.ceil(len(labels) / fitting)) if labels else 1


def _add_legend(figure: Figure, handles: Sequence[Line2D], labels: Sequence[str], columns: int, top: float) -> None:
    if not handles:
        return
    legend = figure.legend(
        handles,
        # The texts are set below: matplotlib hides a label that begins with "_" and reads "$" as mathematics.
        [str(number) for number in range(len(labels))],
        loc="upper center",
        bbox_to_anchor=(0.5, top),
        ncols=columns,
        fontsize=LEGEND_SIZE,
        frameon=False,
        handlelength=3.2,
        borderpad=0.1,
        borderaxespad=0.0,
        labelspacing=0.35,
    )
    for text, label in zip(legend.get_texts(), labels, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
