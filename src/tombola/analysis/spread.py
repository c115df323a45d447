"""Mean and spread over trials, where a trial may hold several runs of the same thing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

STATISTICS = ("mean", "std", "min", "max", "n")


def spread(rows: pd.DataFrame, by: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """Return one row per group: how many trials and runs it holds, and the statistics of each measure.

    Arguments:
        rows: a row per run, with a column `trial`; NaN and infinite values count as missing.
        by: the columns that make a group.
        measures: the columns to describe; one that `rows` lacks is all NaN in the result.

    Returns:
        The columns `by`; `n`, the number of trials; `runs`, the number of rows; and for each measure m
        `m_mean` and `m_std` (over the trials' means, ddof=1: NaN for one trial), `m_min` and `m_max` (over
        all rows), and `m_n`, the trials with a value. The groups stand in the order in which they first appear.
    """
    by, measures = list(by), list(measures)
    known = _known(rows, by, measures)
    all_runs = known.groupby(by, sort=False, observed=True)
    trials = trial_means(rows, by, measures).groupby(by, sort=False, observed=True)

    columns = {"n": trials.size(), "runs": all_runs.size()}
    for measure in measures:
        columns[f"{measure}_mean"] = trials[measure].mean()
        columns[f"{measure}_std"] = trials[measure].std(ddof=1)
        columns[f"{measure}_min"] = all_runs[measure].min()
        columns[f"{measure}_max"] = all_runs[measure].max()
        columns[f"{measure}_n"] = trials[measure].count()
    return pd.DataFrame(columns, index=trials.size().index).reset_index()


def trial_means(rows: pd.DataFrame, by: Sequence[str], measures: Sequence[str]) -> pd.DataFrame:
    """Return one row per group and trial: the mean of each measure over the trial's repeats.

    The repeats of one trial share its initialisation, its data order and its mask, so they are not independent
    evidence: they are averaged within the trial first, and the trial then counts once.

    Arguments:
        rows: a row per run, with a column `trial`; NaN and infinite values count as missing.
        by: the columns that make a group.
        measures: the columns to average; one that `rows` lacks is all NaN in the result.

    Returns:
        The columns `by`, `trial` and the measures, in the order in which groups and trials first appear.
    """
    by, measures = list(by), list(measures)
    known = _known(rows, by, measures)
    return known.groupby([*by, "trial"], sort=False, observed=True)[measures].mean().reset_index()


def _known(rows: pd.DataFrame, by: list[str], measures: list[str]) -> pd.DataFrame:
    known = rows[[*by, "trial"]].copy()
    for measure in measures:
        known[measure] = rows[measure].astype(float) if measure in rows else np.nan
    known[measures] = known[measures].replace([np.inf, -np.inf], np.nan)
    return known
