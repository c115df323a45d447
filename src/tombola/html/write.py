"""Writes the pages: from results to a file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch

from tombola.analysis.claims import Claim
from tombola.analysis.schema import NO_CURVES, checked, checked_curves
from tombola.errors import InputError
from tombola.formatting import plain
from tombola.html.gather import gather
from tombola.html.own_table import gather_table
from tombola.html.render import compare, report
from tombola.running.files import write_whole, writing
from tombola.running.results import Results
from tombola.studies.study import Study


def write_report(
    results: Results,
    path: Path | None = None,
    claims: Sequence[Claim] | None = None,
    margin: float | None = None,
) -> Path:
    """Write the page of one study, finished or not, and return its path.

    The page is one file that needs no network. The same results give the same bytes.

    Args:
        results: of the study.
        path: of the page; `report.html` in the results folder where it is not given.
        claims: to check; the published ones where they are not given.
        margin: the accepted loss, as a fraction: see `verdicts`; the study's where it is not given.

    Raises:
        InputError: `margin` is not a number between 0 and 1.
        StoreError: it can't be written.
    """
    with _one_thread():
        found = gather(results, claims=claims, margin=margin)
    return _write(report(found), path or results.store.root / "report.html")


def write_table_report(
    levels: pd.DataFrame,
    path: Path,
    curves: pd.DataFrame | None = None,
    file: Path | None = None,
    claims: Sequence[Claim] | None = None,
    margin: float | None = None,
    study: Study | None = None,
) -> Path:
    """Write the page of a table that others have measured, and return its path.

    Args:
        levels: a row per run: see docs/results.md.
        path: of the page.
        curves: a row per evaluation; None where there are none.
        file: that the table was read from; the page names it.
        claims: as in `write_report`.
        margin: the accepted loss, as a fraction: see `verdicts`; that of `study` by default.
        study: whose table it is: claims are judged by its settings. None where that is not known.

    Raises:
        InputError: a table does not follow the schema, is empty, or holds several studies.
        StoreError: the page can't be written.
    """
    where = "the table" if file is None else str(file)
    levels = checked(levels, where)
    found = NO_CURVES if curves is None or curves.empty else checked_curves(curves, levels)
    return _write(report(gather_table(levels, found, file, claims, margin, study)), path)


def write_comparison(studies: Sequence[Results], path: Path, margin: float | None = None) -> Path:
    """Write the page that shows several studies side by side, and return its path.

    Args:
        studies: their results, finished or not.
        path: of the page.
        margin: the accepted loss, as a fraction: see `verdicts`; the studies' where it is not given.

    Raises:
        InputError: `margin` is not a number between 0 and 1, or is not given and the studies have different ones.
        StoreError: it can't be written.
    """
    margins = {results.study.margin for results in studies} if margin is None else {margin}
    if len(margins) > 1:
        raise InputError(
            f"the studies have different margins, {' and '.join(f'{each:g}' for each in sorted(margins))}: give one "
            "for all, such as --margin 0.005"
        )
    with _one_thread():
        found = [gather(results, name, margin=margin) for results, name in zip(studies, _names(studies), strict=True)]
    return _write(compare(found), path)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Count on one thread: masks are small, and threads that wait for one another on a busy machine cost far more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _write(page: str, path: Path) -> Path:
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, page.encode())
    return path


def _names(studies: Sequence[Results]) -> list[str]:
    """Return names that differ as the page shows them: the studies', or else their folders', or else numbered."""
    names = [results.study.name for results in studies]
    if not _differ(names):
        names = [results.store.root.resolve().name for results in studies]
    if not _differ(names):  # the number goes first, for the end of a long name is not shown
        names = [f"{number}: {name}" for number, name in enumerate(names, 1)]
    return names


def _differ(names: Sequence[str]) -> bool:
    return len({plain(name) for name in names}) == len(names)
