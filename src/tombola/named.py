"""Things that a study names: one of ours by its short name, a user's own as `package.module:name`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import sys
import sysconfig
import tokenize
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from tombola.errors import InputError, nearest

IMPORTING: ContextVar[str] = ContextVar("IMPORTING", default="")  # the user's module that is being imported now
_AS_IMPORTED: WeakKeyDictionary[ModuleType, str] = WeakKeyDictionary()


def resolve(name: str, table: Mapping[str, Callable[..., Any]], what: str) -> Callable[..., Any]:
    """Return `table[name]`, or the function that `package.module:name` names.

    Raises:
        InputError: there is no such thing; `what` ("network", "criterion", ...) says what was looked for.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise InputError(f"unknown {what} {name!r}{nearest(name, table)} (your own: package.module:name)")
    module_name, _, attribute = name.partition(":")
    if module_name == "__main__":
        raise InputError(
            f"{what} {name!r}: other processes can't see what a script or notebook defines itself; put it into a "
            f"module, such as my_code.py, and name it my_code:{attribute}"
        )
    before = IMPORTING.set(module_name)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"{what} {name!r}: module {module_name!r} can't be imported ({error}); "
            "is it installed, or in the folder you are in?"
        ) from error
    except InputError:
        raise  # of a `tombola.run` in that module
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{what} {name!r}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    finally:
        IMPORTING.reset(before)
    found = getattr(module, attribute, None)
    if not callable(found):
        public = [other for other, value in vars(module).items() if callable(value) and not other.startswith("_")]
        reason = "is not callable" if found is not None else "is not there" + nearest(attribute, public)
        raise InputError(f"{what} {name!r}: {attribute!r} in {module_name!r} {reason}")
    return found


def code_fingerprint(name: str, table: Mapping[str, Callable[..., Any]], what: str) -> str:
    """Return a hash of the source of a user's own function; "" for ours, whose versions are tombola's.

    Results made by an earlier version of a user's network must not pass for results of the present one. What counts
    is the file of the module that is named, and the file that the function was defined in where that is another one
    of the user's. Comments, blank lines and line breaks inside brackets do not count.

    Raises:
        InputError: there is no such thing, or its file has changed since this process first asked.
    """
    if name in table:
        return ""
    named = sys.modules[resolve(name, table, what).__module__], sys.modules[name.partition(":")[0]]
    texts = {module.__name__: _tokens(module) for module in named if not _is_library(module)}
    for module in named:
        # What runs is what was imported; the file may have been edited since.
        if _AS_IMPORTED.setdefault(module, texts.get(module.__name__, "")) != texts.get(module.__name__, ""):
            raise InputError(f"{what} {name!r}: {module.__file__} has changed since it was imported; start Python anew")
    if not any(texts.values()):
        return ""
    return hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:16]


def _is_library(module: ModuleType) -> bool:
    """Return whether a module is installed rather than the user's: its version is the environment's business."""
    path = getattr(module, "__file__", None)
    if path is None:
        return True
    places = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(Path(path).resolve().is_relative_to(Path(place).resolve()) for place in places)


def _tokens(module: ModuleType) -> str:
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):
        return ""  # compiled: there is no text to look at
    skip = (tokenize.COMMENT, tokenize.NL)
    indents = (tokenize.INDENT, tokenize.DEDENT)  # their text depends on tabs and spaces; that they are there counts
    return " ".join(
        tokenize.tok_name[token.type] if token.type in indents else token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type not in skip
    )
