"""Pruning at initialisation: criteria that look at the untrained network alone.

They are criteria like all others, scores of which the highest are kept, but belong to arms of the same names rather
than to `pruning.criterion`: the dense run's start is pruned once, all pruned layers together, to each level's number of
weights. `initial-magnitude`, the criterion of the arm `magnitude-at-init`, exists already.
"""

from __future__ import annotations

from tombola.pruning.at_init.gradient import gradient_at_init
from tombola.pruning.at_init.grasp import grasp
from tombola.pruning.at_init.random import random_erk, random_uniform
from tombola.pruning.at_init.snip import snip
from tombola.pruning.at_init.synflow import synflow
from tombola.pruning.criteria import Criterion

AT_INIT: dict[str, Criterion] = {
    "snip": snip,
    "gradient-at-init": gradient_at_init,
    "grasp": grasp,
    "synflow": synflow,
    "random-uniform": random_uniform,
    "random-erk": random_erk,
}
WITH_EXAMPLES = ("snip", "gradient-at-init", "grasp")
