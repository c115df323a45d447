"""What every section of a study file has in common: validated, frozen, no unknown fields."""

from __future__ import annotations

import inspect
import re
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationInfo, field_validator
from pydantic_core import CoreSchema

JsonSchema = dict[str, Any]
SAME_AS = "x-same-as"  # in a JSON schema: written as this section of a study

# The largest values that fields take: more than anyone needs, and little enough to plan with.
MOST_ARMS = 200
MOST_ITERATIONS = 10**9  # also epochs, examples and everything else that is counted in them
MOST_LEVELS = 999  # rounds; the numbers of random draws leave room for 1,000 levels
MOST_MILESTONES = 300
MOST_POINTS = 10_000
MOST_REPEATS = 10_000  # trials, repetitions in a trial, copies
MOST_REWINDS = 100
LARGEST_SEED = 2**63 - 1


def as_name(value: Any) -> Any:
    """Return the name that a number stands for: layers of `nn.Sequential` have numbers as names. Others stay."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_FIELD = re.compile(r"    (\w+(?:, \w+)*): (.*)")  # of a docstring: "iterations, epochs: the budget"


def first_sentence(thing: Any) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].split())


def field_texts(section: type[BaseModel]) -> dict[str, str]:
    """Return field -> what the section's docstring says of it under `Args:`."""
    lines = (inspect.getdoc(section) or "").partition("\nArgs:\n")[2].splitlines()
    found: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        if line.strip() and not line.startswith("    "):
            break  # the next part of the docstring
        if field := _FIELD.fullmatch(line):
            names = field[1].split(", ")
            found |= dict.fromkeys(names, field[2].strip())
        else:
            found |= {name: f"{found[name]} {line.strip()}".strip() for name in names}
    return found


def or_number(schema: JsonSchema) -> None:
    """Let a text, or each text of a list, be a whole number: see `as_name`."""
    texts = schema.get("items", schema)
    texts["anyOf"] = [*texts.pop("anyOf", [{"type": "string"}]), {"type": "integer"}]
    texts.pop("type", None)


class Section(BaseModel):
    """A frozen group of settings that knows which of them decide an outcome."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `trials: true`, which would else pass for 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            section = cls._is_section(info.field_name or "")
            raise ValueError("this field does not take true or false" + ("; {} takes the defaults" if section else ""))
        return value

    @classmethod
    def _is_section(cls, name: str) -> bool:
        annotation = cls.model_fields[name].annotation
        kinds = (annotation, *get_args(annotation))
        return any(isinstance(kind, type) and issubclass(kind, Section) for kind in kinds)

    def identity(self) -> dict[str, Any]:
        """Return the settings that differ from their defaults, as JSON values.

        A setting that is added later, with a default that changes nothing, thus leaves old identities as they were -
        and a default must never change its meaning. A test freezes some identities.
        """
        return self.model_dump(mode="json", exclude_defaults=True)

    @classmethod
    def written_forms(cls, fields: JsonSchema) -> list[JsonSchema]:
        """Return the JSON schemas of all forms in which a person may write this section.

        Args:
            fields: the schema of the plain form, one property for each field.
        """
        return [fields]

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        """Describe the section for editors. `tombola.studies.schema` makes a study file's schema of it."""
        found = handler(core_schema)
        mine = handler.resolve_ref_schema(found)
        texts = field_texts(cls)
        for name, field in cls.model_fields.items():
            if (schema := mine["properties"].get(field.alias or name)) is not None and name in texts:
                schema["description"] = texts[name]
        mine["description"] = first_sentence(cls)
        forms = cls.written_forms(dict(mine))
        mine.clear()
        mine.update(forms[0] if len(forms) == 1 else {"anyOf": forms})
        return found
