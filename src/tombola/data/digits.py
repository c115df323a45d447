"""scikit-learn's small digits: 1,797 images of 8 by 8, embedded in that package, so there is nothing to download."""

from __future__ import annotations

import hashlib

import numpy as np

from tombola.data.dataset import Dataset, Description
from tombola.errors import DataError

DESCRIPTION = Description(input_shape=(1, 8, 8), classes=10, train=1_438, test=359)

# The data set has no published test set; this seed fixes ours for good.
_TEST_SEED = 20_180_309
_TEST_SHARE = 0.2
_BRIGHTEST = 16
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"


def load() -> Dataset:
    """Return the digits as float32 in 0..1, a fifth of every class set aside as the test set.

    Raises:
        DataError: scikit-learn's copy is not the one that results are compared on.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    images, labels = raw.images.astype(np.uint8), raw.target.astype(np.uint8)
    if hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() != SHA256:
        raise DataError("digits: scikit-learn's copy is not the known one; reinstall scikit-learn")

    # RandomState, because numpy keeps its stream as it is for ever, which it doesn't promise of newer generators.
    generator = np.random.RandomState(_TEST_SEED)
    is_test = np.zeros(len(labels), dtype=bool)
    for label in range(DESCRIPTION.classes or 0):
        members = np.flatnonzero(labels == label)
        is_test[generator.permutation(members)[: round(len(members) * _TEST_SHARE)]] = True

    inputs = (images / _BRIGHTEST).astype(np.float32)[:, None]
    targets = labels.astype(np.int64)
    return Dataset(
        name="digits",
        train_inputs=inputs[~is_test],
        train_targets=targets[~is_test],
        test_inputs=inputs[is_test],
        test_targets=targets[is_test],
        classes=DESCRIPTION.classes,
    )
