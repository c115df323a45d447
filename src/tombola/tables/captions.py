"""Captions of tables and figures: sample sizes, the meaning of points and bars, omitted runs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tombola.analysis.connectivity import ERROR, LOSS
from tombola.analysis.measures import stops_at_the_end
from tombola.analysis.order import in_order
from tombola.formatting import counted, number, percent, plain
from tombola.tasks.metric import Metric

if TYPE_CHECKING:
    import pandas as pd

Bars = Literal["range", "interval"]


@dataclass(frozen=True)
class Height:
    """The display of barriers.

    Args:
        metric: the error rate or the loss, with its unit.
        title: of a table.
    """

    metric: Metric
    title: str

    def number(self, stored: float) -> str:
        """Return a stored barrier for display, without its unit."""
        return number(self.metric.scale * stored, self.metric)

    def threshold(self, stored: float) -> str:
        """Return the highest stable barrier, with its unit."""
        return f"{self.metric.scale * stored:g} {self.metric.difference_unit}".rstrip()


HEIGHTS = {
    ERROR: Height(Metric("error", "lower", "%"), "error barriers, percentage points"),
    LOSS: Height(Metric("loss", "lower"), "loss barriers"),
}

# The ends of an interpolation, by the kind in `Results.connectivity`.
BETWEEN = {"copies": "copies", "dense-ticket": "dense and ticket", "levels": "successive tickets"}
AT_THE_END = "early stop is the end of training: no run has a validation loss"
PM = "Pm: the percentage of all matrix weights that remain."
FEWEST = 3  # trials from which an interval is drawn: that of two is about thirteen times as long as their distance


def early_stop_note(levels: pd.DataFrame) -> str:
    """Return what a caption says about early stop in these runs; nothing where validation examples decide it."""
    if stops_at_the_end(levels):
        return AT_THE_END
    studies = levels.groupby("study", sort=False, observed=True)
    ended = [plain(study) for study, rows in studies if stops_at_the_end(rows)]
    return f"early stop of {', '.join(ended)} is the end of training: no run there has a validation loss" * bool(ended)


def densities_of(density: pd.Series) -> str:
    """Return the density of the rows of one level, in percent: one number, or the range where the rows differ."""
    low, high = float(density.min()), float(density.max())
    return f"{percent(low)}-{percent(high)}" if densities_differ(density) else percent(high)


def densities_differ(density: pd.Series) -> bool:
    """Return whether the rows of one level differ in density by more than a weight or two."""
    return bool(density.max() - density.min() > 0.01 * density.max())


def sample_size(summary: pd.DataFrame) -> str:
    """Return the sample size of each arm of one study: "n = 5 trials", or by arm where they differ."""
    arms_of: dict[str, list[str]] = {}
    for arm in in_order(summary["arm"]):
        arms_of.setdefault(_size_of(summary[summary["arm"] == arm]), []).append(plain(arm))
    if len(arms_of) == 1:
        return f"n = {next(iter(arms_of))}"
    return "n = " + "; ".join(f"{size} ({', '.join(arms)})" for size, arms in arms_of.items())


def small_print(summary: pd.DataFrame, marks: str, bars: Bars | None, *more: str) -> str:
    """Return the caption of a figure: sample size, the meaning of points or curves and bars, omitted runs.

    Arguments:
        summary: the runs in the figure.
        marks: the marks of means: "points" or "curves".
        bars: the meaning of the bars; None for a figure without bars.
    """
    means = f"{marks} are means over {'trials' if (summary['n'] > 1).any() else 'repeats of one trial'}"
    if bars is None:
        drawn = means if (summary["runs"] > 1).any() else "single runs"
    elif bars == "interval" and (summary["n"] < 2).all():
        drawn = "one trial, so no intervals"
    elif (summary["runs"] > 1).any():
        drawn = f"{means}, {bars_are(set(summary['n']), bars)}"
    else:
        drawn = "single runs, so no bars"
    return "; ".join(part for part in (_sample_sizes(summary), drawn, left_out(summary), *more) if part) + "."


def bars_are(trials: Collection[int], bars: Bars, marks: str = "bars", run: str = "run") -> str:
    """Return the meaning of bars or bands, from the numbers of trials behind them."""
    if bars == "range":
        return f"{marks} span the lowest and highest {run}"
    if max(trials) < FEWEST:
        return f"{marks} join the two trials, because a 95 % interval of two would fill the plot"
    text = f"{marks} are 95 % t intervals of the mean"
    return f"{text} (of two trials, {marks} join the two)" if FEWEST - 1 in trials else text


def beyond_axes(below: int, above: int) -> str:
    """Return "2 points below and 1 point above the axes not shown"; "" if the axes show all points."""
    parts = [f"{counted(n, 'point')} {side}" for n, side in ((below, "below"), (above, "above")) if n]
    return f"{' and '.join(parts)} the axes not shown" if parts else ""


def direction(metric: Metric) -> str:
    """Return "of rmse, lower is better" for such a metric, else ""."""
    return f"of {metric.words}, lower is better" if metric.better == "lower" else ""


def left_out(summary: pd.DataFrame) -> str:
    """Return "2 diverged runs omitted (reinit)"; "" if no run diverged."""
    diverged = summary[summary["diverged"] > 0]
    if diverged.empty:
        return ""
    dense, pruned = diverged[diverged["level"] == 0], diverged[diverged["level"] > 0]
    # One run, shown in each arm, unless arms have dense runs of their own.
    of_study = dense.groupby(["study", "own_dense"], observed=True)["diverged"]
    of_dense = sum(int(runs.sum() if own else runs.max()) for (_, own), runs in of_study)
    arms = ["dense"] * bool(of_dense) + [plain(arm) for arm in in_order(pruned["arm"])]
    return f"{counted(of_dense + int(pruned['diverged'].sum()), 'diverged run')} omitted ({', '.join(arms)})"


def _sample_sizes(summary: pd.DataFrame) -> str:
    """Return the sample sizes, by study where they differ."""
    sizes = {study: sample_size(rows) for study, rows in summary.groupby("study", sort=False, observed=True)}
    if len(set(sizes.values())) == 1:
        return next(iter(sizes.values()))
    return " · ".join(f"{plain(study)}: {size}" for study, size in sizes.items())


def _size_of(arm: pd.DataFrame) -> str:
    with_results = arm[arm["n"] > 0]
    # The dense level is one run per trial even where an arm has several repeats at every other level.
    pruned = with_results[with_results["level"] > 0]
    rows = with_results if pruned.empty else pruned
    if rows.empty:
        return "0 trials"
    trials = _range(rows["n"], "trial")
    same = (rows["n"] == rows["runs"]).all()
    return trials if same else f"{trials}, {_range(rows['runs'], 'run')}"


def _range(numbers: pd.Series, noun: str) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return counted(high, noun) if low == high else f"{low:,} to {counted(high, noun)}"
