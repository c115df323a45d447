"""Tables as the page holds them: embedded once, plotted from, and saved as CSV by the reader."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

DIGITS = 6  # significant, of what is computed; what was measured keeps all of its digits


@dataclass(frozen=True)
class Table:
    """A table in the page.

    Args:
        name: of the CSV file, without its ending; plots refer to it.
        caption: what a row is.
        columns: their names.
        rows: of numbers, texts and None.
    """

    name: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def content(self) -> dict[str, Any]:
        """Return what is embedded as JSON."""
        return {"columns": self.columns, "rows": self.rows}


def table(name: str, caption: str, frame: pd.DataFrame, exact: bool = False) -> Table:
    """Return `frame` as a table; NaN and infinite values are None, `exact` keeps every digit."""
    columns = [_plain_values(frame[column], exact) for column in frame.columns]
    return Table(name, caption, tuple(map(str, frame.columns)), tuple(zip(*columns, strict=True)))


def packed(tables: Sequence[Table]) -> str:
    """Return tables as the page holds them: JSON, compressed, in base64. Equal tables give the same text."""
    content = {each.name: each.content() for each in tables}
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _plain_values(column: pd.Series, exact: bool) -> list[Any]:
    return [_plain_value(value, exact) for value in column.astype(object)]


def _plain_value(value: Any, exact: bool) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if exact else float(f"{value:.{DIGITS}g}")
    if value is None or isinstance(value, bool | int):
        return value
    return str(value) if not pd.isna(value) else None
