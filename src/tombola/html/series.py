"""One series is one curve: an arm of a study, with a key that is safe anywhere and a look of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tombola.figures.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, Style, styles
from tombola.formatting import in_order, plain

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
STUDY_COLORS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK, GREY)

DASHES: dict[Any, tuple[float, ...]] = {"-": (1, 0), "--": (6, 3), "-.": (7, 3, 2, 3), ":": (2, 2.5)}
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
    "p": "wedge",
    "h": "circle",
    "H": "circle",
    "8": "circle",
    (4, 1, 0): "diamond",
    (3, 1, 0): "triangle-up",
    (4, 1, 45): "square",
    (6, 1, 0): "diamond",
    (7, 1, 0): "square",
}


@dataclass(frozen=True)
class Series:
    """One curve.

    Args:
        key: "s0", "s1", ...: what plots, controls and style sheet call it, for names come from users' files.
        study, arm: as they stand in the tables.
        label: for a person.
        light, dark: its colour on a light and on a dark page.
        dash: lengths of dashes and gaps in pixels.
        shape: of its points, as Vega names it.
        hollow: whether its points are.
    """

    key: str
    study: str
    arm: str
    label: str
    light: str
    dark: str
    dash: tuple[float, ...]
    shape: str
    hollow: bool

    @property
    def color(self) -> str:
        """The colour as a reference to the style sheet, which knows light, dark and print."""
        return f"var(--{self.key})"

    @property
    def fill(self) -> str:
        """The colour inside a point."""
        return "var(--paper)" if self.hollow else self.color


def series_of(levels: pd.DataFrame) -> tuple[Series, ...]:
    """Return a series for each arm of each study.

    Within one study arms have the looks that they have in the figures. Of several studies each has its colour, and
    line and points tell the arms.
    """
    studies = [str(study) for study in dict.fromkeys(levels["study"])]
    arms = {study: in_order(levels.loc[levels["study"] == study, "arm"]) for study in studies}
    looks = styles(arm for names in arms.values() for arm in names)
    found: list[Series] = []
    for place, study in enumerate(studies):
        for arm in arms[study]:
            color = looks[arm].color if len(studies) == 1 else STUDY_COLORS[place % len(STUDY_COLORS)]
            label = plain(arm) if len(studies) == 1 else f"{plain(study)}: {plain(arm)}"
            found.append(_series(f"s{len(found)}", study, arm, label, color, looks[arm]))
    return tuple(found)


def _series(key: str, study: str, arm: str, label: str, color: str, look: Style) -> Series:
    line = look.line
    dash = DASHES[line] if isinstance(line, str) else tuple(1.5 * length for length in line[1])
    return Series(key, study, arm, label, color, DARK[color], dash, SHAPES[look.marker], look.hollow)


def ticket_arm(arms: Sequence[str]) -> str:
    """Return the arm that is compared with the others: `ticket`, the first of its curves, or else the first arm."""
    return next((arm for arm in arms if arm.partition("@")[0] == "ticket"), arms[0])
