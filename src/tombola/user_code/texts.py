"""Texts that stand for the code and the plain values of a function at hand: the same in each process."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from typing import Any

from tombola.user_code.imported import functions_of
from tombola.user_code.loads import codes_of
from tombola.user_code.statements import Function

PLAIN = (bool, int, float, complex, str, bytes, type(None))
DEEP = 60  # objects inside one another


def is_plain(value: Any, depth: int = 0) -> bool:
    """Return whether the text of a value says all of it, the same in each process."""
    if depth > DEEP:
        return False
    if type(value) is dict:
        return all(is_plain(part, depth + 1) for pair in value.items() for part in pair)
    return isinstance(value, PLAIN) or (
        type(value) in (tuple, list) and all(is_plain(part, depth + 1) for part in value)
    )


def are_literal(defaults: tuple[Any, ...], name: str, source: str) -> bool:
    """Return whether the source gives the default values of a function, rather than names or calls."""
    if not defaults:
        return True
    try:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            if getattr(node, "name", "<lambda>") == name and isinstance(node, Function):
                for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
                    ast.literal_eval(default)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return True


def source(found: Any) -> str:
    """Return the source of a function or class; without one, as of a notebook's class, what its code does."""
    try:
        return textwrap.dedent(inspect.getsource(getattr(found, "__code__", found)))  # a decorated one has its own
    except (OSError, TypeError):
        held = vars(found).items() if isinstance(found, type) else ()
        plain = [f"{name}={value!r}" for name, value in held if is_plain(value) and not name.startswith("__")]
        return "".join([found.__qualname__, *plain] if isinstance(found, type) else []) + "".join(
            f"{code.co_code!r}{code.co_names!r}{[_constant(each) for each in code.co_consts]!r}"
            for function in functions_of(found)
            for code in codes_of(function.__code__)
        )


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return value.co_qualname  # its own code comes by itself
    return str(sorted(map(repr, value))) if isinstance(value, frozenset) else repr(value)
