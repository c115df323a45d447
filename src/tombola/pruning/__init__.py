"""Masks, criteria and selection: three things that do not know each other."""

from tombola.pruning.at_init import AT_INIT
from tombola.pruning.controls import shuffled, shuffled_weights, sign_preserving_redraw
from tombola.pruning.criteria import CRITERIA, Criterion, Goal, SkipRound, Snapshots, magnitude
from tombola.pruning.holding import Hold, release
from tombola.pruning.mask import Mask
from tombola.pruning.mask_formats import weights_from_openlth
from tombola.pruning.scoring import scores_of, try_criterion
from tombola.pruning.select import kept_after, kept_of, plan_counts, removed, select

__all__ = [
    "AT_INIT",
    "CRITERIA",
    "Criterion",
    "Goal",
    "Hold",
    "Mask",
    "SkipRound",
    "Snapshots",
    "kept_after",
    "kept_of",
    "magnitude",
    "plan_counts",
    "release",
    "removed",
    "scores_of",
    "select",
    "shuffled",
    "shuffled_weights",
    "sign_preserving_redraw",
    "try_criterion",
    "weights_from_openlth",
]
