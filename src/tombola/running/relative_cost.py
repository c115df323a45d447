"""What a network costs, everything that it takes to find it included, in dense runs."""

from __future__ import annotations

import math

from tombola.studies.plan import Plan
from tombola.work import Item


def relative_costs(plan: Plan) -> dict[str, float]:
    """Return, for the run of each row, the planned multiply-adds of training it and all that it needs.

    The unit is the dense run of the same trial. Each piece of work counts once: a ticket of level 3 costs the dense
    run, the tickets of levels 1 and 2, and its own. A training step costs three passes, pruned weights cost nothing,
    and layer densities are taken to be equal, as in `Cost.operations`. Evaluations during training do not count; what a
    method at initialisation computes does. NaN where the plan knows no costs, as that of version 0.1.
    """
    dense = {row.trial: _own(plan.work[row.job]) for row in plan.rows if row.level == 0}
    before: dict[str, frozenset[str]] = {}
    for item in plan.work.values():  # what an item needs comes before it
        before[item.id] = frozenset({item.id}).union(*(before.get(need, frozenset()) for need in item.needs))
    found = {}
    for row in plan.rows:
        unit = dense.get(row.trial, 0.0)
        total = sum(_own(plan.work[identity]) for identity in sorted(before[row.job]))
        found[row.job] = total / unit if unit else math.nan
    return found


def _own(item: Item) -> float:
    cost = item.cost
    passes = 3 * cost.iterations * cost.batch_size if cost.iterations else cost.evaluated
    return passes * cost.density
