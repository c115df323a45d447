"""What a network costs, everything that it takes to find it included, in dense runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tombola.studies.plan import Plan
from tombola.work import Item


def relative_costs(plan: Plan) -> dict[str, float]:
    """Return, for the run of each row, the planned multiply-adds of training it and all that it needs.

    The unit is the dense run of the same trial. Each piece of work counts once: a ticket of level 3 costs the dense
    run, the tickets of levels 1 and 2, and its own. A run of which only early weights are taken counts up to these. A
    training step costs three passes, pruned weights cost nothing, and layer densities are taken to be equal, as in
    `Cost.operations`. Evaluations during training do not count; what a method at initialisation computes does. NaN
    where the plan knows no costs, as that of version 0.1.
    """
    dense = {row.trial: _own(plan.work[row.job]) for row in plan.rows if row.level == 0}
    behind: dict[str, _Behind] = {}
    for item in plan.work.values():  # what an item needs comes before it
        behind[item.id] = _behind(item, behind)
    found = {}
    for row in plan.rows:
        unit, needed = dense.get(row.trial, 0.0), behind[row.job]
        total = sum(_own(plan.work[identity]) for identity in sorted(needed.whole))
        for identity in sorted(needed.begun.keys() - needed.whole):
            run = plan.work[identity]
            total += _own(run) * min(1.0, needed.begun[identity] / max(1, run.cost.iterations))
        found[row.job] = total / unit if unit else math.nan
    return found


@dataclass
class _Behind:
    """What a piece of work needs, itself included.

    Args:
        whole: identities of the work that is needed to its end.
        begun: runs of which weights are taken -> the iteration of the latest such weights.
    """

    whole: frozenset[str] = frozenset()
    begun: dict[str, int] = field(default_factory=dict)


def _behind(item: Item, known: dict[str, _Behind]) -> _Behind:
    early = _early_weights(item)
    whole, begun = {item.id}, {} if early is None else {early[0]: early[1]}
    for need in item.needs:
        before = known.get(need, _Behind())
        whole |= before.whole - ({need} if early and need == early[0] else set())
        for run, iteration in before.begun.items():
            begun[run] = max(iteration, begun.get(run, 0))
    return _Behind(frozenset(whole), begun)


def _early_weights(item: Item) -> tuple[str, int] | None:
    """Return the run and iteration of the starting weights, where the item needs no more of that run."""
    initial, mask = getattr(item.spec, "initial", None), getattr(item.spec, "mask", None)
    if initial is None or initial.run is None or initial.trained or initial.name is not None:
        return None
    frozen = getattr(mask, "frozen", None)
    if initial.run in (getattr(mask, "run", None), frozen and frozen.moved_in):
        return None
    return initial.run, initial.iteration


def _own(item: Item) -> float:
    cost = item.cost
    passes = 3 * cost.iterations * cost.batch_size if cost.iterations else cost.evaluated
    return passes * cost.density * cost.size
