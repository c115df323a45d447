"""Selection: exactly the asked number goes, the lowest first, nothing comes back."""

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune

from tombola.errors import InputError
from tombola.pruning import Mask, kept_after, plan_counts, removed, select

RATES = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 0.2, 0.1]), st.floats(0, 1))


@st.composite
def networks(draw, ties=True):
    """Layers with scores and a mask. Scores are few different integers, so that ties are everywhere."""
    shapes = draw(st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=4))
    highest = draw(st.sampled_from([0, 1, 3, 10**6] if ties else [10**9]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scores, keep = {}, {}
    for number, shape in enumerate(shapes):
        values = generator.integers(0, highest, shape, endpoint=True)
        scores[f"layer{number}"] = torch.from_numpy(values).to(draw(st.sampled_from([torch.float32, torch.int64])))
        keep[f"layer{number}"] = torch.from_numpy(generator.random(shape) < draw(st.sampled_from([0.2, 0.8, 1.1])))
    return scores, Mask(keep)


def expected_count(count, rate, rounds, floor):
    """How many weights are left, from the words of the documentation."""
    for _ in range(rounds):
        count = max(min(count, floor), count - round(rate * count))
    return count


@settings(deadline=None, max_examples=150)
@given(networks(), RATES, st.sampled_from(["layer", "global"]), st.integers(1, 4), st.integers(0, 6), st.data())
def test_exactly_the_asked_number_goes_and_nothing_comes_back(network, rate, scope, rounds, minimum, data):
    scores, mask = network
    named = data.draw(st.sets(st.sampled_from(sorted(mask))))
    rates = dict.fromkeys(named, rate)
    new = select(scores, mask, [rates] * rounds, scope, minimum)
    assert new <= mask
    before, after = mask.counts(), new.counts()
    for name in mask:
        assert after[name] >= min(before[name], minimum)
        if name not in named:
            assert after[name] == before[name]
        elif scope == "layer":
            assert after[name] == expected_count(before[name], rate, rounds, minimum)
    if scope == "global":
        floor = sum(min(minimum, before[name]) for name in named)
        pool = sum(before[name] for name in named)
        assert sum(after[name] for name in named) == expected_count(pool, rate, rounds, floor)


@settings(deadline=None, max_examples=100)
@given(networks(), RATES, st.sampled_from(["layer", "global"]))
def test_no_kept_weight_scores_lower_than_a_removed_one(network, rate, scope):
    scores, mask = network
    new = select(scores, mask, dict.fromkeys(mask, rate), scope)
    groups = [[name] for name in mask] if scope == "layer" else [list(mask)]
    for group in groups:
        gone = [int(s) for name in group for s in scores[name][mask[name] & ~new[name]]]
        left = [int(s) for name in group for s in scores[name][new[name]]]
        assert not gone or not left or max(gone) <= min(left)


@settings(deadline=None, max_examples=100)
@given(networks(), RATES, st.sampled_from(["layer", "global"]))
def test_among_equals_the_first_goes_first(network, rate, scope):
    """In the order of the mask's layers, then row-major; the order of scores and rates makes no difference."""
    scores, mask = network
    new = select(scores, mask, dict.fromkeys(mask, rate), scope)
    turned = dict(reversed(scores.items()))
    assert select(turned, mask, dict.fromkeys(turned, rate), scope) == new
    groups = [[name] for name in mask] if scope == "layer" else [list(mask)]
    for group in groups:
        seen_kept = set()
        for name in group:
            places = zip(scores[name].flatten(), mask[name].flatten(), new[name].flatten(), strict=True)
            for score, was, kept in places:
                if kept:
                    seen_kept.add(int(score))
                else:
                    assert not was or int(score) not in seen_kept


@settings(deadline=None, max_examples=60)
@given(networks(), RATES, st.integers(0, 4))
def test_the_minimum_keeps_the_best_of_each_layer(network, rate, minimum):
    scores, mask = network
    new = select(scores, mask, dict.fromkeys(mask, rate), "global", minimum=minimum)
    for name in mask:
        gone, left = scores[name][mask[name] & ~new[name]], scores[name][new[name]]
        assert not len(gone) or not len(left) or gone.max() <= left.min()


@settings(deadline=None, max_examples=60)
@given(networks(), RATES, st.sampled_from(["layer", "global"]), st.sampled_from([np.nan, np.inf, -np.inf, -1.0]))
def test_scores_of_weights_that_are_gone_are_ignored(network, rate, scope, junk):
    scores, mask = network
    scores = {name: score.float() for name, score in scores.items()}
    dirty = {name: score.masked_fill(~mask[name], junk) for name, score in scores.items()}
    rates = dict.fromkeys(mask, rate)
    assert select(dirty, mask, rates, scope) == select(scores, mask, rates, scope)


@settings(deadline=None, max_examples=60)
@given(networks(), st.floats(0, 0.9), st.sampled_from(["layer", "global"]), st.integers(2, 5), st.integers(0, 3))
def test_one_shot_goes_as_far_as_that_many_rounds(network, rate, scope, rounds, minimum):
    """With the same scores throughout, it even removes the same weights."""
    scores, mask = network
    rates = dict.fromkeys(mask, rate)
    at_once = select(scores, mask, [rates] * rounds, scope, minimum)
    step = mask
    for _ in range(rounds):
        step = select(scores, step, rates, scope, minimum)
    assert at_once.remaining == step.remaining
    assert at_once == step


def test_the_inputs_are_not_changed():
    scores, mask = {"w": torch.rand(20)}, Mask.full({"w": (20,)})
    before = scores["w"].clone()
    select(scores, mask, {"w": 0.5})
    assert mask.is_full
    assert torch.equal(scores["w"], before)


def test_infinite_scores_are_scores():
    scores = {"w": torch.tensor([1.0, torch.inf, -torch.inf, 0.0])}
    assert select(scores, Mask.full({"w": (4,)}), {"w": 0.5})["w"].tolist() == [True, True, False, False]


def test_close_scores_are_told_apart():
    """float64 scores must not be rounded to float32 on the way."""
    scores = {"w": torch.tensor([1.0 + 1e-12, 1.0], dtype=torch.float64)}
    assert select(scores, Mask.full({"w": (2,)}), {"w": 0.5})["w"].tolist() == [True, False]


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_a_mask_that_is_laid_out_otherwise_in_memory_can_be_pruned(scope):
    """Transposed, or channels_last as of a convolution's weight on a GPU: `view` does not work on these."""
    scores = torch.rand(4, 3, 2, 2)
    mask = Mask({"w": torch.ones(4, 3, 2, 2, dtype=torch.bool).to(memory_format=torch.channels_last)})
    new = select({"w": scores}, mask, {"w": 0.5}, scope)
    assert new == select({"w": scores}, Mask.full({"w": (4, 3, 2, 2)}), {"w": 0.5}, scope)
    laid_out_too = scores.to(memory_format=torch.channels_last)
    assert new == select({"w": laid_out_too}, Mask.full({"w": (4, 3, 2, 2)}), {"w": 0.5}, scope)


# PyTorch's own pruning as an oracle


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.conv, self.fc1, self.fc2 = nn.Conv2d(3, 5, 3), nn.Linear(31, 17), nn.Linear(17, 7)
        with torch.no_grad():
            for number, layer in enumerate(self.children()):
                layer.weight.normal_(0, 1 + number, generator=generator)
                assert layer.weight.abs().unique().numel() == layer.weight.numel()  # no ties


LAYERS = ("conv", "fc1", "fc2")


def scores_of(net):
    return {name: getattr(net, name).weight.detach().abs() for name in LAYERS}


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.37, 0.5, 0.99])
def test_layer_scope_agrees_with_torch_over_several_rounds(rate):
    """`l1_unstructured` again and again: a PruningContainer prunes a share of what is left."""
    net, ours = Net(), Net()
    mask = Mask.full({name: tuple(score.shape) for name, score in scores_of(ours).items()})
    for _ in range(6):
        mask = select(scores_of(ours), mask, dict.fromkeys(LAYERS, rate))
        for name in LAYERS:
            layer = getattr(net, name)
            prune.l1_unstructured(layer, "weight", amount=rate)
            assert torch.equal(layer.weight_mask.bool(), mask[name])
    if rate:
        assert any(isinstance(hook, prune.PruningContainer) for hook in net.fc1._forward_pre_hooks.values())


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.2, 0.37, 0.5, 0.99])
@pytest.mark.parametrize("named", [LAYERS, ("conv", "fc1")], ids=["all", "without-output"])
def test_global_scope_agrees_with_torch_over_several_rounds(rate, named):
    net, ours = Net(), Net()
    mask = Mask.full({name: tuple(score.shape) for name, score in scores_of(ours).items()})
    for _ in range(6):
        mask = select(scores_of(ours), mask, dict.fromkeys(named, rate), "global")
        where = [(getattr(net, name), "weight") for name in named]
        prune.global_unstructured(where, pruning_method=prune.L1Unstructured, amount=rate)
        for name in named:
            assert torch.equal(getattr(net, name).weight_mask.bool(), mask[name])
    assert all(bool(mask[name].all()) for name in set(LAYERS) - set(named))


