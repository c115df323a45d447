"""The terminal summary of a study: one row per level, one column per arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from textwrap import wrap
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from tombola.analysis.connectivity import barrier_statistics, height_of
from tombola.analysis.measures import STOP, early_of, final_of
from tombola.analysis.order import in_order
from tombola.analysis.paired import paired_differences
from tombola.analysis.summary import summarise
from tombola.formatting import counted, number, percent, plain, signed
from tombola.tables.captions import BETWEEN, HEIGHTS, Height, densities_of, early_stop_note, left_out, sample_size
from tombola.tasks.metric import Metric, metric_of

# A row of the summary, and what writes one of its numbers.
Row = Mapping[str, Any]
Cell = Callable[[Row | None], str]

# Four columns of "97.92 ± 0.12*" beside level and density are what 80 columns hold.
ARMS_PER_TABLE = 4
WIDTH = 80
HEADER = 14  # characters
MISSING = "-"


def summary_table(levels: pd.DataFrame, brief: bool = False) -> Group:
    """Return the summary of each study in `levels`: a table of its metric, and one of early-stop iterations.

    Print it with a `rich.console.Console`. It fits in 80 columns. Outside a terminal it is plain text. A table has up
    to four arms; more arms get further tables.

    Args:
        levels: a row per (study, arm, trial, repeat, level).
        brief: show the metric of the first four arms alone.
    """
    parts: list[RenderableType] = []
    for study, mine in levels.groupby("study", sort=False, observed=True):
        metric, rows = metric_of(mine), summarise(mine)
        arms = in_order(rows["arm"])
        of_metric = partial(_of_metric, metric)
        groups = _groups(rows, arms, of_metric)
        for some in groups[:1] if brief else groups:
            shown = rows[rows["arm"].isin(some)]
            spread = "mean ± standard deviation over trials" if (shown["n"] > 1).any() else ""
            title = f"{plain(study)}: {_with_unit(f'test {metric.words} at early stop', metric)}"
            parts += _titled(title, _per_arm(shown, some, of_metric), shown, spread)
            if not brief:
                title = f"{plain(study)}: early-stop iteration, mean"
                parts += _titled(title, _per_arm(shown, some, _iteration), shown)
        notes = (_collapsed(mine), early_stop_note(mine))
        parts += [Text(f"{note}\n") for note in notes if note]
    return Group(*parts)


def level_tables(levels: pd.DataFrame) -> Group:
    """Return the summary of each study in `levels`, and tickets against reinit where both arms are there."""
    both = {"ticket", "reinit"} <= set(levels["arm"])
    return Group(summary_table(levels), *([ticket_versus_reinit(levels)] if both else []))


def ticket_versus_reinit(levels: pd.DataFrame) -> Group:
    """Return tables that compare tickets with the same masks on fresh random weights, for each study with both arms.

    Values are means of the final test metric. The difference is ticket minus reinit, over the trials that have both.
    """
    parts: list[RenderableType] = []
    both = levels[levels["arm"].isin(["ticket", "reinit"])]
    for study, mine in both.groupby("study", sort=False, observed=True):
        if mine["arm"].nunique() == 2:
            metric, rows = metric_of(mine), summarise(mine)
            title = f"{plain(study)}: {_with_unit(f'test {metric.words} at the end of training', metric)}, mean"
            pairs = paired_differences(mine, "ticket", "reinit", final_of(metric)).set_index("level")["mean"]
            parts += _titled(title, _pairs(rows, metric, pairs.to_dict()), rows)
    return Group(*parts)


def barrier_table(points: pd.DataFrame, threshold: float) -> Group:
    """Return the barriers on the interpolations of each study, a row per kind, iteration and level.

    Barriers in error are in percentage points. A task without an error rate has barriers in loss.

    Arguments:
        points: the table of `Results.connectivity`.
        threshold: as in `tombola.analysis.barrier_statistics`.
    """
    parts: list[RenderableType] = []
    for study, mine in points.groupby("study", sort=False, observed=True):
        rows, height = barrier_statistics(mine, threshold), HEIGHTS[height_of(mine)]
        table = _table(["between", "from", "level", "Pm %", "test barrier", "training", "pairs", ""])
        for row in rows.to_dict("records"):
            table.add_row(
                BETWEEN[row["kind"]],
                f"{row['rewind']:,}",
                str(row["level"]) if row["level"] == row["other_level"] else f"{row['level']}, {row['other_level']}",
                percent(row["density"]),
                *(_barrier(row, part, height) for part in ("test", "train")),
                str(row["pairs"]),
                "stable" if row["stable"] else "unstable",
            )
        trials = int(rows["trials"].max())
        about = "mean ± standard deviation over pairs" if (rows["pairs"] > 1).any() else "single pairs"
        caption = f"n = {counted(trials, 'trial')}; {about}; stable: test barrier at most {height.threshold(threshold)}"
        parts += [Text(f"{plain(study)}: {height.title}", style="bold"), table, Text(f"{caption}\n")]
    return Group(*parts)


def _barrier(row: Row, part: str, height: Height) -> str:
    deviation = row[f"{part}_std"]
    return height.number(row[f"{part}_mean"]) + ("" if math.isnan(deviation) else f" ± {height.number(deviation)}")


def _groups(rows: pd.DataFrame, arms: Sequence[str], cell: Cell) -> list[list[str]]:
    """Return the arms of each table: as many as fit, and about equally many in each.

    Six arms make two tables of three, not one of four and a remnant.
    """
    groups: list[list[str]] = []
    for most in range(ARMS_PER_TABLE, 0, -1):
        size = math.ceil(len(arms) / math.ceil(len(arms) / most))
        groups = [list(arms[start : start + size]) for start in range(0, len(arms), size)]
        tables = [_per_arm(rows[rows["arm"].isin(some)], some, cell) for some in groups]
        if all(Console(width=1000).measure(table).maximum <= WIDTH for table in tables):
            break
    return groups


def _pairs(rows: pd.DataFrame, metric: Metric, differences: Mapping[int, float]) -> Table:
    measure = final_of(metric)
    table = _table(["level", "Pm %", "ticket", "reinit", "ticket - reinit"])
    for level, at_level in rows.groupby("level"):
        by_arm = {row["arm"]: row for row in at_level.to_dict("records")}
        pair = [by_arm.get(arm) for arm in ("ticket", "reinit")]
        difference = differences.get(int(level), math.nan)
        table.add_row(
            str(int(level)),
            densities_of(at_level["density"]),
            *(_mean(row, measure, metric) + _mark(row) for row in pair),
            signed(difference, metric) if math.isfinite(difference) else MISSING,
        )
    return table


def _per_arm(rows: pd.DataFrame, arms: Sequence[str], cell: Cell) -> Table:
    # A header breaks after a hyphen, so that a column need not be wider than its numbers.
    headers = ["\n".join(wrap(plain(arm), HEADER, break_long_words=False)) for arm in arms]
    table = _table(["level", "Pm %", *headers])
    for level, at_level in rows.groupby("level"):
        by_arm = {row["arm"]: row for row in at_level.to_dict("records")}
        table.add_row(str(int(level)), densities_of(at_level["density"]), *(cell(by_arm.get(arm)) for arm in arms))
    return table


def _table(headers: Sequence[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        # Text, because rich would read "[red]" in a plain string as markup; so in the title below.
        table.add_column(Text(header), justify="right", overflow="fold")
    return table


def _collapsed(levels: pd.DataFrame) -> str:
    """Return the arms and levels of a study with collapsed runs; "" for none."""
    if "status" not in levels or not (levels["status"] == "collapsed").any():
        return ""
    found = levels[levels["status"] == "collapsed"].groupby("arm", observed=True)["level"].unique()
    arms = [f"{plain(arm)} (level {', '.join(map(str, sorted(found[arm])))})" for arm in in_order(found.index)]
    return f"collapsed - a layer is empty, or no path leads from input to output: {', '.join(arms)}"


def _titled(title: str, table: Table, rows: pd.DataFrame, about: str = "") -> list[RenderableType]:
    """Return the table between its title and its caption.

    Rich's own title and caption would be wrapped to the width of the table.
    """
    without = left_out(rows)
    caption = "; ".join(part for part in (sample_size(rows), about, without and f"* {without}") if part)
    return [Text(title, style="bold"), table, Text(f"{caption}\n")]


def _with_unit(text: str, metric: Metric) -> str:
    text = f"{text}, {metric.unit}" if metric.unit else text
    return text if metric.better == "higher" else f"{text} (lower is better)"


def _of_metric(metric: Metric, row: Row | None) -> str:
    measure = early_of(metric)
    text = _mean(row, measure, metric)
    if row is not None and _is_number(row, measure):
        deviation = metric.scale * row[f"{measure}_std"]
        if not math.isnan(deviation):
            text = f"{text} ± {number(deviation, metric)}"
    return text + _mark(row)


def _iteration(row: Row | None) -> str:
    if row is None or not _is_number(row, STOP):
        return _no_number(row)
    return f"{row[f'{STOP}_mean']:,.0f}{_mark(row)}"


def _mean(row: Row | None, measure: str, metric: Metric) -> str:
    if row is None or not _is_number(row, measure):
        return _no_number(row)
    return number(metric.scale * row[f"{measure}_mean"], metric)


def _is_number(row: Row | None, measure: str) -> bool:
    return row is not None and not math.isnan(row[f"{measure}_mean"])


def _no_number(row: Row | None) -> str:
    return "diverged" if row is not None and row["diverged"] and not row["n"] else MISSING


def _mark(row: Row | None) -> str:
    return "*" if row is not None and row["diverged"] and row["n"] else ""
