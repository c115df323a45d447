"""A Sphinx extension: the tables of a study file's fields and of the commands, which follow from the program.

`{study-fields} SECTION` makes the table of one section. `{command} NAME` describes one command.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from typing import Any

import click
from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from sphinx.application import Sphinx

from tombola.cli import cli
from tombola.studies.schema import study_schema


def form_of(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the form of a section that has fields."""
    if "$ref" in schema:
        return form_of(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "properties" in schema:
        return schema
    for each in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        if found := form_of(each, definitions):
            return found
    return {}


def sections(schema: dict[str, Any]) -> dict[str, str]:
    """Return definition -> the field that first holds it, such as "pruning.back_off", in the order of the file."""
    found: dict[str, str] = {}

    def visit(node: Any, place: str) -> None:
        if isinstance(node, list):
            for each in node:
                visit(each, place)
        if not isinstance(node, dict):
            return
        name = node.get("$ref", "").removeprefix("#/definitions/")
        if name in schema["definitions"] and name not in found:
            found[name] = place
            visit(schema["definitions"][name], place)
        for key, value in node.items():
            if key == "properties":
                for field, each in value.items():
                    visit(each, f"{place}.{field}".strip("."))
            elif key not in ("$ref", "definitions"):
                visit(value, place)

    visit({key: value for key, value in schema.items() if key != "definitions"}, "")
    return found


def values(schema: dict[str, Any], places: dict[str, str]) -> str:
    """Return the values that a field takes, in words; `places` as of `sections`."""
    if "enum" in schema:
        first = schema["enum"][: 3 if len(schema["enum"]) > MOST_NAMES else None]
        return ", ".join(f"`{value}`" for value in first) + (", ..." if first != schema["enum"] else "")
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        place = places.get(name, name)
        return f"fields of [{place}](#{place.replace('.', '')})"
    for key in ("anyOf", "allOf"):
        if key in schema:
            found = (values(each, places) for each in schema[key] if each.get("type") != "null")
            return " or ".join(dict.fromkeys(each for each in found if each))
    if schema.get("type") == "array":
        items = schema.get("items", {})
        kinds = items if isinstance(items, list) else [items]
        return "list of " + " and ".join(values(each, places) for each in kinds)
    if "pattern" in schema:
        return "`package.module:name`" if ":" in schema["pattern"] else "text"
    words = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false"}
    word = words.get(schema.get("type", ""), "map")
    limits = [f"{sign} {schema[key]:,}" for key, sign in LIMITS.items() if schema.get(key, ENDLESS) < ENDLESS]
    return word + (f", {' and '.join(limits)}" if limits else "")


MOST_NAMES = 30  # in a cell; of more, the first ones
ENDLESS = 10**9  # a limit that nobody reaches
LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def default(schema: dict[str, Any]) -> str:
    """Return the default of a field as YAML on one line; "" if it is required or off."""
    if schema.get("default") in (None, "", [], {}):
        return ""
    value = schema["default"]
    if isinstance(value, dict):  # a section: its own table has the defaults
        return f"`{value['name']}`" if "name" in value else ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def cell(text: str) -> str:
    """Return a text that fits into a cell of a table; `<` outside of code would begin HTML."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")
    return "`".join(part if number % 2 else part.replace("<", "&lt;") for number, part in enumerate(parts))


def field_table(fields: dict[str, Any], places: dict[str, str]) -> Iterator[str]:
    """Yield the lines of a Markdown table, one row for each field."""
    yield from ("| field | values | default | meaning |", "|---|---|---|---|")
    for name, schema in fields.items():
        meaning = cell(schema.get("description", ""))
        meaning = meaning[:1].upper() + meaning[1:]
        yield f"| `{name}` | {cell(values(schema, places))} | {default(schema)} | {meaning} |"


class Generated(Directive):
    """A directive whose Markdown is computed."""

    has_content = False

    def lines(self) -> Iterator[str]:
        """Yield the Markdown."""
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        """Parse the Markdown in the place of the directive."""
        container = nodes.section()
        container.document = self.state.document
        self.state.nested_parse(StringList(list(self.lines()), "generated"), self.content_offset, container)
        return container.children


class StudyFields(Generated):
    """The fields of one section of a study file, such as `pruning.back_off`; without a name, those at the top."""

    optional_arguments = 1

    def lines(self) -> Iterator[str]:
        """Yield the table."""
        schema = study_schema()
        places = sections(schema)
        form = schema
        if self.arguments:
            (name,) = (name for name, place in places.items() if place == self.arguments[0])
            form = form_of(schema["definitions"][name], schema["definitions"])
        if self.arguments and (about := form.get("description")):
            yield from (cell(about), "")
        yield from field_table(form["properties"], places)


class CommandLine(Generated):
    """A command with its arguments and options, as `--help` tells them."""

    required_arguments = 1
    final_argument_whitespace = True

    def lines(self) -> Iterator[str]:
        """Yield the usage, the help, and a table of the options."""
        context: click.Context = click.Context(cli, info_name="tombola", **cli.context_settings)
        command: click.Command | None = cli
        words = self.arguments[0].split()
        group: click.Group = cli
        for name in words:
            command = group.get_command(context, name)
            assert command is not None, f"tombola has no command {self.arguments[0]!r}"
            context = click.Context(command, context, name)
            group = command if isinstance(command, click.Group) else cli
        assert command is not None
        yield from ("```text", " ".join(["tombola", *words, *command.collect_usage_pieces(context)]), "```", "")
        yield from (*cleandoc(command.help or "").splitlines(), "")
        options = [each for each in command.params if isinstance(each, click.Option)]
        if options:
            yield from ("| option | what it does |", "|---|---|")
        for option in options:
            yield f"| `{', '.join(option.opts)}` | {cell(option.help or '')} |"


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("study-fields", StudyFields)
    app.add_directive("command", CommandLine)
    return {"parallel_read_safe": True}
