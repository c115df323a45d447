"""Made data sets in the formats of CIFAR: few examples of few pixels, with checksums of their own."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from tombola.data import Description
from tombola.data.cifar import CIFAR, Cifar, Version

SHAPE = (3, 4, 5)
COUNTS = {"cifar10": (10, 2), "cifar100": (6, 4)}


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 and the numpy of its time wrote: strings of bytes, numpy's old names, integers for flags."""

    dispatch = pickle._Pickler.dispatch.copy()
    dispatch_table = {type(np.dtype("u1")): lambda dtype: (np.dtype, ("u1", 0, 1), dtype.__reduce__()[2])}  # noqa: RUF012

    def save_string(self, value: bytes | str) -> None:
        body = value if isinstance(value, bytes) else value.encode()
        short = len(body) < 256
        self.write((b"U" + bytes([len(body)]) if short else b"T" + struct.pack("<i", len(body))) + body)
        self.memoize(value)

    def save_global(self, value: object, name: str | None = None) -> None:
        named = f"{value.__module__}\n{name or value.__name__}\n".replace("numpy._core", "numpy.core")
        self.write(b"c" + named.encode())
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string
    dispatch[type] = save_global


def pickled(value: object) -> bytes:
    stream = io.BytesIO()
    Python2Pickler(stream, protocol=2).dump(value)
    return stream.getvalue()


def arrays(name: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return images uint8 [N, pixels] and labels of both parts."""
    generator = np.random.default_rng(len(name))
    classes = CIFAR[name].description.classes
    return {
        part: (generator.integers(0, 256, (count, np.prod(SHAPE)), np.uint8), generator.integers(0, classes, count))
        for part, count in zip(("train", "test"), COUNTS[name], strict=True)
    }


def files(name: str, version: Version) -> dict[str, bytes]:
    """Return the content of each file of a version."""
    found = {}
    for part, (images, labels) in arrays(name).items():
        names = list(getattr(version, part))
        for file, some, theirs in zip(names, np.split(images, len(names)), np.split(labels, len(names)), strict=True):
            if version.format == "binary":
                rows = [theirs, some] if name == "cifar10" else [theirs // 5, theirs, some]
                found[file] = np.column_stack(rows).astype(np.uint8).tobytes()
            else:
                key = b"labels" if name == "cifar10" else b"fine_labels"
                coarse = {} if name == "cifar10" else {b"coarse_labels": (theirs // 5).tolist()}
                batch = {b"batch_label": f"a batch of {file}".encode(), key: theirs.tolist(), b"data": some} | coarse
                found[file] = pickled(batch | {b"filenames": [b"x_%d.png" % i for i in range(len(some))]})
    return found


def packed(version: Version, content: dict[str, bytes], members: list[tarfile.TarInfo] | None = None) -> bytes:
    """Return an archive: in another order than the files are read in, with others among them, as the published one."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        folder = tarfile.TarInfo(version.folder)
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for member in members or []:
            archive.addfile(member, io.BytesIO(b"\0" * member.size))
        for file, body in [("readme.html", b"<html>"), *reversed(content.items())]:
            member = tarfile.TarInfo(f"{version.folder}/{file}")
            member.size = len(body)
            archive.addfile(member, io.BytesIO(body))
    return stream.getvalue()


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def small(name: str, mirrors: tuple[str, ...] = (), changes: dict[str, bytes] | None = None) -> tuple[Cifar, dict]:
    """Return the table's entry for a made data set, and all its files: "folder/file" and archives.

    `changes` replaces contents of files by name; the checksums follow.
    """
    versions, everything = [], {}
    for version in CIFAR[name].versions:
        content = {file: (changes or {}).get(file, body) for file, body in files(name, version).items()}
        archive = packed(version, content)
        everything[version.archive] = (changes or {}).get(version.archive, archive)
        everything |= {f"{version.folder}/{file}": body for file, body in content.items()}
        sums = {file: md5(body) for file, body in content.items()}
        versions.append(
            replace(
                version,
                md5=md5(everything[version.archive]),
                train={file: sums[file] for file in version.train},
                test={file: sums[file] for file in version.test},
            )
        )
    about = Description(SHAPE, CIFAR[name].description.classes, *COUNTS[name])
    return replace(CIFAR[name], description=about, versions=tuple(versions), mirrors=mirrors), everything


def write(root: Path, everything: dict[str, bytes], *wanted: str) -> None:
    """Write archives, and folders whole, by their names."""
    for name, body in everything.items():
        if name.partition("/")[0] in wanted:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(body)
