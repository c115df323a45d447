"""Exports a ticket: to a smaller network, to a small file, or to another runtime.

>>> import tombola
>>> ticket = tombola.Ticket.load("ticket.safetensors")              # doctest: +SKIP
>>> ticket.export("packed", "ticket.tombola", bits=4)               # doctest: +SKIP
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tombola.errors import InputError, nearest, shown

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket


@dataclass(frozen=True)
class Format:
    """A format that a ticket can be exported to.

    Args:
        home: "module:function" of `function(ticket, path, **options)`; imported when it is first used.
        suffix: of its files.
        summary: one line for lists of formats.
    """

    home: str
    suffix: str
    summary: str

    def function(self) -> Callable[..., None]:
        """Return the function that writes the format."""
        module, _, name = self.home.partition(":")
        found: Callable[..., None] = getattr(importlib.import_module(module), name)
        return found


FORMATS: dict[str, Format] = {
    "compact": Format(
        "tombola.export.compact:export_compact", ".compact.safetensors", "a smaller network without dead units"
    ),
    "packed": Format("tombola.export.packed.ticket:export_packed", ".tombola", "one small file for storage"),
    "c": Format("tombola.export.c:export_c", ".c", "one C99 file and its header, without dependencies"),
    "pytorch": Format(
        "tombola.export.sparse_torch:export_pytorch", ".sparse.safetensors", "a fast sparse module for PyTorch programs"
    ),
    "onnx": Format("tombola.export.onnx:export_onnx", ".onnx", "for ONNX Runtime and others"),
}


def export(ticket: Ticket, to: str, path: str | Path | None = None, **options: Any) -> Path:
    """Write a ticket in a format and return the file's path.

    Args:
        ticket: what to export.
        to: a name in FORMATS.
        path: of the file; by default in this folder, named after study, arm, trial and level.
        options: of the format.

    Raises:
        InputError: the format or an option is unknown, the format can't hold the ticket, or its mask leaves no path
            from an input to an output.
        StoreError: the file can't be written.
    """
    if to not in FORMATS:
        raise InputError(f"unknown format {to!r}{nearest(to, FORMATS)}")
    from tombola.export.paths import require_path

    function = FORMATS[to].function()
    known = dict(list(inspect.signature(function).parameters.items())[2:])
    for name, value in options.items():
        if name not in known:
            raise InputError(f"export to {to} has no option {name!r}{nearest(name, known)}")
        _require_type(name, value, known[name].default)
    require_path(ticket)
    target = Path(path) if path is not None else default_path(ticket, to)
    function(ticket, target, **options)
    return target


KINDS = {int: "a whole number", str: "a word"}


def _require_type(name: str, value: Any, default: Any) -> None:
    """Refuse an option of another type than its default's."""
    if type(default) in KINDS and type(value) is not type(default):
        raise InputError(f"{name}={value!r} is not {KINDS[type(default)]}: write one, such as {name}={default}")


def default_path(ticket: Ticket, to: str) -> Path:
    """Return the name of a ticket's file in the present folder, wherever a stranger's ticket wants it to go.

    Raises:
        InputError: the ticket's trial or level is not a whole number.
    """
    words = [re.sub(r"[^\w-]", "_", str(ticket.origin.get(name, "ticket"))) for name in ("study", "arm")]
    words += [f"trial-{_number(ticket, 'trial')}", f"level-{_number(ticket, 'level'):02}"]
    return Path("-".join(words) + FORMATS[to].suffix)


def _number(ticket: Ticket, name: str) -> int:
    found = ticket.origin.get(name, 0)
    if type(found) is not int:
        raise InputError(f"the ticket's {name} is {shown(found)}, not a whole number: give the path of the file")
    return found
