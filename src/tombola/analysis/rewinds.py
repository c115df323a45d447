"""Does rewinding to a later iteration help? The later rewinds of an arm against its first one, paired by trial."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tombola.analysis.intervals import holm
from tombola.analysis.measures import early_of
from tombola.analysis.order import in_order
from tombola.analysis.paired import at_equal_density, of_whole_levels, paired_gains
from tombola.analysis.roles import base_of
from tombola.tasks.metric import metric_of

TWO_SIDED = 0.05  # a two-sided p value after Holm's correction that shows a difference


def later_rewinds(levels: pd.DataFrame, main: str) -> pd.DataFrame:
    """Return the gain of each later rewind over the first one, a row per rewind and level.

    Args:
        levels: a row per (arm, trial, repeat, level) of one study.
        main: the first rewind, such as "ticket@0".

    Returns:
        The columns of `paired_gains` of the test metric at early stop, without levels at which a run diverged, a trial
        is absent, or the two densities of a trial differ; `p_holm` is corrected over all rows. Empty where the study
        has one rewind.
    """
    later: Sequence[str] = [arm for arm in in_order(levels["arm"]) if arm != main and base_of(arm) == base_of(main)]
    pieces = [paired_gains(levels, arm, main, early_of(metric_of(levels))) for arm in later]
    if not pieces:
        return pd.DataFrame()
    table = at_equal_density(of_whole_levels(pd.concat(pieces, ignore_index=True), levels), levels)
    return table.assign(p_holm=holm(table["p"].to_numpy()))


def later_helps(rewinds: pd.DataFrame) -> bool | None:
    """Return whether some later rewind gains over the first one after Holm's correction; None where none is tested."""
    if rewinds.empty or rewinds["p_holm"].isna().all():
        return None
    return bool(((rewinds["mean"] > 0) & (rewinds["p_holm"] <= TWO_SIDED)).any())
