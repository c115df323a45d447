"""A fingerprint of a function that is at hand, wherever it was defined: in a script, a notebook or another function."""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib.util
import inspect
import logging
import os
import random
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tombola.user_code.imported import changed_values, closure_as_imported, functions_of, require_as_imported
from tombola.user_code.loads import chains, codes_of, imports
from tombola.user_code.modules import is_library
from tombola.user_code.statements import Chain
from tombola.user_code.texts import DEEP, PLAIN, are_literal, is_plain, source

CONTAINERS = (tuple, list, frozenset, set, dict)
CODE = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, type, functools.partial)
# The device changes no result in kind, and a generator gives other numbers at each start of a script.
GENERATORS = (random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator, torch.Generator)
NO_PART = (torch.device, logging.Logger, *GENERATORS)
LARGE = 64 * 2**20  # bytes of an array that are still hashed
MANY = 20_000  # objects that are followed


@dataclass(frozen=True)
class Reached:
    """What a function at hand reaches.

    Args:
        digest: 16 hexadecimal digits that stand for its code and for the values that it uses.
        untracked: names of the values whose content could not be taken in.
    """

    digest: str
    untracked: tuple[str, ...] = ()


def reached_by(function: Callable[..., Any], what: str = "make_model") -> Reached:
    """Return what a function reaches: a digest that changes if its code or a value that it uses changes.

    Of a module's function, that is what `closure_of` finds, and plain values that were set in modules later. Of a
    script's or notebook's, it is the source of the function, of the functions and classes beside it that it names, and
    the values that it names: plain ones, lists, dicts, arrays, and objects with what they hold. Of an object of which
    it only reads attributes, such as `args.width`, these attributes count.

    Args:
        function: any callable.
        what: names it in messages.

    Raises:
        InputError: a file has changed since its import.
    """
    walk = _Walk(what)
    call = inspect.getattr_static(type(function), "__call__", None)
    if isinstance(call, types.FunctionType) and not isinstance(function, type):  # an object with a method `__call__`
        walk.value(type(function), what)
        walk.method(call, function, what, {"__call__"})
    else:
        walk.value(function, what)
    digest = hashlib.sha256()
    for fragment in walk.fragments:
        digest.update(fragment.encode("utf-8", "surrogatepass") + b"\0")
    return Reached(digest.hexdigest()[:16], tuple(dict.fromkeys(walk.untracked)))