# Bad input


W = {"w": torch.rand(3, 2)}
FULL = Mask.full({"w": (3, 2)})


@pytest.mark.parametrize(
    ("scores", "rates", "scope", "message"),
    [
        ({"w": torch.tensor([[1, torch.nan]] * 3)}, {"w": 0.2}, "layer", "'w' contain NaN"),
        ({"w": torch.tensor([[1, torch.nan]] * 3)}, {"w": 0.2}, "global", "'w' contain NaN"),
        ({"w": torch.rand(2, 3)}, {"w": 0.2}, "layer", r"'w' have shape \(2, 3\), its weight \(3, 2\)"),
        ({}, {"w": 0.2}, "layer", "no scores for 'w'"),
        (W, {"v": 0.2}, "layer", "'v'"),
        (W, {"w": -0.1}, "layer", r"'w' is -0\.1"),
        (W, {"w": 1.1}, "global", r"'w' is 1\.1"),
        (W, {"w": float("nan")}, "layer", "'w' is nan"),
        (W, {"w": 0.2}, "whole", "'whole'"),
    ],
)
def test_what_cannot_be_selected_is_refused(scores, rates, scope, message):
    with pytest.raises(ValueError, match=message):
        select(scores, FULL, rates, scope)


def test_global_scope_has_one_rate():
    mask = Mask.full({"a": (2,), "b": (2,)})
    with pytest.raises(ValueError, match="one rate"):
        select({"a": torch.rand(2), "b": torch.rand(2)}, mask, {"a": 0.1, "b": 0.2}, "global")


