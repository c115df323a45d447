"""A fingerprint of a function that is at hand, wherever it was defined: in a script, a notebook or another function."""

from __future__ import annotations

import functools
import hashlib
import inspect
import textwrap
import types
from collections.abc import Callable, Iterator
from typing import Any

from tombola.user_code.closure import closure_of
from tombola.user_code.modules import is_library

PLAIN = (bool, int, float, complex, str, bytes, type(None))


def fingerprint_of(function: Callable[..., Any]) -> str:
    """Return 16 hexadecimal digits that stand for the code that a function reaches.

    Of a module's function, that is what `closure_of` finds. Of a script's or notebook's, it is the source of the
    function, of the functions and classes beside it that it names, and the plain values that it names.
    """
    digest = hashlib.sha256()
    for fragment in _fragments(function, set()):
        digest.update(fragment.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()[:16]


def _fragments(found: Any, seen: set[int]) -> Iterator[str]:
    if id(found) in seen:
        return
    seen.add(id(found))
    if isinstance(found, functools.partial):
        yield repr(found.args) + repr(sorted(found.keywords.items()))
        yield from _fragments(found.func, seen)
        return
    if isinstance(found, types.MethodType):
        found = found.__func__
    module, name = getattr(found, "__module__", None) or "__main__", getattr(found, "__qualname__", "")
    if module != "__main__" and name.isidentifier():
        yield f"{module}:{name}" if is_library(module) else closure_of(module, name).digest
        return
    yield _source(found)
    for code, names in _codes(found):
        for each in code.co_names:
            if each in names:
                yield from _named(each, names[each], seen)
    for cell in getattr(found, "__closure__", None) or ():
        yield from _named("", cell.cell_contents, seen)
    if isinstance(found, type):
        for base in found.__bases__:
            yield from _fragments(base, seen)


def _named(name: str, value: Any, seen: set[int]) -> Iterator[str]:
    if isinstance(value, PLAIN):
        yield f"{name}={value!r}"
    elif isinstance(value, tuple | list | frozenset | set | dict):
        yield f"{name}={value!r}"[:10_000]
    elif isinstance(value, types.FunctionType | type | functools.partial):
        yield from _fragments(value, seen)


def _source(found: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(found))
    except (OSError, TypeError):  # typed into a prompt, say
        return "".join(f"{code.co_code!r}{code.co_consts!r}" for code, _ in _codes(found))


def _codes(found: Any) -> Iterator[tuple[types.CodeType, dict[str, Any]]]:
    """Yield the code of a function, or of a class's methods, with the code inside it; and the names it may use."""
    functions = [found] if isinstance(found, types.FunctionType) else []
    if isinstance(found, type):
        functions = [each for each in vars(found).values() if isinstance(each, types.FunctionType)]
    for function in functions:
        waiting = [function.__code__]
        while waiting:
            code = waiting.pop()
            waiting += [each for each in code.co_consts if isinstance(each, types.CodeType)]
            yield code, function.__globals__
