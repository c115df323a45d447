"""Data sets: where they come from, how they are split, what training sees of them."""

from tombola.data.balanced import balanced
from tombola.data.dataset import Dataset, Description
from tombola.data.parts import Part, Splits
from tombola.data.settings import DataSettings
from tombola.data.sources import (
    SOURCES,
    describe,
    fingerprint,
    load,
)
from tombola.data.splitting import drawn_rows, split

__all__ = [
    "SOURCES",
    "DataSettings",
    "Dataset",
    "Description",
    "Part",
    "Splits",
    "balanced",
    "describe",
    "drawn_rows",
    "fingerprint",
    "load",
    "split",
]
