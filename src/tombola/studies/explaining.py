"""What is wrong with a study, said in a line for each fault: where, which field, its value, what it must be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ValidationError

from tombola.errors import nearest, shown

Place = tuple[str | int, ...]  # the field names and list positions that lead to a value

# What is said in place of pydantic's own words for a kind of error; {} is what it knows of the case.
WORDS = {
    "too_short": "must name at least {min_length}",
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
    lines = list(dict.fromkeys(_line(model, details, where) for details in telling[:MOST_FAULTS]))
    if len(telling) > MOST_FAULTS:
        lines.append(f"and {len(telling) - MOST_FAULTS:,} more errors")
    return "\n".join(lines)


def _line(model: type[BaseModel], details: Any, where: Callable[[Place], str]) -> str:
    place: Place = tuple(details["loc"])
    kind, value = details["type"], details.get("input")
    start = where(place)
    prefix = f"{start}: " if start else ""
    field_name = ".".join(str(part) for part in place)
    if place == ("extends",):
        return f"{prefix}extends belongs in a study file; here, give the name of that study as the first argument"
    if kind == "extra_forbidden":
        return f"{prefix}unknown field {shown(field_name, 100)}{nearest(str(place[-1]), fields_of(model, place[:-1]))}"
    if kind == "missing":
        return f"{prefix}{field_name} is missing"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    message = message[:1].lower() + message[1:]
    if kind == "less_than" and field_name.startswith(FRACTIONS):
        message += "; it is a fraction, 0.5 for 50 %"
    if kind in WORDS:
        message = WORDS[kind].format(**details.get("ctx", {}))
    if kind == "model_type" and place in (("network",), ("data",)):
        message += ", or a name"
    if callable(value):
        message = "must be a name that other processes can import, 'package.module:function'"
    if kind == "value_error" and isinstance(value, dict):
        return f"{prefix}{field_name}: {message}" if field_name else f"{prefix}{message}"
    return f"{prefix}{field_name}={shown(value)}: {message}"


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
