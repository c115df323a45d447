"""The one reader of YAML that strangers may have written: studies, claims, values on the command line.

A file of nine lines can stand for 10^9 values, by aliases of aliases. So the text is looked through first, without
building anything, and refused where it is too long, too deep, or would unfold to too much. Tags, which name types or
code, have no meaning here and are refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    Event,
    NodeEvent,
    ScalarEvent,
)

from tombola.errors import InputError
from tombola.paths import read_text

MAX_BYTES = 256 * 1024  # of a file; the longest preset has 1,000
MAX_NODES = 10_000  # values, keys and lists of a file, each alias counted as what it stands for
MAX_DEPTH = 40  # lists and maps inside each other
MAX_DIGITS = 400  # of a number: a float has 309 before its point


def read_yaml_file(path: Path, kind: Literal["rt", "safe"] = "rt") -> Any:
    """Return what a YAML file holds; see `read_yaml`.

    Raises:
        InputError: it can't be read, is not a regular file, or is refused.
    """
    return read_yaml(read_text(path, MAX_BYTES), str(path), kind)


def read_yaml(text: str, source: str, kind: Literal["rt", "safe"] = "rt") -> Any:
    """Return what a YAML text holds: maps, lists, texts, numbers, true, false and null.

    Args:
        text: one document.
        source: what the message calls it: a file, or an option.
        kind: "rt" gives ruamel's maps and lists, which know their lines; "safe" gives plain ones.

    Raises:
        InputError: it is not YAML, or is longer, deeper or larger than any study. The message names the line.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{source}: has {len(text):,} characters; the limit is {MAX_BYTES:,}")
    try:
        _check(YAML(typ="rt", pure=True).parse(text), source)
        return YAML(typ=kind, pure=True).load(text)
    except InputError:
        raise
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if problem.startswith("found character '\\t'"):
            problem = "a tab; indent with spaces"
        raise InputError(f"{source}{line}: not valid YAML: {problem}") from error
    except Exception as error:  # a date like 2001-99-99, a number that is none, a key that can't be one
        raise InputError(f"{source}: not valid YAML: {' '.join(str(error).split()) or type(error).__name__}") from error


def _check(events: Iterable[Event], source: str) -> None:
    """Refuse a text whose values would be too many or too deep, before any of them is built."""
    sizes = [0]  # nodes of each collection that is open, below the document's own
    opened: list[str | None] = []  # their anchors
    anchors: dict[str, int | None] = {}  # nodes that an anchor stands for; None while it is open
    for event in events:
        where = f"{source}, line {event.start_mark.line + 1}" if event.start_mark else source
        if isinstance(event, AliasEvent):
            size = anchors.get(event.anchor, 1)
            if size is None:
                raise InputError(f"{where}: *{event.anchor} contains itself")
            sizes[-1] += size
        elif isinstance(event, NodeEvent):
            _check_node(event, where)
            if isinstance(event, CollectionStartEvent):
                if len(opened) >= MAX_DEPTH:
                    raise InputError(f"{where}: more than {MAX_DEPTH} nested lists or maps")
                opened.append(event.anchor)
                sizes.append(1)
                if event.anchor:
                    anchors[event.anchor] = None
            else:
                sizes[-1] += 1
                if event.anchor:
                    anchors[event.anchor] = 1
        elif isinstance(event, CollectionEndEvent):
            size, anchor = sizes.pop(), opened.pop()
            sizes[-1] += size
            if anchor:
                anchors[anchor] = size
        if sum(sizes) > MAX_NODES:
            raise InputError(f"{where}: more than {MAX_NODES:,} values; set rates and densities by rate or target")


def _check_node(event: NodeEvent, where: str) -> None:
    tag = getattr(event, "tag", None)
    if tag is not None:
        raise InputError(f"{where}: the tag {str(tag)[:60]!r} is not supported; remove it")
    if isinstance(event, ScalarEvent) and not event.style:  # in quotes it is a text
        number = event.value.replace("_", "").lstrip("+-")
        if len(number) > MAX_DIGITS and number[0].isdigit() and number.replace(".", "").isalnum():
            raise InputError(
                f"{where}: {event.value[:20]}... is a number of {len(number):,} digits; no field accepts it"
            )
