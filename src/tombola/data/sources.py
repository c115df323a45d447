"""The table of data sources, and the three questions that each of them answers."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from tombola.data import cifar, digits, functions, own, permuted, published
from tombola.data.dataset import Description
from tombola.data.settings import DataSettings
from tombola.data.splitting import AnyDataset, check_rows_again, held_out, own_rows
from tombola.errors import DataError, InputError, nearest
from tombola.paths import local_path
from tombola.registry import code_fingerprint, names
from tombola.seeds import Seeds


@dataclass(frozen=True)
class Place:
    """Where a source's data lie: all that loading depends on, and the key that it is remembered by.

    Args:
        root: the user's data folder, absolute; None: only the cache.
        path: a user's own file, absolute.
        stamp: changes when that file does.
        arguments: of the user's function, as JSON.
        stream: that examples are read when they are needed.
        kind: what the file's arrays hold, as in the `data` section.
        may_download: doesn't count in the key, since it doesn't change what is loaded.
    """

    root: Path | None = None
    path: Path | None = None
    stamp: tuple[int, ...] = ()
    arguments: str = ""
    stream: bool = False
    kind: str = "image"
    may_download: bool = field(default=True, compare=False)

    @property
    def file(self) -> Path:
        """The user's own file."""
        assert self.path is not None
        return self.path


@dataclass(frozen=True)
class Source:
    """One source of data.

    Args:
        describe: must not download.
        load: gives the data set that `describe` announced.
        fingerprint: identity of the content; "" where the name of the source suffices.
    """

    describe: Callable[[Place], Description]
    load: Callable[[Place], AnyDataset]
    fingerprint: Callable[[Place], str] = lambda place: ""


def _published(name: str) -> Source:
    return Source(
        describe=lambda place: published.PUBLISHED[name].description,
        load=lambda place: published.load(name, place.root, place.may_download),
    )


def _cifar(name: str) -> Source:
    return Source(
        describe=lambda place: cifar.CIFAR[name].description,
        load=lambda place: cifar.load(name, place.root, place.may_download),
    )


SOURCES: dict[str, Source] = {
    "mnist": _published("mnist"),
    "fashion-mnist": _published("fashion-mnist"),
    "mnist-permuted": Source(
        describe=lambda place: published.PUBLISHED["mnist"].description,
        load=lambda place: permuted.permuted(published.load("mnist", place.root, place.may_download), "mnist-permuted"),
    ),
    "cifar10": _cifar("cifar10"),
    "cifar100": _cifar("cifar100"),
    "digits": Source(describe=lambda place: digits.DESCRIPTION, load=lambda place: digits.load()),
    "npz": Source(
        describe=lambda place: own.describe(place.file, place.kind),
        load=lambda place: own.load(place.file, place.kind),
        fingerprint=lambda place: own.fingerprint(place.file),
    ),
}


def describe(settings: DataSettings, root: Path | None = None) -> Description:
    """Return shapes and sizes, without downloading; of a user's own file the inputs are not read either.

    Args:
        settings: the `data` section of a study; a relative `path` starts from the current directory, and a file that
            is not where `path` says is looked for in the user's data folder.
        root: that folder; None: what the environment variable TOMBOLA_DATA names, if it is set.

    Raises:
        InputError: no such source.
        DataError: the user's own file is missing or invalid.
    """
    place = _place(settings, root)
    found = _remember_description(settings.source, place)
    if isinstance(settings.validation, str):  # only the function knows
        dataset = load(settings, root)
        rows = own_rows(dataset, settings.validation, Seeds(0, 0))
        check_rows_again(dataset, settings.validation, rows)
        return replace(found, validation=len(rows))
    return replace(found, validation=held_out(settings.validation, found.train))


def fingerprint(settings: DataSettings, root: Path | None = None) -> str:
    """Return what identifies the content beside the source's name: sha256 of the user's own file, else "".

    Two files with the same bytes have the same fingerprint wherever they lie.

    Raises:
        InputError: no such source.
        DataError: the user's own file can't be read.
    """
    _source(settings)
    content = _remember_fingerprint(settings.source, _place(settings, root))
    if not isinstance(settings.validation, str):
        return content
    code = code_fingerprint(settings.validation, {}, "validation split")
    return hashlib.sha256(f"{content}/{code}".encode()).hexdigest()


