"""Results of claims, as a terminal table and as records."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tombola.formatting import counted, plain

if TYPE_CHECKING:
    from tombola.analysis.claims import Outcome

Found = Sequence[tuple[str, "Outcome"]]  # results folder or file, outcome
STYLES = {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow", "not measured": "dim"}


def claims_table(found: Found) -> Group:
    """Return a table for each study, and the number of claims about other studies."""
    parts: list[RenderableType] = []
    for (path, study), group in groupby(found, key=lambda each: (each[0], each[1].study)):
        outcomes = [outcome for _, outcome in group]
        about = [outcome for outcome in outcomes if outcome.applies]
        parts.append(Text(f"{plain(study)} ({path})", style="bold"))
        if about:
            parts.append(_table(about))
        others = len(outcomes) - len(about)
        if others:
            parts.append(Text(f"{counted(others, 'claim')} about other networks or studies: not measured"))
        parts.append(Text(""))
    return Group(*parts)


def as_rows(found: Found) -> list[dict[str, Any]]:
    """Return a flat mapping for each outcome: `results`, then the fields of `Outcome.as_json`."""
    return [{"results": path} | outcome.as_json() for path, outcome in found]


def _table(outcomes: Sequence[Outcome]) -> Table:
    from tombola.analysis.claims import BOTH_SIDES, INCONCLUSIVE, NOT_MEASURED

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim")
    table.add_column("statement", ratio=1)
    for header in ("expected", "measured, 95 % interval", "n"):
        table.add_column(header, justify="right")
    table.add_column("result")
    for outcome in outcomes:
        told = outcome.outcome in (INCONCLUSIVE, NOT_MEASURED) and outcome.reason != BOTH_SIDES
        reason = f": {outcome.reason}" if told else ""
        cells = [outcome.claim.id, outcome.claim.sentence, outcome.claim.expectation, _measured(outcome)]
        table.add_row(
            *(Text(cell) for cell in cells),
            Text(str(outcome.n or "-")),
            Text(f"{outcome.outcome}{reason}", style=STYLES[outcome.outcome]),
        )
    return table


def _measured(outcome: Outcome) -> str:
    if outcome.measured is None:
        return "-"
    text = f"{outcome.measured:.4g}"
    return text if outcome.low is None else f"{text} [{outcome.low:.4g}, {outcome.high:.4g}]"
