"""CIFAR-10 and CIFAR-100 as published: two versions of each, as an archive or as the folder that it unpacks to."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import platformdirs

from tombola.data import python2_pickle
from tombola.data.dataset import Description
from tombola.data.held import Dataset
from tombola.errors import DataError, NotDownloaded
from tombola.paths import regular_file

REMEDY = "delete it, and tombola downloads it again"
LARGEST = 1 << 30  # bytes of a file that is read; the published ones have 186 MB at most


@dataclass(frozen=True)
class Version:
    """The same images in one of two formats.

    Args:
        format: "binary": for each example its labels and its pixels as bytes; "python": pickles.
        archive: name of the .tar.gz file.
        md5: of the archive.
        folder: that the archive unpacks to; as in torchvision's layout, both lie directly in the data folder.
        train, test: md5 of each file in the folder, in the order in which they are read.
    """

    format: Literal["binary", "python"]
    archive: str
    md5: str
    folder: str
    train: dict[str, str]
    test: dict[str, str]

    @property
    def files(self) -> dict[str, str]:
        """md5 of every file that is read."""
        return self.train | self.test


@dataclass(frozen=True)
class Cifar:
    """One data set.

    Args:
        description: what the files hold.
        versions: the preferred one first; the last one is downloaded.
        mirrors: addresses that an archive's name is appended to, tried in turn.
        labels: how many labels an example has in the binary version; the last of them counts.
        key: under which the python version has that label.
    """

    description: Description
    versions: tuple[Version, ...]
    mirrors: tuple[str, ...]
    labels: int
    key: bytes


# Checksums: those of the archives stand on https://www.cs.toronto.edu/~kriz/cifar.html, those of the python version's
# files in torchvision (torchvision/datasets/cifar.py). Neither has any of the binary version's files; those here
# are what other projects check after unpacking (CIFAR-10's several, CIFAR-100's one, rai-project/dldataset).
# The second mirror is that of PaddlePaddle, whose checksums of the archives are the same.
MIRRORS = ("https://www.cs.toronto.edu/~kriz/", "https://dataset.bj.bcebos.com/cifar/")
CIFAR = {
    "cifar10": Cifar(
        description=Description(input_shape=(3, 32, 32), classes=10, train=50_000, test=10_000),
        versions=(
            Version(
                format="binary",
                archive="cifar-10-binary.tar.gz",
                md5="c32a1d4ab5d03f1284b67883e8d87530",
                folder="cifar-10-batches-bin",
                train={
                    "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
                    "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
                    "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
                    "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
                    "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
                },
                test={"test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d"},
            ),
            Version(
                format="python",
                archive="cifar-10-python.tar.gz",
                md5="c58f30108f718f92721af3b95e74349a",
                folder="cifar-10-batches-py",
                train={
                    "data_batch_1": "c99cafc152244af753f735de768cd75f",
                    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
                    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
                    "data_batch_4": "634d18415352ddfa80567beed471001a",
                    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
                },
                test={"test_batch": "40351d587109b95175f43aff81a1287e"},
            ),
        ),
        mirrors=MIRRORS,
        labels=1,
        key=b"labels",
    ),
    "cifar100": Cifar(
        description=Description(input_shape=(3, 32, 32), classes=100, train=50_000, test=10_000),
        versions=(
            Version(
                format="binary",
                archive="cifar-100-binary.tar.gz",
                md5="03b5dce01913d631647c71ecec9e9cb8",
                folder="cifar-100-binary",
                train={"train.bin": "6172c7755cfe09b2fe270c85cebc1b15"},
                test={"test.bin": "4499cfba6c016c1be1438163640a0898"},
            ),
            Version(
                format="python",
                archive="cifar-100-python.tar.gz",
                md5="eb9058c3a382ffc7106e4002c42a8d85",
                folder="cifar-100-python",
                train={"train": "16019d7e3df5f24257cddd939b257f8d"},
                test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
            ),
        ),
        mirrors=MIRRORS,
        labels=2,  # the superclass, then the class
        key=b"fine_labels",
    ),
}


def load(name: str, root: Path | None, may_download: bool) -> Dataset:
    """Find, or download, a version of `CIFAR[name]`, verify and read it.

    Raises:
        DataError: there is none and none can be had, or a file is damaged.
    """
    cifar = CIFAR[name]
    places = [*([root] if root is not None else []), Path(platformdirs.user_cache_dir("tombola"))]
    version, path = find(cifar, places) or _fetched(name, cifar, places, may_download)
    about = cifar.description
    counts = {"train": about.train, "test": about.test}
    inputs = {part: np.empty((count, *about.input_shape), np.uint8) for part, count in counts.items()}
    targets = {part: np.empty(count, np.int64) for part, count in counts.items()}
    for file, content in _contents(version, path):
        part = "train" if file in version.train else "test"
        files = list(getattr(version, part))
        size = len(targets[part]) // len(files)
        rows = slice(files.index(file) * size, (files.index(file) + 1) * size)
        read = _binary if version.format == "binary" else _python
        images, labels = read(cifar, content, str(path / file), size)
        inputs[part][rows] = images.reshape(size, *about.input_shape)
        targets[part][rows] = labels
    return Dataset(
        name=name,
        train_inputs=inputs["train"],
        train_targets=targets["train"],
        test_inputs=inputs["test"],
        test_targets=targets["test"],
        classes=about.classes,
    )


def find(cifar: Cifar, places: list[Path]) -> tuple[Version, Path] | None:
    """Return a version and its folder or archive: what lies nearest, and unpacked before packed."""
    for place in places:
        for version in cifar.versions:
            if all(os.path.lexists(place / version.folder / file) for file in version.files):
                return version, place / version.folder
        for version in cifar.versions:
            if os.path.lexists(place / version.archive):
                return version, place / version.archive
    return None


def _fetched(name: str, cifar: Cifar, places: list[Path], may_download: bool) -> tuple[Version, Path]:
    from tombola.data import download  # here, since the HTTP library behind it is slow to import

    version = cifar.versions[-1]
    if not may_download:
        looked = ", ".join(f"{each.folder}, {each.archive}" for each in cifar.versions)
        raise NotDownloaded(
            f"{name}: none of {looked} in {' or '.join(map(str, places))}, and downloading is switched off; "
            + download.by_hand([version.archive], cifar.mirrors, places[0], version.folder)
        )
    sums = {version.archive: f"md5:{version.md5}"}
    return version, download.fetch(name, sums, cifar.mirrors, places, version.folder)[version.archive]


def _contents(version: Version, path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of every file that is needed, verified; from an archive in the order in which they lie."""
    if path.name != version.archive:
        for file, md5 in version.files.items():
            yield file, _verified(path / file, md5)
        return
    wanted = {f"{version.folder}/{file}": file for file in version.files}
    try:
        # In memory and one member after the other: nothing is unpacked to the disk, wherever its name would lead.
        with tarfile.open(fileobj=io.BytesIO(_verified(path, version.md5)), mode="r|gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                stream = archive.extractfile(member) if member.isfile() and name in wanted else None
                if stream is not None:
                    yield wanted.pop(name), stream.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path}: not a whole .tar.gz file ({error}); {REMEDY}") from error
    if wanted:
        raise DataError(f"{path}: lacks {', '.join(wanted)}; {REMEDY}")


