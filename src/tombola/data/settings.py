"""The `data` section of a study file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tombola.data.normalising import Normalise
from tombola.section import MOST_ITERATIONS, Section


class DataSettings(Section):
    """Which data set, and how much of its training set is set aside for validation.

    Args:
        source: a key of `SOURCES`, such as "mnist", "cifar10" or "npz". That it is one is checked where it is looked
            up, by `describe` and `load`.
        validation: examples drawn at random from the training set.
        path: the user's own archive; for "npz" alone, and required there.
        normalise: which inputs share a mean and a standard deviation: "channel", those of an image's channel, or all
            values of a feature vector; "feature", those at one place of the examples (of a sequence, one feature over
            all steps); "none", inputs stay as they are, uint8 divided by 255. By default images are normalised by
            channel, feature vectors by feature, and sequences not at all.
        kind: what an npz array [N, a, b] holds: "image", pictures without channels, or "sequence", a steps of b
            features.
    """

    source: str
    validation: int = Field(ge=1, le=MOST_ITERATIONS)
    path: str | None = None
    normalise: Normalise = "default"
    kind: Literal["image", "sequence"] = "image"

    @model_validator(mode="after")
    def _check(self) -> DataSettings:
        if self.source == "npz" and not self.path:
            raise ValueError("source: npz needs path, the .npz file that holds the arrays")
        if self.source != "npz" and self.path is not None:
            raise ValueError(f"path belongs to source: npz alone, and source is {self.source!r}; leave path out")
        if self.source != "npz" and self.kind != "image":
            raise ValueError(f"kind belongs to source: npz alone, and source is {self.source!r}; leave kind out")
        return self
