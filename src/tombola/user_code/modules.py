"""Modules as files: where one lies, what its source is, and whether it belongs to the user or to the environment."""

from __future__ import annotations

import hashlib
import importlib.util
import site
import sys
import sysconfig
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path

INSTALLED = ("site-packages", "dist-packages")  # folders of installed packages, of whichever environment
OURS = "tombola"


@dataclass(frozen=True)
class Source:
    """A module of the user's project.

    Args:
        name: as it is imported.
        package: whether it is a package, from which `from . import x` starts.
        folders: where its submodules lie; of a package only.
        text: its source; None for a compiled module.
        digest: of its bytes, for a compiled module; else "".
    """

    name: str
    package: bool
    folders: tuple[str, ...]
    text: str | None
    digest: str = ""


def spec_of(name: str) -> ModuleSpec | None:
    """Return where a module lies, without importing it or its parents; None for none."""
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__spec__", None) is not None:
        return loaded.__spec__
    parent, _, _ = name.rpartition(".")
    path = None
    if parent:
        above = spec_of(parent)
        if above is None or above.submodule_search_locations is None:
            return None
        path = list(above.submodule_search_locations)
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        found = find(name, path) if find else None
        if found is not None:
            return found
    return None


def is_library(name: str) -> bool:
    """Return whether a module is installed, built in, or tombola's own rather than the user's.

    The version of a library is the environment's business. A package that is installed in editable mode lies in the
    user's project, and is the user's.
    """
    top = name.partition(".")[0]
    if top == OURS or top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return True
    spec = spec_of(name)
    if spec is None:
        return True
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    return not places or all(_is_installed(place) for place in places)


def in_stdlib(name: str) -> bool:
    """Return whether a module is part of Python itself."""
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return True
    spec = spec_of(top)
    if spec is None or not spec.origin or not spec.has_location:
        return False
    path = Path(spec.origin).resolve()
    return not set(INSTALLED) & set(path.parts) and any(path.is_relative_to(place) for place in _places("stdlib"))


@lru_cache(maxsize=4096)
def _is_installed(place: str) -> bool:
    path = Path(place).resolve()
    if set(INSTALLED) & set(path.parts):
        return True
    return any(path.is_relative_to(root) for root in _places("stdlib", "purelib", "platlib"))


@lru_cache(maxsize=8)
def _places(*kinds: str) -> tuple[Path, ...]:
    names = [sysconfig.get_path(kind) for kind in kinds]
    if "stdlib" in kinds:
        names.append(sysconfig.get_path("platstdlib"))
    if "purelib" in kinds and site.ENABLE_USER_SITE:
        names.append(site.getusersitepackages())
    return tuple(Path(name).resolve() for name in names if name)


def source_of(name: str) -> Source | None:
    """Return a module of the user's as it lies on the disk now; None for a library, or where the module does not exist.

    A namespace package, which is a folder without code, has an empty text.
    """
    if is_library(name):
        return None
    spec = spec_of(name)
    assert spec is not None
    folders = tuple(spec.submodule_search_locations or ())
    package = spec.submodule_search_locations is not None
    if spec.origin is None or not spec.has_location:
        return Source(name, package, folders, "")
    try:
        content = Path(spec.origin).read_bytes()
        if spec.origin.endswith((".py", ".pyw")):
            return Source(name, package, folders, importlib.util.decode_source(content))
    except (OSError, UnicodeDecodeError, SyntaxError):
        return Source(name, package, folders, None, hashlib.sha256(spec.origin.encode()).hexdigest())
    return Source(name, package, folders, None, hashlib.sha256(content).hexdigest())


def absolute(name: str | None, level: int, source: Source) -> str:
    """Return the absolute name of what `from <level dots><name> import ...` names in a module; "" beyond the top."""
    if level == 0:
        return name or ""
    parts = source.name.split(".")
    keep = len(parts) - level + (1 if source.package else 0)
    if keep < 1:
        return ""
    return ".".join([*parts[:keep], *([name] if name else [])])


def beside(source: Source) -> list[str]:
    """Return the names of all modules of the project that a module belongs to, in order; at most `MANY` are listed.

    They are what a computed import may mean: the modules and packages in the folder from which its top is imported.
    """
    top = source_of(source.name.partition(".")[0])
    spec = spec_of(source.name.partition(".")[0])
    if top is None or spec is None:
        return [source.name]
    if spec.origin is None:
        roots = [Path(folder).parent for folder in top.folders[:1]]
    else:
        roots = [Path(spec.origin).parent.parent if top.package else Path(spec.origin).parent]
    return sorted({name for root in roots for name in _below(root, "")})[:MANY]


def below(source: Source) -> list[str]:
    """Return the names of all modules inside a package, in order."""
    return sorted({name for folder in source.folders for name in _below(Path(folder), source.name + ".")})[:MANY]


MANY = 2000  # modules of a project that a computed import is taken to mean


def _below(folder: Path, prefix: str) -> list[str]:
    found = []
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    for path in entries:
        if path.suffix == ".py" and path.stem.isidentifier() and path.stem != "__init__":
            found.append(prefix + path.stem)
        elif path.name.isidentifier() and (path / "__init__.py").is_file():
            found += [prefix + path.name, *_below(path, f"{prefix}{path.name}.")]
        if len(found) > MANY:
            break
    return found
