"""Masks: immutable, packed to bits without loss, and pruned weights at exactly 0.0."""

import itertools

import pytest
import small_nets
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tombola.errors import InputError
from tombola.networks import examine
from tombola.pruning import Mask, shuffled


def mask_of(*rows, name="w"):
    return Mask({name: torch.tensor(rows, dtype=torch.bool)})


def test_a_mask_does_not_change_with_the_tensor_it_was_made_from():
    source = torch.ones(3, 4, dtype=torch.bool)
    mask = Mask({"w": source})
    source[0] = False
    assert mask.is_full


def test_a_mask_does_not_change_with_the_dict_it_was_made_from():
    source = {"w": torch.ones(3, dtype=torch.bool)}
    mask = Mask(source)
    source["v"] = torch.ones(2, dtype=torch.bool)
    assert list(mask) == ["w"]
    with pytest.raises(TypeError):
        mask["w"] = torch.zeros(3, dtype=torch.bool)


@pytest.mark.parametrize("operation", [lambda m: m & m, lambda m: Mask(m), lambda m: Mask.unpack(m.pack(), m.shapes())])
def test_a_new_mask_shares_no_memory_with_the_old(operation):
    mask = mask_of([1, 0, 1])
    new = operation(mask)
    assert new == mask
    assert new["w"].data_ptr() != mask["w"].data_ptr()


def test_numbers_are_no_mask():
    """0.0 and 1.0, or uint8, would count and invert wrongly."""
    for dtype in (torch.float32, torch.uint8):
        with pytest.raises(TypeError, match=r"'w' is torch\."):
            Mask({"w": torch.ones(3, dtype=dtype)})


def test_counts_and_densities():
    mask = Mask({"a": torch.tensor([True, False, False, False]), "b": torch.ones(2, 3, dtype=torch.bool)})
    assert (mask.total, mask.remaining, mask.density) == (10, 7, 0.7)
    assert mask.counts() == {"a": 1, "b": 6}
    assert mask.densities() == {"a": 0.25, "b": 1.0}
    assert not mask.is_full
    assert Mask.full(mask.shapes()).is_full
    assert "7 of 10" in repr(mask)
    assert "70" in repr(mask)


def test_a_mask_of_nothing_is_dense():
    """No layers: density must not divide by zero."""
    assert Mask({}).density == 1.0
    assert Mask({}).is_full
    assert Mask({}).overlap(Mask({})) == 1.0


def test_a_layer_without_weights_has_a_density():
    assert set(Mask({"a": torch.ones(0, 3, dtype=torch.bool)}).densities()) == {"a"}


def test_equality_is_by_content_and_layers():
    assert mask_of([1, 0]) == mask_of([1, 0])
    assert mask_of([1, 0]) != mask_of([0, 1])
    assert mask_of([1, 0]) != mask_of([1, 0], name="v")
    assert mask_of([1, 0]) != mask_of([1], [0])
    assert mask_of([1, 0]) != {"w": torch.tensor([[True, False]])}
    with pytest.raises(TypeError):
        hash(mask_of([1, 0]))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.lists(st.integers(0, 7), max_size=3), max_size=4), st.integers(0, 2**32 - 1))
def test_packing_loses_nothing(tmp_path_factory, shapes, seed):
    """Sizes that are not multiples of eight, empty layers and scalars; and eight weights are a byte."""
    generator = torch.Generator().manual_seed(seed)
    mask = Mask({f"l{i}": torch.rand(shape, generator=generator) < 0.5 for i, shape in enumerate(shapes)})
    packed = mask.pack()
    for name, bits in packed.items():
        assert bits.dtype == torch.uint8
        assert bits.numel() == -(-mask[name].numel() // 8)
    assert Mask.unpack(packed, mask.shapes()) == mask
    path = tmp_path_factory.mktemp("mask") / "mask.safetensors"
    mask.save(path)
    loaded = Mask.load(path)
    assert loaded == mask
    assert list(loaded) == list(mask)  # the order decides ties


def test_a_mask_packs_by_position_not_by_memory():
    keep = torch.rand(5, 7) < 0.5
    assert torch.equal(Mask({"w": keep.T}).pack()["w"], Mask({"w": keep.T.contiguous()}).pack()["w"])


# Between masks


def test_intersection_order_and_overlap():
    one, other = mask_of([1, 1, 0, 0]), mask_of([0, 1, 1, 0])
    assert (one & other) == mask_of([0, 1, 0, 0])
    assert one.overlap(other) == pytest.approx(1 / 3)
    assert not one <= other
    assert (one & other) <= one
    assert one <= one
    assert not one <= (one & other)
    assert mask_of([0, 0]).overlap(mask_of([0, 0])) == 1.0
    assert mask_of([0, 1]).overlap(mask_of([1, 0])) == 0.0


def test_overlap_is_over_the_whole_network():
    """Not the mean over layers: a large layer counts more."""
    one = Mask({"a": torch.ones(8, dtype=torch.bool), "b": torch.tensor([True, False])})
    other = Mask({"a": torch.ones(8, dtype=torch.bool), "b": torch.tensor([False, True])})
    assert one.overlap(other) == 0.8


@pytest.mark.parametrize("operation", [lambda a, b: a & b, lambda a, b: a <= b, lambda a, b: a.overlap(b)])
@pytest.mark.parametrize("other", [mask_of([1, 0], name="v"), mask_of([1]), Mask({})])
def test_masks_of_different_layers_cannot_be_compared(operation, other):
    """Broadcasting [1] over [2] would give an answer to a question that makes no sense."""
    with pytest.raises(ValueError, match="different layers"):
        operation(mask_of([1, 0]), other)


# On weights


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, -1.0])
def test_applying_gives_exactly_zero_whatever_was_there(bad):
    """0 * NaN is NaN."""
    weights = {"w": torch.tensor([bad, bad, 3.0]), "b": torch.tensor([bad])}
    applied = Mask({"w": torch.tensor([False, True, True])}).apply(weights)
    assert applied["w"][0].item() == 0.0
    torch.testing.assert_close(applied["w"][1:], weights["w"][1:], equal_nan=True)
    torch.testing.assert_close(applied["b"], weights["b"], equal_nan=True)


