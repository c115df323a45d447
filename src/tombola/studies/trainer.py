"""The `trainer` section of a study: a user's own function trains the runs, on data that it loads."""

from __future__ import annotations

import re
from typing import Any

from pydantic import Field, model_validator

from tombola.section import JsonSchema, Section
from tombola.tasks import Direction, Metric
from tombola.tasks.metric import direction_of, unit_of

LOOP = "loop "  # begins the name of a trainer that is the body of a loop over `tombola.rounds`
PARTS = ("val", "test", "train")  # a reported name may begin with one of these and "_"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,59}")


class Trainer(Section):
    """The function that trains the runs of a study, instead of the sections `data` and `training`.

    Args:
        name: `package.module:function`; tombola calls it with one run, and it trains `run.model`.
        arguments: keyword arguments of the function. They are part of every run's identity.
        metric: the deciding metric, measured on examples that training never sees.
        better: "higher" or "lower". Names such as accuracy or loss say it themselves; give it for all others.
        unit: of displayed values. "%" means that the function reports shares from 0 to 1; known for accuracy and error.
        inputs: the shape of one example, or `package.module:function` returning a batch. Not needed where the model
            has an `example_input_array` or `dummy_inputs`, or begins with a linear layer.
        evaluate: `package.module:function`, called with a model; it returns metrics by the names that are reported.
            `connectivity` needs it.
    """

    name: str = Field(min_length=1, max_length=200)
    arguments: dict[str, Any] = Field(default_factory=dict)
    metric: str = "accuracy"
    better: Direction = "higher"
    unit: str = ""
    inputs: tuple[int, ...] | str | None = None
    evaluate: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: Any) -> Any:
        """Accept a plain string for the name, and fill in what the metric's name says."""
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict):
            return value
        metric = str(value.get("metric") or "accuracy")
        better = value.get("better") or direction_of(metric)
        if better is None and NAME.fullmatch(metric):
            raise ValueError(f"better: {metric!r} does not say whether higher or lower is better; set better to one")
        given = {field: each for field, each in value.items() if each is not None}
        return {"better": better or "higher", "unit": unit_of(metric), **given}

    @classmethod
    def written_forms(cls, fields: JsonSchema) -> list[JsonSchema]:
        """Accept a plain string for the name."""
        return [fields["properties"]["name"], fields]

    @model_validator(mode="after")
    def _metric_fits(self) -> Trainer:
        part, _, rest = self.metric.partition("_")
        if part in PARTS and rest:
            raise ValueError(
                f"metric: {self.metric!r} names a part of the data; write metric: {rest}, and report {rest}, measured "
                f"on test examples, and val_{rest}, measured on validation examples"
            )
        if not NAME.fullmatch(self.metric):
            raise ValueError(f"metric: {self.metric!r} must be a name of letters, digits and underscores")
        return self

    @property
    def primary(self) -> Metric:
        """The deciding metric."""
        return Metric(self.metric, self.better, self.unit)

    @property
    def is_loop(self) -> bool:
        """Whether a script of the user's own runs the trainings, in a loop over `tombola.rounds`."""
        return self.name.startswith(LOOP)
