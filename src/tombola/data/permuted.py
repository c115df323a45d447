"""MNIST with its pixels in another order: a third data set for transfer, made by a fixed rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tombola.data.held import Dataset

RULE = 20_190_506  # the seed of the order; a constant, so the data are the same everywhere


def permuted(dataset: Dataset, name: str) -> Dataset:
    """Return images whose pixels all have the same new order, drawn once (Goodfellow et al. 2013, Section 4.1).

    A fully connected network learns them exactly as well as the originals, and no input weight of a ticket for the
    originals is where it belongs.

    Args:
        dataset: of images [N, 1, height, width].
        name: of the new data set.
    """
    pixels = int(np.prod(dataset.train_inputs.shape[1:]))
    order = np.random.RandomState(RULE).permutation(pixels)  # whose stream NumPy keeps unchanged

    def moved(images: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(images.reshape(len(images), pixels)[:, order].reshape(images.shape))

    train, test = moved(dataset.train_inputs), moved(dataset.test_inputs)
    return replace(dataset, name=name, train_inputs=train, test_inputs=test)
