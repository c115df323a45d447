"""Whether a sparse network is a winning ticket, level by level, on intervals and not on means."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tombola.analysis.intervals import means, t_tests
from tombola.analysis.paired import DENSE, by_level, differences, holm_by
from tombola.analysis.summary import diverged
from tombola.errors import InputError

WINNING, MATCHING, LOSING, INCONCLUSIVE = "winning ticket", "matching", "losing", "inconclusive"
ACCURACY, ITERATION = "early_stop_test_accuracy", "early_stop_iteration"
GROUP = ["study", "arm", "level"]
NO_VARIATION = "without variation between trials there is nothing to judge by"


def verdicts(levels: pd.DataFrame, margin: float = 0.001, confidence: float = 0.95) -> pd.DataFrame:
    """Return a verdict for each (study, arm, level >= 1), from its differences to the dense network of the same trial.

    With [a, b] the two-sided interval of the difference in test accuracy at early stop, and [c, d] that of the
    early-stopping iteration:

    - `winning ticket`: a > -margin (not worse: a non-inferiority test) and d <= 0 (not later);
    - `matching`: a > -margin, but d > 0: not shown to be no later;
    - `losing`: b < -margin;
    - `inconclusive`: anything else; so too where fewer than two trials can be compared, or a run diverged, be it
      the dense one of some trial, for those that are left are then no fair sample (unless they are losing all the
      same).

    A difference that is the same in all trials, as coarse evaluation can make it, has no interval to judge by: it
    counts as not shown.

    A winning ticket has to pass two one-sided tests at level (1 - confidence) / 2 each. That is also the most often
    that one level's verdict is wrongly a winning ticket: an intersection-union test needs no correction for being two
    (Berger 1982). That some level of many is wrongly one happens more often: `p_holm` says which stand after Holm's
    correction over the levels of the arm. docs/statistics.md has both rates as simulated.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level), as `Results.frame()` gives.
        margin: the loss of accuracy that still counts as none, as a fraction: 0.001 is 0.1 percentage points.
        confidence: of the two-sided intervals.

    Returns:
        `study`, `arm`, `level`, `density`; `n`, the trials compared, of the measure that fewer have; `verdict`;
        `reason`, in words with numbers;
        `accuracy_difference`, `accuracy_difference_low`, `accuracy_difference_high`, in percentage points;
        `iteration_difference`, `iteration_difference_low`, `iteration_difference_high`; `p`, the larger of the two
        one-sided p values of `winning ticket`; `p_holm`, adjusted over the levels of the arm, which stands at
        the same error rate where it is at most (1 - confidence) / 2. NaN where there is no such number.

    Raises:
        InputError: `margin` is negative, or `confidence` no number between 0 and 1.
    """
    if not 0 <= margin < 1:
        raise InputError(f"margin={margin} must lie between 0 and 1, such as 0.001 for 0.1 percentage points")
    rows = levels.assign(diverged=diverged(levels))[levels["level"] > 0]
    table = rows.groupby(GROUP, sort=False).agg(density=("density", "mean"), diverged=("diverged", "sum")).reset_index()
    dense = levels[(levels["level"] == 0) & diverged(levels)].groupby("study")["trial"].nunique()
    table["dense_diverged"] = table["study"].map(dense).fillna(0).astype(int)
    points = 100 * margin
    samples = {measure: _samples(levels, table, measure) for measure in (ACCURACY, ITERATION)}
    for name, measure in (("accuracy", ACCURACY), ("iteration", ITERATION)):
        found = means(samples[measure], confidence)
        table[f"{name}_n"] = found.n
        table[f"{name}_difference"] = found.mean
        table[f"{name}_difference_low"], table[f"{name}_difference_high"] = found.low, found.high
        table[f"{name}_flat"] = found.std == 0
    table["n"] = table[["accuracy_n", "iteration_n"]].min(axis=1)
    not_worse = t_tests(samples[ACCURACY], -points, "greater")
    not_later = t_tests(samples[ITERATION], 0.0, "less")
    table["p"] = np.maximum(not_worse, not_later)
    table["p_holm"] = holm_by(table, ["study", "arm"])

    judged = [_judge(row, points, confidence) for row in table.to_dict("records")]
    table["verdict"] = [verdict for verdict, _ in judged]
    table["reason"] = [reason for _, reason in judged]
    for key in ("study", "arm"):  # both in the order of their first appearance
        places = {name: place for place, name in enumerate(dict.fromkeys(levels[key]))}
        table[f"{key}_place"] = table[key].map(places)
    table = table.sort_values(["study_place", "arm_place", "level"], ignore_index=True)
    bounds = [f"{name}_difference{end}" for name in ("accuracy", "iteration") for end in ("", "_low", "_high")]
    return table[[*GROUP, "density", "n", "verdict", "reason", *bounds, "p", "p_holm"]]


def _samples(levels: pd.DataFrame, table: pd.DataFrame, measure: str) -> list[np.ndarray]:
    """Return the differences to dense of each row of the table."""
    found = {
        (study, arm, level): sample
        for arm in dict.fromkeys(table["arm"])
        for (study, level), sample in by_level(differences(levels, arm, DENSE, measure)).items()
    }
    return [found.get(key, np.empty(0)) for key in zip(table["study"], table["arm"], table["level"], strict=True)]


def _judge(row: dict, points: float, confidence: float) -> tuple[str, str]:
    """Return the verdict on one level, and the reason."""
    n = int(row["n"])
    lost = _lost(int(row["diverged"]), int(row["dense_diverged"]))
    if n == 0:
        return INCONCLUSIVE, lost or "no trial has both this level and level 0"
    accuracy, iteration = _words(row, "accuracy", ".2f", "points"), _words(row, "iteration", ",.0f", "iterations")
    if n == 1:
        text = f"accuracy {accuracy}, early stop {iteration} against dense"
        return INCONCLUSIVE, f"{text}; n = 1: one trial tells nothing of the variation between trials"
    given = f"({100 * confidence:g} % intervals, n = {n})"
    if row["accuracy_flat"]:
        return INCONCLUSIVE, f"accuracy {row['accuracy_difference']:+.2f} points in all {n} trials: {NO_VARIATION}"
    allowed = f"the margin of {points:g} points"
    if row["accuracy_difference_high"] < -points:
        return LOSING, f"accuracy {accuracy} against dense: worse by more than {allowed} {given}"
    if lost:
        return INCONCLUSIVE, f"{lost}: the {n} trials that are left are no fair sample"
    if row["accuracy_difference_low"] <= -points:
        return (
            INCONCLUSIVE,
            f"accuracy {accuracy} against dense: the interval reaches to both sides of {allowed} {given}",
        )
    text = f"accuracy {accuracy} against dense: not worse by more than {allowed}"
    if row["iteration_flat"]:
        iteration = f"{row['iteration_difference']:+,.0f} iterations in all {n} trials: {NO_VARIATION}"
        return MATCHING, f"{text} {given}; but early stop {iteration}"
    if row["iteration_difference_high"] > 0:
        return MATCHING, f"{text}; but early stop {iteration}: not shown to be no later {given}"
    stands = row["p_holm"] <= (1 - confidence) / 2
    over_all = "stands" if stands else "does not stand"
    return WINNING, (
        f"{text}; early stop {iteration}: not later {given}; {over_all} after correction for the number of levels "
        f"(p = {row['p_holm']:.2g})"
    )


def _lost(sparse: int, dense: int) -> str:
    """Return which runs diverged; nothing where none did."""
    parts = [f"{sparse} of its runs diverged"] if sparse else []
    parts += [f"the dense network diverged in {dense} trial{'' if dense == 1 else 's'}"] if dense else []
    return " and ".join(parts)


def _words(row: dict, name: str, form: str, unit: str) -> str:
    """Return a difference and its interval, such as "+0.36 points [+0.06, +0.67]"."""
    mean, low, high = (row[f"{name}_difference{end}"] for end in ("", "_low", "_high"))
    interval = "" if np.isnan(low) else f" [{low:+{form}}, {high:+{form}}]"
    return f"{mean:+{form}} {unit}{interval}"
