"""The harness fails what it should fail, and nothing else."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz_harness import harmless

from tombola.errors import InputError


class Cycle:
    """What only the garbage collector frees; its finalizer deletes a file, as that of compiled code does."""

    def __init__(self, path: Path):
        self.itself = self
        weakref.finalize(self, os.remove, path)


def test_garbage_of_earlier_tests_is_not_blamed_on_a_case(tmp_path: Path) -> None:
    path = tmp_path / "left"
    path.touch()
    gc.collect()
    Cycle(path)
    with harmless():
        _nested = [[] for _ in range(100_000)]  # enough for the collector to run
        assert path.exists()
    assert gc.isenabled()
    gc.collect()
    assert not path.exists()


def touch_after_an_inner_case(path: Path) -> None:
    with harmless():
        raise InputError("a message")
    path.touch()


def run_a_process(_path: Path) -> None:
    subprocess.run([sys.executable, "-c", ""], check=True)


@pytest.mark.parametrize(
    ("act", "named"),
    [
        (Path.touch, "open .*written"),
        (touch_after_an_inner_case, "open .*written"),
        (run_a_process, "subprocess.Popen"),
    ],
    ids=["write", "write after an inner case", "process"],
)
def test_what_no_case_may_do_fails_and_is_named(tmp_path: Path, act: Callable[[Path], None], named: str) -> None:
    with pytest.raises(AssertionError, match=named), harmless():
        act(tmp_path / "written")
    assert gc.isenabled()
