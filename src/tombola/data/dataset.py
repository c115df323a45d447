"""A data set as it was published or saved, before it is split and normalised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Description:
    """What a network and a plan must know of a data set before it is loaded.

    Args:
        input_shape: of one example: (channels, height, width) or (features,).
        classes: number of classes.
        train, test: number of examples as published; validation is still part of `train`.
    """

    input_shape: tuple[int, ...]
    classes: int
    train: int
    test: int


@dataclass(frozen=True, eq=False)
class Dataset:
    """Raw arrays, shared by everything in the process and therefore read-only.

    Args:
        name: for messages: the source, or the file it was read from.
        train_inputs, test_inputs: uint8 or floating, [N, channels, height, width] or [N, features].
        train_targets, test_targets: int64 [N], class numbers from 0.
        classes: number of classes.
        fingerprint: identity of the content where the source's name doesn't say it, else "".
    """

    name: str
    train_inputs: np.ndarray
    train_targets: np.ndarray
    test_inputs: np.ndarray
    test_targets: np.ndarray
    classes: int
    fingerprint: str = ""

    def __post_init__(self) -> None:
        for name in ("train_inputs", "train_targets", "test_inputs", "test_targets"):
            view = getattr(self, name).view()  # the caller's own array stays as writeable as it was
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    @property
    def description(self) -> Description:
        """The same facts that `describe` gives without loading."""
        return Description(
            input_shape=tuple(self.train_inputs.shape[1:]),
            classes=self.classes,
            train=len(self.train_inputs),
            test=len(self.test_inputs),
        )
