"""Whether a sparse network is a winning ticket, level by level, on intervals and not on means."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tombola.analysis.intervals import means, t_tests
from tombola.analysis.measures import STOP, allowed_loss, early_of
from tombola.analysis.paired import DENSE, by_level, differences, holm_by
from tombola.analysis.spread import trial_means
from tombola.analysis.summary import absent, diverged, whole_stops
from tombola.errors import InputError
from tombola.formatting import counted, margin_in_words, signed, with_unit
from tombola.formatting import differences as formatted
from tombola.tasks.metric import MARGIN, Metric, metric_of

WINNING, MATCHING, LOSING, INCONCLUSIVE = "winning ticket", "matching", "losing", "inconclusive"
GROUP = ["study", "arm", "level"]
BIASED = "a biased sample"  # what the reason of a level ends with that lost runs keep inconclusive
NO_VARIATION = "without variation between trials, no interval can be computed"


def verdicts(levels: pd.DataFrame, margin: float = MARGIN, confidence: float = 0.95) -> pd.DataFrame:
    """Return a verdict for each (study, arm, level >= 1), from its differences to the dense network of the same trial.

    With [a, b] the two-sided interval of the gain in the test metric at early stop (sparse minus dense, or dense minus
    sparse where lower is better), and [c, d] that of the difference in the early-stopping iteration:

    - `winning ticket`: a > -margin (not worse: a non-inferiority test) and d <= 0 (not later);
    - `matching`: a > -margin, but d > 0: not shown to be no later;
    - `losing`: b < -margin;
    - `inconclusive`: anything else. So is a level with fewer than two trials to compare. So is one with a diverged run,
      sparse or dense, and one that some trials of the arm lack: the remaining trials are a biased sample. `losing`
      stands even then.

    A difference that is the same in all trials, as coarse evaluation can make it, has no interval to judge by: it
    counts as not shown.

    A winning ticket has to pass two one-sided tests at level (1 - confidence) / 2 each. That is also the most often
    that one level's verdict is wrongly a winning ticket: an intersection-union test needs no correction for being two
    (Berger 1982). That some level of many is wrongly one happens more often: `p_holm` says which stand after Holm's
    correction over the levels of the arm. docs/statistics.md has both rates as simulated.

    The early-stopping iteration counts the training behind a start from trained weights (`fine-tune`, `lr-rewind`), so
    such an arm is at most `matching` where that took longer than the dense network.

    Arguments:
        levels: a row per (study, arm, trial, repeat, level), as returned by `Results.frame()`.
        margin: the accepted loss, as a fraction: 0.001 is 0.1 percentage points of a percentage, and
            0.1 % of the dense networks' mean of any other metric.
        confidence: of the two-sided intervals.

    Returns:
        `study`, `arm`, `level`, `density`; `n`, the trials compared, of the measure that fewer have; `verdict`;
        `reason`, as text with numbers;
        `accuracy_difference`, `accuracy_difference_low`, `accuracy_difference_high`, in percentage points - of another
        metric, columns with its name, in its unit: sparse minus dense;
        `iteration_difference`, `iteration_difference_low`, `iteration_difference_high`; `p`, the larger of the two
        one-sided p values of `winning ticket`; `p_holm`, adjusted over the levels of the arm, which stands at
        the same error rate where it is at most (1 - confidence) / 2. NaN where there is no such number.

    Raises:
        InputError: `margin` or `confidence` is not between 0 and 1, or the studies have different metrics.
    """
    if not 0 <= margin < 1:
        raise InputError(f"margin={margin} must lie between 0 and 1, such as 0.001 for 0.1 percentage points")
    levels = whole_stops(levels)
    rows = levels.assign(diverged=diverged(levels))[levels["level"] > 0]
    table = rows.groupby(GROUP, sort=False).agg(density=("density", "mean"), diverged=("diverged", "sum")).reset_index()
    dense = levels[(levels["level"] == 0) & diverged(levels)].groupby("study")["trial"].nunique()
    table = table.join(absent(levels).rename("absent"), on=GROUP)
    table["dense_diverged"] = table["study"].map(dense).fillna(0).astype(int)
    metric = metric_of(levels)
    table["allowed"] = table["study"].map(allowed_losses(levels, metric, margin)).astype(float)
    samples = {measure: _samples(levels, table, measure) for measure in (early_of(metric), STOP)}
    gains = [sample if metric.better == "higher" else -sample for sample in samples[early_of(metric)]]
    for name, found in (
        (metric.name, means(samples[early_of(metric)], confidence)),
        ("gain", means(gains, confidence)),
        ("iteration", means(samples[STOP], confidence)),
    ):
        table[f"{name}_n"] = found.n
        table[f"{name}_difference"] = found.mean
        table[f"{name}_difference_low"], table[f"{name}_difference_high"] = found.low, found.high
        table[f"{name}_flat"] = found.std == 0
    table["n"] = table[["gain_n", "iteration_n"]].min(axis=1)
    table["p"] = np.maximum(_not_worse(gains, table["allowed"].to_numpy()), t_tests(samples[STOP], 0.0, "less"))
    table["p_holm"] = holm_by(table, ["study", "arm"])

    judged = [_judge(row, metric, margin, confidence) for row in table.to_dict("records")]
    table["verdict"] = [verdict for verdict, _ in judged]
    table["reason"] = [reason for _, reason in judged]
    for key in ("study", "arm"):  # both in the order of their first appearance
        places = {name: place for place, name in enumerate(dict.fromkeys(levels[key]))}
        table[f"{key}_place"] = table[key].map(places)
    table = table.sort_values(["study_place", "arm_place", "level"], ignore_index=True)
    bounds = [f"{name}_difference{end}" for name in (metric.name, "iteration") for end in ("", "_low", "_high")]
    return table[[*GROUP, "density", "n", "verdict", "reason", *bounds, "p", "p_holm"]]


def allowed_losses(levels: pd.DataFrame, metric: Metric, margin: float) -> dict[str, float]:
    """Return, for each study, the accepted loss, in shown units."""
    if metric.unit == "%":
        return dict.fromkeys(levels["study"], 100 * margin)
    dense = levels[(levels["level"] == 0) & ~diverged(levels)]
    values = trial_means(dense, ["study"], [early_of(metric)]).groupby("study", sort=False)[early_of(metric)].mean()
    return {study: metric.scale * allowed_loss(metric, margin, value) for study, value in values.items()}


def _not_worse(gains: list[np.ndarray], allowed: np.ndarray) -> np.ndarray:
    """Return the p value of each sample's one-sided test that the mean gain lies above minus the allowed loss."""
    p = np.full(len(gains), np.nan)
    for loss in np.unique(allowed[~np.isnan(allowed)]):
        rows = np.flatnonzero(allowed == loss)
        p[rows] = t_tests([gains[row] for row in rows], -loss, "greater")
    return p


