"""The `connectivity` section of a study: are runs that part at iteration k joined by a straight line of low error?

Instability analysis and linear mode connectivity (Frankle, Dziugaite, Roy, Carbin 2020, "Linear Mode Connectivity and
the Lottery Ticket Hypothesis", Sections 2 to 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from torch import nn

from tombola.data import Shape
from tombola.extras import need
from tombola.section import MOST_LEVELS, MOST_POINTS, MOST_REPEATS, Section
from tombola.studies.rewind import RewindStep, rewind_steps
from tombola.training.align import chain_of, check_orders
from tombola.work import Cost

if TYPE_CHECKING:
    from tombola.studies.trial import Trial

Kind = Literal["copies", "dense-ticket", "levels"]


def _rewind_steps(value: Any) -> Any:
    return None if value is None else rewind_steps(value)


class Connectivity(Section):
    """The interpolations between runs to evaluate.

    Args:
        levels: the levels of the ticket to test; 0 is the dense network.
        rewind: iterations of the dense run from which copies are trained, in the forms of the study's `rewind`; None
            takes the study's own.
        copies: runs from each of these; they differ only in data order, augmentation and dropout.
        points: the number of evaluated points per interpolation, both ends included.
        between: "copies": each two copies of one level; "dense-ticket": the dense network and the ticket of a level,
            both as the study itself trains them; "levels": the tickets of each two successive levels of `levels`.
            None takes all kinds that these levels have.
        threshold: a barrier at or below it is stable; 0.02 is the 2 % of the paper's Section 3.
        align: first put the hidden units of the run at position 0 into the order of the other's (Ainsworth et al.
            2023).
    """

    levels: tuple[Annotated[int, Field(ge=0, le=MOST_LEVELS)], ...] = Field(
        default=(0,), min_length=1, max_length=MOST_LEVELS
    )
    rewind: Annotated[RewindStep | tuple[RewindStep, ...] | None, BeforeValidator(_rewind_steps)] = None
    copies: int = Field(default=2, le=MOST_REPEATS)
    points: int = Field(default=30, le=MOST_POINTS)
    between: Annotated[tuple[Kind, ...], Field(min_length=1)] | None = None
    threshold: float = Field(default=0.02, ge=0, lt=1)
    align: bool = False

    @field_validator("copies")
    @classmethod
    def _two_copies(cls, copies: int) -> int:
        if copies < 2:
            raise ValueError("an interpolation joins two runs: set copies to 2 or more")
        return copies

    @field_validator("points")
    @classmethod
    def _three_points(cls, points: int) -> int:
        if points < 3:
            raise ValueError("the points include both ends: set points to 3 or more")
        return points

    @field_validator("levels", "between")
    @classmethod
    def _each_once(cls, names: Any) -> Any:
        for name in names or ():
            if names.count(name) > 1:
                raise ValueError(f"names {name!r} twice")
        return names

    @field_validator("levels")
    @classmethod
    def _rising(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(levels))

    @model_validator(mode="after")
    def _there_are_such(self) -> Connectivity:
        if "dense-ticket" in (self.between or ()) and not any(self.levels):
            raise ValueError(
                "between has dense-ticket, but levels has no level above 0; add one, or remove dense-ticket"
            )
        if "levels" in (self.between or ()) and len(self.levels) < 2:
            raise ValueError(
                "between has levels, but levels has a single level; add another, or remove levels from between"
            )
        return self

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of interpolations, with None replaced by all kinds that the levels have."""
        if self.between is not None:
            return self.between
        others: tuple[tuple[Kind, bool], ...] = (("dense-ticket", any(self.levels)), ("levels", len(self.levels) > 1))
        return ("copies", *(kind for kind, there in others if there))


@dataclass(frozen=True)
class Pair:
    """The place of an interpolation in the tables.

    Args:
        kind: see `Connectivity.between`.
        trial: its number.
        rewind: the iteration that the runs start from; a dense network's own run starts from 0 all the same.
        level, copy: of the run at position 0. Of two levels it is the sparser one.
        other_level, other_copy: of the run at position 1.
        line: identity of the interpolation.
    """

    kind: Kind
    trial: int
    rewind: int
    level: int
    other_level: int
    copy: int
    other_copy: int
    line: str


def check_align(settings: Connectivity | None, module: nn.Module, input_shape: Shape) -> None:
    """Refuse to align without SciPy, or a network whose units can't be permuted.

    Args:
        settings: of the study.
        module: the network.
        input_shape: of one example.

    Raises:
        InputError: `align` is set, and can't be done; the message names the layer or the package.
    """
    if settings is not None and settings.align:
        need("scipy", "connectivity.align")
        chain = chain_of(module)
        assert isinstance(input_shape, tuple)  # a chain takes one tensor
        check_orders(chain, module, input_shape)


def connect(trial: Trial, settings: Connectivity) -> Iterator[Pair]:
    """Plan the runs that are compared in a trial with its rewind iteration, and the interpolations between them."""
    examples = trial.data.train - trial.set_aside + trial.data.test
    for kind in settings.kinds:
        for (level, copy), (other_level, other_copy) in _ends(kind, settings):
            if kind == "copies":
                one, other = trial.copy(level, copy), trial.copy(other_level, other_copy)
            else:
                one, other = trial.ticket(level), trial.ticket(other_level)
            item = trial.add(
                trial.interpolation(one, other, settings.points, settings.align),
                f"line.from-{trial.rewind}.level-{level:02}-{copy}.level-{other_level:02}-{other_copy}",
                "interpolations, for connectivity",
                Cost(evaluated=settings.points * examples),
            )
            yield Pair(kind, trial.number, trial.rewind, level, other_level, copy, other_copy, item.id)


def _ends(kind: Kind, settings: Connectivity) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield ((level, copy), (other level, other copy)) for the lines of a kind."""
    if kind == "copies":
        for level in settings.levels:
            for one, other in combinations(range(settings.copies), 2):
                yield (level, one), (level, other)
    elif kind == "dense-ticket":
        for level in settings.levels:
            if level:
                yield (level, 0), (0, 0)
    else:
        for denser, sparser in pairwise(settings.levels):
            yield (sparser, 0), (denser, 0)
