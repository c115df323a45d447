"""What a pattern costs: arms with a pattern against the same arm without one, at equal density."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from tombola.analysis.measures import early_of
from tombola.analysis.paired import at_equal_density, paired_gains
from tombola.analysis.summary import biased
from tombola.analysis.verdicts import allowed_losses
from tombola.tasks.metric import metric_of

if TYPE_CHECKING:
    from tombola.running.results import Results
    from tombola.studies.study import ArmSettings, Study

COSTS, NO_COST, INCONCLUSIVE = "costs", "no cost", "inconclusive"
COLUMNS = ["study", "pattern", "arm", "baseline", "level", "density", "baseline_density"]
COLUMNS += ["n", "mean", "low", "high", "p", "p_holm", "verdict"]


def pattern_costs(results: Results, margin: float | None = None, levels: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return what each pattern of a study costs against unstructured masks, a row per arm with a pattern and level.

    An arm with a `pattern` is compared with the arm of the same rule and options without one, at the same level and in
    the same trials, which share initialisation and data order. A level counts if its density is that of the other arm
    to within 5 %, and, of n:m, if the masks have reached n of each m.

    Args:
        results: of a study, finished or not.
        margin: the loss that still counts as none, as a fraction: see `verdicts`; the study's where it is not given.
        levels: `results.frame()`, where it is known.

    Returns:
        `study`, `pattern`, `arm`, `baseline`, `level`, `density` and `baseline_density`; `n`, the trials compared;
        `mean`, `low` and `high` of the gain over the arm without the pattern in the test metric at early stop, in
        shown units, negative where the pattern costs, with its 95 % interval; `p` and `p_holm` of the paired t test, as
        `paired_differences` gives them; `verdict`: "no cost" where low > -margin, else "costs" where high < 0, else
        "inconclusive". Without variation between trials it is inconclusive. So is "no cost" where a run of the two
        arms diverged, or a trial of them lacks the level. Empty where no arm has a pattern and another goes without.
    """
    levels = results.frame() if levels is None else levels
    margin = results.study.margin if margin is None else margin
    rows = []
    for arm in results.study.arms:
        baseline = _without_pattern(results.study, arm)
        for name in dict.fromkeys(levels["arm"]):
            label, at, step = str(name).partition("@")
            if baseline is not None and label == arm.label and baseline + at + step in set(levels["arm"]):
                rows.append(_compared(results, levels, arm, str(name), baseline + at + step, margin))
    rows = [each for each in rows if len(each)]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=COLUMNS)


def _without_pattern(study: Study, arm: ArmSettings) -> str | None:
    """Return the label of the arm that is like this one but for its pattern."""
    if arm.pattern is None or study.pruning.pattern is not None:
        return None
    wanted = arm.model_copy(update={"pattern": None, "name": "", "per_trial": 1})
    for other in study.arms:
        if other.model_copy(update={"name": "", "per_trial": 1}) == wanted:
            return other.label
    return None


def _compared(
    results: Results, levels: pd.DataFrame, arm: ArmSettings, name: str, baseline: str, margin: float
) -> pd.DataFrame:
    metric = metric_of(levels)
    found = at_equal_density(paired_gains(levels, name, baseline, early_of(metric)), levels)
    found = found[found["density"] <= _densest(results, arm)].copy()
    assert arm.pattern is not None
    found["pattern"] = arm.pattern.label
    allowed, lost = allowed_losses(levels, metric, margin), biased(levels)
    found["verdict"] = [
        _verdict(
            row["low"],
            row["high"],
            allowed[row["study"]],
            any((row["study"], each, row["level"]) in lost for each in (name, baseline)),
        )
        for row in found.to_dict("records")
    ]
    return found[COLUMNS]


def _densest(results: Results, arm: ArmSettings) -> float:
    """Return the highest density at which the pattern is reached: of n:m, that of n kept weights in each group."""
    pattern, coverage = arm.pattern, results.plan.coverage
    if pattern is None or not pattern.is_fine:
        return 1.0
    rounds = results.study.pruning.resolve(coverage, pattern)
    pruned = {name for rates in rounds for name, rate in rates.items() if rate}
    least = sum(pattern.least(layer.shape) if layer.name in pruned else layer.size for layer in coverage.layers)
    unprunable = coverage.matrix_weights - coverage.prunable
    return (least + unprunable) / coverage.matrix_weights + 1e-9


def _verdict(low: float, high: float, allowed: float, lost: bool) -> str:
    """Return the verdict on the interval of a gain; a comparison with NaN is false."""
    if low == high:
        return INCONCLUSIVE
    if low > -allowed:
        return INCONCLUSIVE if lost else NO_COST
    return COSTS if high < 0 else INCONCLUSIVE