def load(settings: DataSettings, root: Path | None = None, download: bool = True) -> Any:
    """Return the data set, a `Dataset` or a `Streamed`; downloaded first where needed; remembered by the process.

    Args:
        settings: the `data` section of a study; `path` as in `describe`.
        root: the user's data folder, in torchvision's layout; None: what the environment variable TOMBOLA_DATA
            names, if it is set. What is missing is looked for in the user's cache folder.
        download: False: what is in neither is an error.

    Raises:
        InputError: no such source.
        DataError: the data are missing and can't be had, damaged, or not of the shape that they should have.
    """
    _source(settings)
    return _remember(settings.source, _place(settings, root, download))


# A worker runs many runs on one data set; a few are kept for a process that goes through several studies.
@lru_cache(maxsize=4)
def _remember(source: str, place: Place) -> Any:
    return _source_named(source).load(place)


@lru_cache(maxsize=64)
def _remember_fingerprint(source: str, place: Place) -> str:
    return _source_named(source).fingerprint(place)


@lru_cache(maxsize=64)
def _remember_description(source: str, place: Place) -> Description:
    return _source_named(source).describe(place)


def forget_copies(dataset: AnyDataset) -> None:
    """Let go of a loaded data set whose values training holds as float32 too; it is read again for another trial."""
    if dataset.is_copied:
        _remember.cache_clear()


_FIRST: dict[tuple[str, Place], str] = {}
"""Fingerprints of what users' functions gave when they were first asked: identities of runs come from these."""


def look_again() -> None:
    """Forget what users' functions gave: the files that they read may have changed since, as in a notebook."""
    if _FIRST:
        _FIRST.clear()
        for remembered in (_remember, _remember_fingerprint, _remember_description):
            remembered.cache_clear()


def _source(settings: DataSettings) -> Source:
    return _source_named(settings.source)


def _source_named(name: str) -> Source:
    if name in SOURCES:
        return SOURCES[name]
    if ":" not in name and name not in names(SOURCES, "data source"):
        raise InputError(f"data.source: unknown source {name!r}{nearest(name, SOURCES)}")

    def make(place: Place) -> AnyDataset:
        arguments = json.loads(place.arguments)
        if not place.stream:
            return functions.load(name, arguments)
        from tombola.data import streamed  # PyTorch's loader and loky take a while to import

        return streamed.Streamed(name, arguments)

    def load(place: Place) -> AnyDataset:
        made = make(place)
        if _FIRST.setdefault((name, place), made.fingerprint) != made.fingerprint:
            raise DataError(f"{name} has changed since the study was planned; run the command again")
        return made

    def again(place: Place) -> AnyDataset:
        first = _remember(name, place)
        functions.check_same_again(first, make(place))
        return first

    return Source(
        describe=lambda place: again(place).description,
        load=load,
        fingerprint=lambda place: _remember(name, place).fingerprint,
    )


def _place(settings: DataSettings, root: Path | None, may_download: bool = True) -> Place:
    if settings.path is not None:
        path = _absolute(settings.path)
        chosen = root or os.environ.get("TOMBOLA_DATA")
        if chosen and not path.exists() and (moved := _absolute(str(chosen)) / path.name).exists():
            path = moved  # a preset's file, or a results folder that has come from another machine
        try:
            found = path.stat()
        except OSError:
            return Place(path=path)  # opening it says what is wrong
        stamp = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return Place(path=path, stamp=stamp, kind=settings.kind)
    if settings.source not in SOURCES:
        return Place(arguments=json.dumps(settings.arguments, sort_keys=True), stream=settings.stream)
    chosen = root or os.environ.get("TOMBOLA_DATA")
    return Place(root=_absolute(str(chosen)) if chosen else None, may_download=may_download)


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(local_path(path, "data folder or file")))
