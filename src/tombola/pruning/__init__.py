"""Masks, criteria and selection: three things that do not know each other."""

from tombola.pruning.controls import shuffled
from tombola.pruning.criteria import CRITERIA, Criterion, SkipRound, Snapshots, magnitude
from tombola.pruning.mask import Mask
from tombola.pruning.scoring import scores_of, try_criterion
from tombola.pruning.select import kept_after, plan_counts, removed, select

__all__ = [
    "CRITERIA",
    "Criterion",
    "Mask",
    "SkipRound",
    "Snapshots",
    "kept_after",
    "magnitude",
    "plan_counts",
    "removed",
    "scores_of",
    "select",
    "shuffled",
    "try_criterion",
]
