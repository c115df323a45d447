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
            parts += _unknown(judged)
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
    from tombola.analysis.power import as_row

    parts: list[RenderableType] = []
    asked = [(path, outcome) for path, outcome in found if outcome.applies]
    for (path, study), group in groupby(asked, key=lambda each: (each[0], each[1].study)):
        outcomes = [outcome for _, outcome in group]
        rows = [as_row(outcome, seconds.get((path, study))) for outcome in outcomes]
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("claim")
        for header in ("expected", "mean ± std", "n", "if claimed", "if as here", "more hours"):
            table.add_column(header, justify="right")
        for row in rows:
            if row["reason"]:
                continue
            claimed = "-" if ">" in row["expected"] or "<" in row["expected"] else _trials(row["needed_if_claimed"])
            hours = "-" if row["hours_more"] is None else f"{row['hours_more']:.2g}"
            spread = f"{row['mean']:.4g} ± {row['std']:.2g}"
            cells = (row["id"], row["expected"], spread, row["n"], claimed, _trials(row["needed_if_as_pilot"]), hours)
            table.add_row(*(Text(str(cell)) for cell in cells))
        parts.append(Text(f"{plain(study)} ({path})", style="bold"))
        parts += [table] if table.row_count else []
        parts += _unknown([each for each in outcomes if not each.other_recipe])
        for reason in dict.fromkeys(row["reason"] for row in rows if row["reason"]):
            names = [row["id"] for row in rows if row["reason"] == reason]
            parts.append(Text(f"not known for {', '.join(names)}: {plain(reason)}"))
        parts.append(Text(""))
    if not parts:
        return Group(Text("no claim is about these studies"))
    parts.append(
        Text(
            "Trials that decide a claim with 90 % probability, by the spread of these trials.\n"
            "  if claimed: if the claim's value is true. It depends on the spread alone, not on the outcome here.\n"
            "  if as here: if the mean measured here is true. A comparison claims no value: it has this number alone.\n"
            "  more hours: of one worker, at the pace of these trials. Of a results.csv, only its rows count: masks,\n"
            "  sources of transfers and interpolations are missing."
        )
    )
    return Group(*parts)


def power_rows(found: Found, seconds: Mapping[tuple[str, str], float | None]) -> list[dict[str, Any]]:
    """Return a flat mapping for each claim about these studies: `results`, then `power.as_row`."""
    from tombola.analysis.power import as_row

    asked = [(path, outcome) for path, outcome in found if outcome.applies]
    return [{"results": path} | as_row(outcome, seconds.get((path, outcome.study))) for path, outcome in asked]


def _unknown(outcomes: Sequence[Outcome]) -> list[RenderableType]:
    """Return a line that names the settings that the table does not tell, if claims are about some."""
    fields = sorted({field for outcome in outcomes for field in outcome.unknown})
    if not fields:
        return []
    return [Text(f"The table does not tell {', '.join(fields)}. Put study.yaml beside it to compare them.")]


def _trials(number: int | None) -> str:
    from tombola.analysis.power import MOST_TRIALS

    return f">{MOST_TRIALS}" if number is None else str(number)


def _table(outcomes: Sequence[Outcome]) -> Table:
    from tombola.analysis.claims import BOTH_SIDES, INCONCLUSIVE, NOT_MEASURED, UNTOLD

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("claim")
    table.add_column("statement", ratio=1)
    for header in ("expected", "measured, 95 % interval", "n"):
        table.add_column(header, justify="right")
    table.add_column("result")
    for outcome in outcomes:
        why = outcome.reason.partition(UNTOLD)[0]  # `_unknown` names it for all claims together
        reason = f": {why}" if outcome.outcome in (INCONCLUSIVE, NOT_MEASURED) and why != BOTH_SIDES else ""
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
