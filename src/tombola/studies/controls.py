"""Sanity controls of any arm: do the chosen weights matter, or only their number in each layer?

Su et al. 2020 ("Sanity-Checking Pruning Methods") and Frankle et al. 2021 ("Pruning Neural Networks at Initialization:
Why Are We Missing the Mark?"): a method that does as well with its mask shuffled within layers, or on another
initialisation, has found only layer densities.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tombola.errors import InputError
from tombola.studies.arms import Rule
from tombola.training.popup import Popup
from tombola.work import InitialState

if TYPE_CHECKING:
    from tombola.studies.trial import Trial


def control(name: str, arm: Rule, shuffle: bool, reinit: bool) -> Rule:
    """Return the arm with its masks shuffled within layers, on fresh initialisations, or both.

    Repeats draw places and weights again, for the mask of the arm's first repeat. A fresh initialisation is trained for
    the whole budget by the study's recipe. Of `ticket`, these are the arms `random-mask` and `reinit`.

    Args:
        name: of the arm; each arm's permutations are its own.
        arm: its rule.
        shuffle, reinit: which control.
    """
    if not (shuffle or reinit):
        return arm

    def controlled(trial: Trial, level: int, repeat: int) -> Any:
        found = arm(trial, level, 0)
        if not isinstance(found, tuple) or len(found) < 2:
            return found  # which the plan will complain of
        initial, mask, *recipe = found
        if isinstance(mask, Popup):  # on other weights, training scores would find another mask
            option = f"{'shuffle' if shuffle else 'reinit'}: true"
            raise InputError(
                f"{{of: edge-popup, {option}}}: the mask of edge-popup does not exist before its scores are trained; "
                f"use {{of: edge-popup-trained, {option}}}"
            )
        if shuffle:
            mask = mask.model_copy(update={"shuffle": trial.shuffle(name, level, repeat)})
        if reinit:
            return InitialState(draw=repeat + 1), mask
        return initial, mask, *recipe

    return controlled
