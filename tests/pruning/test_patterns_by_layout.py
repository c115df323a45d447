"""Patterns of weights that are not stored as [outputs, inputs, window]: groups that are counted by hand."""

from __future__ import annotations

import pytest
import torch

from tombola.errors import InputError
from tombola.networks import Coverage, Layer
from tombola.networks.axes import PLAIN, Axes
from tombola.pruning import Mask
from tombola.pruning.patterns import Pattern, fitting_rates, select_in, shuffled_in
from tombola.studies.pruning import Pruning

BACK, CHANNEL, FINE = Axes(outputs=(1,), inputs=(0,)), Pattern(channel=True), Pattern(n=1, m=2)


def members(pattern: Pattern, shape: tuple[int, ...], axes: Axes) -> set[frozenset[int]]:
    """Return the flat places of each group."""
    groups = pattern.groups(shape, axes).flatten()
    return {frozenset((groups == number).nonzero().flatten().tolist()) for number in groups.unique()}


def test_groups_of_two_inputs_and_three_outputs():
    """[[0, 1, 2], [3, 4, 5]]: a row for each input, a column for each output."""
    assert members(CHANNEL, (2, 3), BACK) == {frozenset(each) for each in ((0, 3), (1, 4), (2, 5))}
    assert members(FINE, (2, 3), BACK) == {frozenset(each) for each in ((0, 3), (1, 4), (2, 5))}
    assert members(Pattern(block=(2, 1)), (2, 3), BACK) == {frozenset(each) for each in ((0, 1), (2,), (3, 4), (5,))}
    assert members(CHANNEL, (2, 3), PLAIN) == {frozenset(each) for each in ((0, 1, 2), (3, 4, 5))}
    assert members(FINE, (2, 3), PLAIN) == {frozenset(each) for each in ((0, 1), (2,), (3, 4), (5,))}


def test_groups_of_a_transposed_convolution():
    """Four inputs in two groups, one output each, two places: [[0, 1], [2, 3]] are the weights of the first group."""
    axes = Axes(outputs=(1,), inputs=(0,), groups=2)
    assert members(CHANNEL, (4, 1, 2), axes) == {frozenset((0, 1, 2, 3)), frozenset((4, 5, 6, 7))}
    assert members(FINE, (4, 1, 2), axes) == {frozenset(each) for each in ((0, 2), (1, 3), (4, 6), (5, 7))}
    # Consecutive inputs end with their group, so 3 of a group of 2 are those 2.
    assert members(Pattern(n=1, m=3), (4, 1, 2), axes) == members(FINE, (4, 1, 2), axes)


def test_groups_of_heads():
    """[head, input, output] 2 x 2 x 2: each head's column is a unit."""
    axes = Axes(outputs=(0, 2), inputs=(1,))
    units = {frozenset(each) for each in ((0, 2), (1, 3), (4, 6), (5, 7))}
    assert members(CHANNEL, (2, 2, 2), axes) == units
    assert members(FINE, (2, 2, 2), axes) == units


def test_whole_outputs_of_a_conv1d_go():
    """Of 8 inputs and 24 outputs, the columns with the smallest sums."""
    scores = {"w": torch.rand(8, 24, generator=torch.Generator().manual_seed(1))}
    mask = select_in(CHANNEL, scores, Mask.full({"w": (8, 24)}), {"w": 0.25}, axes={"w": BACK})["w"]
    lowest = scores["w"].sum(0).argsort()[:6]
    expected = torch.ones(8, 24, dtype=torch.bool)
    expected[:, lowest] = False
    assert torch.equal(mask, expected)
    assert mask.any(1).all()  # and no input


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize(
    "pattern", [CHANNEL, FINE, Pattern(n=2, m=4), Pattern(block=(4, 1)), Pattern(block=(2, 3))], ids=str
)
def test_a_transposed_weight_is_pruned_as_its_transpose_is(pattern, scope):
    generator = torch.Generator().manual_seed(2)
    scores = {"a": torch.rand(12, 8, generator=generator), "b": torch.rand(6, 10, generator=generator)}
    shapes = {name: tuple(each.shape) for name, each in scores.items()}
    rates = fitting_rates(pattern, [dict.fromkeys(scores, 0.5)], shapes, scope)
    plain = select_in(pattern, scores, Mask.full(shapes), rates, scope)
    turned = {name: each.T.contiguous() for name, each in scores.items()}
    back = {name: tuple(each.shape) for name, each in turned.items()}
    axes = dict.fromkeys(scores, BACK)
    assert fitting_rates(pattern, [dict.fromkeys(scores, 0.5)], back, scope, axes=axes) == rates
    mask = select_in(pattern, turned, Mask.full(back), rates, scope, axes=axes)
    assert 0 < mask.remaining < mask.total
    for name in scores:
        assert torch.equal(mask[name], plain[name].T)
    shuffled = shuffled_in(pattern, mask, torch.Generator().manual_seed(3), axes)
    assert shuffled != mask
    for name, keep in shuffled.items():
        assert keep.sum() == mask[name].sum()
        for group in members(pattern, back[name], BACK):
            kept = int(keep.flatten()[list(group)].sum())
            assert kept >= min(pattern.n, len(group)) if pattern.n else kept in (0, len(group))


def test_a_layer_whose_axes_are_not_known_is_refused_by_name():
    layers = (Layer("mix", "parameter", (8, 8), 1, None), Layer("out", "linear", (4, 8), 1))
    coverage = Coverage(layers=layers, output="out")
    pruning = {"rate": 0.5, "rounds": 1, "pattern": {"n": 2, "m": 4}}
    with pytest.raises(InputError, match=r"'mix', of shape 8x8, .* exclude it: pruning\.exclude: \[mix\]$"):
        Pruning(**pruning).resolve(coverage)
    assert Pruning(**pruning, exclude=("mix",)).resolve(coverage) == ({"out": 0.25},)
    assert "mix" in Pruning(rate=0.5, rounds=1).resolve(coverage)[0]