# Counts


@pytest.mark.parametrize(
    ("remaining", "rate", "minimum", "expected"),
    [
        (10, 0.0, 0, 0),
        (10, 1.0, 0, 10),
        (10, 1.0, 3, 7),
        (2, 0.2, 0, 0),
        (3, 0.2, 0, 1),
        (0, 1.0, 0, 0),
        (2, 1.0, 5, 0),
    ],
)
def test_removed(remaining, rate, minimum, expected):
    """Rate 0 removes none, rate 1 all but the minimum, less than half a weight none."""
    assert removed(remaining, rate, minimum) == expected


def test_kept_after_rounds_each_round_by_itself():
    assert kept_after(1000, [0.2] * 3) == 512
    assert kept_after(11, [0.2] * 3) == 11 - 2 - 2 - 1
    assert kept_after(11, []) == 11


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.lists(st.sampled_from([0.05, 0.1, 0.2, 0.5, 0.9]), min_size=4, max_size=4),
    st.sampled_from(["layer", "global"]),
    st.integers(0, 6),
    st.integers(0, 4),
    st.integers(0, 2**32 - 1),
)
def test_the_planned_counts_are_those_that_selection_keeps(sizes, rates, scope, rounds, minimum, seed):
    """Round by round with fresh scores, one layer of several left alone; and refused exactly where it must be."""
    sizes = {f"layer{number}": size for number, size in enumerate(sizes)}
    named = list(sizes)[: max(1, len(sizes) - 1)]
    rates = {name: rates[0] if scope == "global" else rate for name, rate in zip(named, rates, strict=False)}
    generator = torch.Generator().manual_seed(seed)
    mask, counts, fault = Mask.full({name: (size,) for name, size in sizes.items()}), [sum(sizes.values())], None
    for level in range(1, rounds + 1):
        scores = {name: torch.rand(size, generator=generator) for name, size in sizes.items()}
        new = select(scores, mask, rates, scope, minimum)
        left = new.counts()
        emptied = any(left[n] == 0 for n in named) if scope == "layer" else not any(left[n] for n in named)
        if emptied or new.remaining == mask.remaining:
            fault = level
            break
        mask = new
        counts.append(mask.remaining)
    if fault is None:
        assert plan_counts(sizes, [rates] * rounds, scope, minimum) == counts
        return
    with pytest.raises(InputError, match=f"round {fault} .*pruning.rounds to {fault - 1}"):
        plan_counts(sizes, [rates] * rounds, scope, minimum)
    assert plan_counts(sizes, [rates] * (fault - 1), scope, minimum) == counts


def test_a_layer_that_would_be_emptied_is_named():
    with pytest.raises(InputError, match=r"round 1 would empty layer 'fc'.*pruning\.minimum"):
        plan_counts({"fc.weight": 10, "out.weight": 10}, [{"fc.weight": 1.0, "out.weight": 0.1}] * 3, "layer")
    assert plan_counts({"fc.weight": 10, "out.weight": 10}, [{"fc.weight": 1.0, "out.weight": 0.1}], "layer", 2) == [
        20,
        11,
    ]


def test_a_network_that_would_be_emptied_is_refused():
    with pytest.raises(InputError, match="round 1 would leave no weight"):
        plan_counts({"fc.weight": 10}, [{"fc.weight": 1.0}] * 2, "global")


def test_a_round_that_removes_nothing_is_refused():
    with pytest.raises(InputError, match=r"round 1 would prune nothing.*266,200.*pruning.rounds to 0"):
        plan_counts({"fc.weight": 266_200}, [{"fc.weight": 0.0}] * 2, "layer")


def test_no_rounds_need_no_rate():
    assert plan_counts({"fc.weight": 10}, [], "layer") == [10]


# Speed


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_large_layers_take_no_more_than_a_sort(scope):
    """Two layers of half a million weights with many ties; a loop over weights would take minutes."""
    scores = {name: torch.randint(100, (500_000,), dtype=torch.float32) for name in "ab"}
    mask = Mask.full({"a": (500_000,), "b": (500_000,)})
    begun = time.perf_counter()
    new = select(scores, mask, {"a": 0.2, "b": 0.2}, scope, minimum=10)
    assert new.remaining == 800_000
    assert time.perf_counter() - begun < 10
