"""The page a figure is laid out on: panels, title, legend and small print, placed in inches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from tombola.figures.lettering import drawable, inches, wrapped
from tombola.formatting import plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from tombola.figures.form import Form
    from tombola.figures.style import Style

Entries = Sequence[tuple[Line2D, str]]
RIGHT = 0.12  # inches between a panel and what is beside it


def page(
    title: str,
    panels: int,
    legend: Sequence[Entries],
    small_print: str,
    form: Form,
    margin: float = 0.0,
) -> tuple[Figure, list[Axes]]:
    """Return a figure with empty panels, its title, its legend above them, its small print.

    Everything outside the panels has a place of its own in inches, so that nothing covers data or is cut off.

    Arguments:
        title: drawn where the form has titles.
        panels: how many.
        legend: groups of entries; each group begins a new row.
        small_print: what the figure says of itself, at the bottom.
        form: the sizes.
        margin: room to the right of the panels, in inches.
    """
    columns = form.panels_per_row(panels)
    rows = math.ceil(panels / columns)
    beside = columns * (form.left + RIGHT) + margin
    width = form.width or beside + columns * form.panel_width
    panel_width = (width - beside) / columns
    title_line, small_line = (1.33 * size / 72 for size in (form.title or 0, form.small))
    legend_row = 1.7 * form.legend / 72
    gap = 0.065 * form.label  # below a panel: the numbers, the label, and the next panel's letter

    title_lines = wrapped(drawable(title), form.title, width - 0.3) if form.title else []
    small_lines = wrapped(drawable(small_print), form.small, width - 0.2)
    groups = [_Group(entries, form, width) for entries in legend if entries]
    legend_top = (0.14 if title_lines else 0.06) + title_line * len(title_lines)
    top = legend_top + legend_row * sum(group.rows for group in groups) + 0.035 * form.tick
    bottom = 0.12 + small_line * len(small_lines)
    between = gap + 0.025 * form.tick
    height = top + rows * form.panel_height + (rows - 1) * between + gap + bottom

    figure = Figure(figsize=(width, height))
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=form.left / width,
        right=1 - (RIGHT + margin) / width,
        top=1 - top / height,
        bottom=(bottom + gap - 0.12) / height,
        wspace=(form.left + RIGHT) / panel_width,
        hspace=between / form.panel_height,
    )
    for number, line in enumerate(title_lines):
        y = 1 - (0.09 + title_line * number) / height
        figure.text(0.5, y, line, ha="center", va="top", size=form.title, parse_math=False)
    for number, line in enumerate(reversed(small_lines)):
        y = (0.08 + small_line * number) / height
        figure.text(0.1 / width, y, line, size=form.small, color="#404040", parse_math=False)
    for group in groups:
        group.add(figure, 1 - legend_top / height)
        legend_top += legend_row * group.rows
    for axes in list(grid.flat)[panels:]:
        axes.set_visible(False)
    return figure, list(grid.flat)[:panels]


def legend_line(style: Style, form: Form) -> Line2D:
    """Return the piece of line that stands for a style in a legend."""
    return Line2D([], [], **style.line_options(form.line))


def page_title(levels: pd.DataFrame, about: str) -> str:
    """Return "study (network): what about", the names shortened; of several studies only what about."""
    if levels["study"].nunique() > 1:
        return about[:1].upper() + about[1:]
    networks = [name for name in dict.fromkeys(levels["network"]) if name]
    inside = f" ({plain(networks[0])})" if len(networks) == 1 else ""
    return f"{plain(levels['study'].iloc[0])}{inside}: {about}"


class _Group:
    """Entries of the legend that stand together, in as many rows as they need."""

    def __init__(self, entries: Entries, form: Form, width: float):
        self._handles = [handle for handle, _ in entries]
        self._labels = [drawable(plain(label)) for _, label in entries]
        self._form = form
        widths = [inches(label, form.legend) for label in self._labels]
        for columns in range(len(entries), 0, -1):
            # matplotlib fills column by column; each is as wide as its longest label, its piece of line and the gaps.
            wide = sum(max(column) + 0.0875 * form.legend for column in np.array_split(widths, columns))
            if wide <= width - 0.1 or columns == 1:
                break
        self.rows = math.ceil(len(entries) / columns)
        # Rows of equal length look better than a full one and a remnant.
        self._columns = math.ceil(len(entries) / self.rows)

    def add(self, figure: Figure, top: float) -> None:
        legend = figure.legend(
            self._handles,
            # The texts are set below: matplotlib hides a label that begins with "_" and reads "$" as mathematics.
            [str(number) for number in range(len(self._labels))],
            loc="upper center",
            bbox_to_anchor=(0.5, top),
            ncols=self._columns,
            fontsize=self._form.legend,
            frameon=False,
            handlelength=3.2,
            borderpad=0.1,
            borderaxespad=0.0,
            labelspacing=0.35,
        )
        for text, label in zip(legend.get_texts(), self._labels, strict=True):
            text.set_parse_math(False)
            text.set_text(label)
