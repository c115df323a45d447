"""Structured patterns: masks that hardware and compilers can use, from the scores of any criterion.

`block` and `channel` prune whole groups of weights, the group with the lowest sum of scores first. `n:m` keeps at least
the n best of each m consecutive inputs, and removes the lowest-scored of the others (Mishra et al. 2021, "Accelerating
Sparse Deep Neural Networks", Section 3: 2:4).

A weight's shape does not tell its inputs from its outputs, so each function takes the axes of the weights that are not
stored as [outputs, inputs, window].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from tombola.errors import InputError
from tombola.networks.axes import PLAIN, Axes
from tombola.pruning.controls import shuffled
from tombola.pruning.mask import Mask
from tombola.pruning.select import Rates, Scope, Scores, check_selection, kept_after, lowest, removed, select
from tombola.section import JsonSchema, Section

NONE: Mapping[str, Axes] = {}


class Pattern(Section):
    """Which weights are pruned together. Exactly one of n:m, `block` and `channel`.

    Args:
        n, m: of m consecutive inputs of an output unit at least n are kept: inputs of a linear layer, input channels of
            a convolution at one place of its kernel. A level of density n / m has exactly n of each m. A last group of
            fewer than m inputs keeps n of them too.
        block: (rows, columns) of a weight's [outputs, inputs * kernel] matrix that are kept or pruned as one. Blocks
            at the edges may be smaller; their sums of scores are scaled up to a whole block's.
        channel: whole output units or channels. The output layer remains whole.
    """

    n: int | None = Field(default=None, ge=1)
    m: int | None = Field(default=None, ge=2)
    block: tuple[int, int] | None = None
    channel: bool = False

    @model_validator(mode="before")
    @classmethod
    def _word(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value != "channel":
                raise ValueError(f"{value!r} is not a pattern: write channel, {{n: 2, m: 4}} or {{block: [4, 1]}}")
            return {"channel": True}
        return value

    @classmethod
    def written_forms(cls, fields: JsonSchema) -> list[JsonSchema]:
        """Accept the word `channel`."""
        return [{"const": "channel"}, fields]

    @model_validator(mode="after")
    def _check(self) -> Pattern:
        fine = self.n is not None and self.m is not None
        if (self.n is None) != (self.m is None) or fine + (self.block is not None) + self.channel != 1:
            raise ValueError("a pattern is channel, {n: 2, m: 4} or {block: [4, 1]}")
        if self.n is not None and self.m is not None and self.n >= self.m:
            raise ValueError(f"n:m {self.n}:{self.m} prunes nothing: n must be less than m")
        if self.block is not None and (min(self.block) < 1 or self.block == (1, 1)):
            raise ValueError(f"block {list(self.block)}: give two sizes of at least 1, not both 1")
        return self

    @property
    def label(self) -> str:
        """The pattern in a few characters: "2:4", "block-4x1", "channel"."""
        if self.block is not None:
            return f"block-{self.block[0]}x{self.block[1]}"
        return "channel" if self.channel else f"{self.n}:{self.m}"

    @property
    def is_fine(self) -> bool:
        """Whether it is n:m, which chooses within groups rather than whole ones."""
        return self.n is not None

    def groups(self, shape: Sequence[int], axes: Axes = PLAIN) -> Tensor:
        """Return int64 of a weight's shape: the number of each weight's group, from 0 on.

        Args:
            shape: of the weight.
            axes: which of its axes are inputs and outputs.
        """
        places = axes.places(shape)  # [outputs, inputs, window]
        rows = torch.arange(places.shape[0])
        if self.m is not None:
            inputs, window = torch.arange(places.shape[1]) // self.m, torch.arange(places.shape[2])
            per_row = -(-places.shape[1] // self.m)
            numbers = (rows[:, None, None] * per_row + inputs[:, None]) * places.shape[2] + window
        else:
            columns = torch.arange(places[0].numel())
            high, wide = (1, len(columns)) if self.channel or self.block is None else self.block
            numbers = rows[:, None] // high * -(-len(columns) // wide) + columns // wide
        groups = torch.empty(places.numel(), dtype=torch.int64)
        groups[places.flatten()] = numbers.flatten()
        return groups.reshape(tuple(shape))

    def least(self, shape: Sequence[int], axes: Axes = PLAIN) -> int:
        """Return the smallest number of weights that a layer can be pruned to: 0 except for n:m."""
        if self.n is None:
            return 0
        return int(torch.bincount(self.groups(shape, axes).flatten()).clamp(max=self.n).sum())


def select_in(
    pattern: Pattern | None,
    scores: Scores,
    mask: Mask,
    rates: Rates | Sequence[Rates],
    scope: Scope = "layer",
    minimum: int = 0,
    axes: Mapping[str, Axes] = NONE,
) -> Mask:
    """Return `mask` without its lowest-scored weights, as `select` does, in a pattern.

    Of whole groups, as many go as have together no more weights than `select` would remove. Other arguments and errors
    are those of `select`.

    Args:
        pattern: None for single weights.
        axes: of the layers that are not stored as [outputs, inputs, window], by name.
    """
    if pattern is None:
        return select(scores, mask, rates, scope, minimum)
    rounds = [rates] if isinstance(rates, Mapping) else list(rates)
    check_selection(scores, mask, rounds, scope)
    keep = {name: mask[name].clone() for name in mask}
    named = [name for name in mask if rounds and name in rounds[0]]
    for names in [[name] for name in named] if scope == "layer" else [named] if named else []:
        counts = [int(mask[name].sum()) for name in names]
        floor = minimum if scope == "layer" else sum(min(minimum, count) for count in counts)
        gone = sum(counts) - kept_after(sum(counts), [each[names[0]] for each in rounds], floor)
        if gone:
            groups = {name: pattern.groups(keep[name].shape, axes.get(name, PLAIN)).flatten() for name in names}
            (_remove_within if pattern.is_fine else _remove_groups)(pattern, groups, gone, scores, keep, minimum)
    return Mask(keep)


def _remove_within(
    pattern: Pattern, groups: Mapping[str, Tensor], gone: int, scores: Scores, keep: dict[str, Tensor], minimum: int
) -> None:
    """Drop the lowest-scored of the weights that are not among the n best of their group, `gone` at most."""
    assert pattern.n is not None
    values, places = [], []
    for name in groups:
        live = keep[name].flatten().nonzero().squeeze(1)
        mine = scores[name].detach().cpu().flatten()[live].double()
        rank = _ranks(groups[name][live], mine)
        free = rank >= pattern.n
        if minimum:
            best = torch.zeros(len(live), dtype=torch.bool)
            best[torch.argsort(mine, stable=True)[max(0, len(live) - minimum) :]] = True
            free &= ~best
        values.append(mine[free])
        places.append(live[free])
    goes = lowest(torch.cat(values), min(gone, sum(map(len, values))))
    for name, mine, part in zip(groups, places, goes.split([len(each) for each in places]), strict=True):
        keep[name].view(-1)[mine[part]] = False


def _ranks(groups: Tensor, scores: Tensor) -> Tensor:
    """Return each weight's place in its group, the highest score first; of equals the later one, as in `select`."""
    order = torch.argsort(scores, stable=True).flip(0)
    order = order[torch.argsort(groups[order], stable=True)]
    ordered = groups[order]
    starts = torch.cat([torch.ones(1, dtype=torch.bool), ordered[1:] != ordered[:-1]])[: len(ordered)]
    first = torch.cummax(torch.where(starts, torch.arange(len(ordered)), 0), 0).values
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(ordered)) - first
    return ranks