def _verified(path: Path, md5: str) -> bytes:
    """Return a file's content, once it is known to be the published one."""
    try:
        if (size := regular_file(path).st_size) > LARGEST:
            raise DataError(f"{path}: altered: it has {size:,} bytes, more than any published file; {REMEDY}")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error}); make it readable, or {REMEDY}") from error
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"{path}: truncated or altered: its {len(content):,} bytes have md5 {found[:12]}..., "
            f"the published file {md5[:12]}...; {REMEDY}"
        )
    return content


def _binary(cifar: Cifar, content: bytes, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [size, pixels] and labels [size] of the binary format."""
    record = cifar.labels + int(np.prod(cifar.description.input_shape))
    if len(content) != size * record:
        raise DataError(f"{name}: {len(content):,} bytes where {size:,} examples take {size * record:,}; {REMEDY}")
    records = np.frombuffer(content, np.uint8).reshape(size, record)
    return records[:, cifar.labels :], _labels(cifar, records[:, cifar.labels - 1], name)


def _python(cifar: Cifar, content: bytes, name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 [size, pixels] and labels [size] of the python format."""
    batch = python2_pickle.parse(content, name, REMEDY)
    images, labels = batch.get(b"data"), batch.get(cifar.key)
    shape = (size, int(np.prod(cifar.description.input_shape)))
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape != shape:
        raise DataError(f"{name}: its data are not a uint8 array of shape {shape}; {REMEDY}")
    if not isinstance(labels, list) or len(labels) != size or not all(type(label) is int for label in labels):
        raise DataError(f"{name}: its {cifar.key.decode()} are not a list of {size:,} class numbers; {REMEDY}")
    return images, _labels(cifar, np.array(labels), name)


def _labels(cifar: Cifar, labels: np.ndarray, name: str) -> np.ndarray:
    classes = cifar.description.classes
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"{name}: holds labels from {labels.min()} to {labels.max()}, of {classes} classes; {REMEDY}")
    return labels
