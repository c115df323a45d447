"""Help is there at once: nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

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