def _remove_groups(
    pattern: Pattern, groups: Mapping[str, Tensor], gone: int, scores: Scores, keep: dict[str, Tensor], minimum: int
) -> None:
    """Drop the groups with the lowest sums, together no more than `gone` weights."""
    sums, sizes, owners, numbers = [], [], [], []
    for place, (name, group) in enumerate(groups.items()):
        whole = torch.bincount(group)
        mine = keep[name].flatten()
        score = scores[name].detach().cpu().flatten().double().masked_fill(~mine, 0.0)
        size = torch.bincount(group[mine], minlength=len(whole))
        total = torch.zeros(len(whole), dtype=torch.float64).index_add_(0, group, score)
        live = size.nonzero().squeeze(1)
        total = (total * whole.max() / whole)[live]
        order = torch.argsort(total, stable=True)
        if minimum:  # the best groups of a layer, as many as hold `minimum` weights, do not stand for removal
            after = size[live][order].flip(0).cumsum(0).flip(0)  # weights of a group and of all better ones
            order = order[after - size[live][order] >= min(minimum, int(mine.sum()))]
        candidates = order.sort().values
        sums.append(total[candidates])
        sizes.append(size[live][candidates])
        owners.append(torch.full_like(candidates, place))
        numbers.append(live[candidates])
    total, size, owner, number = (torch.cat(each) for each in (sums, sizes, owners, numbers))
    order = torch.argsort(total, stable=True)
    goes = order[size[order].cumsum(0) <= gone]
    for place, (name, group) in enumerate(groups.items()):
        dropped = number[goes[owner[goes] == place]]
        keep[name].view(-1)[torch.isin(group, dropped)] = False


