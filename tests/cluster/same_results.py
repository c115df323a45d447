"""Comparing a study that a cluster has computed with the same study in one process."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

TIMES = ["seconds"]  # the column of results.csv that a clock decides


def assert_same_results(found: Path, alone: Path) -> None:
    """Check that results.csv is bit-equal but for times, and that nothing else is left."""
    tables = [pd.read_csv(folder / "results.csv", dtype=str).drop(columns=TIMES) for folder in (found, alone)]
    pd.testing.assert_frame_equal(*tables)
    jobs = found / "jobs"
    hidden = {path.name for path in jobs.glob(".*")}
    assert hidden <= {".locks", ".leases"}
    assert not [path for path in (jobs / ".leases").glob("*/*") if path.is_file()]
    results = [path.name.rpartition("-")[2] for path in jobs.iterdir() if not path.name.startswith(".")]
    assert len(results) == len(set(results))