def test_applying_copies():
    weights = {"w": torch.ones(2, requires_grad=True), "b": torch.ones(2, dtype=torch.int64)}
    applied = Mask.full({"w": (2,)}).apply(weights)
    for name, tensor in applied.items():
        assert not tensor.requires_grad
        tensor.zero_()
        assert weights[name].tolist() == [1, 1]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_applying_in_place_gives_exactly_zero(bad):
    module = torch.nn.Linear(3, 1)
    with torch.no_grad():
        module.weight.fill_(bad)
    Mask({"weight": torch.tensor([[False, True, False]])}).apply_(module)
    assert module.weight.tolist()[0][::2] == [0.0, 0.0]
    assert module.weight.requires_grad


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd-momentum-decay": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    "sgd-nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam-decay": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_held_weights_stay_at_zero_in_anyones_loop(optimizer):
    module = small_nets.conv_norm((2, 6, 6), 4)
    mask = half_of(module)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    hold = mask.hold_(module)
    optimizer = OPTIMIZERS[optimizer](module.parameters())
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        inputs = torch.randn(16, 2, 6, 6, generator=generator)
        loss = functional.cross_entropy(module(inputs), torch.randint(4, (16,), generator=generator))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for name, keep in mask.items():
            weight = module.get_parameter(name)
            assert bool((weight[~keep] == 0.0).all())
    for name, keep in mask.items():
        assert bool((module.get_parameter(name) != before[name])[keep].all())
    hold.release()
    module(inputs).sum().backward()
    optimizer.step()
    assert any(bool((module.get_parameter(name)[~keep] != 0.0).any()) for name, keep in mask.items())


def half_of(module):
    generator = torch.Generator().manual_seed(0)
    shapes = examine(module, (2, 6, 6)).shapes()
    return Mask({name: torch.rand(shape, generator=generator) < 0.5 for name, shape in shapes.items()})


def test_a_frozen_layer_can_be_held():
    """A layer that needs no gradient can't have a hook, and needs none."""
    module = small_nets.conv_norm((2, 6, 6), 4)
    module[0].requires_grad_(False)
    mask = half_of(module)
    mask.hold_(module)
    assert bool((module[0].weight[~mask["0.weight"]] == 0.0).all())


# Shuffled


def test_shuffling_keeps_the_number_in_each_layer_and_moves_the_places():
    mask = Mask({"a": torch.rand(20, 30) < 0.3, "b": torch.rand(50) < 0.7, "c": torch.zeros(4, dtype=torch.bool)})
    new = shuffled(mask, torch.Generator().manual_seed(0))
    assert new.counts() == mask.counts()
    assert new.shapes() == mask.shapes()
    assert not torch.equal(new["a"], mask["a"])
    assert not torch.equal(new["b"], mask["b"])


def test_shuffling_follows_its_generator_alone():
    mask = Mask({"a": torch.arange(600) % 3 == 0})
    before = torch.get_rng_state()
    first, second, other = (shuffled(mask, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first == second != other
    assert torch.equal(torch.get_rng_state(), before)


def test_shuffling_is_even():
    """Every place is kept about as often: a third of 1,200 shuffles, give or take five standard deviations."""
    generator, seen = torch.Generator().manual_seed(3), torch.zeros(6)
    mask = mask_of([1, 1, 0, 0, 0, 0])
    for _, _ in itertools.product(range(30), range(40)):
        seen += shuffled(mask, generator)["w"][0]
    assert bool(((seen - 400).abs() < 5 * (1200 * 2 / 9) ** 0.5).all())


@pytest.mark.parametrize("module", [nn.Linear(3, 2), nn.Sequential(nn.Linear(4, 2))])
def test_a_mask_of_another_network_is_refused(module):
    """Of another shape, and of other names."""
    mask = Mask.full({"weight": (2, 4)})
    for prune in (mask.apply_, mask.hold_):
        with pytest.raises(InputError, match=r"the mask has 'weight' of shape \(2, 4\), but this module"):
            prune(module)


def test_a_file_without_a_mask_is_said(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(3)}, tmp_path / "other.safetensors")
    (tmp_path / "text").write_text("nothing")
    unreadable = "can't be read"
    for name, match in (("other.safetensors", "not a file from Mask.save"), ("text", unreadable), ("none", unreadable)):
        with pytest.raises(InputError, match=match):
            Mask.load(tmp_path / name)
