"""The part of a user's project that one of its functions can reach: what its results may depend on.

The analysis is static: nothing is imported or run. From the named function it follows every name that a reached
statement uses, through the module's own definitions and through imports from the user's other modules, decorators,
base classes, default arguments and class bodies included. Of every module that is imported on the way, statements
that do something on import count too. What can't be followed counts whole: the module behind `getattr(module, name)`
or a star import, the own module of `exec` and `globals()`, and, where a module's name is computed, all modules that
it may be.

It errs towards more: a change that can't matter may count, a change that can matter must.
"""

from __future__ import annotations

import builtins
import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from tombola.user_code.modules import Source, absolute, below, beside, is_library, source_of
from tombola.user_code.statements import Chain, Imported, Statement, statements

WHOLE = {"exec", "eval", "globals", "locals", "vars", "compile", "__builtins__"}  # built-in: any name may be meant
OF_A_MODULE = {"__name__", "__file__", "__path__", "__spec__", "__package__", "__doc__", "__loader__"}
# Calls on import that change nothing but what they return.
PURE = {"abs", "all", "any", "bool", "bytes", "classmethod", "complex", "dict", "divmod", "enumerate", "filter"}
PURE |= {"float", "format", "frozenset", "getattr", "hasattr", "int", "isinstance", "issubclass", "iter", "len"}
PURE |= {"list", "map", "max", "min", "object", "pow", "property", "range", "repr", "reversed", "round", "set"}
PURE |= {"slice", "sorted", "staticmethod", "str", "sum", "super", "tuple", "type", "zip"}
PURE_MODULES = {"abc", "collections", "contextlib", "dataclasses", "datetime", "decimal", "enum", "fractions"}
PURE_MODULES |= {"functools", "itertools", "logging", "math", "numbers", "operator", "pathlib", "re", "statistics"}
PURE_MODULES |= {"string", "textwrap", "types", "typing", "typing_extensions", "__future__"}
# Of any other library: names of functions that change its state rather than return something.
CHANGES = re.compile(
    "_|add|allow|append|default|disable|enable|extend|init|insert|install|load|manual_seed|patch|pop|register|remove"
    "|run|seed|set|unregister|update|use"
)


@dataclass(frozen=True)
class Closure:
    """What a function can reach.

    Args:
        fragments: (module, text) of each reached statement, by module and in the order of the source.
        modules: the user's modules that are imported on the way.
    """

    fragments: tuple[tuple[str, str], ...]
    modules: tuple[str, ...]

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that stand for the fragments; "" if none exists."""
        if not self.fragments:
            return ""
        return hashlib.sha256(repr(self.fragments).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def closure_of(module: str, attribute: str | None, read: Callable[[str], Source | None] = source_of) -> Closure:
    """Return what `module:attribute` can reach in the user's project; nothing of a library's function.

    Args:
        module: as it is imported.
        attribute: a function, class or other callable in it; None for all of the module.
        read: gives the source of a module of the user's; None for a library.
    """
    walk = _Walk(read)
    walk.through(module, () if attribute is None else (attribute,))
    walk.finish()
    return walk.closure()


class _Module:
    """A module's statements, by the names that they bind."""

    def __init__(self, source: Source):
        self.source = source
        self.statements: list[Statement] = []
        if source.text is None:
            self.opaque = source.digest
        else:
            self.opaque = ""
            try:
                self.statements = statements(source.text)
            except (SyntaxError, ValueError, RecursionError):
                self.opaque = hashlib.sha256(source.text.encode("utf-8", "surrogatepass")).hexdigest()
        self.binding: dict[str, list[int]] = {}
        for number, statement in enumerate(self.statements):
            for name in statement.binds:
                self.binding.setdefault(name, []).append(number)

    def imports_of(self, name: str) -> list[Imported]:
        """Return the imports that bind a name."""
        found = [self.statements[number] for number in self.binding.get(name, ())]
        return [each for statement in found for each in statement.imports if each.local == name]


