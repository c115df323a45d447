"""Data sets published as four IDX files each: their location and their content."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import platformdirs

from tombola.data import idx
from tombola.data.dataset import Description
from tombola.data.held import Dataset
from tombola.errors import DataError, NotDownloaded
from tombola.paths import regular_file

TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@dataclass(frozen=True)
class Published:
    """One data set of four IDX files.

    Args:
        folder: its name in torchvision's layout, where the files are in `<root>/<folder>/raw`.
        description: what the files hold.
        mirrors: addresses that a file's name is appended to, tried in turn.
        compressed: sha256 of each file as published, by name without ".gz".
        plain: sha256 of each file uncompressed, where it is known.
    """

    folder: str
    description: Description
    mirrors: tuple[str, ...]
    compressed: dict[str, str]
    plain: dict[str, str] = field(default_factory=dict)


PUBLISHED = {
    "mnist": Published(
        folder="MNIST",
        description=Description(input_shape=(1, 28, 28), classes=10, train=60_000, test=10_000),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        compressed={
            "train-images-idx3-ubyte": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        plain={
            "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        },
    ),
    "fashion-mnist": Published(
        folder="FashionMNIST",
        description=Description(input_shape=(1, 28, 28), classes=10, train=60_000, test=10_000),
        mirrors=(
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        compressed={
            "train-images-idx3-ubyte": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        # No checksum of the uncompressed files is published: of those the structure alone is checked.
    ),
}


def load(name: str, root: Path | None, may_download: bool) -> Dataset:
    """Find, or download, the four files of `PUBLISHED[name]`, verify and read them.

    Raises:
        DataError: a file is missing and can't be had, damaged, or holds something else.
    """
    published = PUBLISHED[name]
    places = folders(published, root)
    paths = {stem: find(places, stem) for stem in TRAIN + TEST}
    missing = [stem + ".gz" for stem, path in paths.items() if path is None]
    if missing:
        from tombola.data import download  # here, since the HTTP library behind it is slow to import

        known_by = f"{published.folder}/raw"
        if not may_download:
            raise NotDownloaded(
                f"{name}: no {', '.join(missing)} in {' or '.join(map(str, places))}, and downloading is switched "
                f"off; {download.by_hand(missing, published.mirrors, places[0], known_by)}"
            )
        sums = {file: f"sha256:{published.compressed[file.removesuffix('.gz')]}" for file in missing}
        fetched = download.fetch(name, sums, published.mirrors, places, known_by)
        paths.update({file.removesuffix(".gz"): path for file, path in fetched.items()})

    about = published.description
    arrays = {}
    for (images, labels), count in ((TRAIN, about.train), (TEST, about.test)):
        arrays[images] = _read(published, images, paths[images], (count, *about.input_shape[1:]))
        arrays[labels] = _read(published, labels, paths[labels], (count,))
    return Dataset(
        name=name,
        train_inputs=arrays[TRAIN[0]][:, None],
        train_targets=arrays[TRAIN[1]].astype(np.int64),
        test_inputs=arrays[TEST[0]][:, None],
        test_targets=arrays[TEST[1]].astype(np.int64),
        classes=about.classes,
    )


def folders(published: Published, root: Path | None) -> list[Path]:
    """Return the folders that may hold the files, the preferred one first."""
    roots = [root] if root is not None else []
    return [place / published.folder / "raw" for place in (*roots, Path(platformdirs.user_cache_dir("tombola")))]


def find(places: list[Path], stem: str) -> Path | None:
    """Return the first copy of a file, compressed before plain: the former always has a known checksum."""
    candidates = (place / (stem + suffix) for place in places for suffix in (".gz", ""))
    return next((path for path in candidates if os.path.lexists(path)), None)


def _read(published: Published, stem: str, path: Path | None, shape: tuple[int, ...]) -> np.ndarray:
    assert path is not None
    remedy = "delete it, and tombola downloads it again"
    try:
        regular_file(path)
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error}); make it readable, or {remedy}") from error
    zipped = path.suffix == ".gz"
    expected = (published.compressed if zipped else published.plain).get(stem)
    found = hashlib.sha256(content).hexdigest()
    if expected is not None and found != expected:
        raise DataError(
            f"{path}: truncated or altered: its {len(content):,} bytes have sha256 {found[:12]}..., "
            f"the published file {expected[:12]}...; {remedy}"
        )
    if zipped:
        content = idx.unzip(content, str(path), remedy)
    array = idx.parse(content, str(path), remedy)
    if array.shape != shape:
        raise DataError(f"{path}: contains an array of shape {array.shape} instead of {shape}; {remedy}")
    if len(shape) == 1 and array.max() >= published.description.classes:
        raise DataError(
            f"{path}: holds label {array.max()}, beyond the {published.description.classes} classes; {remedy}"
        )
    return array
