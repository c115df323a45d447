"""The tables of a measurement for the terminal."""

from __future__ import annotations

import math
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tombola.export.measure import Measurement
from tombola.formatting import byte_size, counted, latency


def measurement_table(measured: Measurement) -> Group:
    """Return sizes, latencies and what could not be measured. It fits in 80 columns."""
    parts: list[RenderableType] = [
        Text(f"{measured.ticket}\n{measured.conditions.machine}\n"),
        _sizes(measured),
        Text(),
    ]
    for (batch, threads), rows in measured.latencies.groupby(["batch", "threads"], sort=False):
        parts += [_latencies(rows.to_dict("records"), int(batch), int(threads)), Text()]
    parts += [Text(f"{note}.") for note in measured.notes]
    return Group(*parts)


def _sizes(measured: Measurement) -> Table:
    known = ("form", "bytes", "parameters", "multiply_adds", "memory_bytes", "largest_difference")
    others = [name for name in measured.artefacts.columns if name not in known]
    table = _table("Size and cost of one example")
    table.add_column("form", overflow="fold", min_width=12)
    for title in ("size", "parameters", "multiply-\nadds", "memory"):
        table.add_column(title, justify="right", no_wrap=True)
    for name in others:
        table.add_column("\n".join(["test", *name.split("_")]), justify="right")
    table.add_column("error", justify="right", no_wrap=True)
    table.caption = "error: the largest difference of an output from the dense network's"
    for row in measured.artefacts.to_dict("records"):
        table.add_row(
            str(row["form"]),
            byte_size(row["bytes"]),
            f"{row['parameters']:,}",
            f"{row['multiply_adds']:,}",
            byte_size(row["memory_bytes"]),
            *(_metric(row[name]) for name in others),
            f"{row['largest_difference']:.1e}",
        )
    return table


def _metric(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _latencies(rows: list[dict[str, Any]], batch: int, threads: int) -> Table:
    title = f"Latency of a batch of {batch} on {counted(threads, 'core')}, interleaved"
    table = _table(title)
    table.add_column("contender", overflow="fold")
    for name in ("median", "95 % below", "least", "speedup"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in sorted(rows, key=lambda each: each["p50_us"]):
        name = row["contender"] if row["float32"] else f"{row['contender']} *"
        times = (latency(row[column]) for column in ("p50_us", "p95_us", "least_us"))
        table.add_row(name, *times, f"{row['speedup']:.2f}x" if not math.isnan(row["speedup"]) else "-")
    table.caption = (
        "95 % below: 95 % of the rounds took at most this long; speedup: over the fastest dense float32 runtime; "
        "* lower precision"
    )
    return table


def _table(title: str) -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        title=title,
        title_justify="left",
        caption_justify="left",
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
