from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tombola.data import DataSettings, Description, describe, digits, fingerprint, load
from tombola.errors import DataError

DIGITS = DataSettings(source="digits", validation=100)


def test_digits():
    dataset = load(DIGITS)
    assert dataset.description == describe(DIGITS) == Description((1, 8, 8), 10, 1_438, 359)
    assert dataset.train_inputs.dtype == np.float32
    assert (dataset.train_inputs.min(), dataset.train_inputs.max()) == (0, 1)
    assert fingerprint(DIGITS) == ""
    assert load(DIGITS) is dataset


def test_the_two_parts_are_all_of_it_and_a_fifth_of_every_class_is_test():
    dataset = load(DIGITS)
    with np.load(digits.FILE) as raw:
        images, labels = raw["images"].reshape(1_797, 64), raw["labels"]
    whole = np.concatenate([dataset.train_inputs, dataset.test_inputs]).reshape(1_797, 64) * 16
    targets = np.concatenate([dataset.train_targets, dataset.test_targets])
    rows = np.column_stack([whole, targets])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, np.column_stack([images, labels])))
    share = np.bincount(dataset.test_targets) / np.bincount(targets)
    np.testing.assert_allclose(share, 0.2, atol=0.003)


def test_it_is_scikit_learns_copy():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed to compare with")
    raw = datasets.load_digits()
    with np.load(digits.FILE) as mine:
        assert np.array_equal(mine["images"], raw.images)
        assert np.array_equal(mine["labels"], raw.target)


def test_the_test_set_never_changes():
    dataset = load(DIGITS)
    assert dataset.test_targets[:20].tolist() == [0, 1, 5, 7, 5, 6, 0, 8, 7, 2, 7, 6, 2, 3, 3, 7, 4, 5, 4, 7]
    assert int((dataset.test_inputs * 16).sum()) == 112244


@pytest.mark.parametrize("damage", ["pixel", "cut", "missing"])
def test_a_damaged_copy_is_refused(monkeypatch, tmp_path: Path, damage):
    with np.load(digits.FILE) as raw:
        images, labels = raw["images"], raw["labels"]
    path = tmp_path / "digits.npz"
    if damage == "pixel":
        images[0, 0, 0] += 1
        np.savez(path, images=images, labels=labels)
    elif damage == "cut":
        path.write_bytes(digits.FILE.read_bytes()[:20_000])
    monkeypatch.setattr(digits, "FILE", path)
    with pytest.raises(DataError, match="is damaged; reinstall tombola: pip install"):
        digits.load()
