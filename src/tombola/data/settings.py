"""The `data` section of a study file."""

from __future__ import annotations

from pydantic import Field, model_validator

from tombola.section import MOST_ITERATIONS, Section


class DataSettings(Section):
    """Which data set, and how much of its training set is set aside for validation.

    Args:
        source: a key of `SOURCES`, such as "mnist", "cifar10" or "npz". That it is one is checked where it is looked
            up, by `describe` and `load`.
        validation: examples drawn at random from the training set.
        path: the user's own archive; for "npz" alone, and required there.
    """

    source: str
    validation: int = Field(ge=1, le=MOST_ITERATIONS)
    path: str | None = None

    @model_validator(mode="after")
    def _check(self) -> DataSettings:
        if self.source == "npz" and not self.path:
            raise ValueError("source: npz needs path, the .npz file that holds the arrays")
        if self.source != "npz" and self.path is not None:
            raise ValueError(f"path belongs to source: npz alone, and source is {self.source!r}; leave path out")
        return self
