"""How an arm looks in every figure, so that it can be told apart by colour, by marker and in grey print."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tombola.formatting import CONTROLS, KNOWN_ARMS, of_control

# The colour-blind-safe palette of Okabe and Ito (2008), without its yellow, which is too pale for a line on white.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
GREY = "#767676"
LONG = (0, (6, 1, 1, 1, 1, 1))


@dataclass(frozen=True)
class Style:
    """Colour, marker and line of one curve; a hollow marker stands for a control."""

    color: str
    marker: Any
    line: Any
    hollow: bool = False

    def line_options(self, width: float) -> dict[str, Any]:
        """Return the arguments of matplotlib for a line of `width` points and its markers."""
        return {
            "color": self.color,
            "marker": self.marker,
            "linestyle": self.line,
            "markerfacecolor": "white" if self.hollow else self.color,
            "markersize": 3.4 * width,
            "markeredgewidth": 0.8 * width,
            "linewidth": width,
        }


KNOWN = dict(
    zip(
        KNOWN_ARMS,
        (
            Style(BLUE, "o", "-"),
            Style(VERMILION, "s", "--", hollow=True),
            Style(GREEN, "^", (0, (4, 1.5)), hollow=True),
            Style(SKY, "D", "-."),
            Style(ORANGE, "v", ":", hollow=True),
            Style(PURPLE, "X", "-"),
            Style(BLACK, "<", "--"),
            Style(VERMILION, "p", ":", hollow=True),
            Style(ORANGE, "*", "-"),
            Style(GREEN, ">", "-."),
            Style(PURPLE, "d", "--"),
            Style(SKY, "h", LONG),
            Style(GREY, "8", ":", hollow=True),
            Style(GREY, (4, 1, 0), "--", hollow=True),
            Style(BLACK, "P", LONG),
            Style(BLUE, (7, 1, 0), ":", hollow=True),
            Style(GREEN, "H", "-"),
        ),
        strict=True,
    )
)

# Stars of so many points; a control has the colour of its arm.
STARS = dict(zip(CONTROLS, (((3, 1, 0), (0, (4, 1.5))), ((4, 1, 45), "--"), ((6, 1, 0), ":")), strict=True))

# What a user's own arms are given: each has a marker and a pair of colour and line of its own.
OTHERS = tuple(
    Style(
        (PURPLE, BLACK, GREY)[slot % 3],
        ("P", "X", "<", ">", "p", "h", "*", "d")[slot % 8],
        ("-", "--", "-.", ":", LONG)[slot % 5],
    )
    for slot in range(8)
)

# Figure 3 tells densities by colour and marker, and arms by line: the densest first.
DENSITIES = ((BLACK, "o"), (BLUE, "s"), (VERMILION, "^"), (GREEN, "D"), (ORANGE, "v"), (PURPLE, "P"))

# A figure of several studies tells them by colour and marker, and arms by line and filling.
STUDIES = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (ORANGE, "v"), (PURPLE, "D"), (BLACK, "P"), (SKY, "X"))


def styles(arms: Iterable[str]) -> dict[str, Style]:
    """Return the style of each arm: fixed for those that tombola knows and controls of those, drawn from the name for
    all others.

    An arm keeps its style from study to study unless two names of one study fall on the same place; then the
    alphabetically later one moves on to the next that is free. Beyond eight own arms, styles are used again.
    """
    names = set(arms)
    chosen = {arm: KNOWN[arm] for arm in names & set(KNOWN)}
    for name in names:
        arm, control = of_control(name)
        if control:
            marker, line = STARS[control]
            chosen[name] = Style(KNOWN[arm].color, marker, line, hollow=True)
    taken: set[int] = set()
    for arm in sorted(names - set(chosen)):
        slot = zlib.crc32(arm.encode("utf-8", "replace")) % len(OTHERS)
        while slot in taken:
            slot = (slot + 1) % len(OTHERS)
        taken.add(slot)
        if len(taken) == len(OTHERS):
            taken.clear()
        chosen[arm] = OTHERS[slot]
    return chosen


def of_study(place: int, arm: Style) -> Style:
    """Return the style of an arm of the study at `place` of a figure of several: its colour, the arm's line."""
    color, _ = STUDIES[place % len(STUDIES)]
    # Of more studies than there are colours, those of one colour differ in their markers.
    _, marker = STUDIES[(place + place // len(STUDIES)) % len(STUDIES)]
    return Style(color, marker, arm.line, arm.hollow)
