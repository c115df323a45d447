"""What a study says in short: the one level that answers its question, with the numbers that prove it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from tombola.analysis.measures import STOP, early_of, measures_of
from tombola.analysis.paired import NEAR, dense_of
from tombola.analysis.rewinds import later_helps, later_rewinds
from tombola.analysis.roles import main_arm_of
from tombola.analysis.stability import Parting
from tombola.analysis.summary import diverged, with_own_dense
from tombola.analysis.verdicts import LOSING, MATCHING, WINNING, allowed_losses
from tombola.analysis.verdicts import verdicts as verdicts_of
from tombola.tasks.metric import ACCURACY, MARGIN, Metric, metric_of

STANDS = 0.025  # a p value after Holm's correction at which a verdict made with 95 % intervals stands
WEAK = 0.05  # of the dense network's metric: a gain that pruning seldom gives to a well-trained network
Kind = Literal[
    "no runs",
    "all diverged",
    "no pair",
    "connectivity",
    "one trial",
    "one trial, none",
    "winning",
    "matching",
    "losing",
    "undecided",
]


@dataclass(frozen=True)
class Judged:
    """One level of an arm beside the dense networks of the same trials.

    Args:
        level, density: of the network; the density from 0 to 1.
        n: trials compared.
        verdict, reason: of `verdicts`.
        stands: whether a winning ticket stands after Holm's correction over the levels of the arm.
        difference, low, high: of the test metric at early stop, sparse minus dense, in shown units, with its 95 %
            interval; NaN where unknown.
        stop, stop_low, stop_high: the same of the early-stopping iteration [iterations].
        dense_stop: the dense networks' mean early-stopping iteration; NaN where unknown.
        dense: their mean test metric at early stop, in shown units; NaN where unknown.
        fewest, most: the lowest and highest density of a trial, where they differ by more than 5 %; else the density.
    """

    level: int
    density: float
    n: int
    verdict: str
    reason: str
    stands: bool
    difference: float
    low: float
    high: float
    stop: float
    stop_low: float
    stop_high: float
    dense_stop: float
    dense: float = math.nan
    fewest: float = math.nan
    most: float = math.nan

    def dense_is_weak(self, metric: Metric) -> bool:
        """Return whether the whole interval lies above dense by more than a well-trained dense network would allow."""
        least = self.low if metric.better == "higher" else -self.high
        return least > WEAK * abs(self.dense)


@dataclass(frozen=True)
class Answer:
    """The short answer of a study. Sentences, the page's first screen, the terminal and notebooks are made from it.

    Args:
        kind: what the study can say.
        metric: of the study.
        margin: the accepted loss of the verdicts, as a fraction.
        arm: that the answer is about; "" without a run.
        levels: how many of its levels have a verdict.
        at: the level of the answer: the sparsest winning ticket, or else the sparsest matching level. Where no level is
            either, the level with the best test metric. Of one trial, the sparsest level within the margin. None where
            nothing can be compared.
        sparser: a matching level that is sparser than the winning ticket; None without one.
        later_helps: whether some later rewind gains over the first one after Holm's correction; None where the study
            has one rewind, or one trial.
        diverged: runs that diverged, of all arms.
        missing: work items that are not finished.
        partings: copies of the dense network, of a study that compares no pruned network with it.
    """

    kind: Kind
    metric: Metric = ACCURACY
    margin: float = MARGIN
    arm: str = ""
    levels: int = 0
    at: Judged | None = None
    sparser: Judged | None = None
    later_helps: bool | None = None
    diverged: int = 0
    missing: int = 0
    partings: tuple[Parting, ...] = ()


def answer_of(
    levels: pd.DataFrame,
    margin: float = MARGIN,
    missing: int = 0,
    verdicts: pd.DataFrame | None = None,
    partings: tuple[Parting, ...] = (),
) -> Answer:
    """Return the short answer of one study.

    Args:
        levels: a row per (arm, trial, repeat, level), as returned by `Results.frame()`.
        margin: the accepted loss, as a fraction: see `verdicts`.
        missing: work items that are not finished.
        verdicts: those of `levels` with this margin, if they are known.
        partings: of the study's interpolations, see `tombola.analysis.stability`.

    Raises:
        InputError: `margin` is not between 0 and 1.
    """
    if levels.empty:
        return Answer("no runs", margin=margin, missing=missing)
    metric, arm = metric_of(levels), main_arm_of(levels)
    lost = levels[diverged(levels)]
    own = ["arm"] if with_own_dense(levels, measures_of(metric)) else []  # or one run, shown in each arm
    dense = lost.loc[lost["level"] == 0, ["trial", *own]].drop_duplicates()
    table = verdicts_of(levels, margin) if verdicts is None else verdicts
    rows = table[table["arm"] == arm].sort_values(["density", "level"], ascending=[False, True])
    compared = rows[(rows["n"] > 0) & rows[f"{metric.name}_difference"].notna()]
    kind, at = _chosen(compared, metric, allowed_losses(levels, metric, margin))
    if kind == "no pair" and diverged(levels).all():
        kind = "all diverged"
    if kind == "no pair" and partings:
        kind = "connectivity"
    matching = compared[compared["verdict"] == MATCHING]
    sparser = matching.iloc[-1] if kind == "winning" and len(matching) and at is not None else None
    if sparser is not None and at is not None and sparser["density"] >= at["density"]:
        sparser = None
    return Answer(
        kind,
        metric,
        margin,
        arm,
        len(compared),
        _judged(at, levels, metric),
        _judged(sparser, levels, metric),
        later_helps(later_rewinds(levels, arm)),
        int((lost["level"] > 0).sum()) + len(dense),
        missing,
        partings if kind == "connectivity" else (),
    )


def _chosen(rows: pd.DataFrame, metric: Metric, allowed: dict[str, float]) -> tuple[Kind, pd.Series | None]:
    """Return what the levels of an arm say, and the level that says it; `rows` go from dense to sparse."""
    if rows.empty:
        return "no pair", None
    gains = rows[f"{metric.name}_difference"] * (1 if metric.better == "higher" else -1)
    best = rows.loc[gains.idxmax()]
    if int(rows["n"].max()) == 1:
        good = rows[gains >= -rows["study"].map(allowed)]
        return ("one trial", good.iloc[-1]) if len(good) else ("one trial, none", best)
    kinds: tuple[tuple[str, Kind], ...] = ((WINNING, "winning"), (MATCHING, "matching"))
    for verdict, kind in kinds:
        found = rows[rows["verdict"] == verdict]
        if len(found):
            return kind, found.iloc[-1]
    return ("losing" if (rows["verdict"] == LOSING).all() else "undecided"), best


def _judged(row: pd.Series | None, levels: pd.DataFrame, metric: Metric) -> Judged | None:
    if row is None:
        return None
    facts: dict[str, Any] = row.to_dict()
    difference, stop = (
        [float(facts[f"{name}_difference{end}"]) for end in ("", "_low", "_high")]
        for name in (metric.name, "iteration")
    )
    mine = levels[(levels["arm"] == facts["arm"]) & (levels["level"] == facts["level"])]
    ends = mine["density"].agg(["min", "max"])
    apart = ends["max"] / max(ends["min"], 1e-12) - 1 > NEAR
    fewest, most = (float(each) for each in (ends if apart else (facts["density"],) * 2))
    return Judged(
        level=int(facts["level"]),
        density=float(facts["density"]),
        n=int(facts["n"]),
        verdict=str(facts["verdict"]),
        reason=str(facts["reason"]),
        stands=bool(facts["p_holm"] <= STANDS),
        difference=difference[0],
        low=difference[1],
        high=difference[2],
        stop=stop[0],
        stop_low=stop[1],
        stop_high=stop[2],
        dense_stop=_dense_mean(levels, STOP, str(facts["arm"]), int(facts["level"]), metric),
        dense=metric.scale * _dense_mean(levels, early_of(metric), str(facts["arm"]), int(facts["level"]), metric),
        fewest=fewest,
        most=most,
    )


def _dense_mean(levels: pd.DataFrame, column: str, arm: str, level: int, metric: Metric) -> float:
    """Return the mean of a column over an arm's dense networks whose trials also have a sound run of a level."""
    if column not in levels:
        return math.nan
    sound = levels[~diverged(levels)].dropna(subset=[early_of(metric), column])
    trials = set(sound.loc[(sound["level"] == level) & (sound["arm"] == arm), "trial"])
    return float(dense_of(sound[sound["trial"].isin(trials)], arm, column).mean())
