"""Learning curves: which runs and evaluations make them, and which examples they are measured on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from tombola.analysis.order import in_order
from tombola.analysis.summary import diverged
from tombola.formatting import counted, plain
from tombola.tasks.metric import Metric

WORDS = {"test": "test", "val": "validation"}
CUT = "a curve ends where its first run ended"
SHARED = "a curve has the evaluations that all its runs have"
LEVEL = ("study", "arm", "level")
FEWEST = 3  # two rows of each run have test values anyway: early stop and the end


def of_sound_runs(levels: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """Return the curves of runs that did not diverge: the figures agree with the summary on what counts."""
    gone = diverged(levels)
    if curves.empty or not gone.any():
        return curves
    key = [name for name in ("study", "arm", "trial", "repeat", "level") if name in levels and name in curves]
    return curves[~pd.MultiIndex.from_frame(curves[key]).isin(pd.MultiIndex.from_frame(levels.loc[gone, key]))]


def to_the_shortest(curves: pd.DataFrame) -> pd.DataFrame:
    """Return the evaluations up to the iteration that all runs of a level have reached.

    Patience ends runs at different iterations. Beyond the first end, a mean would cover fewer runs, and the curve would
    jump. Call this before `learning_curves`, which drops evaluations.
    """
    level = [name for name in ("study", "arm", "level") if name in curves]
    run = [*level, *(name for name in ("trial", "repeat") if name in curves)]
    ends = curves.groupby(run, sort=False, observed=True)["iteration"].transform("max")
    shortest = ends.groupby([curves[name] for name in level], observed=True).transform("min")
    return curves[curves["iteration"] <= shortest]


def cut_note(drawn: pd.DataFrame, whole: pd.DataFrame) -> str:
    """Return what a caption says where curves are cut.

    Args:
        drawn: the evaluations of the curves in the figure.
        whole: those before the cut.
    """
    return CUT if len(drawn) < len(whole) else ""


def of_all_runs(curves: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the evaluations at iterations at which all runs of a level have a finite value of a measure.

    A mean over some of the runs is no point of the curve: the next point would be of others, and the curve would jump.
    Call this after `learning_curves`.
    """
    if curves.empty:
        return curves
    known = curves[np.isfinite(curves[measure].astype(float))]
    if known.empty:
        return known
    level = [name for name in LEVEL if name in known]
    run = known.groupby([name for name in ("trial", "repeat") if name in known], observed=True).ngroup()
    runs, there = (
        run.groupby([known[name] for name in by], observed=True).transform("nunique")
        for by in (level, [*level, "iteration"])
    )
    return known[there == runs]


def shared_note(drawn: pd.DataFrame, whole: pd.DataFrame) -> str:
    """Return what a caption says where runs of a level were evaluated at different iterations.

    Args:
        drawn: what `of_all_runs` gave.
        whole: what it was given.
    """
    level = [name for name in LEVEL if name in whole]
    lost = whole[level].drop_duplicates().merge(drawn[level].drop_duplicates(), how="left", indicator=True)
    lost = lost[lost["_merge"] == "left_only"]
    arms = ", ".join(plain(arm) for arm in in_order(lost["arm"]))
    gone = f"{counted(len(lost), 'curve')} not shown, because no evaluation is of all its runs ({arms})"
    notes = [SHARED] * (len(drawn) > 0) + [gone] * (len(lost) > 0)
    return "; ".join(notes) if len(drawn) < len(whole) else ""


def learning_curves(curves: pd.DataFrame, metric: Metric) -> tuple[pd.DataFrame, str]:
    """Return the evaluations that make curves of a metric, and the part of the data that they are measured on.

    That is the test examples where a study asks for them (`training.test_every`), and else the validation examples.

    Args:
        curves: a row per evaluation, as `Results.curves` gives them. NaN where the test examples were not measured.
        metric: the one to draw.

    Returns:
        The rows in which it is known, and "test" or "val", which begins the name of its column. No row where no run has
        two: a point is not a curve. Without validation examples, only the end has test values unless a study asks.
    """
    of_test = f"test_{metric.name}"
    if curves.empty:
        return curves, "test"
    of_validation = curves.get(f"val_{metric.name}", pd.Series(np.nan, curves.index)).notna()
    known = curves[of_test].notna()
    if of_validation.any():  # a diverged run has rows with neither
        there = known | of_validation
        curves, known, of_validation = curves[there], known[there], of_validation[there]
    run = [name for name in ("study", "arm", "trial", "repeat", "level") if name in curves]
    keys = [curves[name] for name in run]
    counts = known.groupby(keys).sum(), of_validation.groupby(keys).sum().clip(upper=FEWEST)
    if not known.all() and (counts[0] < counts[1]).any():
        return curves[of_validation], "val"
    # Early stop comes at another iteration in each run: a mean over some of the runs would be no point of the curve.
    together = [name for name in ("study", "arm", "level", "iteration") if name in curves]
    whole = known.groupby([curves[name] for name in together]).transform("all")
    found = curves[whole if whole.any() else known]
    several = found.groupby(run, observed=True)["iteration"].nunique() > 1
    return found if several.any() else found[:0], "test"


@dataclass(frozen=True, eq=False)
class MeanCurves:
    """The evaluations whose means over runs are the curves of levels.

    Args:
        rows: a row per evaluation that all runs of its level have.
        part: the part of the data that they are measured on, "test" or "val".
        measured: the evaluations that have the metric.
        shortened: those up to the iteration that all runs of a level have reached.
        whole: all of them.
    """

    rows: pd.DataFrame
    part: str
    measured: pd.DataFrame
    shortened: pd.DataFrame
    whole: pd.DataFrame

    def note(self, drawn: Callable[[pd.DataFrame], pd.DataFrame] = lambda rows: rows) -> str:
        """Return what a caption says of evaluations that the curves omit; "" if they omit none.

        Args:
            drawn: returns the rows that a figure draws.
        """
        cut = cut_note(drawn(self.shortened), drawn(self.whole))
        return "; ".join(filter(None, (cut, shared_note(drawn(self.rows), drawn(self.measured)))))


def mean_curves(whole: pd.DataFrame, metric: Metric) -> MeanCurves:
    """Return the evaluations that make mean curves of a metric.

    Args:
        whole: evaluations of sound runs.
        metric: the one to draw.
    """
    shortened = to_the_shortest(whole)
    measured, part = learning_curves(shortened, metric)
    return MeanCurves(of_all_runs(measured, f"{part}_{metric.name}"), part, measured, shortened, whole)
