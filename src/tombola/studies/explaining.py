"""What is wrong with a study, said in a line for each fault: where, which field, its value, what it must be."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from tombola.errors import nearest, shown
from tombola.registry import OWN_NAME

Place = tuple[str | int, ...]  # the field names and list positions that lead to a value

# What is said in place of pydantic's own words for a kind of error; {} is what it knows of the case.
WORDS = {
    "too_short": "needs {min_length} or more entries",
    "tuple_type": "must be a list, such as [a, b]",
    "dict_type": "must be a map, such as {{a: 1}}",
    "model_type": "must be a section of `field: value` lines",
    "string_type": "must be a text",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": "must be an integer",
    "int_parsing": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "literal_error": "must be {expected}",
}
OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
PERCENTAGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?) ?%")

MOST_FAULTS = 20  # that are named; a file may have thousands

FRACTIONS = ("pruning.densities", "pruning.target")


def explain(error: ValidationError, model: type[BaseModel], where: Callable[[Place], str] = lambda place: "") -> str:
    """Return the message for settings that are not a valid `model`.

    Args:
        error: what pydantic found.
        model: what the settings should have been.
        where: gives the file and line, or the like, in which a field was set; "" if unknown.
    """
    found = error.errors()
    # A list with a bad entry also counts as too short, which is nothing to tell.
    lists = {details["loc"][:n] for details in found for n in range(len(details["loc"]))}
    telling = [details for details in found if details["type"] != "too_short" or details["loc"] not in lists]
    telling = _one_per_union(model, telling)
    lines = list(dict.fromkeys(_line(model, details, where) for details in telling[:MOST_FAULTS]))
    if len(telling) > MOST_FAULTS:
        lines.append(f"and {len(telling) - MOST_FAULTS:,} more errors")
    return "\n".join(lines)


def _one_per_union(model: type[BaseModel], found: Sequence[Any]) -> list[Any]:
    """Return faults with a single one for each field that takes one of several kinds of value.

    Pydantic tells a fault for each kind. Those of range are nearest to the value: it is of the right kind.
    """
    told: list[Any] = []
    groups: dict[Place, list[Any]] = {}
    for details in found:
        place: Place = tuple(details["loc"][:-1])
        if _takes_kinds(model, place):
            if place not in groups:
                groups[place] = []
                told.append(groups[place])
            groups[place].append(details)
        else:
            told.append([details])
    return [each[0] if len(each) == 1 else _joined(each) for each in told]


def _joined(faults: Sequence[Any]) -> Any:
    """Return one fault in place of those of all kinds that a field takes."""
    near = [details for details in faults if details["type"] in OF_RANGE]
    texts = list(dict.fromkeys(_message(details).removeprefix("must be ") for details in near or faults))
    said = texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}"
    return {"loc": tuple(faults[0]["loc"][:-1]), "type": "kinds", "msg": f"must be {said}", "input": faults[0]["input"]}


def _takes_kinds(model: type[BaseModel], place: Place) -> bool:
    """Return whether the field at `place` takes plain values of several kinds."""
    if not place or fields_of(model, place):
        return False
    section: Any = model
    for part in place[:-1]:
        fields = getattr(section, "model_fields", {})
        candidates = [fields[part].annotation, *get_args(fields[part].annotation)] if part in fields else []
        section = next((each for each in candidates if isinstance(each, type) and issubclass(each, BaseModel)), None)
    field = getattr(section, "model_fields", {}).get(place[-1])
    return field is not None and get_origin(field.annotation) in (Union, UnionType)


def _message(details: Any) -> str:
    """Return what a value must be."""
    if details["type"] in WORDS:
        return WORDS[details["type"]].format(**details.get("ctx", {}))
    if details.get("ctx", {}).get("pattern") == OWN_NAME:
        return "must be package.module:function"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return str(message[:1].lower() + message[1:])


def _line(model: type[BaseModel], details: Any, where: Callable[[Place], str]) -> str:
    place: Place = tuple(details["loc"])
    kind, value = details["type"], details.get("input")
    start = where(place)
    prefix = f"{start}: " if start else ""
    field_name = ".".join(str(part) for part in place)
    if place == ("extends",):
        return f"{prefix}extends belongs in a study file; here, give the name of that study as the first argument"
    if kind == "extra_forbidden":
        return f"{prefix}unknown field {shown(field_name, 100)}{_known(model, place)}"
    if kind == "missing":
        return f"{prefix}{field_name} is missing"
    message = _message(details)
    if kind == "less_than" and field_name.startswith(FRACTIONS):
        message += "; it is a fraction, 0.5 for 50 %"
    if isinstance(value, str) and (percentage := PERCENTAGE.fullmatch(value)):
        message += f"; write {value} as {float(percentage[1]) / 100:g}"
    if kind == "model_type" and place in (("network",), ("data",)):
        message += ", or a name"
    if callable(value):
        message = "must be a name that other processes can import, 'package.module:function'"
    if kind == "value_error" and isinstance(value, dict):
        return f"{prefix}{field_name}: {message}" if field_name else f"{prefix}{message}"
    return f"{prefix}{field_name}={shown(value)}: {message}"


def _known(model: type[BaseModel], place: Place) -> str:
    """Return which field may be meant: that of this name in a section below, or one of a similar name."""
    here, name = fields_of(model, place[:-1]), str(place[-1])
    below = [(*place[:-1], section, name) for section in here if name in fields_of(model, (*place[:-1], section))]
    if below and name not in here:
        return "; did you mean " + " or ".join(repr(".".join(map(str, each))) for each in below) + "?"
    return nearest(name, here)


def fields_of(model: type[BaseModel], place: Place) -> list[str]:
    """Return the field names that the section at `place` knows."""
    section: Any = model
    for part in place:
        if isinstance(part, int):
            continue
        annotation = section.model_fields[part].annotation if part in section.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        found = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not found:
            return []
        section = found[0]
    return [*section.model_fields, *getattr(section, "OTHER_NAMES", ()), *(["extends"] if not place else [])]
