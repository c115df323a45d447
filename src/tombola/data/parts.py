"""What training sees of a data set: three parts, each one tensor on the device."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Part:
    """Examples that are used together.

    Args:
        inputs: float32 [N, ...], normalised, on the training device.
        targets: int64 [N], class numbers.
    """

    inputs: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Splits:
    """A data set split for one trial.

    Args:
        train, validation, test: the parts. Validation is drawn from the training set; selection looks at it alone.
        mean, std: per-channel constants of the normalisation, measured on `train`, in units of the raw data / scale.
        classes: number of classes.
    """

    train: Part
    validation: Part
    test: Part
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example."""
        return tuple(self.train.inputs.shape[1:])
