"""Learning curves: which examples they are measured on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tombola.tasks.metric import Metric

WORDS = {"test": "test", "val": "validation"}
FEWEST = 3  # two rows of each run have test values anyway: early stop and the end


def learning_curves(curves: pd.DataFrame, metric: Metric) -> tuple[pd.DataFrame, str]:
    """Return the evaluations that make curves of a metric, and the part of the data that they are measured on.

    That is the test examples where a study asks for them (`training.test_every`), and else the validation examples.

    Args:
        curves: a row per evaluation, as `Results.curves` gives them. NaN where the test examples were not measured.
        metric: the one to draw.

    Returns:
        The rows in which it is known, and "test" or "val", which begins the name of its column.
    """
    of_test = f"test_{metric.name}"
    if curves.empty:
        return curves, "test"
    known = curves[of_test].notna()
    key = ["study", "arm", "trial", "repeat", "level"]
    each = known.groupby([curves[name] for name in key if name in curves]).sum()
    of_validation = curves.get(f"val_{metric.name}", pd.Series(np.nan, curves.index)).notna()
    if not known.all() and each.min() < FEWEST and of_validation.any():
        return curves[of_validation], "val"
    # Early stop comes at another iteration in each run: a mean over some of the runs would be no point of the curve.
    together = [name for name in ("study", "arm", "level", "iteration") if name in curves]
    whole = known.groupby([curves[name] for name in together]).transform("all")
    return curves[whole if whole.any() else known], "test"
