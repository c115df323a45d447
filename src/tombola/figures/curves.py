"""The curves of a figure: which arm of which study, what it is called, how it looks. Every renderer draws these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from tombola.analysis.order import in_order
from tombola.figures.style import Style, of_study, styles
from tombola.formatting import plain


@dataclass(frozen=True)
class Curve:
    """One curve.

    Args:
        study, arm: as they stand in the tables.
        label: for a person.
        style: colour, marker and line.
    """

    study: str
    arm: str
    label: str
    style: Style

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table that belong to this curve."""
        return table[(table["study"] == self.study) & (table["arm"] == self.arm)]


def curves_of(
    levels: pd.DataFrame, arms: Sequence[str] | None = None, style_of: Mapping[str, Style] | None = None
) -> tuple[Curve, ...]:
    """Return a curve for each arm of each study.

    The arms of a single study differ in colour, marker and line. Of several studies each has a colour and a marker, and
    arms differ in line and filling.

    Arguments:
        levels: a table with the columns `study` and `arm`.
        arms: those to draw, in this order; by default all.
        style_of: arm -> style, where it is not the arm's own.
    """
    style_of = style_of or styles(str(arm) for arm in levels["arm"])
    studies = [str(study) for study in dict.fromkeys(levels["study"])]
    found = []
    for place, study in enumerate(studies):
        mine = set(levels.loc[levels["study"] == study, "arm"])
        for arm in in_order(mine) if arms is None else [arm for arm in arms if arm in mine]:
            alone = len(studies) == 1
            style = style_of[arm] if alone else of_study(place, style_of[arm])
            found.append(Curve(study, arm, plain(arm) if alone else f"{plain(study)}: {plain(arm)}", style))
    return tuple(found)
