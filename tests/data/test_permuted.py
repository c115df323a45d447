"""Permuted MNIST: the same images, their pixels in one other order."""

import numpy as np
import small_idx

from tombola.data import DataSettings, describe, load
from tombola.data.held import Dataset
from tombola.data.permuted import permuted


def test_all_images_have_one_other_order_and_nothing_else_changes(tmp_path, small):
    small_idx.write(tmp_path)
    plain = load(DataSettings(source="mnist", validation=2), tmp_path, download=False)
    moved = load(DataSettings(source="mnist-permuted", validation=2), tmp_path, download=False)
    assert moved.description == describe(DataSettings(source="mnist-permuted", validation=2)) == plain.description
    np.testing.assert_array_equal(moved.train_targets, plain.train_targets)
    both = np.concatenate([plain.train_inputs, plain.test_inputs]).reshape(18, -1)
    theirs = np.concatenate([moved.train_inputs, moved.test_inputs]).reshape(18, -1)
    # Each pixel of the new images is one and the same pixel of the old ones, in every image.
    places = [np.flatnonzero((both == column[:, None]).all(0)) for column in theirs.T]
    assert sorted(int(found[0]) for found in places) == list(range(20))
    assert not np.array_equal(both, theirs)


def test_the_order_is_a_constant():
    """Frozen: another order would be another data set under the same name."""
    images, targets = np.arange(784).reshape(1, 1, 28, 28), np.zeros(1, np.int64)
    moved = permuted(Dataset("plain", images, targets, images, targets, 1), "moved")
    assert moved.train_inputs.ravel()[:5].tolist() == [529, 407, 10, 611, 472]
    assert sorted(moved.train_inputs.ravel().tolist()) == list(range(784))
