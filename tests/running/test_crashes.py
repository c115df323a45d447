"""Killed before any change of the disk, or in the middle of any write, a run ends as if nothing had been."""

from __future__ import annotations

import builtins
import io
import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from small_runs import assert_same_outcomes

import tombola

CHANGES = {"pruning.rounds": 1, "arms": ["ticket"], "training.iterations": 20, "training.evaluate_every": 10}
Small = Callable[..., tombola.Study]
LEFT = {".leases", ".locks"}


class KilledHere(BaseException):
    """Stands for kill -9: nothing catches it, and nothing that is cleaned up on the way out reaches the disk."""


class Disk:
    """Counts the changes of the disk, and lets the process die at one of them.

    Args:
        death: the number of the change before which the process dies, counted from 0; None for never.
        halfway: it dies in the middle of that change, where that is a write.

    Attributes:
        seen: names of the changes so far.
    """

    def __init__(self, death: int | None = None, halfway: bool = False):
        self.death, self.halfway = death, halfway
        self.seen: list[str] = []
        self.dead = False

    def change(self, name: str, half: Callable[[], object] | None = None) -> None:
        """Note a change that is about to happen, or die."""
        if self.dead:
            raise KilledHere
        self.seen.append(name)
        if len(self.seen) - 1 == self.death and (half is None or not self.halfway):
            self.dead = True
            raise KilledHere
        if len(self.seen) - 1 == self.death and half is not None:
            half()
            self.dead = True
            raise KilledHere


class HalfWritten:
    """A file whose writes are changes of the disk."""

    def __init__(self, file: Any, disk: Disk):
        self._file, self._disk = file, disk

    def write(self, content: Any) -> Any:
        self._disk.change("write", lambda: (self._file.write(content[: len(content) // 2]), self._file.flush()))
        return self._file.write(content)

    def __enter__(self) -> HalfWritten:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def with_disk() -> Iterator[Callable[[Disk], None]]:
    """Put a disk in the place of the real one, until another is put there."""
    with pytest.MonkeyPatch.context() as patch:

        def use(disk: Disk) -> None:
            patch.undo()

            def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
                def change(*arguments: Any, **options: Any) -> Any:
                    disk.change(name)
                    return real(*arguments, **options)

                return change

            for name in ("replace", "fsync", "unlink", "rmdir", "mkdir"):
                patch.setattr(os, name, counted(name, getattr(os, name)))
            real_open, real_copy = io.open, shutil.copyfile

            def opened(path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
                if not set(mode) & set("wxa+"):
                    return real_open(path, mode, *arguments, **options)
                disk.change("open")
                return HalfWritten(real_open(path, mode, *arguments, **options), disk)

            def half_of(target: Any, content: bytes) -> None:
                with real_open(target, "wb") as file:
                    file.write(content[: len(content) // 2])

            def copied(source: Any, target: Any, **options: Any) -> Any:
                content = Path(source).read_bytes()
                disk.change("copy", lambda: half_of(target, content))
                return real_copy(source, target, **options)

            patch.setattr(io, "open", opened)
            patch.setattr(builtins, "open", opened)
            patch.setattr(shutil, "copyfile", copied)

        yield use
        patch.undo()


def crash_everywhere(
    begin: Callable[[Path], Path], run: Callable[[Path], object], whole: Path, tmp_path: Path, stride: int, use: Any
) -> set[str]:
    """Crash at each change of the disk, run again, and compare; return the names of the changes.

    Args:
        begin: prepares a folder of its own, and returns the results folder in it.
        run: what is to be killed.
        whole: a results folder of one that was not.
        stride: tries only one change in so many.
        use: puts a disk in place.
    """
    names: set[str] = set()
    for number in itertools.count(0, stride):
        for halfway in (False, True):
            out = begin(tmp_path / f"{number}-{halfway}")
            disk = Disk(number, halfway)
            use(disk)
            try:
                run(out)
            except KilledHere:
                use(Disk())
                run(out)
            use(Disk())
            assert_same_outcomes(out, whole)
            assert {path.name for path in (out / "jobs").glob(".*") if not path.name.endswith(".tmp")} <= LEFT
            names.update(disk.seen)
            shutil.rmtree(tmp_path / f"{number}-{halfway}")
            if not disk.dead:  # it came through
                assert number > 25
                return names
            if disk.seen[-1] not in ("write", "copy"):
                break
    raise AssertionError("it never came through")


STRIDES = [pytest.param(19, id="some"), pytest.param(1, id="every", marks=pytest.mark.slow)]


def train(study: tombola.Study, out: Path, every: float = 30.0) -> None:
    tombola.run(study, out, workers=0, checkpoint_every=every, figures=False, quiet=True)


@pytest.mark.parametrize("stride", STRIDES)
def test_killed_in_a_run(small: Small, tmp_path: Path, stride: int, with_disk: Any) -> None:
    study = small(**CHANGES)
    whole = tmp_path / "whole" / "out"
    train(study, whole)
    names = crash_everywhere(
        lambda folder: folder / "out", lambda out: train(study, out, 1e-9), whole, tmp_path, stride, with_disk
    )
    assert names == {"open", "write", "fsync", "replace", "unlink", "mkdir", "rmdir"}


@pytest.mark.parametrize("stride", STRIDES)
def test_killed_while_a_neighbour_s_results_are_adopted(
    small: Small, tmp_path: Path, stride: int, with_disk: Any
) -> None:
    study = small(**CHANGES)
    whole = tmp_path / "whole" / "out"
    train(study, whole)

    def beside(folder: Path) -> Path:
        shutil.copytree(whole, folder / "first")
        return folder / "second"

    names = crash_everywhere(beside, lambda out: train(study, out), whole, tmp_path, stride, with_disk)
    assert names >= {"copy", "replace", "mkdir"}


@pytest.mark.parametrize("stride", STRIDES)
def test_killed_while_a_poorer_result_is_replaced(small: Small, tmp_path: Path, stride: int, with_disk: Any) -> None:
    early, late = small(**CHANGES), small(rewind=5, **CHANGES)
    base, whole = tmp_path / "base" / "out", tmp_path / "whole" / "out"
    train(early, base)
    shutil.copytree(base, whole)
    train(late, whole)

    def copied(folder: Path) -> Path:
        shutil.copytree(base, folder / "out")
        return folder / "out"

    names = crash_everywhere(copied, lambda out: train(late, out), whole, tmp_path, stride, with_disk)
    assert names >= {"write", "fsync", "replace", "unlink", "rmdir"}
