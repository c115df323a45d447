"""A module's source as top-level statements: what each of them binds, uses, imports and does when it is imported.

Comments, blank lines, formatting and docstrings leave no trace here. Nor does what importing a module skips:
`if __name__ == "__main__"` and `if TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
import symtable
from collections.abc import Iterator
from dataclasses import dataclass

Chain = tuple[str, ...]  # a name and the attributes asked of it: `h.net.f` is ("h", "net", "f")

Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
IMPORTS_BY_NAME = {"import_module", "__import__"}
LOADS_FILES = {"spec_from_file_location", "exec_module", "load_module", "run_path", "run_module", "iter_modules"}
LOADS_FILES |= {"walk_packages", "import_submodules"}
LOOKS_ANYWHERE = {"__subclasses__", "__globals__", "f_globals"}


@dataclass(frozen=True)
class Imported:
    """One name that an import statement binds.

    Args:
        local: the name; "*" of a star import.
        module: what is imported, or imported from; None in `from . import x`.
        level: number of leading dots.
        attribute: what is imported from it; None where the module itself is bound.
        top: whether `local` is the first part of `module`, as in `import a.b`.
        deferred: whether it stands in a function, so that it runs only when that is called.
    """

    local: str
    module: str | None
    level: int
    attribute: str | None
    top: bool
    deferred: bool


@dataclass(frozen=True)
class Statement:
    """One top-level statement of a module, or one name of a top-level import.

    Args:
        text: equal for two statements that differ in layout, comments and docstrings alone.
        binds: names that it gives to the module.
        uses: names of the module, or of its own imports, that it uses anywhere, with the attributes asked of them.
        imports: names that it imports, at any depth.
        calls: what is called when the module is imported, decorators included; an empty chain is a call of something
            without a name.
        bases: classes that a class at import time inherits from.
        acts: whether it does something on import whatever it calls, such as a loop, or `settings.depth = 3`.
        computed: names of modules that are imported by a call: "" for any, "nets." for any below that.
        dynamic: whether it reaches things through their names as values.
    """

    text: str
    binds: frozenset[str]
    uses: frozenset[Chain]
    imports: tuple[Imported, ...] = ()
    calls: frozenset[Chain] = frozenset()
    bases: frozenset[Chain] = frozenset()
    acts: bool = False
    computed: frozenset[str] = frozenset()
    dynamic: bool = False


def statements(text: str) -> list[Statement]:
    """Return what a module's source consists of, in its order.

    Raises:
        SyntaxError: it is not Python.
        RecursionError: it is nested too deeply.
    """
    body = ast.parse(text).body
    if "__doc__" not in text:
        body = [kept for kept in (_WithoutTexts().visit(node) for node in body) if kept is not None]
    found: list[Statement] = []
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            found += [_import(imported) for imported in _imported(node, deferred=False)]
        elif isinstance(node, ast.If) and _never_runs(node.test):
            found += [_statement(each) for each in node.orelse]
        else:
            found.append(_statement(node))
    return found


class _WithoutTexts(ast.NodeTransformer):
    """Drops docstrings, and every other statement that is nothing but a text."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return None
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(getattr(node, "body", None), list) and not node.body:  # type: ignore[attr-defined]
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node


def _never_runs(test: ast.expr) -> bool:
    """Return whether a condition is false while a module is imported."""
    if isinstance(test, ast.Compare) and isinstance(test.left, ast.Name) and test.left.id == "__name__":
        other = test.comparators[0]
        return isinstance(test.ops[0], ast.Eq) and isinstance(other, ast.Constant) and other.value == "__main__"
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _import(imported: Imported) -> Statement:
    origin = ("." * imported.level, imported.module, imported.attribute, imported.top)
    return Statement(
        text=f"import {imported.local} {origin}",
        binds=frozenset(() if imported.local == "*" else (imported.local,)),
        uses=frozenset(),
        imports=(imported,),
    )


def _statement(node: ast.stmt) -> Statement:
    table = symtable.symtable(ast.unparse(node), "<statement>", "exec")
    names = set(_globals_of(table))
    now = list(_import_time(node))
    imports = tuple(_all_imports(node))
    local = {imported.local for imported in imports}
    return Statement(
        text=dump(node),
        binds=frozenset(
            symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()
        ),
        uses=frozenset(chain for chain in _chains(node) if chain[0] in names or chain[0] in local),
        imports=imports,
        calls=frozenset(call for each in now for call in _calls_of(each)),
        bases=frozenset(_chain(base) for each in now if isinstance(each, ast.ClassDef) for base in each.bases),
        acts=_acts(node),
        computed=frozenset(found for each in ast.walk(node) for found in _computed(each)),
        dynamic=any(isinstance(each, ast.Attribute) and each.attr in LOOKS_ANYWHERE for each in ast.walk(node)),
    )