class _Walk:
    def __init__(self, read: Callable[[str], Source | None]):
        self.read = lru_cache(maxsize=None)(read)
        self.modules: dict[str, _Module | None] = {}
        self.reached: set[tuple[str, int]] = set()
        self.waiting: list[tuple[str, int]] = []  # reached statements whose uses will be followed
        self.seen: set[tuple[str, Chain]] = set()
        self.entire: set[str] = set()
        self.unread: list[str] = []  # modules whose imports will be followed

    def closure(self) -> Closure:
        """Return what has been reached."""
        fragments = [(name, number, self.module(name).statements[number].text) for name, number in self.reached]
        opaque = [(name, -1, module.opaque) for name, module in self.modules.items() if module and module.opaque]
        kept = tuple((name, text) for name, _, text in sorted(fragments + opaque))
        return Closure(kept, tuple(sorted(name for name, module in self.modules.items() if module)))

    def module(self, name: str) -> _Module:
        """Return a module that has been loaded."""
        module = self.modules[name]
        assert module is not None
        return module

    def finish(self) -> None:
        """Follow all that waits, and what that leads to."""
        while self.waiting or self.unread:
            if self.unread:
                self._import(self.unread.pop())
            else:
                self._follow(*self.waiting.pop())

    def load(self, name: str) -> _Module | None:
        """Note that a module is imported, and the packages around it; None for a library."""
        if name not in self.modules:
            source = self.read(name) if name else None
            self.modules[name] = _Module(source) if source else None
            if source:
                if "." in name:
                    self.load(name.rpartition(".")[0])
                self.unread.append(name)
        return self.modules[name]

    def through(self, name: str, attributes: Chain) -> None:
        """Reach what the attributes of a module lead to: a binding, a module inside it, or all of it."""
        if (name, attributes) in self.seen:
            return
        self.seen.add((name, attributes))
        module = self.load(name)
        if module is None:
            return
        if not attributes:
            self.whole(name)
            return
        first, rest = attributes[0], attributes[1:]
        inside = self._is_inside(name, first)
        if first in module.binding:
            self.named(name, first, rest)
            # `from .lenet import lenet` in a package hides the module of that name.
            hides = (f"{name}.{first}", first)
            origins = {
                (absolute(each.module, each.level, module.source), each.attribute) for each in module.imports_of(first)
            }
            inside = inside and origins != {hides}
        elif not inside and first not in OF_A_MODULE:
            self.whole(name)  # made by a star import, `__getattr__` or `globals()`
        if inside:
            self.through(f"{name}.{first}", rest)

    def named(self, name: str, local: str, attributes: Chain) -> None:
        """Reach what a module binds to a name; of an import, what the attributes lead to."""
        module = self.module(name)
        for number in module.binding.get(local, ()):
            self.reach(name, number)
            for imported in module.statements[number].imports:
                if imported.local == local and not imported.deferred:
                    self.imported(imported, attributes, module.source)

    def imported(self, imported: Imported, attributes: Chain, source: Source) -> None:
        """Reach what an imported name stands for."""
        start = absolute(imported.module, imported.level, source)
        if imported.attribute == "*":
            self.through(start, ())
        elif imported.attribute is not None:
            self.through(start, (imported.attribute, *attributes))
        elif imported.top:
            self.through(start.partition(".")[0], attributes)
        else:
            self.through(start, attributes)

    def whole(self, name: str) -> None:
        """Reach every statement of a module."""
        if name in self.entire or (module := self.load(name)) is None:
            return
        self.entire.add(name)
        for number, statement in enumerate(module.statements):
            self.reach(name, number)
            for imported in statement.imports:
                if not (imported.attribute is None and imported.deferred):  # whose uses say which part
                    self.imported(imported, (), module.source)

    def reach(self, name: str, number: int) -> None:
        """Count one statement in."""
        if (name, number) not in self.reached:
            self.reached.add((name, number))
            self.waiting.append((name, number))

    def _is_inside(self, name: str, part: str) -> bool:
        source = self.module(name).source
        return source.package and self.read(f"{name}.{part}") is not None

    def _import(self, name: str) -> None:
        """Follow what importing a module runs: other modules, and statements that do something."""
        module = self.module(name)
        for number, statement in enumerate(module.statements):
            for imported in statement.imports:
                if not imported.deferred:
                    self._load_imported(imported, module.source)
            if statement.acts or self._has_effect(module, statement):
                self.reach(name, number)

    def _load_imported(self, imported: Imported, source: Source) -> None:
        start = absolute(imported.module, imported.level, source)
        module = self.load(start)
        if module is None:
            return
        if imported.attribute == "*":
            self.whole(start)
        elif imported.attribute and module.source.package and imported.attribute not in module.binding:
            self.load(f"{start}.{imported.attribute}")

    def _follow(self, name: str, number: int) -> None:
        """Reach what a statement uses."""
        module = self.module(name)
        statement = module.statements[number]
        for chain in statement.uses:
            local, attributes = chain[0], chain[1:]
            for imported in statement.imports:
                if imported.local == local:
                    self.imported(imported, attributes, module.source)
            if local in module.binding:
                self.named(name, local, attributes)
            elif not (
                hasattr(builtins, local)
                or local in OF_A_MODULE
                or any(imported.local == local for imported in statement.imports)
            ):
                self.whole(name)
            if (local in WHOLE and local not in module.binding) or chain[:2] == ("sys", "modules"):
                self._everything_near(name)
        if statement.dynamic:
            self._everything_near(name)
        for imported in statement.imports:
            if imported.deferred:
                self._load_imported(imported, module.source)
        for wanted in statement.computed:
            self._computed(wanted, module.source)

    def _everything_near(self, name: str) -> None:
        """Reach a module that looks at itself by names unknown here, and all of the user's that it imports."""
        self.whole(name)
        module = self.module(name)
        for statement in module.statements:
            for imported in statement.imports:
                start = absolute(imported.module, imported.level, module.source)
                if self.load(start) is not None:
                    self.whole(start)

    def _computed(self, wanted: str, source: Source) -> None:
        """Reach the modules that a call may import."""
        if wanted.startswith("."):
            level = len(wanted) - len(wanted.lstrip("."))
            self.through(absolute(wanted.lstrip(".") or None, level, source), ())
        elif wanted and not wanted.endswith("."):
            self.through(wanted, ())
        else:
            package = self.read(wanted.rstrip(".")) if wanted else None
            for name in below(package) if package else beside(source):
                self.through(name, ())

    def _has_effect(self, module: _Module, statement: Statement) -> bool:
        """Return whether importing the module may change something through what the statement calls or inherits."""
        return any(not self._is_pure(module, call) for call in statement.calls) or any(
            self._has_hook(module, base) for base in statement.bases
        )

    def _is_pure(self, module: _Module, call: Chain) -> bool:
        if not call:
            return False
        local, attributes = call[0], call[1:]
        if local not in module.binding:
            return local in PURE or attributes[-1:] in (("setter",), ("getter",), ("deleter",))
        imports = module.imports_of(local)
        if len(imports) < len(module.binding[local]):
            return False  # the user's own
        return all(self._is_pure_import(imported, attributes, module.source) for imported in imports)

    def _is_pure_import(self, imported: Imported, attributes: Chain, source: Source) -> bool:
        start = absolute(imported.module, imported.level, source)
        if self.read(start) is not None:
            return False
        if start.partition(".")[0] in PURE_MODULES:
            return True
        last = (*((imported.attribute,) if imported.attribute else ()), *attributes)[-1:]
        return bool(last) and is_library(start) and not CHANGES.match(last[0])

    def _has_hook(self, module: _Module, base: Chain) -> bool:
        """Return whether inheriting from a class of the user's runs their code."""
        return any("__init_subclass__" in text or "metaclass" in text for text in self._ancestry(module, base, set()))

    def _ancestry(self, module: _Module, base: Chain, seen: set[tuple[str, Chain]]) -> Iterator[str]:
        """Yield the texts of a user's class and of those it inherits from."""
        if not base or (module.source.name, base) in seen:
            return
        seen.add((module.source.name, base))
        for number in module.binding.get(base[0], ()):
            statement = module.statements[number]
            yield statement.text
            for above in statement.bases:
                yield from self._ancestry(module, above, seen)
            for imported in statement.imports:
                start = absolute(imported.module, imported.level, module.source)
                path = (*([imported.attribute] if imported.attribute else ()), *base[1:])
                while path and (other := self.load(start)) is not None:
                    if path[0] in other.binding:
                        yield from self._ancestry(other, tuple(path), seen)
                        break
                    start, path = f"{start}.{path[0]}", path[1:]
