"""Structured patterns against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tombola.errors import InputError
from tombola.pruning import Mask, select
from tombola.pruning.patterns import Pattern, fitting_rates, select_in, shuffled_in

PATTERNS = [
    Pattern(n=2, m=4),
    Pattern(n=1, m=3),
    Pattern(block=(4, 1)),
    Pattern(block=(2, 3)),
    Pattern.model_validate("channel"),
]
SHAPES = {"fc.weight": (8, 12), "conv.weight": (4, 6, 3, 3), "odd.weight": (5, 7)}

patterns = st.sampled_from(PATTERNS)
rates = st.floats(0.05, 0.9)
seeds = st.integers(0, 2**31)


def scores_of(seed: int, ties: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.rand(shape, generator=generator) for name, shape in SHAPES.items()}
    return {name: (value * 4).round() if ties else value for name, value in drawn.items()}


def loop_groups(pattern: Pattern, shape: tuple[int, ...]) -> list[list[int]]:
    """Return the flat places of each group, by plain loops."""
    places = torch.arange(torch.Size(shape).numel()).reshape(shape)
    found = []
    if pattern.m is not None:
        kernel = places.reshape(shape[0], shape[1], -1)
        for row in range(shape[0]):
            for start in range(0, shape[1], pattern.m):
                for place in range(kernel.shape[2]):
                    found.append(kernel[row, start : start + pattern.m, place].tolist())
        return found
    matrix = places.reshape(shape[0], -1)
    high, wide = (1, matrix.shape[1]) if pattern.block is None else pattern.block
    for row in range(0, matrix.shape[0], high):
        for column in range(0, matrix.shape[1], wide):
            found.append(matrix[row : row + high, column : column + wide].flatten().tolist())
    return found


def assert_obeys(pattern: Pattern, mask: Mask) -> None:
    for keep in mask.values():
        for group in loop_groups(pattern, tuple(keep.shape)):
            kept = int(keep.flatten()[group].sum())
            if pattern.n is not None:
                assert kept >= min(pattern.n, len(group))
            else:
                assert kept in (0, len(group))


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES.values(), (3, 4, 2)])
def test_groups_are_those_of_plain_loops(pattern: Pattern, shape: tuple[int, ...]) -> None:
    groups = pattern.groups(shape).flatten()
    assert groups.shape == (torch.Size(shape).numel(),)
    found = sorted(sorted((groups == number).nonzero().flatten().tolist()) for number in groups.unique())
    assert found == sorted(sorted(group) for group in loop_groups(pattern, shape))


@given(pattern=patterns, rate=rates, seed=seeds, scope=st.sampled_from(["layer", "global"]), ties=st.booleans())
@settings(max_examples=60, deadline=None)
def test_selection_obeys_the_pattern_and_never_removes_more_than_select(
    pattern: Pattern, rate: float, seed: int, scope: str, ties: bool
) -> None:
    mask, scores = Mask.full(SHAPES), scores_of(seed, ties)
    for _ in range(3):
        smaller = select_in(pattern, scores, mask, dict.fromkeys(SHAPES, rate), scope)  # type: ignore[arg-type]
        plain = select(scores, mask, dict.fromkeys(SHAPES, rate), scope)  # type: ignore[arg-type]
        assert smaller <= mask
        assert smaller.remaining >= plain.remaining
        assert_obeys(pattern, smaller)
        mask = smaller


@given(pattern=st.sampled_from(PATTERNS[2:]), rate=rates, seed=seeds)
@settings(max_examples=40, deadline=None)
def test_whole_groups_go_in_the_order_of_their_sums(pattern: Pattern, rate: float, seed: int) -> None:
    scores = scores_of(seed)
    mask = select_in(pattern, scores, Mask.full(SHAPES), dict.fromkeys(SHAPES, rate))
    for name, shape in SHAPES.items():
        groups = loop_groups(pattern, shape)
        largest = max(map(len, groups))
        sums = [float(scores[name].double().flatten()[group].sum()) * largest / len(group) for group in groups]
        left = round(rate * torch.Size(shape).numel())
        gone: set[int] = set()
        for number in sorted(range(len(groups)), key=lambda number: sums[number]):
            left -= len(groups[number])
            if left < 0:
                break
            gone.add(number)
        kept = {number for number, group in enumerate(groups) if bool(mask[name].flatten()[group].all())}
        assert kept == set(range(len(groups))) - gone


@given(seed=seeds, number=st.sampled_from([(2, 4), (1, 4), (3, 4), (1, 2)]))
@settings(max_examples=30, deadline=None)
def test_n_of_m_at_its_density_is_the_top_n_of_each_group(seed: int, number: tuple[int, int]) -> None:
    pattern = Pattern(n=number[0], m=number[1])
    scores = scores_of(seed)
    mask = select_in(pattern, scores, Mask.full(SHAPES), dict.fromkeys(SHAPES, 0.99))
    for name, shape in SHAPES.items():
        for group in loop_groups(pattern, shape):
            best = scores[name].flatten()[group].topk(min(number[0], len(group))).indices
            wanted = {group[place] for place in best}
            assert {place for place in group if mask[name].flatten()[place]} == wanted


@given(pattern=patterns, rate=rates, seed=seeds, scope=st.sampled_from(["layer", "global"]))
@settings(max_examples=40, deadline=None)
def test_a_shuffle_keeps_counts_and_pattern(pattern: Pattern, rate: float, seed: int, scope: str) -> None:
    mask = select_in(pattern, scores_of(seed), Mask.full(SHAPES), dict.fromkeys(SHAPES, rate), scope)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed)
    other = shuffled_in(pattern, mask, generator)
    assert other.counts() == mask.counts()
    assert_obeys(pattern, other)


def test_a_shuffle_moves_the_weights() -> None:
    for pattern in PATTERNS:
        mask = select_in(pattern, scores_of(1), Mask.full(SHAPES), dict.fromkeys(SHAPES, 0.5))
        assert shuffled_in(pattern, mask, torch.Generator().manual_seed(0)) != mask


@given(pattern=patterns, rate=st.floats(0.1, 0.6), scope=st.sampled_from(["layer", "global"]), seed=seeds)
@settings(max_examples=40, deadline=None)
def test_fitted_rates_plan_what_selection_leaves(pattern: Pattern, rate: float, scope: str, seed: int) -> None:
    shapes = {"a.weight": (8, 12), "b.weight": (16, 12)}  # whole groups of every pattern, of one size
    rounds = [dict.fromkeys(shapes, rate)] * 3
    try:
        fitted = fitting_rates(pattern, rounds, shapes, scope)  # type: ignore[arg-type]
    except InputError:  # a round asks for less than a group
        return
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    mask = Mask.full(shapes)
    total = mask.total
    for rates_now in fitted:
        before = mask.counts()
        mask = select_in(pattern, scores, mask, rates_now, scope)  # type: ignore[arg-type]
        if scope == "layer":
            assert mask.counts() == {name: before[name] - round(rates_now[name] * before[name]) for name in shapes}
        else:
            total -= round(rates_now["a.weight"] * total)
            assert mask.remaining == total


@given(pattern=patterns, minimum=st.integers(1, 60), seed=seeds)
@settings(max_examples=30, deadline=None)
def test_a_minimum_stays(pattern: Pattern, minimum: int, seed: int) -> None:
    mask = select_in(
        pattern, scores_of(seed), Mask.full(SHAPES), dict.fromkeys(SHAPES, 0.95), "global", minimum=minimum
    )
    for name, count in mask.counts().items():
        assert count >= min(minimum, mask[name].numel())


def test_pruned_weights_scores_are_ignored() -> None:
    pattern = Pattern(block=(4, 1))
    mask = select_in(pattern, scores_of(0), Mask.full(SHAPES), dict.fromkeys(SHAPES, 0.4))
    scores = {name: score.masked_fill(~mask[name], float("nan")) for name, score in scores_of(0).items()}
    assert select_in(pattern, scores, mask, dict.fromkeys(SHAPES, 0.3)) == select_in(
        pattern, scores_of(0), mask, dict.fromkeys(SHAPES, 0.3)
    )


NO_PATTERNS = ["chanel", {"n": 2}, {"n": 4, "m": 4}, {"block": [1, 1]}, {"block": [0, 2]}, {}]


@pytest.mark.parametrize("value", [*NO_PATTERNS, {"n": 1, "m": 2, "block": [2, 2]}])
def test_what_is_no_pattern_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        Pattern.model_validate(value)


def test_rounds_below_n_of_m_are_refused() -> None:
    rounds = [{"fc.weight": 0.5}] * 2
    with pytest.raises(InputError, match="round 2 would remove nothing: 2:4 keeps 2 of each 4"):
        fitting_rates(Pattern(n=2, m=4), rounds, SHAPES, "layer")
