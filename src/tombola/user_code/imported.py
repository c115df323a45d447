"""Whether a user's files are still as this process imported them.

What runs is what was imported. A file may have been edited since, and results of the earlier code must not be stored
under a fingerprint of the present one.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import decode_source
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any
from weakref import WeakKeyDictionary

from tombola.errors import InputError
from tombola.user_code.closure import Closure, closure_of
from tombola.user_code.modules import Source, source_of, spec_of
from tombola.user_code.statements import statements

# The source of each module when it was first asked for, and again after each reload, which gives a module another spec.
_AS_IMPORTED: WeakKeyDictionary[ModuleType, list[tuple[ModuleSpec | None, Source]]] = WeakKeyDictionary()


def source_as_imported(name: str) -> Source | None:
    """Return a module of the user's as it was when its source was first asked for; None for a library."""
    return _sources(name)[0]


def source_as_reloaded(name: str) -> Source | None:
    """Return the same, or the source of the last reload."""
    return _sources(name)[-1]


def _sources(name: str) -> list[Source | None]:
    source, module = source_of(name), sys.modules.get(name)
    if source is None or module is None:
        return [source]
    known, spec = _AS_IMPORTED.setdefault(module, []), getattr(module, "__spec__", None)
    if not known or known[-1][0] is not spec:
        known.append((spec, source))
    return [each for _, each in known]


def closure_as_imported(module: str, attribute: str | None, what: str, reloads: bool = False) -> Closure:
    """Return the closure of `module:attribute`, or of a whole module.

    Args:
        module: as it is imported.
        attribute: a function, class or other name in it; None for all of it.
        what: begins the message.
        reloads: whether a reload makes a changed module good. Functions that other modules have of it must then be the
            new ones.

    Raises:
        InputError: a statement of it has changed since this process first asked.
    """
    as_imported = source_as_reloaded if reloads else source_as_imported
    present = closure_of(module, attribute)
    if present.fragments != closure_of(module, attribute, as_imported).fragments:
        changed = [each for each in present.modules if source_of(each) != as_imported(each)]
        where = getattr(spec_of((changed or [module])[0]), "origin", None) or module
        raise InputError(f"{what}: {where} has changed since its import; restart Python")
    for name in present.modules if reloads else ():
        for value in list(vars(sys.modules[name]).values()) if name in sys.modules else ():
            if isinstance(value, FunctionType | type) and value.__module__ in present.modules:
                for function in functions_of(value):
                    require_as_imported(function, what)
    return present


def changed_values(closure: Closure) -> Iterator[tuple[str, Any]]:
    """Yield the values that reached statements of modules give as literals, and that something has changed since.

    `nets.WIDTH = args.width` in a script changes the networks of `nets`, and not its source.
    """
    reached = set(closure.fragments)
    for name in closure.modules:
        source, module = source_of(name), sys.modules.get(name)
        if source is None or source.text is None or module is None:
            continue
        literals = _literals(source.text)
        for statement in statements(source.text):
            for local in statement.binds if (name, statement.text) in reached else ():
                value = getattr(module, local, None)
                if local in literals and repr(value) != repr(literals[local]):  # `==` of arrays is no truth value
                    yield f"{name}.{local}", value


def _literals(text: str) -> dict[str, Any]:
    """Return the values of the names that a source binds at its top, where a literal gives them."""
    found: dict[str, Any] = {}
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value:
                try:
                    found[target.id] = ast.literal_eval(node.value)
                except ValueError:
                    found.pop(target.id, None)
            elif isinstance(target, ast.Name):  # `+=`, or the name of a loop
                found.pop(target.id, None)
    return found


def functions_of(found: object) -> list[FunctionType]:
    """Return a function, or a class's methods, as a list."""
    if isinstance(found, FunctionType):
        return [found]
    functions = []
    for each in vars(found).values() if isinstance(found, type) else ():
        inside = [getattr(each, name, None) for name in ("__func__", "func", "fget", "fset", "fdel")]
        functions += [one for one in (each, *inside) if isinstance(one, FunctionType)]
    return functions


def require_as_imported(function: FunctionType, what: str) -> None:
    """Check that a function is that of its file, as far as this can be known.

    It can't where something else than Python's own import may have rewritten the code, such as a test runner.

    Args:
        function: any.
        what: begins the message.

    Raises:
        InputError: the file holds another function now.
    """
    module, code = sys.modules.get(function.__module__ or ""), function.__code__
    path = getattr(module, "__file__", None)
    if type(getattr(module, "__loader__", None)) is not SourceFileLoader or path != code.co_filename:
        return  # made by exec, as the methods of a dataclass, or put there from elsewhere
    try:
        text = decode_source(Path(path).read_bytes())
    except (OSError, UnicodeDecodeError, SyntaxError):
        return
    if not any(_same(code, each) for each in _codes_in(text, path).get(code.co_qualname, ())):
        raise InputError(f"{what}: {path} has changed since its import; restart Python")


@lru_cache(maxsize=64)
def _codes_in(text: str, path: str) -> dict[str, tuple[CodeType, ...]]:
    """Return the codes of the functions in a source, by their qualified names."""
    try:
        waiting = [compile(text, path, "exec", dont_inherit=True)]
    except (SyntaxError, ValueError, RecursionError):
        return {}
    found: dict[str, tuple[CodeType, ...]] = {}
    while waiting:
        code = waiting.pop()
        found[code.co_qualname] = (*found.get(code.co_qualname, ()), code)
        waiting += [each for each in code.co_consts if isinstance(each, CodeType)]
    return found


def _same(one: CodeType, other: CodeType) -> bool:
    """Return whether two codes do the same; lines may have moved."""

    def parts(code: CodeType) -> tuple[object, ...]:
        constants = tuple((type(each), each) for each in code.co_consts if not isinstance(each, CodeType))
        return code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants

    inside = [[each for each in code.co_consts if isinstance(each, CodeType)] for code in (one, other)]
    return parts(one) == parts(other) and all(_same(*pair) for pair in zip(*inside, strict=False))