def shuffled_in(
    pattern: Pattern | None, mask: Mask, generator: torch.Generator, axes: Mapping[str, Axes] = NONE
) -> Mask:
    """Return a random mask with as many kept weights in each layer, as `shuffled` does, that keeps the pattern.

    Whole groups change places with groups of their size; of n:m, groups of one size exchange how many weights they
    keep, and the places within each group are drawn. `axes` are those of `select_in`.
    """
    if pattern is None:
        return shuffled(mask, generator)
    keep = {}
    for name, layer in mask.items():
        groups = pattern.groups(layer.shape, axes.get(name, PLAIN)).flatten()
        sizes = torch.bincount(groups)
        counts = torch.bincount(groups[layer.flatten()], minlength=len(sizes))
        for size in sizes.unique():
            alike = (sizes == size).nonzero().squeeze(1)
            counts[alike] = counts[alike[torch.randperm(len(alike), generator=generator)]]
        drawn = torch.rand(layer.numel(), generator=generator, dtype=torch.float64)
        keep[name] = (_ranks(groups, drawn) < counts[groups]).reshape(layer.shape)
    return Mask(keep)


def fitting_rates(
    pattern: Pattern | None,
    rounds: Sequence[Mapping[str, float]],
    shapes: Mapping[str, tuple[int, ...]],
    scope: Scope,
    minimum: int = 0,
    may_end: bool = False,
    axes: Mapping[str, Axes] = NONE,
) -> tuple[dict[str, float], ...]:
    """Return the rates of all rounds such that each removes whole groups, or stops at n:m.

    With scope "global" groups of several sizes may differ from the plan by less than the largest one. With `may_end`
    the rounds end before the first one, but for round 1, that would remove nothing. `axes` are those of `select_in`.

    Raises:
        InputError: a round has no group left to remove.
    """
    if pattern is None:
        return tuple(dict(rates) for rates in rounds)
    named = list(rounds[0]) if rounds else []
    pools = [[name] for name in named] if scope == "layer" else [named]
    fitted: list[dict[str, float]] = [{} for _ in rounds]
    for names in pools:
        left = sum(int(np.prod(shapes[name])) for name in names)
        mine = {name: axes.get(name, PLAIN) for name in names}
        floor = sum(
            max(pattern.least(shapes[name], mine[name]), min(minimum, int(np.prod(shapes[name])))) for name in names
        )
        unit = 1 if pattern.is_fine else max(_unit(pattern, shapes[name], mine[name]) for name in names)
        for number, rates in enumerate(rounds):
            gone = removed(left, rates[names[0]], floor)
            whole = min(round(gone / unit), (left - floor) // unit) * unit
            fitted[number] |= dict.fromkeys(names, whole / left if left else 0.0)
            left -= whole
    for number, rates in enumerate(fitted):
        if not any(rates.values()):
            if may_end and number:
                return tuple(fitted[:number])
            raise InputError(
                f"pruning.pattern: round {number + 1} would remove nothing: {_limit(pattern)}; lower pruning.rounds "
                f"to {number}, or raise the rate"
            )
    return tuple(fitted)


def _unit(pattern: Pattern, shape: tuple[int, ...], axes: Axes) -> int:
    return int(torch.bincount(pattern.groups(shape, axes).flatten()).max())


def _limit(pattern: Pattern) -> str:
    if pattern.is_fine:
        return f"{pattern.n}:{pattern.m} keeps {pattern.n} of each {pattern.m} weights"
    return "it is less than half a group in every layer"