def _globals_of(table: symtable.SymbolTable, inside: bool = False) -> Iterator[str]:
    """Yield the names that a statement looks up in its module, or among the built-in ones."""
    in_class = table.get_type() == "class" or str(table.get_type()).endswith("CLASS")
    for symbol in table.get_symbols():
        if (symbol.is_referenced() or symbol.is_declared_global()) and (not inside or in_class or symbol.is_global()):
            yield symbol.get_name()
    for child in table.get_children():
        yield from _globals_of(child, inside=True)


def _chain(node: ast.expr) -> Chain:
    """Return a name with its attributes, `h.net.f()(3)` as ("h", "net", "f"); () for anything without a name."""
    attributes: list[str] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            attributes.append(node.attr)
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        elif isinstance(node, ast.Subscript):
            node = node.value
        else:
            return ()
    return (node.id, *reversed(attributes))


def _chains(node: ast.AST) -> Iterator[Chain]:
    """Yield each use of a name, with the attributes that directly follow it."""
    if isinstance(node, ast.Attribute):
        attributes, inner = [node.attr], node.value
        while isinstance(inner, ast.Attribute):
            attributes.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            yield (inner.id, *reversed(attributes))
        else:
            yield from _chains(inner)
        return
    if isinstance(node, ast.Name):
        yield (node.id,)
    elif isinstance(node, ast.Global):
        yield from ((name,) for name in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _chains(child)


def _import_time(node: ast.AST) -> Iterator[ast.AST]:
    """Yield all nodes whose code runs when the module is imported: of a function its decorators and defaults alone."""
    yield node
    if isinstance(node, Function):
        runs: list[ast.AST | None] = [*node.args.defaults, *node.args.kw_defaults]
        runs += getattr(node, "decorator_list", [])
    else:
        runs = list(ast.iter_child_nodes(node))
    for child in runs:
        if child is not None:
            yield from _import_time(child)


def _calls_of(node: ast.AST) -> Iterator[Chain]:
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Constant)):  # ", ".join(...)
            yield _chain(node.func)
    elif isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        yield from (_chain(decorator) for decorator in node.decorator_list)
        if isinstance(node, ast.ClassDef):  # a metaclass runs, and so may the base's __init_subclass__
            values = (keyword.value for keyword in node.keywords)
            yield from (_chain(value) for value in values if not isinstance(value, ast.Constant))


def _acts(node: ast.stmt) -> bool:
    """Return whether a top-level statement does more on import than to bind names to what it calls."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Pass):
        return False
    if isinstance(node, ast.Assign):
        return not all(_only_names(target) for target in node.targets)
    if isinstance(node, ast.AnnAssign | ast.AugAssign):
        return not _only_names(node.target)
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.If):
        return any(_acts(each) for each in (*node.body, *node.orelse))
    if isinstance(node, ast.Try):
        inside = [each for handler in node.handlers for each in handler.body]
        return any(_acts(each) for each in (*node.body, *inside, *node.orelse, *node.finalbody))
    return type(node).__name__ != "TypeAlias"  # of Python 3.12 and later


def _only_names(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple | ast.List):
        return all(_only_names(each) for each in target.elts)
    return isinstance(target, ast.Name) or (isinstance(target, ast.Starred) and _only_names(target.value))


def _all_imports(node: ast.AST, deferred: bool = False) -> Iterator[Imported]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _imported(node, deferred)
    if isinstance(node, ast.If) and _never_runs(node.test):
        children: list[ast.AST] = list(node.orelse)
    else:
        children = list(ast.iter_child_nodes(node))
    for child in children:
        yield from _all_imports(child, deferred or isinstance(node, Function))


def _imported(node: ast.Import | ast.ImportFrom, deferred: bool) -> Iterator[Imported]:
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            yield Imported(alias.asname or alias.name, node.module, node.level, alias.name, False, deferred)
        elif alias.asname:
            yield Imported(alias.asname, alias.name, 0, None, False, deferred)
        else:
            yield Imported(alias.name.partition(".")[0], alias.name, 0, None, True, deferred)


def _computed(node: ast.AST) -> Iterator[str]:
    """Yield which modules a call imports that names them by a text or by a value."""
    if not isinstance(node, ast.Call):
        return
    name = (_chain(node.func) or ("",))[-1]
    if name in LOADS_FILES:
        yield ""
    elif name in IMPORTS_BY_NAME:
        first = node.args[0] if node.args else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            yield first.value
        elif isinstance(first, ast.JoinedStr) and first.values and isinstance(first.values[0], ast.Constant):
            start = str(first.values[0].value)
            yield start[: start.rfind(".") + 1] if not start.startswith(".") else ""
        else:
            yield ""


def dump(node: object) -> str:
    """Return a syntax tree as text that does not depend on the version of Python: empty fields are omitted."""
    if isinstance(node, ast.AST):
        fields = []
        for name in node._fields:
            value = getattr(node, name, None)
            if name not in ("ctx", "kind", "type_comment") and value is not None and value != []:
                fields.append(f"{name}={dump(value)}")
        return f"{type(node).__name__}({','.join(fields)})"
    if isinstance(node, list):
        return f"[{','.join(dump(each) for each in node)}]"
    return repr(node)
