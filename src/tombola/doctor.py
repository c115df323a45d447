"""`tombola doctor`: what tombola finds on this machine, and what it will use and why."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tombola import __version__
from tombola.commands.options import LocalPath
from tombola.errors import DataError, InputError, NotDownloaded
from tombola.extras import EXTRAS, INTEGRATIONS, install, installed
from tombola.terminal import console, markup

if TYPE_CHECKING:
    from rich.table import Table

PUBLISHED = ("mnist", "fashion-mnist", "cifar10", "cifar100")
LITTLE_SPACE = 5e9  # bytes


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        what: was looked at.
        found: in a few words.
        means: what tombola does because of it, or what a person can do.
        fault: whether something does not work as it is.
    """

    what: str
    found: str
    means: str = ""
    fault: bool = False


def findings(data: Path | None = None, folder: Path | None = None) -> Iterator[Finding]:
    """Yield what tombola finds on this machine.

    Args:
        data: the folder of data sets; None searches that of TOMBOLA_DATA and the cache.
        folder: where results will be written; None for the current folder.
    """
    yield from _versions()
    yield from _processor()
    yield _device()
    yield from _compilers()
    yield from _data_sets(data)
    yield _space(folder or Path())
    yield from _extras()


def _versions() -> Iterator[Finding]:
    import numpy
    import torch

    yield Finding("tombola", __version__, f"in {Path(__file__).parent}")
    yield Finding("Python", platform.python_version(), platform.platform())
    yield Finding("PyTorch", str(torch.__version__), f"with NumPy {numpy.__version__}")


def _processor() -> Iterator[Finding]:
    import torch

    from tombola.running.devices import cores
    from tombola.running.machine import machine

    yield Finding("machine", machine("cpu"))
    count, whole = cores(), os.cpu_count() or 1
    limited = "" if count == whole else f"; this process may use {count} of {whole}"
    yield Finding("cores", str(count), f"tombola trains {count} small runs at a time{limited}")
    yield Finding("instruction set", torch.backends.cpu.get_cpu_capability(), "PyTorch's kernels use it")


def _device() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", "none", "tombola trains on the CPU")
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    more = "; --device cuda:1 chooses the second" if len(names) > 1 else ""
    return Finding("GPU", ", ".join(names), f"tombola trains stacks of runs on the first{more}")


def _compilers() -> Iterator[Finding]:
    from tombola.export.c.build import compiler

    if installed("numba"):
        yield Finding("sparse engines", "Numba is installed", "sparse networks train faster than dense ones on the CPU")
    else:
        yield Finding("sparse engines", "off", f"sparse networks train as slowly as dense ones; {install('numba')}")
    found = compiler()
    means = "tombola measures exported C with it" if found else "exported C can't be measured; install gcc or clang"
    yield Finding("C compiler", found or "none", means)


def _data_sets(data: Path | None) -> Iterator[Finding]:
    from tombola.data import DataSettings, load
    from tombola.running.run import data_folder

    try:
        data_folder(data)
    except InputError as error:  # `tombola run` refuses it, too
        yield Finding("data sets", "no such folder", str(error), fault=True)
        return
    for name in PUBLISHED:
        try:
            load(DataSettings(source=name, validation=1), data, download=False)
        except NotDownloaded:
            yield Finding(f"data: {name}", "none", "tombola downloads it when a study needs it")
        except DataError as error:
            yield Finding(f"data: {name}", "damaged", str(error), fault=True)
        else:
            yield Finding(f"data: {name}", "found", "complete, with the published checksums")


def _space(folder: Path) -> Finding:
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    if not os.access(there, os.W_OK):
        return Finding(
            "results", "no permission", f"{there} can't be written; choose another folder with --out", fault=True
        )
    free = shutil.disk_usage(there).free
    little = free < LITTLE_SPACE
    advice = "; large studies need several GB" if little else ""
    return Finding("results", f"{free / 1e9:,.1f} GB free", f"in {there.absolute()}{advice}", fault=free < 2**27)


def _extras() -> Iterator[Finding]:
    names = sorted({*EXTRAS.values(), *INTEGRATIONS.values()})
    of = {name: [module for module, extra in (EXTRAS | INTEGRATIONS).items() if extra == name] for name in names}
    there = [name for name in names if all(map(installed, of[name]))]
    missing = [name for name in names if name not in there]
    yield Finding("extras", ", ".join(there) or "none", f"not installed: {', '.join(missing)}" if missing else "")


def report(found: Iterable[Finding]) -> Table:
    """Return a table of findings for a terminal."""
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(max_width=24)
    table.add_column(overflow="fold")
    for finding in found:
        table.add_row(
            *map(markup, (finding.what, finding.found, finding.means)), style="bold red" if finding.fault else ""
        )
    return table


@click.command("doctor")
@click.option(
    "--data",
    type=LocalPath(),
    envvar="TOMBOLA_DATA",
    help="Set the folder of data sets, in torchvision's layout. [default: $TOMBOLA_DATA, or the cache]",
)
@click.option("--out", type=LocalPath(), help="Set the results folder. [default: this folder]")
def doctor(data: Path | None, out: Path | None) -> None:
    """Show what tombola finds on this machine, and what it will use.

    The exit status is 1 if something needs your help, such as a damaged data set.
    """
    found = list(findings(data, out))
    console(highlight=False, width=None if sys.stdout.isatty() else 120).print(report(found))  # else cut at 80
    if any(finding.fault for finding in found):
        raise SystemExit(1)
