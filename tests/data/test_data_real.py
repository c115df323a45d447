"""The real MNIST, where the environment variable TOMBOLA_DATA says that it is there."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
import pytest

from tombola.data import DataSettings, load, split
from tombola.seeds import Seeds

# Read at import: the fixtures of these tests take the variable out of the environment.
ROOT = Path(os.environ.get("TOMBOLA_DATA", "") or "nowhere")
MNIST = DataSettings(source="mnist", validation=5_000)

pytestmark = pytest.mark.skipif(
    not (ROOT / "MNIST" / "raw").is_dir(), reason="TOMBOLA_DATA names no folder that holds MNIST/raw"
)


def test_mnist_is_the_known_one():
    dataset = load(MNIST, ROOT, download=False)
    assert dataset.train_inputs.shape == (60_000, 1, 28, 28)
    # Published by many: how often each digit occurs, and mean and standard deviation of the training pixels.
    assert np.bincount(dataset.train_targets).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(dataset.test_targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert dataset.train_inputs.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert dataset.train_inputs.std() / 255 == pytest.approx(0.3081, abs=5e-5)


def test_mnist_splits_as_the_paper_does():
    splits = split(load(MNIST, ROOT, download=False), 5_000, Seeds(study=0, trial=0))
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (55_000, 5_000, 10_000)
    assert splits.train.inputs.double().mean().item() == pytest.approx(0, abs=1e-6)
    assert splits.train.inputs.double().std().item() == pytest.approx(1, abs=1e-6)


def test_plain_mnist_has_the_known_checksums(tmp_path):
    source = ROOT / "MNIST" / "raw"
    if not all((source / f"{name}.gz").is_file() for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")):
        pytest.skip("TOMBOLA_DATA holds MNIST uncompressed")
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for path in source.glob("*.gz"):
        (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    packed, plain = load(MNIST, ROOT, download=False), load(MNIST, tmp_path, download=False)
    assert packed is not plain
    np.testing.assert_array_equal(packed.test_inputs, plain.test_inputs)
    np.testing.assert_array_equal(packed.train_targets, plain.train_targets)
