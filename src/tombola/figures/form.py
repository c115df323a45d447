"""The medium of a figure: its width, its text sizes, and the meaning of its bars."""

from __future__ import annotations

from dataclasses import dataclass

from tombola.tables.captions import Bars


@dataclass(frozen=True)
class Form:
    """Sizes of a figure; lengths are in inches and sizes of text in points.

    Args:
        width: of the whole figure; None makes it as wide as panels of `panel_width` need.
        across: the most panels side by side.
        panel_width: of the axes alone, where `width` is None.
        panel_height: of the axes alone.
        left: room for the numbers and the label of the y axis of each panel.
        title: the size of the figure's title; None leaves it away.
        label, tick, legend, small: sizes of the axes' labels, their numbers, the legend and the small print.
        line: width of a curve, in points; a marker is a bit more than three times as large.
        dpi: of a PNG.
        suffix: added to the names of the files.
        bars: "range" spans the lowest and highest run, as in the paper; "interval" is the 95 % confidence interval
            of the mean over trials, by Student's t.
    """

    width: float | None
    across: int
    panel_width: float
    panel_height: float
    left: float
    title: float | None
    label: float
    tick: float
    legend: float
    small: float
    line: float
    dpi: int
    suffix: str = ""
    bars: Bars = "range"

    def panels_per_row(self, panels: int) -> int:
        """Return how many panels stand side by side: four make two rows of two, not three and one."""
        return min(self.across, panels if panels <= 3 else 2)


SCREEN = Form(
    width=None,
    across=3,
    panel_width=3.6,
    panel_height=2.7,
    left=0.74,
    title=11,
    label=9.5,
    tick=8,
    legend=8,
    small=7,
    line=1.2,
    dpi=200,
)


def paper(columns: int) -> Form:
    """Return the form of a figure that is printed over one (3.3 in) or two (6.9 in) columns, at its own size."""
    return Form(
        width=3.3 if columns == 1 else 6.9,
        across=1 if columns == 1 else 3,
        panel_width=2.6,
        panel_height=1.25 if columns == 1 else 1.65,
        left=0.68,
        title=None,
        label=8,
        tick=7,
        legend=7,
        small=6,
        line=0.9,
        dpi=600,
        suffix=f"-{columns}col",
    )
