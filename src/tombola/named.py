"""Things that a study names: one of ours by its short name, a user's own as `package.module:name`."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import io
import sys
import tokenize
from collections.abc import Callable, Mapping
from typing import Any

from tombola.errors import InputError, nearest


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
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise InputError(
            f"{what} {name!r}: module {module_name!r} can't be imported ({error}); "
            "is it installed, or in the folder you are in?"
        ) from error
    except Exception as error:
        raise InputError(
            f"{what} {name!r}: importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    found = getattr(module, attribute, None)
    if not callable(found):
        reason = "is not callable" if found is not None else "is not there" + nearest(attribute, dir(module))
        raise InputError(f"{what} {name!r}: {attribute!r} in {module_name!r} {reason}")
    return found


def code_fingerprint(name: str, table: Mapping[str, Callable[..., Any]], what: str) -> str:
    """Return a hash of the source file of a user's own function; "" for ours, whose versions are tombola's.

    Results made by an earlier version of a user's network must not pass for results of the present one. Comments,
    blank lines and line breaks do not count.
    """
    if name in table:
        return ""
    try:
        source = inspect.getsource(sys.modules[resolve(name, table, what).__module__])
    except (OSError, TypeError):
        return ""  # built in or compiled: there is no text to look at
    skip = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    text = " ".join(
        # An INDENT's own text depends on tabs and spaces; that it is one is all that counts.
        tokenize.tok_name[token.type] if token.type in (tokenize.INDENT, tokenize.DEDENT) else token.string
        for token in tokens
        if token.type not in skip
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]
