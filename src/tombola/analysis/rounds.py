"""Is iterative pruning worth its rounds? The ticket against the best method without rounds, at equal density."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from tombola.analysis.paired import at_equal_density
from tombola.studies.arms import ARMS


@dataclass(frozen=True)
class Worth:
    """The ticket against the best baseline at one level.

    Args:
        baseline: the arm with the best mean of those without rounds.
        others: how many baselines there are at that density, the best one included.
        density: of the ticket, from 0 to 1.
        mean, low, high: of the ticket's gain over it in the test metric at early stop, in shown units, with its 95 %
            interval, paired by trial.
        cost, baseline_cost: in dense runs, everything that the network needs included; NaN where not known.
    """

    baseline: str
    others: int
    density: float
    mean: float
    low: float
    high: float
    cost: float
    baseline_cost: float


def worth_of_rounds(
    levels: pd.DataFrame, gains: pd.DataFrame, level: int | None, rules: Mapping[str, str] | None = None
) -> Worth | None:
    """Return how the ticket does against the best baseline at a level; None where there is none to compare with.

    The best of several baselines is the one with the best mean of these very trials, so luck is on its side: the gain
    is rather too small than too large.

    Args:
        levels: a row per (arm, trial, repeat, level) of one study.
        gains: `paired_gains` of the ticket arm over each other arm.
        level: to compare at.
        rules: arm -> its rule, where they have names of their own; by default an arm is called by its rule.
    """
    if gains.empty or level is None:
        return None
    rules = rules or {}

    def rule_of(arm: str) -> str:
        name = arm.partition("@")[0]
        return rules.get(name, name)

    baselines = {arm for arm in set(gains["baseline"]) if rule_of(arm) in ARMS and ARMS[rule_of(arm)].no_rounds}
    there = levels[levels["level"] == level]
    arm = str(gains["arm"].iloc[0])
    rows = gains[(gains["level"] == level) & gains["baseline"].isin(baselines) & gains["low"].notna()]
    rows = at_equal_density(rows, levels)
    if rows.empty or rule_of(arm) != "ticket":
        return None
    best = rows.sort_values("mean", kind="stable").iloc[0]
    costs = there.groupby("arm")["cost"].mean() if "cost" in there else {}
    return Worth(
        baseline=str(best["baseline"]),
        others=len(rows),
        density=float(best["density"]),
        mean=float(best["mean"]),
        low=float(best["low"]),
        high=float(best["high"]),
        cost=float(costs.get(arm, math.nan)),
        baseline_cost=float(costs.get(best["baseline"], math.nan)),
    )
