"""The `data` section of a study file."""

from __future__ import annotations

import json
from numbers import Integral, Real
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tombola.data.normalising import Normalise
from tombola.registry import OWN_NAME, named
from tombola.section import MOST_ITERATIONS, JsonSchema, Section

Own = Field(pattern=OWN_NAME)

MOST_READERS = 256  # processes
OURS = ("mnist", "fashion-mnist", "mnist-permuted", "cifar10", "cifar100", "digits", "npz")  # the keys of `SOURCES`


class DataSettings(Section):
    """Which data set, and how much of its training set is set aside for validation.

    Args:
        source: a key of `SOURCES`, such as "mnist", "cifar10" or "npz"; or `package.module:function` of the user's own,
            see `tombola.data.functions`. That it is one is checked where it is looked up, by `describe` and `load`.
        validation: examples drawn at random from the training set: how many, or their share if below 1 (0.1). With 0,
            a network trains on all, and early stop is the end of training. Or
            `package.module:function`, called as `function(inputs, targets, generator)`, which returns the numbers of
            the training examples to set aside, or a mask of them; as many in each trial.
        arguments: of the user's function.
        stream: read the examples of the user's function when they are needed, instead of holding all in memory.
        stream_workers: processes of each run that read ahead; 0: the run itself reads, as in PyTorch. It changes no
            result.
        path: the user's own archive; for "npz" alone, and required there.
        normalise: which inputs share a mean and a standard deviation: "channel", those of an image's channel, or all
            values of a feature vector; "feature", those at one place of the examples (of a sequence, one feature over
            all steps); "none", inputs stay as they are, uint8 divided by 255. By default images are normalised by
            channel, feature vectors by feature, and sequences not at all. Several inputs stay as they are: scale them
            in your function.
        kind: the content of an npz array [N, a, b]: "image", pictures without channels, or "sequence", a steps of b
            features.
    """

    source: str = Field(json_schema_extra=named(OURS, "data source"))
    validation: (
        Annotated[int, Field(ge=0, le=MOST_ITERATIONS)] | Annotated[float, Field(gt=0, lt=1)] | Annotated[str, Own]
    )
    arguments: dict[str, Any] = Field(default_factory=dict)
    stream: bool = False
    stream_workers: int = Field(default=0, ge=0, le=MOST_READERS)
    path: str | None = None
    normalise: Normalise = "default"
    kind: Literal["image", "sequence"] = "image"

    @classmethod
    def written_forms(cls, fields: JsonSchema) -> list[JsonSchema]:
        """Accept a plain string for the source; the size of the split is then inherited."""
        return [fields["properties"]["source"], fields]

    @field_validator("validation", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if isinstance(value, Real) and not isinstance(value, Integral) and value == 1:
            raise ValueError("1.0 is neither a share below 1 nor a number of examples; write 0.1 or 1000, for instance")
        return value

    @model_validator(mode="after")
    def _check(self) -> DataSettings:
        if self.source == "npz" and not self.path:
            raise ValueError("source: npz needs path, the .npz file of the arrays")
        if self.source != "npz" and self.path is not None:
            raise ValueError(f"path needs source: npz, but source is {self.source!r}; remove path")
        if self.arguments and self.source in OURS:
            raise ValueError(
                f"arguments need your own function as source, but source is {self.source!r}; remove arguments"
            )
        if self.stream and self.source in OURS:
            raise ValueError(
                f"stream needs your own function as source, but source is {self.source!r}, which fits into memory; "
                "remove stream"
            )
        if self.stream and isinstance(self.validation, str):
            raise ValueError(
                f"validation: {self.validation} gets all inputs in memory, and stream is set; give validation a "
                "number or a share, or remove stream"
            )
        if self.stream_workers and not self.stream:
            raise ValueError("stream_workers needs stream: true; set that, or remove stream_workers")
        try:
            json.dumps(self.arguments, allow_nan=False)
        except (TypeError, ValueError):
            raise ValueError("arguments may contain only numbers, texts, lists and maps") from None
        if self.source != "npz" and self.kind != "image":
            raise ValueError(f"kind needs source: npz, but source is {self.source!r}; remove kind")
        return self
