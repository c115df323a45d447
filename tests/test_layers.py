"""Imports go downwards only: each module imports its own room and the rooms below it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import tombola

SOURCE = Path(tombola.__file__).parent

# From top to bottom; rooms in one line stand side by side and do not import one another, unless `TOGETHER` says so.
ROOMS = (
    ("__main__", "__init__"),
    ("cli",),
    ("commands",),
    ("doctor",),
    ("html",),
    ("integrations",),
    ("session",),
    ("notebook",),
    ("figures",),
    ("tables",),
    ("export",),
    ("analysis",),
    ("running",),
    ("studies",),
    ("work",),
    ("training",),
    ("pruning", "networks", "data", "tasks", "formatting"),
    (
        "user_code",
        "registry",
        "section",
        "seeds",
        "memory",
        "tensor_files",
        "untrusted_yaml",
        "paths",
        "terminal",
        "extras",
        "errors",
        "revision",
    ),
)
RANK = {name: rank for rank, names in enumerate(ROOMS) for name in names}
TOGETHER = {RANK["tasks"], RANK["errors"]}  # small modules, which know one another

# (module, imported module): these point upwards, each with the way to remove it.
ALLOWED = {
    # `Ticket.export` is a shortcut for `tombola.export`. Let callers use the function, or attach the method from above.
    ("tombola.running.ticket", "tombola.export"),
}


def room_of(module: str) -> str:
    """Return the room of "tombola.figures.draw": "figures"."""
    return module.split(".")[1] if "." in module else "__init__"


def imported(path: Path) -> set[str]:
    """Return the modules of tombola that a file imports, lazily and for types too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.split(".")[0] == "tombola"}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            if node.module == "tombola":
                found |= {f"tombola.{name.name}" if name.name in RANK else "tombola" for name in node.names}
            elif node.module and node.module.startswith("tombola."):
                found.add(node.module)
    return found


def modules() -> dict[str, Path]:
    """Return each module of tombola with its file."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        found[".".join(("tombola", *(part for part in parts if part != "__init__")))] = path
    return found


def test_every_room_has_its_place() -> None:
    assert {room_of(module) for module in modules()} == set(RANK)


def test_imports_go_downwards() -> None:
    upwards = set()
    for module, path in modules().items():
        here = room_of(module)
        for other in imported(path):
            there = room_of(other)
            if other == "tombola":  # the version, which stands in the root
                continue
            beside = RANK[there] == RANK[here] and there != here and RANK[here] not in TOGETHER
            if RANK[there] < RANK[here] or beside:
                upwards.add((module, other))
    new, gone = upwards - ALLOWED, ALLOWED - upwards
    assert not new, "these imports point upwards:\n" + "\n".join(f"{a} imports {b}" for a, b in sorted(new))
    assert not gone, f"these imports are gone; take them off the list: {sorted(gone)}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import tombola.figures.draw as d", {"tombola.figures.draw"}),
        ("def f():\n    from tombola.running.run import run", {"tombola.running.run"}),
        ("if TYPE_CHECKING:\n    from tombola import figures, __version__", {"tombola.figures", "tombola"}),
        ("import tombolas, os", set()),
    ],
)
def test_what_counts_as_an_import(text: str, found: set[str], tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    file.write_text(text)
    assert imported(file) == found
