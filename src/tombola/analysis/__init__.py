"""What the tables of a study say: statistics over trials, levels and arms."""

from __future__ import annotations

from tombola.analysis.spread import spread
from tombola.analysis.summary import MEASURES, summarise

__all__ = [
    "MEASURES",
    "spread",
    "summarise",
]
