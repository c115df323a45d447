"""Controls on masks and on weights: what changes places, and what stays."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.pruning.controls import shuffled, shuffled_weights, sign_preserving_redraw
from tombola.pruning.mask import Mask


def generator(seed):
    return torch.Generator().manual_seed(seed)


def made_up(seed, density, rows=6, columns=7):
    draw = generator(seed)
    weights = {
        "a": torch.randn(rows, columns, generator=draw),
        "b": torch.randn(columns, 3, 2, generator=draw),
        "a.bias": torch.randn(rows, generator=draw),
    }
    keep = {name: torch.rand(weights[name].shape, generator=draw) < density for name in ("a", "b")}
    return weights, Mask(keep)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.floats(0, 1), st.integers(1, 9), st.integers(1, 9))
def test_kept_weights_change_places_within_their_layer(seed, density, rows, columns):
    weights, mask = made_up(seed, density, rows, columns)
    before = {name: tensor.clone() for name, tensor in weights.items()}
    for control in (shuffled_weights, sign_preserving_redraw):
        found = control(weights, mask, generator(seed))
        assert list(found) == list(weights)
        assert torch.equal(found["a.bias"], weights["a.bias"])
        for name, keep in mask.items():
            assert torch.equal(found[name][~keep], weights[name][~keep])
            old, new = weights[name][keep], found[name][keep]
            if control is shuffled_weights:
                assert torch.equal(old.sort().values, new.sort().values)
            else:
                assert torch.equal(old.abs().sort().values, new.abs().sort().values)
                assert torch.equal(torch.signbit(old), torch.signbit(new))
            assert found[name].data_ptr() != weights[name].data_ptr()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize("control", [shuffled_weights, sign_preserving_redraw])
def test_the_generator_decides(control):
    weights, mask = made_up(1, 0.8)
    first, same, other = (control(weights, mask, generator(seed)) for seed in (3, 3, 4))
    for name in mask:
        assert torch.equal(first[name], same[name])
        assert not torch.equal(first[name], other[name])
        assert not torch.equal(first[name], weights[name])


def test_places_are_drawn_uniformly():
    """Each of 4 kept weights comes to each of 4 places in a quarter of 4,000 draws, give or take five deviations."""
    weights, mask = {"a": torch.arange(5.0)}, Mask({"a": torch.tensor([True, True, False, True, True])})
    draws = generator(1)
    counts = torch.zeros(5, 5)
    for _ in range(4000):
        counts[torch.arange(5), shuffled_weights(weights, mask, draws)["a"].long()] += 1
    assert counts[2, 2] == 4000
    kept = counts[mask["a"]][:, mask["a"]]
    assert (kept - 1000).abs().max() < 5 * (4000 * 0.25 * 0.75) ** 0.5


def test_weights_that_are_zero_take_a_magnitude_too():
    """The sign of zero is plus: a zero-initialised weight loses no magnitude of the others."""
    weights = {"a": torch.tensor([0.0, -2.0, 3.0, -0.0])}
    found = sign_preserving_redraw(weights, Mask({"a": torch.ones(4, dtype=torch.bool)}), generator(2))["a"]
    assert sorted(found.abs().tolist()) == [0.0, 0.0, 2.0, 3.0]


def test_a_shuffled_mask_keeps_as_many_weights_in_each_layer():
    _, mask = made_up(1, 0.4)
    found = shuffled(mask, generator(1))
    assert found.counts() == mask.counts()
    assert found != mask