def _samples(levels: pd.DataFrame, table: pd.DataFrame, measure: str) -> list[np.ndarray]:
    """Return the differences to dense of each row of the table."""
    found = {
        (study, arm, level): sample
        for arm in dict.fromkeys(table["arm"])
        for (study, level), sample in by_level(differences(levels, arm, DENSE, measure)).items()
    }
    return [found.get(key, np.empty(0)) for key in zip(table["study"], table["arm"], table["level"], strict=True)]


def _judge(row: dict, metric: Metric, margin: float, confidence: float) -> tuple[str, str]:
    """Return the verdict on one level, and the reason."""
    n = int(row["n"])
    lost = _lost(int(row["diverged"]), int(row["absent"]), int(row["dense_diverged"]))
    if n == 0:
        return INCONCLUSIVE, lost or "no trial has both this level and level 0"
    name = metric.words
    found, iteration = _difference(row, metric), _iterations(row)
    if n == 1:
        text = f"{name} {found}, early stop {iteration} against dense"
        alone = f"{text}; n = 1: one trial shows no variation between trials"
        return INCONCLUSIVE, f"{alone}; {lost}: the remaining trial is {BIASED}" if lost else alone
    given = f"({100 * confidence:g} % intervals, n = {n})"
    if row["gain_flat"]:
        same = with_unit(signed(row[f"{metric.name}_difference"], metric), metric)
        flat = f"{name} {same} in all {n} trials: {NO_VARIATION}"
        return INCONCLUSIVE, f"{flat}; {lost}: the remaining {n} trials are {BIASED}" if lost else flat
    allowed = f"the margin of {margin_in_words(margin, metric)}"
    if metric.unit != "%":
        allowed += f", {with_unit(_together(row, metric)[3].lstrip('+'), metric)}"
    if row["gain_difference_high"] < -row["allowed"]:
        return LOSING, f"{name} {found} against dense: worse by more than {allowed} {given}"
    if lost:
        return INCONCLUSIVE, f"{lost}: the remaining {n} trials are {BIASED}"
    if row["gain_difference_low"] <= -row["allowed"]:
        return INCONCLUSIVE, f"{name} {found} against dense: the interval includes {allowed} {given}"
    text = f"{name} {found} against dense: not worse by more than {allowed}"
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


def _lost(sparse: int, absent: int, dense: int) -> str:
    """Return which runs diverged, and how many trials lack the level; nothing where all are sound."""
    parts = [f"{counted(sparse, 'run')} of this level diverged"] if sparse else []
    parts += [f"{counted(absent, 'trial')} of the arm ended before this level"] if absent else []
    parts += [f"the dense network diverged in {counted(dense, 'trial')}"] if dense else []
    return " and ".join(parts)


def _difference(row: dict, metric: Metric) -> str:
    """Return the difference in the metric and its interval, such as "+0.36 points [+0.06, +0.67]"."""
    mean, low, high, _ = _together(row, metric)
    interval = "" if np.isnan(row[f"{metric.name}_difference_low"]) else f" [{low}, {high}]"
    return with_unit(mean, metric) + interval


def _together(row: dict, metric: Metric) -> list[str]:
    """Return the difference, the ends of its interval and the accepted loss, with equally many decimals."""
    return formatted(
        [*(row[f"{metric.name}_difference{end}"] for end in ("", "_low", "_high")), row["allowed"]], metric
    )


def _iterations(row: dict) -> str:
    """Return the difference in the early-stopping iteration and its interval."""
    mean, low, high = (row[f"iteration_difference{end}"] for end in ("", "_low", "_high"))
    return f"{mean:+,.0f} iterations" + ("" if np.isnan(low) else f" [{low:+,.0f}, {high:+,.0f}]")
