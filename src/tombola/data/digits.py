"""The small digits: 1,797 images of 8 by 8 pixels. The package contains them, so they need no download.

They are the test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998, UCI Machine
Learning Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0), the same set and order as scikit-learn's
`load_digits`. `digits.npz` beside this file holds `images`, uint8 [1797, 8, 8] of 0 to 16, and `labels`, uint8 [1797].
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from importlib import resources

import numpy as np

from tombola.data.dataset import Description
from tombola.data.held import Dataset
from tombola.errors import DataError

DESCRIPTION = Description(input_shape=(1, 8, 8), classes=10, train=1_438, test=359)

# The data set has no published test set; this seed fixes ours for good.
_TEST_SEED = 20_180_309
_TEST_SHARE = 0.2
_BRIGHTEST = 16
SHA256 = "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"

FILE = resources.files("tombola.data") / "digits.npz"
DAMAGED = "digits: tombola's copy of the data set is damaged; reinstall tombola: pip install --force-reinstall tombola"


def load() -> Dataset:
    """Return the digits as float32 in 0..1, a fifth of every class set aside as the test set.

    Raises:
        DataError: the package's copy is damaged.
    """
    images, labels = _embedded()
    if hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest() != SHA256:
        raise DataError(DAMAGED)

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


def _embedded() -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels as the package's file holds them."""
    try:
        with FILE.open("rb") as file, np.load(file) as arrays:
            return arrays["images"], arrays["labels"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(DAMAGED) from error
