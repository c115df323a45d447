"""Where a user's own modules are looked for: after everything that is installed, and only when a name is resolved.

The current folder is not on the search path while a command runs. A file there that is called like a library -
pandas.py, random.py - is therefore never imported in its place, and standing in a stranger's folder runs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

_FOLDERS: list[str] = []  # of this process, those given first looked through first


def user_folders() -> tuple[str, ...]:
    """Return the folders in which the user's modules are looked for; hand them to `add_user_folders` in a worker."""
    return tuple(_FOLDERS)


def add_user_folders(folders: Iterable[str | Path]) -> None:
    """Look for the user's modules in these folders too, from now on. A worker process calls this first."""
    for folder in folders:
        absolute = str(Path(folder).absolute())
        if absolute not in _FOLDERS:
            _FOLDERS.append(absolute)


@contextmanager
def user_path(*folders: str | Path) -> Iterator[None]:
    """Look for the user's modules in these folders too, within the `with` block.

    >>> with user_path("/home/me/nets"):            # doctest: +SKIP
    ...     study = load_study("mine.yaml")
    """
    before, path = list(_FOLDERS), list(sys.path)
    add_user_folders(folders)
    try:
        yield
    finally:
        added = [folder for folder in _FOLDERS if folder not in before and folder not in path]
        _FOLDERS[:] = before
        sys.path[:] = [folder for folder in sys.path if folder not in added]


@contextmanager
def searching() -> Iterator[None]:
    """Put the user's folders at the end of the search path, within the `with` block.

    A folder from which a module has been imported stays there: its functions may import more when they are called.
    """
    added = [folder for folder in _FOLDERS if folder not in sys.path]
    sys.path.extend(added)
    before = set(sys.modules)
    try:
        yield
    finally:
        used = {_folder(name) for name in set(sys.modules) - before if "." not in name}
        for folder in added:
            if folder not in used and folder in sys.path:
                sys.path.remove(folder)


def _folder(name: str) -> str:
    """Return the folder from which a top-level module was found."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if spec is None:
        return ""
    if spec.submodule_search_locations:
        return str(Path(next(iter(spec.submodule_search_locations))).parent)
    return str(Path(spec.origin).parent) if spec.origin and spec.has_location else ""
