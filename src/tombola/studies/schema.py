"""The JSON schema of a study file, by which editors complete and check it. It follows from the study's sections.

A study file may be written in more ways than the sections are stored: `extends` supplies what a file leaves out, `null`
removes what it inherits, and some sections have short forms (`Section.written_forms`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tombola.section import SAME_AS, JsonSchema
from tombola.studies.loading import TRAINERS_OWN, preset_names
from tombola.studies.study import ArmSettings, Study
from tombola.studies.transfer import Transfer

DRAFT = "http://json-schema.org/draft-07/schema#"  # which editors know best
RENAMED = {"$defs": "definitions", "prefixItems": "items"}  # pydantic's keywords, and those of draft 07
COMPLETE = (ArmSettings, Transfer)  # they stand in lists, so nothing supplies what they leave out


def study_schema() -> JsonSchema:
    """Return the JSON schema of a study file.

    It refuses unknown fields and values of the wrong type. Names of networks, criteria, arms and so on are those that
    are known here, installed packages included, or `package.module:name`. Tombola itself checks more.
    """
    schema = _draft_07(Study.model_json_schema(ref_template="#/definitions/{model}"))
    definitions, fields = schema["definitions"], schema["properties"]
    for name, definition in definitions.items():
        if name not in [section.__name__ for section in COMPLETE]:
            for form in _forms(definition):
                form.pop("required", None)
    for field in fields.values():
        for reference in _references(field):
            for form in _forms(definitions[reference]):
                form["properties"] = {name: _or_null(each) for name, each in form["properties"].items()}
    fields["arms"] = {"anyOf": [fields["arms"], {"$ref": "#/definitions/ArmSettings"}]} | _about(fields["arms"])
    presets = {"type": "string", "enum": preset_names()}
    base = {"anyOf": [presets, {"type": "string"}], "description": "A preset or a file that this file builds upon."}
    needed = [name for name in schema.pop("required") if name not in TRAINERS_OWN]
    alone = {"required": needed, "anyOf": [{"required": ["trainer"]}, {"required": ["data", "training"]}]}
    return {
        "$schema": DRAFT,
        "title": "Study",
        **schema,
        "properties": {"extends": base, **fields},
        "anyOf": [{"required": ["extends"]}, alone],
    }


def _about(schema: JsonSchema) -> JsonSchema:
    return {key: schema.pop(key) for key in ("description", "default") if key in schema}


def _forms(definition: JsonSchema) -> Iterator[JsonSchema]:
    """Yield the forms of a section that have fields."""
    yield from (form for form in (definition, *definition.get("anyOf", ())) if "properties" in form)


def _references(schema: Any) -> Iterator[str]:
    """Yield the names of the sections that a field may hold."""
    for each in (schema, *schema.get("allOf", ()), *schema.get("anyOf", ())):
        if each.get("$ref", "").startswith("#/definitions/"):
            yield each["$ref"].rpartition("/")[2]


def _or_null(schema: JsonSchema) -> JsonSchema:
    """Let a field of a section be null, which stands for its default."""
    if {"type": "null"} in schema.get("anyOf", ()):
        return schema
    return {"anyOf": [schema, {"type": "null"}]} | _about(schema)


def _draft_07(node: Any, is_schema: bool = True) -> Any:
    """Return a schema of pydantic's in draft 07, without the titles that repeat the fields' names."""
    if isinstance(node, list):
        return [_draft_07(each) for each in node]
    if not isinstance(node, dict):
        return node
    found: dict[str, Any] = {}
    for key, value in node.items():
        if is_schema and key == "title" and not isinstance(value, dict):
            continue
        names = is_schema and key in ("properties", "$defs")  # a map of names, not a schema
        keep = is_schema and key in ("default", "enum", "const")
        renamed = RENAMED[key] if is_schema and key in RENAMED else key
        found[renamed] = value if keep else _draft_07(value, not names)
    if is_schema and SAME_AS in found:
        found["$ref"] = f"#/properties/{found.pop(SAME_AS)}"
    if is_schema and "$ref" in found and len(found) > 1:  # draft 07 ignores what stands beside a reference
        found["allOf"] = [{"$ref": found.pop("$ref")}]
    return found
