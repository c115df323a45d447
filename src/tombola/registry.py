"""Resolves the names in a study: short names of tombola and of packages, and `package.module:name` of a user.

An installed package adds a short name by an entry point in its pyproject.toml:

    [project.entry-points."tombola.criteria"]
    my-criterion = "my_package.criteria:my_criterion"

`GROUPS` lists the groups. A package can't replace tombola's own names.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.machinery import PathFinder
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

from tombola.errors import InputError, nearest
from tombola.user_code.closure import Closure
from tombola.user_code.imported import closure_as_imported
from tombola.user_code.modules import in_stdlib, spec_of
from tombola.user_code.places import add_user_folders, searching, user_folders, user_path

__all__ = [
    "GROUPS",
    "IMPORTING",
    "NotWhileReading",
    "add_user_folders",
    "code_fingerprint",
    "name_schema",
    "named",
    "names",
    "reading",
    "resolve",
    "user_folders",
    "user_path",
]

# What is looked for -> the group of entry points that adds to it.
GROUPS = {
    "arm": "tombola.arms",
    "augmentation": "tombola.augmentations",
    "criterion": "tombola.criteria",
    "data source": "tombola.data",
    "engine": "tombola.engines",
    "method": "tombola.criteria",
    "network": "tombola.networks",
    "optimizer": "tombola.optimizers",
    "schedule": "tombola.schedules",
    "task": "tombola.tasks",
    "work kind": "tombola.work",
}


OWN_NAME = r"^[^:]+:[^:]+$"  # package.module:function


class NotWhileReading(InputError):
    """A study names a user's own function, but tombola only reads its folder.

    Args:
        message: for the user.
        named: what the study names, such as "network 'my_nets:make'".
    """

    def __init__(self, message: str, named: str = "the user's own code"):
        super().__init__(message)
        self.named = named


IMPORTING: ContextVar[str] = ContextVar("IMPORTING", default="")  # the user's module that is being imported now
_READING: ContextVar[str] = ContextVar("_READING", default="")  # the folder that is only being read
_REMEMBERED: dict[tuple[str, str], tuple[list[tuple[Any, ...]], Closure]] = {}  # planning asks once a run

_log = logging.getLogger(__name__)


@contextmanager
def reading(what: str = "a results folder") -> Iterator[None]:
    """Refuse, within the `with` block, to import anything that a study names: reading runs no code.

    Args:
        what: the thing to read, for the message.
    """
    before = _READING.set(what)
    try:
        yield
    finally:
        _READING.reset(before)


def names(table: Mapping[str, Any], what: str) -> list[str]:
    """Return all short names, of tombola and of installed packages, without an import."""
    return sorted({*table, *(entry.name for entry in _entry_points(what))})


def name_schema(table: Iterable[str], what: str) -> dict[str, Any]:
    """Return the JSON schema of a name: a short one that is known here, or `package.module:name`."""
    known = sorted({*table, *(entry.name for entry in _entry_points(what))})
    return {"anyOf": [{"type": "string", "enum": known}, {"type": "string", "pattern": OWN_NAME}]}


def named(table: Iterable[str], what: str) -> Callable[[dict[str, Any]], None]:
    """Return a function that turns the JSON schema of a text field into that of a name (`name_schema`)."""

    def change(schema: dict[str, Any]) -> None:
        for each in (schema, *schema.get("anyOf", ()), schema.get("items", {})):
            if each.get("type") == "string":
                each.pop("type")
                each.update(name_schema(table, what))

    return change


def resolve(name: str, table: Mapping[str, Callable[..., Any]], what: str) -> Callable[..., Any]:
    """Return the object of a name: `table[name]`, an installed package's, or that of `package.module:name`.

    Raises:
        InputError: the name is unknown, or belongs to Python itself; `what` ("network", "criterion", ...) begins the
            message.
        NotWhileReading: the name is not tombola's own, and tombola only reads a folder.
    """
    if name in table:
        return table[name]
    module_name, attribute, _ = _target(name, table, what)
    if folder := _READING.get():
        raise NotWhileReading(
            f"{what} {name!r} is not imported, because reading {folder} runs no code; `tombola run` imports it. Run "
            "the study only if you trust its author",
            f"{what} {name!r}",
        )
    if module_name == "__main__":
        raise InputError(
            f"{what} {name!r}: other processes can't import it from a script or notebook; move it into a module, such "
            f"as my_code.py, and name it my_code:{attribute}"
        )
    with searching():
        module = _imported(module_name, name, what)
        _check_origin(module_name, name, what)
    found = getattr(module, attribute, None)
    if not callable(found):
        public = [other for other, value in vars(module).items() if callable(value) and not other.startswith("_")]
        reason = "is not callable" if found is not None else "does not exist" + nearest(attribute, public)
        raise InputError(f"{what} {name!r}: {attribute!r} in {module_name!r} {reason}")
    home = getattr(found, "__module__", None) if inspect.isroutine(found) or inspect.isclass(found) else None
    if isinstance(home, str) and in_stdlib(home):
        raise InputError(f"{what} {name!r}: {attribute!r} belongs to Python's own module {home!r}; name your function")
    _log.debug("%s %r comes from %s", what, name, getattr(module, "__file__", module_name))
    return found


def code_fingerprint(name: str, table: Mapping[str, Callable[..., Any]], what: str) -> str:
    """Return a hash of all code of a user's project that their function can reach; "" for ours and for a library's.

    Results made by an earlier version of a user's network must not pass for results of the present one. What counts
    is what `tombola.user_code.closure` finds. Comments, layout, docstrings, and functions that the named one can't
    reach do not count; nor do libraries, whose versions are the environment's business.

    Raises:
        InputError: the name does not exist, or a file that counts has changed since this process first asked.
    """
    if name in table:
        return ""
    resolve(name, table, what)
    module, attribute, _ = _target(name, table, what)
    remembered = _REMEMBERED.get((module, attribute))
    if remembered and remembered[0] == _stamps(remembered[1].modules):
        return remembered[1].digest
    with searching():
        present = closure_as_imported(module, attribute, f"{what} {name!r}")
    _REMEMBERED[module, attribute] = _stamps(present.modules), present
    return present.digest


def _stamps(modules: Iterable[str]) -> list[tuple[Any, ...]]:
    """Return what differs once one of these modules has been edited or imported again."""
    found: list[tuple[Any, ...]] = []
    for name in modules:
        origin = getattr(spec_of(name), "origin", None)
        try:
            about = os.stat(origin) if origin else None
        except OSError:
            about = None
        stamp = (about.st_mtime_ns, about.st_ctime_ns, about.st_size, about.st_ino) if about else ()
        found.append((name, origin, stamp, sys.modules.get(name)))
    return found


def _target(name: str, table: Mapping[str, Any], what: str) -> tuple[str, str, EntryPoint | None]:
    """Return the module and the attribute that a name stands for, and the entry point that says so, if one does."""
    if ":" in name:
        module, _, attribute = name.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), attribute)):
            raise InputError(f"{what} {name!r}: write package.module:name, such as my_nets:make")
        return module, attribute, None
    found = [entry for entry in _entry_points(what) if entry.name == name]
    if not found and "," in name:
        raise InputError(f"unknown {what} {name!r}; if these are several names, write a list: '[{name}]'")
    if not found:
        module, dot, attribute = name.rpartition(".")
        meant = f"; did you mean '{module}:{attribute}'?" if dot else nearest(name, names(table, what))
        raise InputError(f"unknown {what} {name!r}{meant} (your own: package.module:name)")
    if len({entry.value for entry in found}) > 1:
        packages = " and ".join(sorted(entry.dist.name if entry.dist else entry.value for entry in found))
        raise InputError(f"{what} {name!r} comes from {packages}; uninstall one of them, or write package.module:name")
    return found[0].module, found[0].attr, found[0]


def _entry_points(what: str) -> list[EntryPoint]:
    return list(entry_points(group=GROUPS[what])) if what in GROUPS else []


def _imported(module_name: str, name: str, what: str) -> ModuleType:
    if in_stdlib(module_name):
        raise InputError(
            f"{what} {name!r}: {module_name!r} is part of Python itself, but a study may name only your own "
            "functions; if you have a module of that name, rename it"
        )
    before = IMPORTING.set(module_name)
    try:
        return importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"{what} {name!r}: module {module_name!r} can't be imported ({error}); "
            "install it, or start tombola in its folder"
        ) from error
    except InputError:
        raise  # of a `tombola.run` in that module
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{what} {name!r}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    finally:
        IMPORTING.reset(before)


def _check_origin(module_name: str, name: str, what: str) -> None:
    """Refuse a module that an installed one of the same name hides: the user means their own, and gets another."""
    top = module_name.partition(".")[0]
    spec = spec_of(top)
    own = PathFinder.find_spec(top, list(user_folders()))
    if spec is None or own is None or own.origin is None or own.origin == spec.origin:
        return
    raise InputError(
        f"{what} {name!r}: {own.origin} is hidden by {spec.origin or 'a package'}, which has the same name {top!r} "
        "and comes first; rename yours"
    )
