"""What a measurement was made with: processor, versions, and what else the machine did."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from tombola import __version__
from tombola.export.c.build import FLAGS, compiler
from tombola.running.machine import machine

PACKAGES = ("torch", "numpy")
"""Packages that every measurement uses; rivals name theirs."""


@dataclass(frozen=True)
class Conditions:
    """What a measurement was made with.

    Args:
        machine: processor, cores and memory.
        load: processes that ran or waited, on average over the minute before; None where the system does not tell.
        versions: of tombola, Python and the packages that were used; "C compiler" with its flags, where there is one.
        rounds: how often each contender had its turn.
        examples: of the test set; None where no metric was measured.
    """

    machine: str
    load: float | None
    versions: dict[str, str]
    rounds: int
    examples: int | None


def conditions(packages: Iterable[str], rounds: int, examples: int | None) -> Conditions:
    """Return the conditions of a measurement that begins now.

    Args:
        packages: names of the rivals' packages; those that are not installed are left out.
        rounds, examples: as in `Conditions`.
    """
    found = {"tombola": __version__, "python": platform.python_version()}
    for name in dict.fromkeys([*PACKAGES, *packages]):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if (called := compiler()) is not None:
        found["C compiler"] = f"{_first_line(called)}, {' '.join(FLAGS)}"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return Conditions(machine("cpu"), load, found, rounds, examples)


def _first_line(called: str) -> str:
    """Return what a compiler says of its version."""
    try:
        said = subprocess.run([called, "--version"], capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return os.path.basename(called)
    return said.splitlines()[0] if said else os.path.basename(called)
