"""Results of claims, as a terminal table and as records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tombola.formatting import counted, plain, with_interval

if TYPE_CHECKING:
    from tombola.analysis.claims import Outcome

Found = Sequence[tuple[str, "Outcome"]]  # results folder or file, outcome
STYLES = {"reproduced": "green", "not reproduced": "red", "inconclusive": "yellow", "not measured": "dim"}


def claims_table(found: Found) -> Group:
    """Return a table for each study, and the numbers of claims about other recipes and studies."""
    parts: list[RenderableType] = []
    for (path, study), group in groupby(found, key=lambda each: (each[0], each[1].study)):
        outcomes = [outcome for _, outcome in group]
        about = [outcome for outcome in outcomes if outcome.applies]
        parts.append(Text(f"{plain(study)} ({path})", style="bold"))
        if judged := [outcome for outcome in about if not outcome.other_recipe]:
            parts.append(_table(judged))
        for recipe, number in Counter(outcome.other_recipe for outcome in about if outcome.other_recipe).items():
            parts.append(Text(f"{counted(number, 'claim')} about another recipe, {recipe}: not measured"))
        others = len(outcomes) - len(about)
        if others:
            parts.append(Text(f"{counted(others, 'claim')} about other networks or studies: not measured"))
        parts.append(Text(""))
    return Group(*parts)


def as_rows(found: Found) -> list[dict[str, Any]]:
    """Return a flat mapping for each outcome: `results`, then the fields of `Outcome.as_json`."""
    return [{"results": path} | outcome.as_json() for path, outcome in found]


def power_table(found: Found, seconds: Mapping[tuple[str, str], float | None]) -> Group:
    """Return a table for each study: how many trials would decide each claim, and what the missing ones cost.

    Args:
        found: of a pilot.
        seconds: of computing that a trial takes, by results folder and study; None if unknown.
    """
    from tombola.analysis.power import FEWEST

    parts: list[RenderableType] = []
    for (path, study), rows in groupby(power_rows(found, seconds), key=lambda row: (row["results"], row["study"])):
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("claim")
        for header in ("expected", "mean ± std", "n", "if claimed", "if as here", "more hours"):
            table.add_column(header, justify="right")
        for row in rows:
            claimed = "-" if ">" in row["expected"] or "<" in row["expected"] else _trials(row["needed_if_claimed"])
            hours = "-" if row["hours_more"] is None else f"{row['hours_more']:.2g}"
            spread = f"{row['mean']:.4g} ± {row['std']:.2g}"
            cells = (row["id"], row["expected"], spread, row["n"], claimed, _trials(row["needed_if_as_pilot"]), hours)
            table.add_row(*(Text(str(cell)) for cell in cells))
        parts += [Text(f"{plain(study)} ({path})", style="bold"), table]
    if not parts:
        return Group(Text(f"no claim is measured in {FEWEST} trials or more, with some spread between them"))
    parts.append(
        Text(
            "Trials that decide a claim with 90 % probability, by the spread of these trials.\n"
            "  if claimed: if the claim's value is true. It depends on the spread alone, not on the outcome here.\n"
            "  if as here: if the mean measured here is true. A comparison claims no value: it has this number alone.\n"
            "  more hours: of one worker, at the pace of these trials."
        )
    )
    return Group(*parts)


def power_rows(found: Found, seconds: Mapping[tuple[str, str], float | None]) -> list[dict[str, Any]]:
    """Return a flat mapping for each claim whose number of trials can be told: `results`, then `power.as_row`."""
    from tombola.analysis.power import as_row, trials_needed

    needed = [(path, outcome, trials_needed(outcome)) for path, outcome in found if outcome.applies]
    return [
        {"results": path} | as_row(each, seconds.get((path, outcome.study)))
        for path, outcome, each in needed
        if each is not None
    ]


def _trials(number: int | None) -> str:
    from tombola.analysis.power import MOST_TRIALS

    return f">{MOST_TRIALS}" if number is None else str(number)


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
        cells = [outcome.claim.id, outcome.claim.sentence, outcome.claim.expectation, measured_text(outcome)]
        table.add_row(
            *(Text(cell) for cell in cells),
            Text(str(outcome.n or "-")),
            Text(f"{outcome.outcome}{reason}", style=STYLES[outcome.outcome]),
        )
    return table


def measured_text(outcome: Outcome) -> str:
    """Return what was measured, with its 95 % interval: "98.262 [98.233, 98.291]"; "-" if nothing was."""
    if outcome.measured is None:
        return "-"
    if outcome.low is None or outcome.high is None:
        return with_interval([outcome.measured])[0]
    mean, low, high = with_interval([outcome.measured, outcome.low, outcome.high])
    return f"{mean} [{low}, {high}]"
