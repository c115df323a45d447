"""Numbers and names as a person reads them, the same in tables and figures."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from tombola.figures.form import Bars

# The arms that have an order and a style of their own: those of the paper first.
KNOWN_ARMS = (
    "ticket",
    "reinit",
    "random-mask",
    "one-shot",
    "one-shot-reinit",
    "fine-tune",
    "lr-rewind",
    "late-reinit",
    "snip",
    "grasp",
    "synflow",
    "magnitude-at-init",
    "random",
    "random-erk",
    "edge-popup",
    "edge-popup-trained",
    "early-bird",
)
CONTROLS = ("-shuffled", "-reinit", "-shuffled-reinit")  # what a control's name ends in, after that of its arm
# What a line joins, by the kind that `Results.connectivity` gives.
BETWEEN = {"copies": "copies", "dense-ticket": "dense and ticket", "levels": "successive tickets"}
BARS_ARE = {"range": "bars span the lowest and highest run", "interval": "bars are 95 % t intervals of the mean"}


def in_order(arms: Iterable[str]) -> list[str]:
    """Return the arms that tombola knows first, each before its controls, and a user's own after them by name."""

    def place(name: str) -> tuple[int, str, int, int, str]:
        curve, _, rewound = name.rpartition("@") if name.rpartition("@")[2].isdigit() else (name, "", "0")
        arm, control = of_control(curve)
        number = KNOWN_ARMS.index(arm) if arm in KNOWN_ARMS else len(KNOWN_ARMS)
        return number, arm, CONTROLS.index(control) if control else -1, int(rewound), name

    return sorted({str(arm) for arm in arms}, key=place)


def of_control(name: str) -> tuple[str, str]:
    """Return the arm that a control is of and which of CONTROLS it is: "" where it is none of an arm that we know."""
    for control in sorted(CONTROLS, key=len, reverse=True):
        if name not in KNOWN_ARMS and (arm := name.removesuffix(control)) in KNOWN_ARMS:
            return arm, control
    return name, ""


def plain(name: object, longest: int = 40) -> str:
    """Return a name on one line, without control characters and not too long: names come from users' files."""
    text = "".join(" " if unicodedata.category(c).startswith(("C", "Z")) else c for c in str(name))
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


def percent(density: float) -> str:
    """Return a density (0 to 1) as the paper writes it, without the sign: 100, 51.3, 7.0; two digits below 1 %."""
    value = 100 * density
    if value >= 99.95:
        return "100"
    return f"{value:.1f}" if value >= 0.995 or value <= 0 else f"{value:.2g}"


def counted(number: int, noun: str) -> str:
    """Return "1 trial", "5 trials"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def sample_size(summary: pd.DataFrame) -> str:
    """Return the sample size of each arm of one study: "n = 5 trials", or by arm where they differ."""
    arms_of: dict[str, list[str]] = {}
    for arm in in_order(summary["arm"]):
        arms_of.setdefault(_size_of(summary[summary["arm"] == arm]), []).append(plain(arm))
    if len(arms_of) == 1:
        return f"n = {next(iter(arms_of))}"
    return "n = " + "; ".join(f"{size} ({', '.join(arms)})" for size, arms in arms_of.items())


def small_print(summary: pd.DataFrame, marks: str, bars: Bars | None, *more: str) -> str:
    """Return what a figure says of itself: sample size, what points or curves and bars are, what is left out.

    Arguments:
        summary: of what the figure shows.
        marks: what stands for a mean: "points" or "curves".
        bars: what the bars are; None where the figure has none.
    """
    if bars is None:
        drawn = f"{marks} are means over trials" if (summary["runs"] > 1).any() else "single runs"
    elif bars == "interval" and (summary["n"] < 2).all():
        drawn = "one trial, so no intervals"
    elif (summary["runs"] > 1).any():
        drawn = f"{marks} are means over trials, {BARS_ARE[bars]}"
    else:
        drawn = "single runs, so no bars"
    return "; ".join(part for part in (_sample_sizes(summary), drawn, left_out(summary), *more) if part) + "."


def left_out(summary: pd.DataFrame) -> str:
    """Return "2 diverged runs left out (reinit)", or nothing where no run diverged."""
    diverged = summary[summary["diverged"] > 0]
    if diverged.empty:
        return ""
    arms = ", ".join(plain(arm) for arm in in_order(diverged["arm"]))
    return f"{counted(int(diverged['diverged'].sum()), 'diverged run')} left out ({arms})"


def _sample_sizes(summary: pd.DataFrame) -> str:
    """Return the sample sizes, by study where they differ."""
    sizes = {study: sample_size(rows) for study, rows in summary.groupby("study", sort=False, observed=True)}
    if len(set(sizes.values())) == 1:
        return next(iter(sizes.values()))
    return " · ".join(f"{plain(study)}: {size}" for study, size in sizes.items())


def _size_of(arm: pd.DataFrame) -> str:
    with_results = arm[arm["n"] > 0]
    # The dense level is one run per trial even where an arm has several repeats at every other level.
    pruned = with_results[with_results["level"] > 0]
    rows = with_results if pruned.empty else pruned
    if rows.empty:
        return "0 trials"
    trials = _range(rows["n"], "trial")
    same = (rows["n"] == rows["runs"]).all()
    return trials if same else f"{trials}, {_range(rows['runs'], 'run')}"


def _range(numbers: pd.Series, noun: str) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return counted(high, noun) if low == high else f"{low:,} to {counted(high, noun)}"
