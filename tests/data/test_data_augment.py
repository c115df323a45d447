"""Augmentation: each image as numpy flips, pads and crops it; drawn from the seeds and the iteration alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.data import Dataset, Part, Splits, split
from tombola.data.augment import PADDING, Augmentation, augment
from tombola.seeds import Seeds


def splits_of(images, mean=(0.0,), std=(1.0,)):
    part = Part(images, torch.zeros(len(images), dtype=torch.int64))
    return Splits(part, part, part, mean, std, 2)


def by_hand(image, flip, down, across, black):
    """Pad, crop and flip one image [channels, height, width], as anyone would with numpy."""
    channels, height, width = image.shape
    padded = np.empty((channels, height + 2 * PADDING, width + 2 * PADDING), image.dtype)
    padded[:] = np.asarray(black)[:, None, None]
    padded[:, PADDING : PADDING + height, PADDING : PADDING + width] = image
    top, left = PADDING + down, PADDING + across
    crop = padded[:, top : top + height, left : left + width]
    return crop[:, :, ::-1] if flip else crop


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 11), st.integers(1, 11), st.data())
def test_every_image_is_what_numpy_makes_of_it(batch, channels, height, width, data):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, channels, height, width, generator=generator)
    black = torch.randn(channels, generator=generator)
    moves = st.integers(-PADDING, PADDING)
    draws = data.draw(st.lists(st.tuples(st.integers(0, 1), moves, moves), min_size=batch, max_size=batch))
    before = images.clone()
    found = augment(images, torch.tensor(draws), black)
    for image, one, (flip, down, across) in zip(images, found, draws, strict=True):
        expected = by_hand(image.numpy(), flip, down, across, black.numpy())
        np.testing.assert_array_equal(one.numpy(), expected)
    assert torch.equal(images, before)
    found.fill_(7)
    assert torch.equal(images, before)
    each = torch.stack([black + number for number in range(batch)])
    other = augment(images, torch.tensor([[0, PADDING, 0]] * batch), each)
    assert torch.equal(other[:, :, -1, -1], each)  # black may differ from image to image


def test_what_comes_in_from_outside_is_black_before_normalisation():
    """Raw images padded with zeros and then normalised are the same as normalised images augmented."""
    raw = np.random.default_rng(0).integers(0, 256, (20, 3, 6, 5), dtype=np.uint8)
    dataset = Dataset("raw", raw[:16], np.arange(16) % 2, raw[16:], np.arange(4) % 2, 2)
    splits = split(dataset, 4, Seeds(0, 0))
    moved = torch.tensor([[0, 3, -2]] * 12)
    found = augment(splits.train.inputs, moved, Augmentation((), 12, Seeds(0, 0), splits).black)
    mean, std = (np.array(constants)[:, None, None] for constants in (splits.mean, splits.std))
    kept = np.rint((splits.train.inputs.numpy() * std + mean) * 255).astype(np.uint8)
    assert {image.tobytes() for image in kept} < {image.tobytes() for image in raw}
    for image, one in zip(kept, found, strict=True):
        expected = (by_hand(image, 0, 3, -2, (0, 0, 0)) / 255 - mean) / std
        np.testing.assert_allclose(one.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert bool((found[:, :, -1, 0] < 0).all())


SEEDS = Seeds(3, 1)


def drawn(kinds=("flip", "crop"), seeds=SEEDS, first=0, count=50, batch=40):
    return Augmentation(kinds, batch, seeds, splits_of(torch.zeros(1, 1, 2, 2))).draws(first, count)


def test_half_are_flipped_and_all_moves_are_as_likely():
    """Within five standard deviations of 20,000 draws."""
    draws = drawn(count=500)
    flip, down, across = draws.flatten(0, 1).unbind(1)
    assert set(flip.tolist()) == {0, 1}
    assert flip.double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / 20_000**0.5)
    for move in (down, across):
        counts = torch.bincount(move + PADDING)
        assert len(counts) == 2 * PADDING + 1
        expected = 20_000 / len(counts)
        assert bool(((counts - expected).abs() < 5 * expected**0.5).all())
    together = torch.stack([flip, down, across]).double()
    assert bool((torch.corrcoef(together).fill_diagonal_(0).abs() < 5 / 20_000**0.5).all())


@pytest.mark.parametrize("kinds", [("flip",), ("crop",), ()])
def test_only_what_is_asked_for_is_done_and_the_rest_stays_as_it_was(kinds):
    draws, both = drawn(kinds), drawn()
    assert torch.equal(draws[..., 0], both[..., 0] if "flip" in kinds else torch.zeros_like(both[..., 0]))
    assert torch.equal(draws[..., 1:], both[..., 1:] if "crop" in kinds else torch.zeros_like(both[..., 1:]))


def test_draws_follow_the_iteration_however_they_are_cut():
    whole = drawn()
    assert torch.equal(torch.cat([drawn(count=7), drawn(first=7, count=1), drawn(first=8, count=42)]), whole)
    assert drawn(count=0).shape == (0, 40, 3)
    assert not torch.equal(whole[0], whole[1])
    for other in (Seeds(3, 2), Seeds(4, 1)):
        assert not torch.equal(drawn(seeds=other), whole)


def test_the_global_generator_plays_no_part():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    whole = drawn()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(drawn(), whole)
