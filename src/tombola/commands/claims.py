"""`tombola claims`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tombola.commands.opening import console, own_claims
from tombola.commands.options import CLAIMS_HELP, LocalPath, data_option

if TYPE_CHECKING:
    from tombola.analysis.claims import Outcome


@click.command()
@click.argument("results", nargs=-1, required=True, type=LocalPath())
@data_option
@click.option("--claims", "own", multiple=True, type=LocalPath(), help=CLAIMS_HELP)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    help="Choose the format. [default: table]",
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if a claim is not reproduced. [default: status 0]")
@click.option("--power", is_flag=True, help="Show how many trials would decide each claim with 90 % probability.")
def claims(
    results: tuple[Path, ...], data: Path | None, own: tuple[Path, ...], form: str, strict: bool, power: bool
) -> None:
    """Check claims against results.

    RESULTS are results folders, or results.csv files. The default claims are the published ones.
    """
    from tombola.analysis.claims import evaluate, published_claims
    from tombola.analysis.reading import read_levels, read_points, seconds_of
    from tombola.tables.claims import as_rows, claims_table, power_rows, power_table

    wanted = own_claims(own) or published_claims()
    found: list[tuple[str, Outcome]] = []
    seconds: dict[tuple[str, str], float | None] = {}
    for path in results:
        (levels, settings), points = read_levels(path, data), read_points(path, data)
        found += [(str(path), outcome) for outcome in evaluate(levels, wanted, settings, points=points)]
        times = seconds_of(path, levels, data) if power else {}
        seconds |= {(str(path), study): time for study, time in times.items()}
    if form == "table":
        console().print(power_table(found, seconds) if power else claims_table(found))
        _strictly(strict, found)
        return
    rows = power_rows(found, seconds) if power else as_rows(found)
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
    else:
        import pandas as pd

        from tombola.formatting import as_csv

        click.echo(as_csv(pd.DataFrame(rows)).decode(), nl=False)
    _strictly(strict, found)


def _strictly(strict: bool, found: list[tuple[str, Outcome]]) -> None:
    """Exit with status 1 if that is asked for and a claim is not reproduced."""
    from tombola.analysis.claims import NOT_REPRODUCED

    if strict and any(outcome.outcome == NOT_REPRODUCED for _, outcome in found):
        sys.exit(1)
