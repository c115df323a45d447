"""An interpolation: loss and error at points on the straight line between the weights of two runs."""

from __future__ import annotations

from typing import ClassVar, Literal

from tombola.seeds import Seeds
from tombola.work.on_data import OnData


class Interpolation(OnData):
    """Loss and error along the straight line between the weights at the ends of two runs.

    Args:
        one, other: identities of the runs: at positions 0 and 1.
        points: that are evaluated, evenly spaced, both ends included.
        precision: of the evaluation, as in the runs' recipe.
        align: put the hidden units of `one` into the order of those of `other` first.
    """

    kind: ClassVar[str] = "interpolation"

    one: str
    other: str
    points: int
    precision: Literal["float32", "bfloat16", "float64"] = "float32"
    align: bool = False

    @property
    def needs(self) -> tuple[str, ...]:
        """Identities of the runs that must be done before this can start."""
        return (self.one, self.other)

    @property
    def seeds(self) -> Seeds:
        """The seeds of the trial."""
        return Seeds(self.seed, self.trial)
