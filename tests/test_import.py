"""Help is there at once: nothing heavy is imported before it is needed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tombola

SOURCE = Path(tombola.__file__).parent

HEAVY = (
    *("torch", "pandas", "numpy", "matplotlib", "PIL", "pydantic", "rich.live", "loky", "requests", "pooch"),
    *("scipy", "numba", "pyarrow", "vl_convert", "codecarbon"),
)
AT_MOST = 0.7  # seconds


def python(code: str, *options: str) -> str:
    done = subprocess.run([sys.executable, *options, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import tombola",
        "import tombola.cli",
        "import tombola; tombola.InputError, tombola.StoppedByUser, dir(tombola)",
        "import sys; sys.argv = ['tombola', '--help']; from tombola.cli import main; main()",
        "import sys; sys.argv = ['tombola', 'run', '--help']; from tombola.cli import main; main()",
        "import sys; sys.argv = ['tombola', '--version']; from tombola.cli import main; main()",
    ],
)
def test_nothing_heavy_is_imported(code: str) -> None:
    tail = f"\nimport sys; print('LOADED', [name for name in {HEAVY} if name in sys.modules])"
    assert python(code + tail).splitlines()[-1] == "LOADED []"


@pytest.mark.parametrize("line", [["-c", "import tombola"], ["-m", "tombola", "--help"]])
def test_it_is_quick(line: list[str]) -> None:
    times = []
    for _ in range(5):  # the best of them, for other work on the machine is not ours
        began = time.perf_counter()
        subprocess.run([sys.executable, *line], capture_output=True, check=True)
        times.append(time.perf_counter() - began)
        if min(times) < AT_MOST:
            return
    raise AssertionError(f"{min(times):.2f} s")


def test_no_command_at_all_gives_help() -> None:
    done = subprocess.run([sys.executable, "-m", "tombola"], capture_output=True, text=True)
    assert "Usage: " in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


EACH_ALONE = """
import importlib, os, sys, traceback
import click, loky, matplotlib.figure, numpy, pandas, pooch, pydantic, rich.live, ruamel.yaml, scipy.stats, torch

from tombola.errors import InputError

lost = []
for name in sys.argv[1:]:
    child = os.fork()
    if not child:
        try:
            importlib.import_module(name)
        except InputError:  # an extra that is not installed
            os._exit(0)
        except ModuleNotFoundError as error:
            os._exit("tombola" in (error.name or ""))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        lost.append(name)
print(lost)
"""


def imported_first() -> set[str]:
    """Return the module of tombola that each function of the command line's files imports first."""
    texts = [text for path in SOURCE.rglob("*.py") if "@click.command" in (text := path.read_text())]
    found = set()
    for function in (part for text in texts for part in ast.walk(ast.parse(text)) if isinstance(part, ast.FunctionDef)):
        imports = (part for part in ast.walk(function) if isinstance(part, ast.ImportFrom))
        late = [part for part in imports if "tombola." in (part.module or "")]
        found |= {part.module or "" for part in sorted(late, key=lambda part: part.lineno)[:1]}
    return found


def all_modules() -> set[str]:
    names = {".".join(path.relative_to(SOURCE.parent).with_suffix("").parts) for path in SOURCE.rglob("*.py")}
    return {name.removesuffix(".__init__") for name in names if not name.endswith("__main__")}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="it forks")
@pytest.mark.parametrize("which", ["commands", pytest.param("all", marks=pytest.mark.slow)])
def test_each_module_can_be_the_first_one_imported(which: str) -> None:
    """Modules that import each other in a circle work in one order only: a command has another than the tests."""
    names = all_modules() if which == "all" else imported_first()
    assert len(names) > 10
    command = [sys.executable, "-W", "ignore", "-c", EACH_ALONE, *sorted(names)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
