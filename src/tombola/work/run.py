"""Trainings: runs, which train weights under a mask, and supermasks, which train scores and leave weights alone."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from tombola.networks.axes import Axes
from tombola.pruning.patterns import Pattern
from tombola.section import Section
from tombola.seeds import Seeds
from tombola.training.moving import Moving
from tombola.training.popup import Popup
from tombola.training.recipe import Recipe
from tombola.work.on_data import OnData


class InitialState(Section):
    """Where a run's weights come from, and at which iteration it starts.

    Args:
        run: identity of the run whose weights at `iteration` are taken; None for a fresh initialisation.
        iteration: of that run. Schedule and data order continue from there.
        trained: take that run's weights at its end instead; schedule and data order still continue from `iteration`.
        draw: which initialisation of the trial: 0 is the dense network's, others are independent of it.
        redraw: change the kept weights of each layer; see `tombola.pruning.redraws`.
        repeat, level: number what is drawn for that.
        name: of a snapshot that a user's own trainer took, such as "step-500"; instead of `iteration`.
    """

    run: str | None = None
    iteration: int = 0
    trained: bool = False
    draw: int = 0
    redraw: Literal["shuffled", "signs", "reinit-signs", "constant", "constant-signs", "random-signs"] | None = None
    repeat: int = 0
    level: int = 0
    name: str | None = None

    @property
    def snapshot(self) -> str:
        """Name of the snapshot of `run` that holds the weights."""
        if self.trained:
            return "final"
        if self.name is not None:
            return self.name
        return f"iteration-{self.iteration}" if self.iteration else "start"


class Shuffle(Section):
    """A permutation of a mask within each layer.

    Args:
        stream: the arm whose masks are shuffled. Each has permutations of its own: with one for all, the controls of
            several arms would be correlated.
        repeat, level: each has a permutation of its own.
        pattern, axes: that the permutation keeps, as in `tombola.pruning.patterns.shuffled_in`.
    """

    stream: str
    repeat: int = 0
    level: int = 0
    pattern: Pattern | None = None
    axes: dict[str, Axes] = Field(default_factory=dict)

    def counter(self) -> str:
        """Return what numbers this draw within the purpose "mask"."""
        # Tickets' masks are shuffled as in version 0.1, which numbered repeats by thousands.
        if self.stream == "ticket":
            return str(self.repeat * 1000 + self.level)
        return f"{self.stream}/{self.repeat}/{self.level}"


class Frozen(Section):
    """Pruned weights keep their starting values, untrained, instead of 0.0 (Zhou et al. 2019, mask-0 actions).

    Args:
        moved_in: identity of a run. Weights that did not grow in magnitude from its start to its end become 0.0.
    """

    moved_in: str | None = None


class MaskUse(Section):
    """The mask that a run trains under.

    Args:
        search: identity of the mask search that finds it.
        run: identity of the run whose own mask it is, instead of `search`.
        shuffle: permute it within each layer.
        frozen: pruned weights keep their starting values; None makes them 0.0.
        head: weight of the output layer, where the mask comes from a network with other outputs: it gets new random
            weights and a new bias, and its mask keeps the same share of weights in random places.
    """

    search: str | None = None
    run: str | None = None
    shuffle: Shuffle | None = None
    frozen: Frozen | None = None
    head: str | None = None

    @property
    def source(self) -> str:
        """Identity of the work whose result holds the mask."""
        found = self.search or self.run
        assert found is not None
        return found

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the work whose results are needed to apply the mask."""
        moved = self.frozen.moved_in if self.frozen else None
        return (self.source,) if moved is None else (self.source, moved)


class SgdNoise(Section):
    """Which draw of the data order, augmentation and dropout a training sees.

    Args:
        level: 0, or the level where each level has noise of its own (`noise: level`).
        copy_number: 0 is the study's own; copies of a run differ in this alone.
    """

    level: int = 0
    copy_number: int = 0

    def text(self) -> str:
        """Return what the seeds of these purposes end in: "" for the study's own noise."""
        # Written as version 0.1 did, whose copies were a million apart, so that its numbers stay.
        number = f"{self.copy_number}{self.level:06}" if self.copy_number else str(self.level)
        return "" if number == "0" else number


class Training(OnData):
    """What runs and supermasks have in common.

    Args:
        training: as in the study.
        initial: starting weights and iteration.
        until: the iteration at which training ends, where that is before the end of the budget.
        noise: which draw of data order, augmentation and dropout.
        recipe_code: fingerprints of a user's own functions that the recipe names, by name.
    """

    training: Recipe
    initial: InitialState = InitialState()
    until: int | None = None
    noise: SgdNoise = SgdNoise()
    recipe_code: dict[str, str] = Field(default_factory=dict)

    def codes(self) -> dict[str, str]:
        """Return the fingerprints of the user's own network, data and task, and of the recipe's functions."""
        return super().codes() | {f"the code of {name!r}": code for name, code in self.recipe_code.items()}

    @property
    def seeds(self) -> Seeds:
        """The seeds of the trial, with this training's noise."""
        return Seeds(self.seed, self.trial, self.noise.text())

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the work that must be done before this can start."""
        return () if self.initial.run is None else (self.initial.run,)


class Run(Training):
    """One training of weights under a mask.

    Args:
        mask: which weights may live; None trains all of them.
    """

    kind: ClassVar[str] = "run"

    mask: MaskUse | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the work that must be done before this can start."""
        mask = () if self.mask is None else self.mask.needs
        return tuple(dict.fromkeys((*super().needs, *mask)))


class Supermask(Training):
    """One training of scores, which finds a mask over weights that stay as they were drawn.

    Args:
        popup: how many weights of each layer the forward pass sees, and what they are.
    """

    kind: ClassVar[str] = "supermask"

    popup: Popup


class MovingRun(Training):
    """One training of weights under a mask that moves meanwhile.

    Args:
        moving: the rule of the mask, and how many weights it keeps in the end.
    """

    kind: ClassVar[str] = "moving-run"

    moving: Moving
