"""The `task` field of a study, and the table of tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field, ValidationError, model_validator

from tombola.errors import InputError, nearest
from tombola.registry import code_fingerprint, named, resolve
from tombola.section import JsonSchema, Section
from tombola.tasks.classification import Classification
from tombola.tasks.language_model import LanguageModel
from tombola.tasks.multilabel import Multilabel
from tombola.tasks.regression import Regression
from tombola.tasks.segmentation import Segmentation
from tombola.tasks.task import Task

TASKS: dict[str, type[Task]] = {
    "classification": Classification,
    "multilabel": Multilabel,
    "regression": Regression,
    "segmentation": Segmentation,
    "language-model": LanguageModel,
}


class TaskSettings(Section):
    """The `task` field of a study: a name, or `{name: ..., option: ...}`.

    Args:
        name: one of TASKS, or `package.module:Class` of a user's own (a function that returns a `Task` also works).
        options: of that task, as far as they differ from its defaults.
    """

    name: str = Field(default="classification", json_schema_extra=named(TASKS, "task"))
    options: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def written_forms(cls, fields: JsonSchema) -> list[JsonSchema]:
        """Accept a plain string for the name, and options beside it: those of the named task, if it is one of ours."""
        free = fields | {"additionalProperties": True, "allOf": []}
        for name, task in TASKS.items():
            options = task.model_json_schema()["properties"]
            known = {"properties": fields["properties"] | options, "additionalProperties": False}
            free["allOf"].append({"if": {"properties": {"name": {"const": name}}, "required": ["name"]}, "then": known})
        return [fields["properties"]["name"], free]

    @model_validator(mode="before")
    @classmethod
    def _flat(cls, value: Any) -> Any:
        """Accept `regression` and `{name: regression, unit: kW}`; options stand beside the name."""
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict):
            return value
        options = {name: option for name, option in value.items() if name not in cls.model_fields}
        given = value.get("options", {})
        if not isinstance(given, dict):
            raise ValueError("options must be a map, such as {unit: kW}")
        return {"options": given | options} | ({"name": value["name"]} if "name" in value else {})

    @model_validator(mode="after")
    def _options_fit(self) -> TaskSettings:
        """Check the options of our own tasks, and leave out defaults: identity must not depend on them."""
        if self.name not in TASKS:
            return self  # looked up when the study is planned: loading a study imports no code
        try:
            options = self._made(TASKS[self.name]).model_dump(mode="json", exclude_defaults=True)
        except InputError as error:
            raise ValueError(str(error)) from None
        object.__setattr__(self, "options", options)
        return self

    def make(self) -> Task:
        """Return the task.

        Raises:
            InputError: the task does not exist, or an option does not fit.
        """
        return self._made(resolve(self.name, TASKS, "task"))

    def code(self) -> str:
        """Return a fingerprint of a user's own task, "" for ours."""
        return code_fingerprint(self.name, TASKS, "task")

    def deciding(self) -> TaskSettings:
        """Return the settings without those that change no result, such as the metric that is shown."""
        made = resolve(self.name, TASKS, "task")
        shown = vars(made).get("only_shown", ()) if isinstance(made, type) else ()
        return TaskSettings(name=self.name, options={k: v for k, v in self.options.items() if k not in shown})

    def _made(self, function: Callable[..., Any]) -> Task:
        try:
            task = function(**self.options)
        except ValidationError as error:
            details = error.errors()[0]
            field = ".".join(str(part) for part in details["loc"])
            if details["type"] == "extra_forbidden":
                known = getattr(function, "model_fields", {})
                raise InputError(f"task {self.name!r} has no option {field!r}{nearest(field, known)}") from None
            message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
            raise InputError(f"task.{field}={details['input']!r}: {message}") from None
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"task {self.name!r} can't be built with {self.options}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(task, Task):
            raise InputError(f"task {self.name!r} returned a {type(task).__name__}; it must be a tombola.tasks.Task")
        if not getattr(task, "metrics", ()) or task.primary.name not in [metric.name for metric in task.metrics]:
            raise InputError(f"task {self.name!r} must have metrics, including the deciding one")
        names = [metric.name for metric in task.metrics]
        for name in names:  # each becomes a column, such as early_stop_test_<name>, beside those of the loss
            if not name.strip() or "/" in name or not name.isprintable() or name == "loss" or names.count(name) > 1:
                raise InputError(
                    f"task {self.name!r} has a metric named {name!r}; each needs a name of its own, without / and "
                    "other than 'loss'"
                )
        return task


CLASSIFICATION = Classification()
