"""Splitting: who is drawn, and what the normalisation has seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tombola.data import Dataset, held, split, splitting
from tombola.errors import DataError, InputError
from tombola.pruning import Mask
from tombola.running.ticket import Ticket
from tombola.seeds import Seeds

SEEDS = Seeds(study=3, trial=0)


def made(inputs: np.ndarray, test: np.ndarray | None = None) -> Dataset:
    """A data set whose targets number the examples, so that a test can tell who went where."""
    test = inputs[:4] if test is None else test
    return Dataset(
        name="made",
        train_inputs=inputs,
        train_targets=np.arange(len(inputs)),
        test_inputs=test,
        test_targets=np.arange(len(test)),
        classes=len(inputs),
    )


def images(kind: str = "uint8", n: int = 50) -> np.ndarray:
    generator = np.random.default_rng(0)
    if kind == "uint8":
        return generator.integers(0, 256, (n, 3, 5, 4), dtype=np.uint8)
    offset = np.array([0.0, 1e3, -7.0])[:, None, None]
    return (generator.normal(size=(n, 3, 5, 4)) * np.array([1, 0.1, 30])[:, None, None] + offset).astype(kind)


def test_sizes_and_types():
    splits = split(made(images()), 10, SEEDS)
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (40, 10, 4)
    for part in (splits.train, splits.validation, splits.test):
        assert part.inputs.dtype == torch.float32
        assert part.targets.dtype == torch.int64
        assert part.inputs.shape == (len(part), 3, 5, 4)
        assert part.inputs.is_contiguous()
    assert splits.classes == 50


def test_every_training_example_goes_to_one_part():
    splits = split(made(images()), 10, SEEDS)
    chosen = torch.cat([splits.train.targets, splits.validation.targets])
    assert sorted(chosen.tolist()) == list(range(50))
    assert splits.test.targets.tolist() == [0, 1, 2, 3]


def test_same_seeds_same_split_and_other_seeds_another():
    drawn = [
        split(made(images()), 10, seeds).validation.targets.tolist()
        for seeds in (SEEDS, SEEDS, Seeds(study=3, trial=1), Seeds(study=4, trial=0))
    ]
    assert drawn[0] == drawn[1]
    assert len({tuple(each) for each in drawn}) == 3


def test_the_draw_is_frozen():
    """Stored results depend on who is drawn."""
    assert split(made(images()), 10, SEEDS).validation.targets.tolist() == [2, 3, 18, 20, 22, 27, 35, 43, 47, 48]


def test_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    split(made(images()), 10, SEEDS)
    assert torch.equal(torch.get_rng_state(), before)


def test_drawn_evenly():
    """Over many trials every example is drawn about equally often."""
    data, counts = made(np.zeros((20, 2), np.float32)), np.zeros(20)
    for trial in range(400):
        counts[split(data, 5, Seeds(study=0, trial=trial)).validation.targets.numpy()] += 1
    assert np.abs(counts - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)


@pytest.mark.parametrize("kind", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("block", [1, 100, 2**20])
def test_images_are_normalised_per_channel_by_the_training_part_alone(kind, block, monkeypatch):
    monkeypatch.setattr(splitting, "BLOCK", block)
    monkeypatch.setattr(held, "BLOCK", block)
    raw, test = images(kind), images(kind, 8)[1:]
    splits = split(made(raw, test), 10, SEEDS)
    scaled = raw.astype(np.float64) / (255 if kind == "uint8" else 1)
    kept = scaled[splits.train.targets.numpy()]
    mean, std = kept.mean(axis=(0, 2, 3)), kept.std(axis=(0, 2, 3))
    np.testing.assert_allclose(splits.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(splits.std, std, rtol=1e-12)
    for part, source in (
        (splits.train, scaled),
        (splits.validation, scaled),
        (splits.test, test.astype(np.float64) / (255 if kind == "uint8" else 1)),
    ):
        expected = (source[part.targets.numpy()] - mean[:, None, None]) / std[:, None, None]
        np.testing.assert_allclose(part.inputs.numpy(), expected, rtol=2e-7, atol=1e-9)


def test_feature_vectors_are_normalised_by_feature():
    """Columns of a table differ by orders of magnitude: with one mean for all, the small ones would be constants."""
    raw = np.random.default_rng(0).normal(size=(50, 4)) * [1, 1e-3, 1e4, 0] + [0, 5, -1e5, 7]
    splits = split(made(raw), 10, SEEDS)
    kept = raw[splits.train.targets.numpy()]
    np.testing.assert_allclose(splits.mean, kept.mean(0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(splits.std[:3], kept.std(0)[:3], rtol=1e-9)
    assert splits.std[3] == 1
    expected = (raw[splits.validation.targets.numpy()] - splits.mean) / splits.std
    np.testing.assert_allclose(splits.validation.inputs.numpy(), expected, rtol=1e-6, atol=1e-7)


def test_images_may_be_normalised_by_place():
    raw = images()
    splits = split(made(raw), 10, SEEDS, normalise="feature")
    kept = raw[splits.train.targets.numpy()] / 255
    np.testing.assert_allclose(np.reshape(splits.mean, (3, 5, 4)), kept.mean(0), rtol=1e-9)
    np.testing.assert_allclose(splits.train.inputs.numpy(), (kept - kept.mean(0)) / kept.std(0), rtol=1e-5, atol=1e-6)


def test_sequences_stay_as_they_are_or_are_normalised_by_feature():
    raw = np.random.default_rng(0).normal(size=(50, 6, 3)).astype(np.float32) * [1, 100, 1e-3] + [0, -7, 1]
    assert split(made(raw), 10, SEEDS).mean == ()
    splits = split(made(raw), 10, SEEDS, normalise="feature")
    kept = raw[splits.train.targets.numpy()].astype(np.float64)
    np.testing.assert_allclose(splits.mean, kept.mean((0, 1)), rtol=1e-9)
    expected = (kept - kept.mean((0, 1))) / kept.std((0, 1))
    np.testing.assert_allclose(splits.train.inputs.numpy(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["uint8", "float64"])
def test_inputs_may_stay_as_they_are(kind):
    raw = images(kind)
    splits = split(made(raw), 10, SEEDS, normalise="none")
    expected = raw[splits.train.targets.numpy()].astype(np.float32) / np.float32(255 if kind == "uint8" else 1)
    np.testing.assert_array_equal(splits.train.inputs.numpy(), expected)
    assert (splits.mean, splits.std) == ((), ())


@pytest.mark.parametrize(
    ("shape", "normalise"),
    [((50, 3, 5, 4), how) for how in ("channel", "feature", "none")]
    + [((50, 7), how) for how in ("channel", "feature", "none")]
    + [((50, 6, 3), how) for how in ("channel", "feature", "none")],
)
def test_a_ticket_normalises_as_training_did(shape, normalise):
    raw = np.random.default_rng(0).normal(size=shape) * 5 + 3
    splits = split(made(raw), 10, SEEDS, normalise=normalise)
    constants = {"mean": list(splits.mean), "std": list(splits.std)}
    ticket = Ticket(Mask({}), {}, {}, constants, {"input_shape": list(shape[1:]), "classes": 50})
    np.testing.assert_array_equal(ticket.normalise(raw[splits.train.targets.numpy()]), splits.train.inputs)


@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_feature_vectors_may_be_normalised_together(kind):
    raw = images(kind).reshape(50, 60)
    splits = split(made(raw), 10, SEEDS, normalise="channel")
    kept = raw[splits.train.targets.numpy()].astype(np.float64) / (255 if kind == "uint8" else 1)
    np.testing.assert_allclose(splits.mean, [kept.mean()], rtol=1e-12)
    np.testing.assert_allclose(splits.std, [kept.std()], rtol=1e-12)
    assert splits.train.inputs.double().mean().item() == pytest.approx(0, abs=1e-6)


def test_validation_and_test_do_not_leak_into_the_normalisation():
    raw = images()
    first = split(made(raw), 10, SEEDS)
    changed = raw.copy()
    changed[first.validation.targets.numpy()] = 255
    second = split(made(changed, np.zeros_like(raw[:4])), 10, SEEDS)
    assert (first.mean, first.std) == (second.mean, second.std)
    assert torch.equal(first.train.inputs, second.train.inputs)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.3, 1e30])
def test_a_constant_channel_is_not_scaled(value):
    raw = images("float64")
    raw[:, 1] = value
    splits = split(made(raw), 10, SEEDS)
    assert splits.std[1] == 1
    assert splits.mean[1] == value
    assert torch.count_nonzero(splits.train.inputs[:, 1]) == 0


def test_one_training_example_may_remain():
    assert len(split(made(images()), 49, SEEDS).train) == 1


def test_no_example_may_be_set_aside():
    splits = split(made(images()), 0, SEEDS)
    assert (len(splits.train), len(splits.validation)) == (50, 0)


@pytest.mark.parametrize("validation", [50, 51, -1])
def test_validation_that_does_not_fit(validation):
    with pytest.raises(InputError, match=f"data.validation is {validation}, but made has 50 .* from 0 to 49"):
        split(made(images()), validation, SEEDS)


def test_values_that_cannot_be_normalised():
    raw = np.full((10, 2), 1e308)
    raw[::2] = -1e308
    with pytest.raises(DataError, match="too large to be normalised"):
        split(made(raw), 2, SEEDS)


def test_an_outlier_beyond_float32():
    with pytest.raises(DataError, match="test inputs exceed the range of float32"):
        split(made(images("float64")[:, 0, 0], np.full((2, 4), 1e300)), 2, SEEDS)


def test_the_parts_do_not_share_memory_with_the_data_set():
    dataset = made(np.zeros((6, 2), np.float32) + np.arange(6, dtype=np.float32)[:, None])
    splits = split(dataset, 2, SEEDS)
    splits.test.inputs.zero_()
    splits.test.targets.zero_()
    assert dataset.test_targets.tolist() == [0, 1, 2, 3]
    assert dataset.test_inputs[3, 0] == 3


def test_a_data_set_leaves_the_callers_array_writeable():
    raw = images()
    made(raw)
    raw[0] = 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_device():
    splits = split(made(images()), 10, SEEDS, device="cuda")
    there = split(made(images()), 10, SEEDS)
    for name in ("train", "validation", "test"):
        assert getattr(splits, name).inputs.is_cuda
        assert getattr(splits, name).targets.is_cuda
        assert torch.equal(getattr(splits, name).inputs.cpu(), getattr(there, name).inputs)
