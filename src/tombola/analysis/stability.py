"""Whether copies of the dense network stay connected: the answer of a study that prunes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from tombola.analysis.connectivity import ERROR, barrier_statistics, height_of

if TYPE_CHECKING:
    from tombola.running.results import Results


@dataclass(frozen=True)
class Parting:
    """Copies of the dense network that part at one iteration.

    Args:
        rewind: that iteration.
        mean, low, high: of the barrier on the test examples, over trials, with its 95 % interval; a share of the
            examples, or a loss. NaN where unknown.
        trials, pairs: compared.
        threshold: the highest mean that is stable.
        stable: whether the mean is at most the threshold.
        height: what barriers are measured in: "error" or "loss".
    """

    rewind: int
    mean: float
    low: float
    high: float
    trials: int
    pairs: int
    threshold: float
    stable: bool
    height: str = ERROR


def partings(points: pd.DataFrame, threshold: float) -> tuple[Parting, ...]:
    """Return the copies of the dense network by the iteration at which they part, the earliest first.

    Args:
        points: of one study, as returned by `Results.connectivity()`.
        threshold: the highest mean barrier that is stable.
    """
    rows = barrier_statistics(points, threshold)
    rows = rows[(rows["kind"] == "copies") & (rows["level"] == 0) & rows["test_mean"].notna()]
    return tuple(
        Parting(
            rewind=int(row["rewind"]),
            mean=float(row["test_mean"]),
            low=float(row["test_low"]),
            high=float(row["test_high"]),
            trials=int(row["trials"]),
            pairs=int(row["pairs"]),
            threshold=threshold,
            stable=bool(row["stable"]),
            height=height_of(points),
        )
        for row in rows.sort_values("rewind").to_dict("records")
    )


def partings_of(results: Results) -> tuple[Parting, ...]:
    """Return those of a results folder; none of a study without `connectivity`."""
    settings = results.study.connectivity
    return () if settings is None else partings(results.connectivity(), settings.threshold)


def settled(found: tuple[Parting, ...]) -> Parting | None:
    """Return the earliest parting from which on all are stable; None if the last one is not."""
    last = None
    for each in reversed(found):
        if not each.stable:
            break
        last = each
    return last
