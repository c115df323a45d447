"""Controls of any arm: the arm's own mask, with something else in the place of its weights or of its places.

Su et al. 2020 ("Sanity-Checking Pruning Methods") and Frankle et al. 2021 ("Pruning Neural Networks at Initialization:
Why Are We Missing the Mark?"): a method that does as well with its mask shuffled within layers, or on another
initialisation, has found layer densities, no more.

Zhou et al. 2019 ("Deconstructing Lottery Tickets") change what kept weights start from (mask-1 actions) and
what pruned weights are (mask-0 actions).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tombola.errors import InputError
from tombola.networks.narrow import Narrowed
from tombola.studies.arms import Rule
from tombola.studies.study import ArmSettings
from tombola.training.moving import Moving
from tombola.training.popup import Popup
from tombola.work import Frozen, InitialState, MaskUse

if TYPE_CHECKING:
    from tombola.studies.trial import Trial

# (kept, signs) -> what `InitialState.redraw` calls it.
REDRAW = {
    ("reinit", True): "reinit-signs",
    ("reshuffle", False): "shuffled",
    ("reshuffle", True): "signs",
    ("constant", False): "constant",
    ("constant", True): "constant-signs",
    ("random-signs", False): "random-signs",
}
DRAWN_AT_EACH_LEVEL = ("shuffled", "signs", "constant", "random-signs")


def control(settings: ArmSettings, arm: Rule) -> Rule:
    """Return the arm with its masks shuffled within layers, other starting weights, or frozen pruned weights.

    Repeats draw new places and weights, for the mask of the arm's first repeat. A fresh initialisation is trained for
    the whole budget by the study's recipe. Of `ticket`, `shuffle` and `reinit` are the arms `random-mask` and `reinit`.

    Args:
        settings: of the control; each arm's permutations are its own.
        arm: the rule.
    """
    if not settings.is_control:
        return arm

    def controlled(trial: Trial, level: int, repeat: int) -> Any:
        found = arm(trial, level, 0)
        if not isinstance(found, tuple) or len(found) < 2:
            return found  # which the plan will complain of
        initial, mask, *recipe = found
        if isinstance(mask, Narrowed):
            raise InputError(
                f"arm {settings.label!r}: {settings.rule} trains a whole network and has no mask to control; take a "
                "control of ticket"
            )
        if isinstance(mask, Popup | Moving):  # on other weights, training would find another mask
            option = _first_option(settings)
            raise InputError(
                f"{{of: {settings.rule}, {option}}}: the mask of {settings.rule} does not exist before its training "
                f"ends; use {{of: edge-popup-trained, {option}}} or {{of: ticket, {option}}}"
            )
        if not isinstance(initial, InitialState) or not isinstance(mask, MaskUse):
            return found
        if settings.shuffle:
            mask = mask.model_copy(update={"shuffle": trial.shuffle(settings.rule, level, repeat)})
        if settings.pruned != "zero":
            mask = mask.model_copy(update={"frozen": _frozen(settings, initial, trial)})
        if settings.starts_fresh:
            return InitialState(draw=repeat + 1), mask
        if settings.kept != "rewind":
            initial = _redrawn(settings, initial, level, repeat)
        return initial, mask, *recipe

    return controlled


def _first_option(settings: ArmSettings) -> str:
    if settings.shuffle or settings.reinit:
        return f"{'shuffle' if settings.shuffle else 'reinit'}: true"
    return f"pruned: {settings.pruned}" if settings.kept == "rewind" else f"kept: {settings.kept}"


def _frozen(settings: ArmSettings, initial: InitialState, trial: Trial) -> Frozen:
    """Return how pruned weights are frozen.

    Raises:
        InputError: the arm starts from trained weights, of which the pruned ones are 0.0; or no dense run started from
            its weights, so that none shows which of them move.
    """
    if initial.trained:
        raise InputError(
            f"arm {settings.label!r}: pruned={settings.pruned} freezes starting values, and {settings.rule} starts "
            "from trained weights, whose pruned ones are 0.0; take a control of ticket or one-shot"
        )
    if settings.pruned == "freeze":
        return Frozen()
    dense = [each.dense.id for each in (trial, trial.source) if each is not None]
    descends = initial.run or (dense[0] if initial.draw == 0 else None)
    if descends not in dense or settings.starts_fresh:
        raise InputError(
            f"arm {settings.label!r}: pruned=freeze-moved asks which weights moved while the dense network "
            "trained, but this arm starts from another initialisation; take pruned: freeze"
        )
    return Frozen(moved_in=descends)


def _redrawn(settings: ArmSettings, initial: InitialState, level: int, repeat: int) -> InitialState:
    """Return the initial state with its kept weights changed.

    A fresh initialisation is one for all levels; permutations and random signs are drawn for each.

    Raises:
        InputError: the arm changes them already.
    """
    if initial.redraw is not None:
        raise InputError(
            f"arm {settings.label!r}: {settings.rule} has kept weights of its own choice already; leave kept out, or "
            "take a control of ticket"
        )
    redraw = REDRAW[settings.kept, settings.signs]
    change: dict[str, Any] = {"redraw": redraw}
    if redraw != "constant-signs":
        change["repeat"] = repeat
    if redraw in DRAWN_AT_EACH_LEVEL:
        change["level"] = level
    return initial.model_copy(update=change)
