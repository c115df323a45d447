"""Arms: rules that give, for each level, the mask and the starting weights.

An arm is a function `(trial, level, repeat) -> (Origin, MaskRule)` for levels 1 and up; level 0, the dense network, is
shared. `trial` offers the pieces: `trial.start` (the trial's own weights at the rewind iteration) and `trial.initial`
(at iteration 0), `trial.iterative(level)`, `trial.one_shot(level)` and `trial.at_init(method, level)` (masks), and for
an arm whose levels build on its own ones `trial.run(arm, level)` and `trial.pruned(job, level)`. An arm that trains
otherwise returns its recipe as a third thing; one that trains scores instead of weights returns a `Popup` in place of
the mask.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tombola.studies.job import MaskRule, Origin
from tombola.training.popup import Popup
from tombola.training.recipe import Recipe

if TYPE_CHECKING:
    from tombola.studies.trial import Trial

MANY_LEVELS = 1000  # more than any study has

Arm = Callable[["Trial", int, int], tuple[Origin, MaskRule | Popup] | tuple[Origin, MaskRule | Popup, Recipe]]


def ticket(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """Iterative pruning with rewinding (Frankle & Carbin 2019, Section 1, strategy 1 of Appendix B)."""
    return trial.start, trial.iterative(level)


def reinit(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """The ticket's mask with a fresh initialisation (the paper's dashed lines in Figures 3 to 5).

    Each repeat is one initialisation, seen at all levels.
    """
    return Origin(draw=repeat + 1), trial.iterative(level)


def random_mask(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """The ticket's weights and layer densities, with the places drawn at random (the paper's Figure 1)."""
    draw = repeat * MANY_LEVELS + level  # each level draws anew, independent of the others
    return trial.start, trial.iterative(level).model_copy(update={"shuffle": draw})


def one_shot(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """The dense run pruned once, to as many weights as the iterative level has (the paper's Section 2)."""
    return trial.start, trial.one_shot(level)


def one_shot_reinit(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """The one-shot mask with a fresh initialisation."""
    return Origin(draw=repeat + 1), trial.one_shot(level)


def fine_tune(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule, Recipe]:
    """Keep the final weights and train on at the last learning rate (Han et al. 2015; Renda et al. 2020, Section 3).

    It trains for as many iterations as a ticket that is rewound to the study's `rewind`.
    """
    before = trial.run(fine_tune, level - 1)
    return (
        Origin(job=before.id, iteration=trial.rewind, moment="final"),
        trial.pruned(before, level),
        trial.last_rate(level),
    )


def lr_rewind(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """Keep the final weights and replay the schedule from the rewind iteration on (Renda et al. 2020, Section 3)."""
    before = trial.run(lr_rewind, level - 1)
    return Origin(job=before.id, iteration=trial.rewind, moment="final"), trial.pruned(before, level)


def late_reinit(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """The ticket's mask on a fresh initialisation that has been trained to the rewind iteration without a mask.

    The control of late rewinding (Frankle et al. 2019): is it the ticket's own early weights that count, or any?
    """
    return trial.other_start(repeat + 1), trial.iterative(level)


def snip(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """Pruned at initialisation by |w * dL/dw| (Lee et al. 2019); each repeat draws its own examples."""
    return trial.initial, trial.at_init("snip", level, draw=repeat)


def grasp(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """Pruned at initialisation so that gradients keep flowing (Wang et al. 2020); each repeat draws its examples."""
    return trial.initial, trial.at_init("grasp", level, draw=repeat)


def synflow(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """Pruned at initialisation in 100 rounds, without data (Tanaka et al. 2020)."""
    return trial.initial, trial.at_init("synflow", level)


def magnitude_at_init(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """The largest initial weights of all layers taken together (the baseline of Tanaka et al. 2020)."""
    return trial.initial, trial.at_init("initial-magnitude", level)


def random(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """Random places, the same density in each layer, drawn anew at each level."""
    return trial.initial, trial.at_init("random-uniform", level, draw=repeat * MANY_LEVELS + level)


def random_erk(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """Random places with Erdos-Renyi-kernel layer densities (Evci et al. 2020), drawn anew at each level."""
    return trial.initial, trial.at_init("random-erk", level, draw=repeat * MANY_LEVELS + level)


def edge_popup(trial: Trial, level: int, repeat: int) -> tuple[Origin, Popup]:
    """Scores are trained instead of weights (Ramanujan et al. 2020): the untrained weights under the mask found.

    The mask has as many weights as the level has: in each layer under scope `layer`, and the same share of every
    pruned layer under `global`.
    """
    return Origin(), trial.popup(level, draw=repeat)


def edge_popup_trained(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """The mask that `edge-popup` found, trained from the weights that it was found with, as a ticket is."""
    found = trial.supermask(level, draw=repeat)
    return Origin(job=found.id), trial.own_mask(found)


def early_bird(trial: Trial, level: int, repeat: int) -> tuple[Origin, MaskRule]:
    """The dense run pruned once, as soon as the mask has settled (You et al. 2020)."""
    return trial.start, trial.early_bird(level)


ARMS: dict[str, Arm] = {
    "ticket": ticket,
    "reinit": reinit,
    "random-mask": random_mask,
    "one-shot": one_shot,
    "one-shot-reinit": one_shot_reinit,
    "fine-tune": fine_tune,
    "lr-rewind": lr_rewind,
    "late-reinit": late_reinit,
    "snip": snip,
    "grasp": grasp,
    "synflow": synflow,
    "magnitude-at-init": magnitude_at_init,
    "random": random,
    "random-erk": random_erk,
    "edge-popup": edge_popup,
    "edge-popup-trained": edge_popup_trained,
    "early-bird": early_bird,
}
# Whatever `rewind` says, these begin at iteration 0.
FROM_INITIALISATION = (
    "reinit",
    "one-shot-reinit",
    "snip",
    "grasp",
    "synflow",
    "magnitude-at-init",
    "random",
    "random-erk",
    "edge-popup",
    "edge-popup-trained",
)
