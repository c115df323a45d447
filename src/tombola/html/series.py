"""The curves of a page: those of the figures, with a key that is safe anywhere and looks as Vega names them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from tombola.figures.curves import Curve, curves_of
from tombola.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION

# The same hues, light enough for a line on a dark page.
DARK = {
    BLACK: "#e6e6e6",
    ORANGE: "#f2b53d",
    SKY: "#9ad4f7",
    GREEN: "#2ec496",
    BLUE: "#4c9be0",
    VERMILION: "#f47a3c",
    PURPLE: "#e29cc5",
    GREY: "#9a9a9a",
}
DASHES: dict[Any, tuple[float, ...]] = {"-": (1, 0), "--": (6, 3), "-.": (7, 3, 2, 3), ":": (2, 2.5)}
PENTAGON = "M0,-1L0.951,-0.309L0.588,0.809L-0.588,0.809L-0.951,-0.309Z"  # Vega takes paths too
SHAPES: dict[Any, str] = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "<": "triangle-left",
    ">": "triangle-right",
    "D": "diamond",
    "d": "diamond",
    "P": "cross",
    "*": "cross",
    "X": "arrow",
    "p": PENTAGON,
    "h": "circle",
    "H": "circle",
    "8": "circle",
    (4, 1, 0): "diamond",
    (3, 1, 0): "triangle-up",
    (4, 1, 45): "square",
    (6, 1, 0): "diamond",
    (7, 1, 0): "square",
    (8, 1, 0): "circle",
    (5, 1, 36): "triangle-down",
    (9, 1, 0): "diamond",
    (10, 1, 0): "circle",
    (11, 1, 0): "triangle-up",
    (12, 1, 0): "square",
    (13, 1, 0): "triangle-down",
    (14, 1, 0): "cross",
    (15, 1, 0): "triangle-up",
}

# The same shapes as SVG paths about (0, 0), 7 pixels wide, for keys outside of plots.
OUTLINES = {
    "circle": "M3.4 0A3.4 3.4 0 1 1 -3.4 0A3.4 3.4 0 1 1 3.4 0Z",
    "square": "M-3.2 -3.2H3.2V3.2H-3.2Z",
    "diamond": "M0 -4.4L4.4 0L0 4.4L-4.4 0Z",
    "cross": "M-1.3 -3.8H1.3V-1.3H3.8V1.3H1.3V3.8H-1.3V1.3H-3.8V-1.3H-1.3Z",
    "triangle-up": "M0 -3.8L4 3.4H-4Z",
    "triangle-down": "M0 3.8L4 -3.4H-4Z",
    "triangle-left": "M-3.8 0L3.4 4V-4Z",
    "triangle-right": "M3.8 0L-3.4 4V-4Z",
    "arrow": "M0 -4.4L3.4 0H1.2V4H-1.2V0H-3.4Z",
    PENTAGON: "M0 -4L3.8 -1.24L2.35 3.24H-2.35L-3.8 -1.24Z",
}


@dataclass(frozen=True)
class Series:
    """A curve as the page draws it.

    Args:
        key: "s0", "s1", ...: what plots, controls and style sheet call it, for names come from users' files.
        curve: study, arm, label and look.
    """

    key: str
    curve: Curve

    @property
    def study(self) -> str:
        """As it stands in the tables."""
        return self.curve.study

    @property
    def arm(self) -> str:
        """As it stands in the tables."""
        return self.curve.arm

    @property
    def label(self) -> str:
        """For a person."""
        return self.curve.label

    @property
    def light(self) -> str:
        """Colour on a light page."""
        return self.curve.style.color

    @property
    def dark(self) -> str:
        """Colour on a dark page."""
        return DARK[self.curve.style.color]

    @property
    def dash(self) -> tuple[float, ...]:
        """Lengths of dashes and gaps in pixels."""
        line = self.curve.style.line
        return DASHES[line] if isinstance(line, str) else tuple(1.5 * length for length in line[1])

    @property
    def shape(self) -> str:
        """Shape of the points, as Vega names it."""
        return SHAPES[self.curve.style.marker]

    @property
    def outline(self) -> str:
        """The shape as an SVG path about (0, 0)."""
        return OUTLINES[self.shape]

    @property
    def hollow(self) -> bool:
        """Whether the points are hollow."""
        return self.curve.style.hollow

    @property
    def color(self) -> str:
        """The colour as a reference to the style sheet, which knows light, dark and print."""
        return f"var(--{self.key})"

    @property
    def fill(self) -> str:
        """The colour inside a point."""
        return "var(--paper)" if self.hollow else self.color


def series_of(levels: pd.DataFrame) -> tuple[Series, ...]:
    """Return a series for each arm of each study, in the order and with the looks of the figures."""
    return tuple(Series(f"s{place}", curve) for place, curve in enumerate(curves_of(levels)))
