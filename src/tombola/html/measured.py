"""What `tombola measure` found, as the page's downloads hold it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tombola.export.stored import Form, Latency, StoredMeasurement
from tombola.html.embedded import Table, table


def tables(measurements: Sequence[StoredMeasurement]) -> list[Table]:
    """Return a table of exported forms and one of latencies, over all measured tickets."""
    forms = [(each, form) for each in measurements for form in each.forms]
    latencies = [(each, latency) for each in measurements for latency in each.latencies]
    return [
        table("exported", "Size, cost and test metric of each exported form of each measured ticket", _frame(forms)),
        table(
            "latencies", "Latency of each contender, batch and number of threads, in microseconds", _frame(latencies)
        ),
    ]


def _frame(rows: Sequence[tuple[StoredMeasurement, Form | Latency]]) -> pd.DataFrame:
    ticket = ("arm", "trial", "repeat", "level", "density")
    return pd.DataFrame([each.ticket.model_dump(include=set(ticket)) | row.model_dump() for each, row in rows])
