"""How an arm looks in every figure, so that it can be told apart by colour, by marker and in grey print."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tombola.analysis.order import CONTROLS, of_control
from tombola.analysis.roles import split

if TYPE_CHECKING:
    from matplotlib.colors import LinearSegmentedColormap

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


# The look of each arm; a test holds this table to the arms that there are, and hollow markers to controls.
LOOKS = {
    "ticket": Style(BLUE, "o", "-"),
    "reinit": Style(VERMILION, "s", "--", hollow=True),
    "random-mask": Style(GREEN, "^", (0, (4, 1.5)), hollow=True),
    "one-shot": Style(SKY, "D", "-."),
    "one-shot-reinit": Style(ORANGE, "v", ":", hollow=True),
    "fine-tune": Style(PURPLE, "X", "-"),
    "lr-rewind": Style(BLACK, "<", "--"),
    "late-reinit": Style(VERMILION, "p", ":", hollow=True),
    "shuffled-weights": Style(VERMILION, (8, 1, 0), LONG, hollow=True),
    "redrawn-magnitudes": Style(GREEN, (5, 1, 36), "--", hollow=True),
    "snip": Style(ORANGE, "*", "-"),
    "gradient-at-init": Style(SKY, (15, 1, 0), ":"),
    "grasp": Style(GREEN, ">", "-."),
    "synflow": Style(PURPLE, "d", "--"),
    "magnitude-at-init": Style(SKY, "h", LONG),
    "random": Style(GREY, "8", ":", hollow=True),
    "random-erk": Style(GREY, (4, 1, 0), "--", hollow=True),
    "edge-popup": Style(BLACK, "P", LONG),
    "supermask": Style(ORANGE, (9, 1, 0), ":"),
    "edge-popup-trained": Style(BLUE, (7, 1, 0), ":", hollow=True),
    "gradual": Style(GREY, (10, 1, 0), "-"),
    "set": Style(VERMILION, (11, 1, 0), "-."),
    "rigl": Style(VERMILION, (12, 1, 0), "-"),
    "ac-dc": Style(SKY, (13, 1, 0), "--"),
    "small-dense": Style(BLACK, (14, 1, 0), "-."),
    "early-bird": Style(GREEN, "H", "-"),
}

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

# Densities go from black to red, the densest first. No arm has these colours, and no layer. The page has the same.
DENSITIES = (
    ("#16191d", "o"), ("#4b2991", "s"), ("#872ca2", "^"), ("#c0369d", "D"), ("#e1477f", "v"), ("#e8735a", "P"),
)  # fmt: skip

# Layers go from teal to brown, the first one teal: the ends of the page, mixed in Oklch.
LAYERS = ("#00586b", "#006461", "#126c4e", "#447033", "#6e6f07", "#926800", "#b0601a")

# Arms at several rewinds are told by line and marker, their rewinds by colour: the earliest first.
REWINDS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, BLACK, GREY)

# A figure of several studies tells them by colour and marker, and arms by line and filling.
STUDIES = ((BLUE, "o"), (VERMILION, "s"), (GREEN, "^"), (ORANGE, "v"), (PURPLE, "D"), (BLACK, "P"), (SKY, "X"))


def shades(colors: Sequence[str]) -> LinearSegmentedColormap:
    """Return the colours between some, from 0 for the first one to 1 for the last one."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", list(colors))


def layer_styles(layers: Sequence[str]) -> dict[str, Style]:
    """Return a style for each layer: a shade from the first layer to the last, and a marker."""
    from matplotlib.colors import to_hex

    colors, most = shades(LAYERS), max(1, len(layers) - 1)
    markers = [marker for _, marker in DENSITIES]
    return {
        layer: Style(to_hex(colors(place / most)), markers[place % len(markers)], "-")
        for place, layer in enumerate(layers)
    }


def styles(arms: Iterable[str]) -> dict[str, Style]:
    """Return the style of each arm.

    Tombola's own arms and their controls have fixed styles. An arm at several rewinds has a colour for each. The style
    of a user's arm follows from its name, so it is the same in every study. Where two names of one study fall on the
    same style, or one has colour and line of a fixed style in the figure, the alphabetically later one takes the next
    free one. Beyond eight own arms, styles repeat.
    """
    names = set(arms)
    rewound = _rewound(names)
    names -= rewound.keys()
    chosen = {arm: LOOKS[arm] for arm in names & set(LOOKS)} | rewound
    for name in names:
        arm, control = of_control(name)
        if control:
            marker, line = STARS[control]
            chosen[name] = Style(LOOKS[arm].color, marker, line, hollow=True)
    fixed = {(style.color, style.line) for style in chosen.values()}
    unlike = [slot for slot, style in enumerate(OTHERS) if (style.color, style.line) not in fixed] or range(len(OTHERS))
    taken: set[int] = set()
    for arm in sorted(names - set(chosen)):
        slot = zlib.crc32(arm.encode("utf-8", "replace")) % len(OTHERS)
        while slot in taken or slot not in unlike:
            slot = (slot + 1) % len(OTHERS)
        taken.add(slot)
        if len(taken) == len(unlike):
            taken.clear()
        chosen[arm] = OTHERS[slot]
    return chosen


def _rewound(names: set[str]) -> dict[str, Style]:
    """Return the styles of arms at several rewinds: a colour for each iteration, marker and line of the arm."""
    found = {name: split(name) for name in names}
    rewound = {name: (arm, rewind) for name, (arm, rewind) in found.items() if rewind is not None}
    iterations = sorted({rewind for _, rewind in rewound.values()})
    own = styles({arm for arm, _ in rewound.values()}) if rewound else {}
    chosen = {}
    for name, (arm, rewind) in rewound.items():
        place = iterations.index(rewind)
        turn = place // len(REWINDS)  # of more iterations than colours, those of one colour differ in their markers
        marker = own[arm].marker if not turn else OTHERS[(turn - 1) % len(OTHERS)].marker
        chosen[name] = Style(REWINDS[place % len(REWINDS)], marker, own[arm].line, own[arm].hollow)
    return chosen


def of_study(place: int, arm: Style) -> Style:
    """Return the style of an arm of the study at `place` of a figure of several: its colour, the arm's line."""
    color, _ = STUDIES[place % len(STUDIES)]
    # Of more studies than there are colours, those of one colour differ in their markers.
    _, marker = STUDIES[(place + place // len(STUDIES)) % len(STUDIES)]
    return Style(color, marker, arm.line, arm.hollow)
