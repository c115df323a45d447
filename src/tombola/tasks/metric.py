"""The figure that decides how good a run is: its name, its unit, and which direction is better."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from tombola.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

MARGIN = 0.001
"""The default accepted loss of verdicts, as a fraction: 0.1 percentage points, or 0.1 % of another metric."""

Direction = Literal["higher", "lower"]
COLUMNS = ("metric", "metric_better", "metric_unit")  # of a table of levels: the same in all rows of a study

# What the last word of a metric's name says of its direction.
LOWER = frozenset({
    "bits", "brier", "cer", "crossentropy", "entropy", "err", "error", "fid", "logloss", "loss", "mae", "mape",
    "mse", "nll", "perplexity", "ppl", "rmse", "smape", "wer",
})  # fmt: skip
HIGHER = frozenset({
    "acc", "accuracy", "ap", "auc", "auprc", "auroc", "bleu", "correlation", "dice", "f1", "iou", "jaccard",
    "kappa", "likelihood", "map", "mcc", "miou", "mrr", "ndcg", "precision", "psnr", "r2", "recall", "return",
    "reward", "rouge", "sensitivity", "specificity", "ssim",
})  # fmt: skip
TAIL = frozenset(
    {"macro", "mean", "micro", "percent", "percentage", "rate", "score", "value", "weighted"}
)  # may follow it
TURNING = frozenset({"anti", "inv", "inverse", "minus", "neg", "negative", "non", "one", "over"})  # turn it round
SHARES = re.compile(r"(mis)?(classification_)?error|top\d+_error|(\w+_)?accuracy")


def direction_of(name: str) -> Direction | None:
    """Return what the name of a metric says of its direction; None where it says nothing, or two things.

    >>> direction_of("word_error_rate"), direction_of("error_reduction")
    ('lower', None)
    """
    words = name.lower().partition("_per_")[0].split("_")
    while words[1:] and words[-1] in TAIL:
        words.pop()
    lower, higher = LOWER.intersection(words), HIGHER.intersection(words)
    if TURNING.intersection(words) or (lower and higher) or words[-1] not in lower | higher:
        return None
    return "lower" if lower else "higher"


def unit_of(name: str) -> str:
    """Return the unit that the name of a metric says: "%" for accuracies and shares of errors, else ""."""
    return "%" if SHARES.fullmatch(name) else ""


@dataclass(frozen=True)
class Metric:
    """One measure of a run.

    Args:
        name: as columns are called by it: "accuracy" gives "val_accuracy" and "final_test_accuracy".
        better: the direction in which a run is better.
        unit: shown behind the number; "%" means that shares from 0 to 1 are stored and percentages shown.
    """

    name: str
    better: Direction = "higher"
    unit: str = ""

    def __post_init__(self) -> None:
        if self.better not in get_args(Direction):
            raise InputError(f'metric {self.name!r}: better is {self.better!r}; a metric is better "higher" or "lower"')

    @property
    def scale(self) -> float:
        """Factor from the stored value to the one that a person sees."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def difference_unit(self) -> str:
        """Unit of the difference of two shown values: percentage points for percentages."""
        return "points" if self.unit == "%" else self.unit

    @property
    def words(self) -> str:
        """The name in a sentence: "mean squared error" for `mean_squared_error`."""
        return self.name.replace("_", " ")

    def text(self, value: float) -> str:
        """Return a value for a person: "97.12%", "0.0123 kW"."""
        if self.unit == "%":
            return f"{value:.2%}"
        return f"{value:.4g} {self.unit}".rstrip()

    def is_better(self, one: float, other: float) -> bool:
        """Return whether `one` is better than `other`; never where either is NaN."""
        return one > other if self.better == "higher" else one < other

    def gain(self, one: float, other: float) -> float:
        """Return how much `one` is better than `other`, in stored units; negative where it is worse."""
        return one - other if self.better == "higher" else other - one

    def best(self, values: Sequence[float]) -> float:
        """Return the best of some values; NaN of none."""
        known = [value for value in values if not math.isnan(value)]
        if not known:
            return math.nan
        return max(known) if self.better == "higher" else min(known)

    @property
    def columns(self) -> dict[str, str]:
        """The values of COLUMNS."""
        return {"metric": self.name, "metric_better": self.better, "metric_unit": self.unit}


@dataclass(frozen=True)
class Measures:
    """What readers of results must know of a task: a results folder is read without the code of a user's task.

    Args:
        metrics: all that are measured, in the order of histories.
        primary: the one that decides.
        chance: its value for a guess; None where that is not known.
        outputs: how many numbers the network gives for each example or position; None where nothing is known.
    """

    metrics: tuple[Metric, ...]
    primary: Metric
    chance: float | None = None
    outputs: int | None = None

    @property
    def others(self) -> tuple[Metric, ...]:
        """The metrics beside the one that decides."""
        return tuple(metric for metric in self.metrics if metric.name != self.primary.name)


ACCURACY = Metric("accuracy", "higher", "%")
ACCURACY_ALONE = Measures((ACCURACY,), ACCURACY)


def metric_of(levels: pd.DataFrame) -> Metric:
    """Return the metric that a table of levels is about; one of version 0.1, without such columns, is of accuracies.

    Raises:
        InputError: its studies have different metrics.
    """
    if levels.empty or any(column not in levels for column in COLUMNS):
        return ACCURACY
    found = levels[list(COLUMNS)].fillna("").drop_duplicates()
    if len(found) > 1:
        rows = ([str(value) for value in row if value] for row in found.itertuples(index=False))
        names = " and ".join(f"{name} ({', '.join(rest)})" for name, *rest in rows)
        raise InputError(f"these studies can't be compared: their metrics are {names}; show each study alone")
    row: Mapping[str, str] = found.iloc[0].to_dict()
    better: Direction = "lower" if row["metric_better"] == "lower" else "higher"
    return Metric(str(row["metric"]), better, str(row["metric_unit"]))
