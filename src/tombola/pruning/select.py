"""Selection: turns scores into a mask with an exact number of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tombola.errors import InputError
from tombola.pruning.mask import Mask

Scope = Literal["layer", "global"]
Scores = Mapping[str, Tensor]
Rates = Mapping[str, float]  # layer -> fraction of its remaining weights that one round removes


def removed(remaining: int, rate: float, minimum: int = 0) -> int:
    """Return the number of weights that one round at `rate` removes from `remaining`.

    This is `round(rate * remaining)`, as in `torch.nn.utils.prune`, but at least `minimum` weights remain. Rate 0
    removes none, rate 1 all but the minimum. Less than half a weight rounds to none.
    """
    return max(0, min(round(rate * remaining), remaining - minimum))


def kept_after(remaining: int, rates: Sequence[float], minimum: int = 0) -> int:
    """Return the number of `remaining` weights after a round at each of `rates`, each rounded separately."""
    for rate in rates:
        remaining -= removed(remaining, rate, minimum)
    return remaining


def kept_of(counts: Mapping[str, int], rounds: Sequence[Rates], scope: Scope = "layer", minimum: int = 0) -> int:
    """Return the number of weights that `select` leaves in the layers of `rounds`, which have `counts` now."""
    if scope == "layer":
        return sum(kept_after(counts[name], [rates[name] for rates in rounds], minimum) for name in rounds[0])
    pool, floor = sum(counts[name] for name in rounds[0]), sum(min(minimum, counts[name]) for name in rounds[0])
    return kept_after(pool, [next(iter(rates.values())) for rates in rounds], floor)


def select(
    scores: Scores,
    mask: Mask,
    rates: Rates | Sequence[Rates],
    scope: Scope = "layer",
    minimum: int = 0,
) -> Mask:
    """Return `mask` without its lowest-scored weights. It removes an exact number, and restores no weight.

    Among equal scores the weight that comes first - in the order of `mask`'s layers, then row-major - goes first.

    Args:
        scores: one tensor per layer of the mask, of its shape; higher means kept longer. Scores of pruned weights have
            no effect.
        mask: the kept weights so far.
        rates: layer -> fraction of its remaining weights that one round removes, 0 to 1. Other layers do not change.
            With scope "global" all rates must be equal. A list removes at once as many weights as successive rounds at
            its rates (one-shot pruning to a level's density).
        scope: "layer" compares weights within each layer, "global" across all the named layers together.
        minimum: the least number of weights that a layer keeps, if it has them.

    Raises:
        ValueError: scores are missing, NaN or of another shape; rates are out of range, unequal under "global", or name
            unknown layers.
    """
    rounds = [rates] if isinstance(rates, Mapping) else list(rates)
    check_selection(scores, mask, rounds, scope)
    keep = {name: mask[name].clone() for name in mask}
    named = [name for name in mask if rounds and name in rounds[0]]
    if scope == "layer":
        for name in named:
            remaining = int(mask[name].sum())
            count = remaining - kept_after(remaining, [rates[name] for rates in rounds], minimum)
            _remove_lowest([name], count, scores, keep)
    elif named:
        remaining = sum(int(mask[name].sum()) for name in named)
        floor = sum(min(minimum, int(mask[name].sum())) for name in named)
        count = remaining - kept_after(remaining, [rates[named[0]] for rates in rounds], floor)
        _remove_lowest(named, count, scores, keep, minimum)
    return Mask(keep)


def _remove_lowest(names: list[str], count: int, scores: Scores, keep: dict[str, Tensor], minimum: int = 0) -> None:
    """Drop the `count` lowest-scored kept weights of these layers taken together, in place."""
    if count == 0:
        return
    live = {name: keep[name].flatten().nonzero().squeeze(1) for name in names}
    values = {name: scores[name].detach().cpu().flatten()[live[name]].double() for name in names}
    candidates: list[Tensor | None] = [None] * len(names)
    if minimum:  # the best `minimum` weights of a layer do not stand for removal
        for place, name in enumerate(names):
            order = torch.argsort(values[name], stable=True)
            candidates[place] = order[: max(0, len(order) - minimum)].sort().values
    pooled = torch.cat([values[n] if c is None else values[n][c] for n, c in zip(names, candidates, strict=True)])
    goes = lowest(pooled, count)
    start = 0
    for name, candidate in zip(names, candidates, strict=True):
        size = len(live[name]) if candidate is None else len(candidate)
        mine = goes[start : start + size].nonzero().squeeze(1)
        places = mine if candidate is None else candidate[mine]
        keep[name].view(-1)[live[name][places]] = False
        start += size


def lowest(values: Tensor, count: int) -> Tensor:
    """Return bool [len(values)]: True for the `count` lowest values. Among equal values, the first ones count as
    lower."""
    if not count:
        return torch.zeros(len(values), dtype=torch.bool, device=values.device)
    # NumPy's selection is an order of magnitude faster than PyTorch's, on the CPU.
    on_cpu = values.device.type == "cpu"
    threshold = np.partition(values.numpy(), count - 1)[count - 1].item() if on_cpu else values.kthvalue(count).values
    goes = values < threshold
    ties = (values == threshold).nonzero().squeeze(1)
    goes[ties[: count - int(goes.sum())]] = True
    return goes


def check_selection(scores: Scores, mask: Mask, rounds: Sequence[Rates], scope: Scope) -> None:
    """Raise ValueError if `select` can't use its arguments."""
    if scope not in ("layer", "global"):
        raise ValueError(f"scope must be 'layer' or 'global', not {scope!r}")
    for rates in rounds:
        if rates.keys() != rounds[0].keys():
            raise ValueError("all rounds must name the same layers")
        for name, rate in rates.items():
            if name not in mask:
                raise ValueError(f"the mask has no layer {name!r}, but rates names it")
            if not 0 <= rate <= 1:
                raise ValueError(f"rate of {name!r} is {rate}: it must lie between 0 and 1")
        if scope == "global" and len(set(rates.values())) > 1:
            raise ValueError("scope 'global' needs one rate for all layers")
    for name in rounds[0] if rounds else ():
        if name not in scores:
            raise ValueError(f"no scores for {name!r}")
        if scores[name].shape != mask[name].shape:
            raise ValueError(
                f"scores of {name!r} have shape {tuple(scores[name].shape)}, its weight {tuple(mask[name].shape)}"
            )
        if bool(scores[name].detach().cpu()[mask[name]].isnan().any()):
            raise ValueError(f"scores of {name!r} contain NaN")


def after_round(
    counts: Mapping[str, int], rates: Rates, scope: Scope, sizes: Mapping[str, int], minimum: int = 0
) -> dict[str, int]:
    """Return the number of weights of each layer after a round.

    With scope "global", the scores decide the losses of each layer. Then only the sum over all layers is exact.

    Args:
        sizes: layer -> number of its weights, kept or not.
    """
    left = dict(counts)
    if scope == "layer":
        for name, rate in rates.items():
            left[name] -= removed(counts[name], rate, min(minimum, sizes[name]))
    elif rates:
        pool, floor = sum(counts[name] for name in rates), sum(min(minimum, sizes[name]) for name in rates)
        gone = removed(pool, next(iter(rates.values())), floor)
        for name in rates:  # as if the first layers lost it all
            left[name] -= min(gone, counts[name])
            gone -= counts[name] - left[name]
    return left


def plan_counts(sizes: Mapping[str, int], rounds: Sequence[Rates], scope: Scope, minimum: int = 0) -> list[int]:
    """Return the number of weights that remain in the whole network at level 0 and after each of the rounds.

    Raises:
        InputError: a round would empty a layer (scope "layer") or the network, or remove nothing.
    """
    counts = dict(sizes)
    totals = [sum(counts.values())]
    for level, rates in enumerate(rounds, start=1):
        counts = after_round(counts, rates, scope, sizes, minimum)
        totals.append(sum(counts.values()))
        empty = [name.removesuffix(".weight") for name in rates if not counts[name]]
        if scope == "layer" and empty:
            raise InputError(
                f"pruning.rounds: round {level} would empty layer {empty[0]!r}; "
                f"lower pruning.rounds to {level - 1}, or set pruning.minimum to keep some weights"
            )
        if scope == "global" and len(empty) == len(rates) and totals[-1] < totals[-2]:
            raise InputError(
                f"pruning.rounds: round {level} would leave no weight; lower pruning.rounds to {level - 1}"
            )
        if totals[-1] == totals[-2]:
            less = f", or lower pruning.minimum below {minimum:,}" if minimum else ""
            raise InputError(
                f"pruning: round {level} would prune nothing: it would remove none of the {totals[-1]:,} "
                f"remaining weights; lower pruning.rounds to {level - 1}, or raise the rate{less}"
            )
    return totals
