"""Arms: rules that give, for each level, the starting weights and the mask.

A rule is a function `(trial, level, repeat) -> (InitialState, MaskUse)` for levels 1 and up; level 0, the dense
network, is shared. `trial` offers the pieces: `trial.rewound` (the trial's own weights at the rewind iteration) and
`trial.initial` (at iteration 0), `trial.iterative(level)`, `trial.one_shot(level)` and `trial.at_init(method, level)`
(masks), and, for an arm whose levels build on its own levels, `trial.run(rule, level)` and `trial.pruned(run, level)`.
An arm with its own recipe returns the recipe as a third value. An arm that trains scores instead of weights returns a
`Popup` instead of the mask, one whose mask moves a `Moving`, and one without a mask another network, a `Narrowed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tombola.networks.narrow import Narrowed
from tombola.registry import resolve
from tombola.training.moving import Moving
from tombola.training.popup import Popup
from tombola.training.recipe import Recipe
from tombola.work import InitialState, MaskUse

if TYPE_CHECKING:
    from tombola.studies.trial import Trial

Found = MaskUse | Popup | Moving | Narrowed
Planned = tuple[InitialState, Found] | tuple[InitialState, Found, Recipe]
Rule = Callable[["Trial", int, int], Planned]
Start = Literal["rewound", "initial", "trained"]


def ticket(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """Iterative pruning with rewinding (Frankle & Carbin 2019, Section 1, strategy 1 of Appendix B)."""
    return trial.rewound, trial.iterative(level)


def reinit(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """The ticket's mask with a fresh initialisation (the paper's dashed lines in Figures 3 to 5).

    Each repeat is one initialisation, used at all levels.
    """
    return InitialState(draw=repeat + 1), trial.iterative(level)


def random_mask(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """The ticket's weights and layer densities, with the places drawn at random (the paper's Figure 1)."""
    shuffle = trial.shuffle("ticket", level, repeat)
    return trial.rewound, trial.iterative(level).model_copy(update={"shuffle": shuffle})


def one_shot(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """The dense run pruned once, to as many weights as the iterative level has (the paper's Section 2)."""
    return trial.rewound, trial.one_shot(level)


def one_shot_reinit(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """The one-shot mask with a fresh initialisation."""
    return InitialState(draw=repeat + 1), trial.one_shot(level)


def fine_tune(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse, Recipe]:
    """Keep the final weights and train further at the last learning rate (Han et al. 2015; Renda et al. 2020, Section
    3).

    It trains for as many iterations as a ticket that is rewound to the study's `rewind`.
    """
    before = trial.run(fine_tune, level - 1)
    return (
        InitialState(run=before.id, iteration=trial.rewind, trained=True),
        trial.pruned(before, level),
        trial.last_rate(level),
    )


def lr_rewind(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """Keep the final weights and replay the schedule from the rewind iteration on (Renda et al. 2020, Section 3)."""
    before = trial.run(lr_rewind, level - 1)
    return InitialState(run=before.id, iteration=trial.rewind, trained=True), trial.pruned(before, level)


def late_reinit(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """The ticket's mask on a fresh initialisation that has been trained to the rewind iteration without a mask.

    The control of late rewinding (Frankle et al. 2019): do the ticket's own early weights matter, or any?
    """
    return trial.other_start(repeat + 1), trial.iterative(level)


def shuffled_weights(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """The ticket's mask, its starting weights permuted within each layer: for networks without a second initialisation.

    Each repeat and level has its own permutation.
    """
    change = {"redraw": "shuffled", "repeat": repeat, "level": level}
    return trial.rewound.model_copy(update=change), trial.iterative(level)


def redrawn_magnitudes(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """The ticket's mask and signs, its magnitudes permuted within each layer (after Zhou et al. 2019, Section 4).

    Each repeat and level has its own permutation.
    """
    change = {"redraw": "signs", "repeat": repeat, "level": level}
    return trial.rewound.model_copy(update=change), trial.iterative(level)


def snip(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """Pruned at initialisation by |w * dL/dw| (Lee et al. 2019); each repeat draws its own examples."""
    return trial.initial, trial.at_init("snip", level, repeat)


def gradient_at_init(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """Pruned at initialisation by |dL/dw| alone (Zhou et al. 2019, code); each repeat draws its own examples."""
    return trial.initial, trial.at_init("gradient-at-init", level, repeat)


def grasp(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """Pruned at initialisation so that gradients keep flowing (Wang et al. 2020); each repeat draws its examples."""
    return trial.initial, trial.at_init("grasp", level, repeat)


def synflow(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """Pruned at initialisation in 100 rounds, without data (Tanaka et al. 2020)."""
    return trial.initial, trial.at_init("synflow", level)


def magnitude_at_init(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """The largest initial weights of all layers taken together (the baseline of Tanaka et al. 2020)."""
    return trial.initial, trial.at_init("initial-magnitude", level)


def random(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """Random places, the same density in each layer, drawn again at each level."""
    return trial.initial, trial.at_init("random-uniform", level, repeat)


def random_erk(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """Random places with Erdos-Renyi-kernel layer densities (Evci et al. 2020), drawn again at each level."""
    return trial.initial, trial.at_init("random-erk", level, repeat)


def edge_popup(trial: Trial, level: int, repeat: int) -> tuple[InitialState, Popup]:
    """Train scores instead of weights (Ramanujan et al. 2020): the untrained weights under the mask found.

    The mask has as many weights as the level has: in each layer under scope `layer`, and the same share of every
    pruned layer under `global`.
    """
    return InitialState(), trial.popup(level, draw=repeat)


def supermask(trial: Trial, level: int, repeat: int) -> tuple[InitialState, Popup]:
    """Each weight's probability of being seen is trained, and masks are sampled (Zhou et al. 2019, Section 5).

    The mask has as many weights as the level has, the likeliest of each layer.
    """
    return InitialState(), trial.popup(level, draw=repeat).model_copy(update={"method": "sampled"})


def gradual(trial: Trial, level: int, repeat: int) -> tuple[InitialState, Moving]:
    """Gradual magnitude pruning within one run, by a cubic schedule (Zhu & Gupta 2017)."""
    return InitialState(), trial.moving("gradual", level, repeat)


def sparse_evolution(trial: Trial, level: int, repeat: int) -> tuple[InitialState, Moving]:
    """SET: a sparse network whose smallest weights move to random places (Mocanu et al. 2018)."""
    return InitialState(), trial.moving("set", level, repeat)


def rigl(trial: Trial, level: int, repeat: int) -> tuple[InitialState, Moving]:
    """RigL: a sparse network whose smallest weights move to where gradients are largest (Evci et al. 2020)."""
    return InitialState(), trial.moving("rigl", level, repeat)


def ac_dc(trial: Trial, level: int, repeat: int) -> tuple[InitialState, Moving]:
    """AC/DC: compressed and dense phases in turn within one run (Peste et al. 2021)."""
    return InitialState(), trial.moving("ac-dc", level, repeat)


def small_dense(trial: Trial, level: int, repeat: int) -> tuple[InitialState, Narrowed]:
    """A dense network with as many weights as the level has: narrower, and trained whole (Liu et al. 2019)."""
    return InitialState(draw=repeat), trial.narrowed(level)


def edge_popup_trained(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """The mask of `edge-popup`, trained from the weights of `edge-popup` as a ticket."""
    found = trial.supermask(level, draw=repeat)
    return InitialState(run=found.id), trial.own_mask(found)


def early_bird(trial: Trial, level: int, repeat: int) -> tuple[InitialState, MaskUse]:
    """The dense run pruned once, as soon as the mask has settled (You et al. 2020)."""
    return trial.rewound, trial.early_bird(level)


@dataclass(frozen=True)
class Arm:
    """The record of an arm.

    Args:
        rule: plans its work.
        start: the weights that its runs start from: "rewound" follows the study's `rewind`, "initial" always starts at
            iteration 0, "trained" continues from the weights at the end of the level before.
        control: whether it is a control, which figures draw with hollow markers.
        fresh: whether it draws initial weights again, which a network with pretrained weights can't.
        no_rounds: whether it finds and trains a network without rounds of training: what iterative pruning must beat.
        source: the paper, for tables.
    """

    rule: Rule
    start: Start = "rewound"
    control: bool = False
    fresh: bool = False
    no_rounds: bool = False
    source: str = ""


FRANKLE, RENDA = "Frankle & Carbin 2019", "Renda et al. 2020"

ARMS: dict[str, Arm] = {
    "ticket": Arm(ticket, source=FRANKLE),
    "reinit": Arm(reinit, "initial", control=True, fresh=True, source=FRANKLE),
    "random-mask": Arm(random_mask, control=True, source=FRANKLE),
    "one-shot": Arm(one_shot, no_rounds=True, source=FRANKLE),
    "one-shot-reinit": Arm(one_shot_reinit, "initial", control=True, fresh=True, source=FRANKLE),
    "fine-tune": Arm(fine_tune, "trained", source="Han et al. 2015"),
    "lr-rewind": Arm(lr_rewind, "trained", source=RENDA),
    "late-reinit": Arm(late_reinit, control=True, fresh=True, source="Frankle et al. 2019"),
    "shuffled-weights": Arm(shuffled_weights, control=True, source="Frankle et al. 2021"),
    "redrawn-magnitudes": Arm(redrawn_magnitudes, control=True, source="Zhou et al. 2019"),
    "snip": Arm(snip, "initial", no_rounds=True, source="Lee et al. 2019"),
    "gradient-at-init": Arm(gradient_at_init, "initial", no_rounds=True, source="Zhou et al. 2019"),
    "grasp": Arm(grasp, "initial", no_rounds=True, source="Wang et al. 2020"),
    "synflow": Arm(synflow, "initial", no_rounds=True, source="Tanaka et al. 2020"),
    "magnitude-at-init": Arm(magnitude_at_init, "initial", no_rounds=True, source="Tanaka et al. 2020"),
    "random": Arm(random, "initial", control=True, no_rounds=True, source="Su et al. 2020"),
    "random-erk": Arm(random_erk, "initial", control=True, no_rounds=True, source="Evci et al. 2020"),
    "edge-popup": Arm(edge_popup, "initial", source="Ramanujan et al. 2020"),
    "supermask": Arm(supermask, "initial", source="Zhou et al. 2019"),
    "edge-popup-trained": Arm(edge_popup_trained, "initial", no_rounds=True, source="Ramanujan et al. 2020"),
    "gradual": Arm(gradual, "initial", no_rounds=True, source="Zhu & Gupta 2017"),
    "set": Arm(sparse_evolution, "initial", no_rounds=True, source="Mocanu et al. 2018"),
    "rigl": Arm(rigl, "initial", no_rounds=True, source="Evci et al. 2020"),
    "ac-dc": Arm(ac_dc, "initial", no_rounds=True, source="Peste et al. 2021"),
    "small-dense": Arm(small_dense, "initial", no_rounds=True, source="Liu et al. 2019"),
    "early-bird": Arm(early_bird, no_rounds=True, source="You et al. 2020"),
}


def arm_named(name: str) -> Arm:
    """Return the record of an arm: one of tombola's, or of a user's own, given as `package.module:function`.

    The name may refer to a rule or to an `Arm`.

    Raises:
        InputError: the arm does not exist.
    """
    found: Any = resolve(name, ARMS, "arm")  # type: ignore[arg-type]  # records instead of functions
    return found if isinstance(found, Arm) else Arm(found)


def rule_named(name: str) -> Rule:
    """Return the rule of an arm.

    Raises:
        InputError: the arm does not exist.
    """
    return arm_named(name).rule