class _Walk:
    """Collects fragments of code and values. No fragment has an address or an order that a hash decides."""

    def __init__(self, what: str, seen: Mapping[int, tuple[int, Any]] | None = None, depth: int = 0):
        self.what = what
        self.fragments: list[str] = []
        self.untracked: list[str] = []
        self.seen = dict(seen or {})  # number and object by id; the object is kept, or its id may be given anew
        self.depth = depth

    def emit(self, fragment: str) -> None:
        self.fragments.append(fragment)

    def miss(self, value: Any, path: str) -> None:
        """Note that a value can't be taken in."""
        self.emit(f"? {type(value).__qualname__}")
        self.untracked.append(path)

    # Values

    def value(self, value: Any, path: str) -> None:
        """Take in a value with all that it holds."""
        if is_plain(value):
            self.emit(repr(value))
        elif isinstance(value, types.ModuleType):
            self.module(value, {()}, path)
        elif self.depth > DEEP or len(self.seen) > MANY:
            self.miss(value, path)
        elif isinstance(value, NO_PART):
            self.emit(type(value).__qualname__)
        elif value is os.environ:
            self.miss(value, path)
        elif id(value) in self.seen:
            self.emit(f"@{self.seen[id(value)][0]}")
        else:
            self.seen[id(value)] = len(self.seen), value
            self.depth += 1
            self._content(value, path)
            self.depth -= 1

    def _content(self, value: Any, path: str) -> None:
        if isinstance(value, CODE):
            self.code(value, path)
        elif isinstance(value, enum.Enum):
            self.emit(f"{type(value).__qualname__}.{value.name}")
            self.value(value.value, path)
        elif type(value) in CONTAINERS:
            self.container(value, path)
        elif isinstance(value, torch.Tensor | np.ndarray):
            self.array(value, path)
        else:
            self.instance(value, path)

    def container(self, value: Any, path: str) -> None:
        self.emit(f"{type(value).__name__} {len(value)}")
        if isinstance(value, dict):
            for key, each in value.items():
                self.value(key, path)
                self.value(each, f"{path}[{key!r}]" if isinstance(key, PLAIN) else path)
        elif isinstance(value, set | frozenset):
            walks = [_Walk(self.what, self.seen, self.depth) for _ in value]
            for walk, each in zip(walks, value, strict=True):
                walk.value(each, path)
            for walk in sorted(walks, key=lambda walk: walk.fragments):
                self.fragments += walk.fragments
                self.untracked += walk.untracked
        else:
            for number, each in enumerate(value):
                self.value(each, f"{path}[{number}]")

    def array(self, value: torch.Tensor | np.ndarray, path: str) -> None:
        try:
            array = value
            if isinstance(value, torch.Tensor):
                bits = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
                array = bits.numpy()
            elif value.dtype.hasobject:
                return self.container(value.tolist(), path)
            self.emit(f"{type(value).__name__} {tuple(value.shape)} {value.dtype}")
            if array.nbytes > LARGE:
                return self.miss(value, path)
            self.emit(hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest())
        except (RuntimeError, TypeError, NotImplementedError, ValueError):  # sparse, lazy or without data
            self.miss(value, path)

    def instance(self, value: Any, path: str) -> None:
        """Take in an object's class and what it holds, as pickle would find it."""
        wrapped = inspect.getattr_static(value, "__wrapped__", None)
        if callable(wrapped):  # a cache around a function, say
            return self.value(wrapped, path)
        try:
            reduced = value.__reduce_ex__(4)
        except Exception:  # an open file, a lock, a generator
            return self.miss(value, path)
        self.value(type(value), path)
        if isinstance(reduced, str):
            return self.emit(reduced)
        made_by, arguments, state, *items = (*reduced, *(None,) * 6)[:5]
        self.value(made_by, path)
        self.value(arguments, path)
        for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):  # the second of slots
            if isinstance(part, dict):
                self.emit(f"state {len(part)}")
                for name, each in part.items():
                    self.value(name, path)
                    self.value(each, f"{path}.{name}")
            else:
                self.value(part, path)
        for each in items:
            self.value(None if each is None else list(each), path)

    # Code

    def code(self, found: Any, path: str) -> None:
        """Take in a function, a class, a partial or a method."""
        if isinstance(found, functools.partial):
            given = found.args, sorted(found.keywords.items())
            if is_plain(given):
                self.emit(f"{given[0]!r}{given[1]!r}")
            else:
                self.value(given, path)
            return self.value(found.func, path)
        if isinstance(found, types.BuiltinFunctionType):
            owner = found.__self__
            self.emit(f"{found.__module__}:{found.__qualname__}")
            return None if owner is None or isinstance(owner, types.ModuleType | type) else self.value(owner, path)
        if isinstance(found, types.MethodType):
            self.value(found.__func__, path)
            return self.method(found.__func__, found.__self__, path, {found.__func__.__name__})
        module, name = getattr(found, "__module__", None) or "__main__", found.__qualname__
        if not _is_own(module) or (module != "__main__" and name.isidentifier()):
            if not _is_own(module):
                self.emit(f"{module}:{name}")
                return self.cells(found, path) if "<locals>" in name else None
            if getattr(sys.modules.get(module), name, found) is found:
                for function in functions_of(found):
                    require_as_imported(function, self.what)
                return self.closure(module, name)
        self.live(found, path)

    def live(self, found: Any, path: str) -> None:
        """Take in code of a script or notebook, or code inside a function: its source, and the values that it names."""
        functions = [each for each in functions_of(found) if _is_own(each.__globals__.get("__name__") or "__main__")]
        for function in functions:
            require_as_imported(function, self.what)
        text = source(found) if functions or isinstance(found, type) else ""  # else a library's decorator made it
        self.emit(text)
        for function in functions:
            for code in codes_of(function.__code__):
                for each in code.co_names:
                    if each in function.__globals__:
                        self.named(each, function.__globals__[each], chains(function.__code__, each), each)
            for module, level, attribute in imports(function.__code__):
                self.imported(module, level, attribute, function.__globals__)
            defaults = *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()
            for each in () if are_literal(defaults, function.__name__, text) else defaults:
                self.named("", each, {()}, path)
        self.cells(found, path)
        if isinstance(found, type):
            for base in found.__bases__:
                self.named("", base, {()}, base.__name__ if base.__name__ in text else path)

    def cells(self, found: Any, path: str) -> None:
        """Take in the values that a function inside another one uses of that."""
        if isinstance(found, types.FunctionType):
            for name, cell in zip(found.__code__.co_freevars, found.__closure__ or (), strict=True):
                try:
                    value = cell.cell_contents
                except ValueError:  # not set yet
                    continue
                self.named("", value, chains(found.__code__, name), name)
            if (wrapped := found.__dict__.get("__wrapped__")) is not None:
                self.named("", wrapped, {()}, getattr(wrapped, "__name__", path))

    def named(self, name: str, value: Any, uses: set[Chain], path: str) -> None:
        """Take in a value that code uses under a name; of an object, the attributes that it asks for suffice."""
        if isinstance(value, types.ModuleType):
            self.module(value, uses, path)
        elif is_plain(value):
            self.emit(f"{name}={value!r}")
        elif isinstance(value, CODE):
            if id(value) not in self.seen or getattr(value, "__name__", "") not in (name, path):
                self.value(value, path)  # else its name says which it is
        else:
            self.emit(f"{name}=")
            self.attributes(value, uses, path)

    def attributes(self, value: Any, uses: set[Chain], path: str) -> None:
        """Take in what code uses of a value: attributes, where it only reads those that the object itself holds."""
        held = None if isinstance(value, (*PLAIN, *CODE, *CONTAINERS)) else getattr(value, "__dict__", None)
        wanted = {chain[0] for chain in uses if chain}
        if not isinstance(held, dict) or () in uses or not wanted <= held.keys() or _computes(type(value), wanted):
            return self.value(value, path)
        for name in sorted(wanted):
            self.emit(f".{name}")
            self.attributes(held[name], {chain[1:] for chain in uses if chain[0] == name}, f"{path}.{name}")

    def method(self, function: Any, owner: Any, path: str, done: set[str]) -> None:
        """Take in what a method uses of its object: attributes, and those that its other methods use."""
        code = getattr(function, "__code__", None)
        held = getattr(owner, "__dict__", None)
        if isinstance(owner, type) or code is None or not code.co_argcount or not isinstance(held, dict):
            return self.value(owner, path)
        uses = chains(code, code.co_varnames[0])
        others = {chain[0] for chain in uses if chain and chain[0] not in held}
        kinds = {name: inspect.getattr_static(type(owner), name, None) for name in others}  # None: it will be set
        known = all(each is None or isinstance(each, types.FunctionType) for each in kinds.values())
        if () in uses or not known or hasattr(type(owner), "__getattr__"):
            return self.value(owner, path)
        self.emit(f"self {type(owner).__qualname__}")
        self.attributes(owner, {chain for chain in uses if chain[0] in held}, path)
        for name in sorted(others - done):
            done.add(name)
            if kinds[name] is not None:
                self.method(kinds[name], owner, path, done)

    # Modules

    def module(self, module: types.ModuleType, uses: set[Chain], path: str) -> None:
        """Take in what code uses of a module; nothing of a library."""
        name = module.__name__
        if not _is_own(name):
            return
        if () in uses:
            return self.closure(name, None)
        for attribute in sorted({chain[0] for chain in uses}):
            rest = {chain[1:] for chain in uses if chain[0] == attribute}
            self.part(module, attribute, rest, f"{path}.{attribute}")

    def closure(self, module: str, attribute: str | None) -> None:
        """Take in what a module's attribute reaches, and the plain values that were set in modules later."""
        closure = closure_as_imported(module, attribute, self.what, reloads=True)
        self.emit(closure.digest)
        for name, value in changed_values(closure):
            if is_plain(value):
                self.emit(f"{name}={value!r}")

    def part(self, module: types.ModuleType, attribute: str, uses: set[Chain], path: str) -> None:
        """Take in one attribute of a user's module: its statements, and its value if it is more than code."""
        value = getattr(module, attribute, None)
        if isinstance(value, types.ModuleType):
            return self.module(value, uses, path)
        if not isinstance(value, types.FunctionType | type) and module.__name__ != "__main__":
            self.closure(module.__name__, attribute)
        self.named(attribute, value, uses, path)

    def imported(self, name: str, level: int, attribute: str | None, names: Mapping[str, Any]) -> None:
        """Take in what a function imports when it is called."""
        if level:
            try:
                name = importlib.util.resolve_name("." * level + name, names.get("__package__") or "")
            except ImportError:
                return
        if not _is_own(name):
            return
        module = sys.modules.get(name)
        if module is not None and attribute is not None:
            return self.part(module, attribute, {()}, f"{name}.{attribute}")
        self.closure(name, attribute)


def _is_own(module: str) -> bool:
    """Return whether a module is the user's; so is what runs as `__main__`."""
    return module == "__main__" or not is_library(module)


def _computes(kind: type, names: Iterable[str]) -> bool:
    """Return whether a class computes attributes instead of reading them from the object."""
    if kind.__getattribute__ is not object.__getattribute__:
        return True
    return any(hasattr(inspect.getattr_static(kind, name, None), "__set__") for name in names)
