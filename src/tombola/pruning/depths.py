"""The masks of many levels, where a dense network is pruned once to each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from tombola.pruning.select import Rates, Scope, Scores, kept_after, lowest


def depths(scores: Scores, rounds: Sequence[Rates], scope: Scope = "layer", minimum: int = 0) -> Mapping[str, Tensor]:
    """Return int16 of each layer's shape: how many of the rounds a weight outlives.

    `depths(...)[name] > n` is what `select(scores, full mask, rounds[: n + 1], scope, minimum)` keeps: one-shot masks
    from the same scores lie inside one another, so a weight's place among all says in which it is.

    Args:
        scores: one tensor per layer, without NaN; higher means kept longer.
        rounds, scope, minimum: as in `select`.
    """
    named = [name for name in scores if rounds and name in rounds[0]]
    found = {name: torch.full(scores[name].shape, len(rounds), dtype=torch.int16) for name in scores}
    for names in [[name] for name in named] if scope == "layer" else [named] if named else []:
        values = [scores[name].detach().cpu().flatten().clone() for name in names]
        floor = sum(min(minimum, len(value)) for value in values)
        if minimum and scope == "global":  # the best `minimum` weights of a layer do not stand for removal
            for value in values:
                value[~lowest(value, max(0, len(value) - minimum))] = torch.inf
        pool, depth = torch.cat(values), torch.zeros(sum(map(len, values)), dtype=torch.int16)
        for count in range(1, len(rounds) + 1):
            kept = kept_after(len(pool), [rates[names[0]] for rates in rounds[:count]], floor)
            depth += ~lowest(pool, len(pool) - kept)
        for name, part in zip(names, depth.split([len(value) for value in values]), strict=True):
            found[name] = part.view(scores[name].shape)
    return found
