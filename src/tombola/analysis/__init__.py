"""What the tables of a study say: statistics over trials, levels and arms.

`tombola.analysis.layers` and `tombola.analysis.overlap` look at masks, `tombola.analysis.claims` checks published
claims.
"""

from __future__ import annotations

from tombola.analysis.break_down import break_down
from tombola.analysis.connectivity import barrier_statistics, barriers
from tombola.analysis.measures import measures_of
from tombola.analysis.paired import paired_differences, paired_gains
from tombola.analysis.patterns import pattern_costs
from tombola.analysis.pixels import live_pixels
from tombola.analysis.signs import sign_flips
from tombola.analysis.spread import spread
from tombola.analysis.statistics import level_statistics
from tombola.analysis.summary import summarise
from tombola.analysis.verdicts import verdicts

__all__ = [
    "barrier_statistics",
    "barriers",
    "break_down",
    "level_statistics",
    "live_pixels",
    "measures_of",
    "paired_differences",
    "paired_gains",
    "pattern_costs",
    "sign_flips",
    "spread",
    "summarise",
    "verdicts",
]
