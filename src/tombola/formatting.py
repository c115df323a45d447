"""Formats numbers and names for messages, tables, figures and pages."""

from __future__ import annotations

import csv
import math
import re
import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from tombola.tasks.metric import Metric

MINUS = "−"  # for typeset texts; messages and terminals use the hyphen


def plain(name: object, longest: int = 40) -> str:
    """Return a name on one line, shortened and without control characters: names come from users' files."""
    text = "".join(" " if unicodedata.category(c).startswith(("C", "Z")) else c for c in str(name))
    text = " ".join(text.split())
    return text if len(text) <= longest else text[: longest - 1] + "…"


FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # what a text begins with that a spreadsheet may take for a formula


def as_csv(frame: pd.DataFrame) -> bytes:
    """Return a table as the bytes of a CSV file.

    A text that a spreadsheet would take for a formula gets an apostrophe before it; `text_of_csv` takes it away. Names
    come from users' files.
    """
    safe, quoting = frame.copy(), csv.QUOTE_MINIMAL
    for column in safe.columns:
        if safe[column].dtype.kind not in "biuf":
            safe[column] = safe[column].map(_csv_cell)
            if safe[column].map(lambda cell: isinstance(cell, str) and "\r" in cell).any():
                quoting = csv.QUOTE_NONNUMERIC  # else a reader takes it for the end of the row
    return safe.to_csv(index=False, quoting=quoting).encode()


def _csv_cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def text_of_csv(cell: str) -> str:
    """Return the text that `as_csv` wrote."""
    return cell.removeprefix("'") if cell.startswith(tuple(f"'{sign}" for sign in FORMULA)) else cell


def percent(density: float) -> str:
    """Return a density (0 to 1) in the paper's form, without the % sign: 100, 51.3, 7.0; two digits below 1 %."""
    value = 100 * density
    if value >= 99.95:
        return "100"
    return f"{value:.1f}" if value >= 0.995 or value <= 0 else f"{value:.2g}"


def first_of(names: Sequence[str], most: int) -> str:
    """Return the first names of some: "a, b and 3 more"."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def counted(number: int, noun: str) -> str:
    """Return "1 trial", "5 trials"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def counted_are(number: int, noun: str, of: int | None = None) -> str:
    """Return "1 run is", "5 runs are"; with `of`, "1 of 16 runs is", "5 of 16 runs are"."""
    subject = counted(number, noun) if of is None else f"{number:,} of {counted(of, noun)}"
    return f"{subject} {'is' if number == 1 else 'are'}"


def digits(value: float, sign: bool = False) -> str:
    """Return a number to three significant digits: 0.0123, 12.3, 1,230, 1.23e-05."""
    plus = "+" if sign else ""
    if not math.isfinite(value) or value == 0:
        return f"{value:{plus}g}"
    exponent = math.floor(math.log10(abs(float(f"{value:.2e}"))))
    if not -5 < exponent < 6:
        return f"{value:{plus}.2e}"
    return f"{value:{plus},.{max(0, 2 - exponent)}f}"


def number(value: float, metric: Metric) -> str:
    """Return a displayed value without its unit: percentages to two decimals, others to three significant digits."""
    return f"{value:.2f}" if metric.unit == "%" else digits(value)


def together(values: Sequence[float], sign: bool = False, significant: int = 3) -> list[str]:
    """Return numbers of one kind with equally many decimals, enough for three digits of the largest one.

    An interval and its mean are read together: beside 0.002, a mean of -5.259e-06 is -0.00001.

    Args:
        values: NaN becomes "nan".
        sign: also write a plus.
        significant: digits of the largest value.
    """
    plus = "+" if sign else ""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    if largest == 0 or not -5 < math.floor(math.log10(largest)) < 6:
        return [digits(value, sign) for value in values]
    decimals = max(0, significant - 1 - math.floor(math.log10(float(f"{largest:.{significant - 1}e}"))))
    return [f"{value:{plus},.{decimals}f}" for value in values]


def with_interval(values: Sequence[float]) -> list[str]:
    """Return a mean and the ends of its interval, with two digits of the interval's width: 98.262, 98.233, 98.291.

    A single value, without an interval, has four digits.
    """
    width = values[2] - values[1] if len(values) == 3 else 0.0
    if not math.isfinite(width) or width <= 0 or not -5 < math.floor(math.log10(width)) < 6:
        return together(values, significant=4)
    decimals = max(0, 1 - math.floor(math.log10(float(f"{width:.1e}"))))
    return [f"{value:,.{decimals}f}" for value in values]


def differences(values: Sequence[float], metric: Metric) -> list[str]:
    """Return differences of displayed values, such as a mean and its interval, with their signs and without a unit."""
    return [signed(value, metric) for value in values] if metric.unit == "%" else together(values, sign=True)


def typeset(text: str) -> str:
    """Return a text whose minus signs are typographic; hyphens stay."""
    return re.sub(r"(?<![\w.,)])-(?=[\d.])", MINUS, text)


def value(stored: float, metric: Metric) -> str:
    """Return a stored value for display, with its unit: "97.92 %", "0.0123 kW", "24.1"."""
    return f"{number(metric.scale * stored, metric)} {metric.unit}".rstrip()


def signed(difference: float, metric: Metric) -> str:
    """Return a difference of displayed values with its sign and without its unit: "+0.36", "-0.0123"."""
    return f"{difference:+.2f}" if metric.unit == "%" else digits(difference, sign=True)


def with_unit(text: str, metric: Metric) -> str:
    """Return a formatted difference followed by its unit: "+0.36 points"."""
    return f"{text} {metric.difference_unit}".rstrip()


def byte_size(count: float) -> str:
    """Return a number of bytes: "12 B", "60.0 KiB", "3.0 MiB"."""
    for unit, name in ((2**20, "MiB"), (2**10, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count:.0f} B"


def latency(microseconds: float) -> str:
    """Return a short time: "2.3 us", "1.50 ms"."""
    return f"{microseconds / 1000:.2f} ms" if microseconds >= 1000 else f"{microseconds:.1f} us"


def axis_label(text: str, unit: str) -> str:
    """Return the label of an axis: "test accuracy (%)"; without a unit, only the text."""
    return f"{text} ({unit})" if unit else text


def margin_in_words(margin: float, metric: Metric) -> str:
    """Return the margin of verdicts and break-down: "0.1 points", or "0.1 % of the dense network's value"."""
    return f"{100 * margin:g} " + ("points" if metric.unit == "%" else "% of the dense network's value")
