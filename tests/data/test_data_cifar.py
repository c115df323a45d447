"""CIFAR in all that it is published in: read alike, verified first, and no pickle that can do anything."""

from __future__ import annotations

import pickle
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_cifar
import small_idx

from tombola.data import DataSettings, Description, cifar, describe, download, fingerprint, load
from tombola.errors import DataError

NAMES = ("cifar10", "cifar100")
PLACES = {
    "cifar10": ("cifar-10-batches-bin", "cifar-10-batches-py", "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"),
    "cifar100": ("cifar-100-binary", "cifar-100-python", "cifar-100-binary.tar.gz", "cifar-100-python.tar.gz"),
}
EACH = [(name, place) for name in NAMES for place in PLACES[name]]


def settings(name):
    return DataSettings(source=name, validation=2)


@pytest.fixture
def made(monkeypatch):
    """Return a function that puts a made data set in the place of a real one and gives its files."""

    def make(name, mirrors=(), changes=None):
        entry, everything = small_cifar.small(name, mirrors, changes)
        monkeypatch.setitem(cifar.CIFAR, name, entry)
        return everything

    return make


def same(dataset, name):
    for part, (images, labels) in small_cifar.arrays(name).items():
        inputs, targets = getattr(dataset, f"{part}_inputs"), getattr(dataset, f"{part}_targets")
        np.testing.assert_array_equal(inputs, images.reshape(-1, *small_cifar.SHAPE))
        np.testing.assert_array_equal(targets, labels)
        assert (inputs.dtype, targets.dtype) == (np.uint8, np.int64)


@pytest.mark.parametrize(("name", "place"), EACH)
def test_every_version_folder_or_archive_gives_the_same_in_the_published_order(tmp_path, made, name, place):
    small_cifar.write(tmp_path, made(name), place)
    dataset = load(settings(name), tmp_path, download=False)
    same(dataset, name)
    assert dataset.description == describe(settings(name))
    assert dataset.fingerprint == fingerprint(settings(name)) == ""
    assert {path.name for path in tmp_path.iterdir()} == {place}  # nothing was unpacked


@pytest.mark.parametrize("name", NAMES)
def test_what_is_incomplete_is_passed_over(tmp_path, made, name):
    """The binary folder lacks a file; the python one is whole. Then neither is; then one archive is all there is."""
    everything = made(name)
    small_cifar.write(tmp_path, everything, *PLACES[name])
    for place in PLACES[name][:2]:
        next((tmp_path / place).iterdir()).unlink()
        assert cifar.find(cifar.CIFAR[name], [tmp_path])[1].name != place
        same(cifar.load(name, tmp_path, False), name)
    (tmp_path / PLACES[name][2]).unlink()
    same(cifar.load(name, tmp_path, False), name)


def test_the_root_comes_before_the_cache(tmp_path, cache, made):
    everything = made("cifar10")
    small_cifar.write(cache, everything, "cifar-10-batches-bin")
    same(load(settings("cifar10"), tmp_path, download=False), "cifar10")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: truncated or altered"):
        cifar.load("cifar10", tmp_path, False)


@pytest.mark.parametrize(("name", "place"), EACH)
@pytest.mark.parametrize("damage", [lambda body: body[:-1], lambda body: body + b"\0", lambda body: b"x" + body[1:]])
def test_what_is_not_the_published_file_is_never_parsed(tmp_path, made, monkeypatch, name, place, damage):
    small_cifar.write(tmp_path, made(name), place)
    path = tmp_path / place
    if path.is_dir():
        path = sorted(path.iterdir())[-1]
    path.write_bytes(damage(path.read_bytes()))
    parsed = []
    for reader in ("_binary", "_python"):
        read = getattr(cifar, reader)
        monkeypatch.setattr(cifar, reader, lambda *args, read=read: parsed.append(args[2]) or read(*args))
    with pytest.raises(
        DataError, match=r"truncated or altered: .*md5.*delete it, and tombola downloads it again"
    ) as caught:
        cifar.load(name, tmp_path, False)
    assert str(path) in str(caught.value)
    assert not any(each.startswith(str(path)) for each in parsed)


def test_what_is_missing_is_said_with_all_that_would_do(tmp_path, made):
    made("cifar10", ("https://one/", "https://two/"))
    with pytest.raises(DataError, match="downloading is switched off") as caught:
        load(settings("cifar10"), tmp_path, download=False)
    for word in (*PLACES["cifar10"], str(tmp_path), "https://one/", "https://two/", "--data", "TOMBOLA_DATA"):
        assert word in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path, made):
    made("cifar10")
    (tmp_path / "cifar-10-binary.tar.gz").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: can't be read \(No such file"):
        load(settings("cifar10"), tmp_path)


# Downloading


@pytest.mark.parametrize("name", NAMES)
def test_downloads_the_archive_that_torchvision_has_too(tmp_path, made, name):
    with small_idx.serve() as mirror:
        everything = made(name, (mirror.address,))
        archive = PLACES[name][3]
        mirror.content = {archive: everything[archive]}
        same(load(settings(name), tmp_path), name)
        same(cifar.load(name, tmp_path, True), name)
        assert mirror.requests == {archive: 1}
    assert {path.name for path in tmp_path.iterdir()} - {download.LOCK} == {archive}


def test_a_download_that_is_another_file_is_refused(tmp_path, made):
    with small_idx.serve() as mirror:
        everything = made("cifar10", (mirror.address,))
        mirror.content = {PLACES["cifar10"][3]: everything[PLACES["cifar10"][2]]}
        with pytest.raises(DataError, match="its checksum differs") as caught:
            load(settings("cifar10"), tmp_path)
    assert "already holds cifar-10-batches-py" in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {download.LOCK}


# Pickles and archives that pass for the published ones: as if someone had found the checksum's second preimage


class Calls:
    """Unpickling this calls a function."""

    def __init__(self, function, *arguments):
        self.found = function, arguments

    def __reduce__(self):
        return self.found


def marker(path):
    Path(path).write_text("done")


GOOD = {b"labels": [1, 2], b"data": np.zeros((2, 60), np.uint8)}
HOSTILE = {
    "a function": lambda path: small_cifar.pickled(GOOD | {b"x": Calls(marker, path)}),
    "a protocol of today": lambda path: pickle.dumps(GOOD | {b"x": Calls(marker, path)}),
    "eval": lambda path: b"c__builtin__\neval\n(S'open(%r, \"w\")'\ntR." % path.encode(),
    "getattr": lambda path: b"\x80\x02cbuiltins\ngetattr\n.",
    "a class": lambda path: b"\x80\x02(ipathlib\nPath\n.",
    "numpy's own": lambda path: b"\x80\x02cnumpy\nfromfile\n.",
    "a dotted name": lambda path: b"\x80\x04\x8c\x05numpy\x94\x8c\x0fndarray.tofile_\x94\x93.",
    "a persistent identity": lambda path: b"\x80\x02U\x01xQ.",
    "an extension": lambda path: b"\x80\x02\x82\x01.",
    "objects": lambda path: small_cifar.pickled(GOOD | {b"data": Calls(np.dtype, "O", False, True)}),
    "no pickle": lambda path: b"<html>",
    "nothing": lambda path: b"",
    "half of one": lambda path: small_cifar.pickled(GOOD)[:-20],
}


@pytest.mark.parametrize("place", PLACES["cifar10"][1::2])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_pickle_that_does_more_is_refused_and_does_nothing(tmp_path, made, kind, place):
    path = tmp_path / "marker"
    content = HOSTILE[kind](str(path))
    small_cifar.write(tmp_path, made("cifar10", changes={"data_batch_3": content}), place)
    with pytest.raises(DataError, match=r"data_batch_3: can't be unpickled \(.*delete it"):
        load(settings("cifar10"), tmp_path, download=False)
    assert not path.exists()


def test_the_made_pickles_name_what_the_published_ones_do():
    """Else the tests above would prove little."""
    content = small_cifar.pickled(GOOD)
    assert content.startswith(b"\x80\x02}q\x00(U\x06labelsq\x01]q\x02(K\x01K\x02eU\x04data")
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert re.search(rb"cnumpy\ndtype\nq.U\x02u1q.K\x00K\x01", content, re.DOTALL)
    assert b"_codecs" not in content  # with which Python 3 would write bytes for Python 2


FAULTS = {
    "no dict": ("data_batch_2", small_cifar.pickled([1]), "contains a list instead of a dict"),
    "no data": ("data_batch_2", small_cifar.pickled({b"labels": [1, 2]}), r"not a uint8 array of shape \(2, 60\)"),
    "fewer": (
        "data_batch_2",
        small_cifar.pickled(GOOD | {b"data": np.zeros((1, 60), np.uint8)}),
        r"not a uint8 array of shape \(2, 60\)",
    ),
    "no labels": ("data_batch_2", small_cifar.pickled({b"data": GOOD[b"data"]}), "not a list of 2 class numbers"),
    "a label of no class": ("data_batch_2", small_cifar.pickled(GOOD | {b"labels": [1, 10]}), "1 to 10, of 10 classes"),
    "a negative label": ("data_batch_2", small_cifar.pickled(GOOD | {b"labels": [-1, 2]}), "-1 to 2, of 10 classes"),
    "words": ("data_batch_2", small_cifar.pickled(GOOD | {b"labels": [b"a", b"b"]}), "not a list of 2 class numbers"),
    "short": ("data_batch_2.bin", bytes(121), "121 bytes where 2 examples take 122"),
    "long": ("data_batch_2.bin", bytes(123), "123 bytes where 2 examples take 122"),
    "a byte of no class": ("data_batch_2.bin", b"\x0a" + bytes(121), "0 to 10, of 10 classes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_structure(tmp_path, made, fault):
    file, content, message = FAULTS[fault]
    everything = made("cifar10", changes={file: content})
    small_cifar.write(tmp_path, everything, f"cifar-10-batches-{'bin' if file.endswith('bin') else 'py'}")
    with pytest.raises(DataError, match=f"{file}: .*{message}.*delete it"):
        load(settings("cifar10"), tmp_path, download=False)


def member(name, kind=tarfile.REGTYPE, link="", size=0):
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, link, size
    return found


def test_an_archive_writes_nothing_and_leads_nowhere(tmp_path, made):
    (tmp_path / "secret").write_bytes(bytes(122))
    version = cifar.CIFAR["cifar10"].versions[0]
    content = small_cifar.files("cifar10", version)
    elsewhere = [
        member("../outside", size=3),
        member(str(tmp_path / "absolute"), size=3),
        member("cifar-10-batches-bin/../../../outside.bin", size=3),
        member("cifar-10-batches-bin/link", tarfile.SYMTYPE, str(tmp_path)),
        member("cifar-10-batches-bin/link/through", size=3),
    ]
    archive = small_cifar.packed(version, content, elsewhere)
    root = tmp_path / "a" / "b"
    small_cifar.write(root, made("cifar10", changes={version.archive: archive}), version.archive)
    same(load(settings("cifar10"), root, download=False), "cifar10")
    assert {path.name for path in tmp_path.rglob("*")} == {"a", "b", version.archive, "secret"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_what_stands_for_a_file_in_an_archive_is_not_followed(tmp_path, made, kind):
    (tmp_path / "secret").write_bytes(bytes(122))
    version = cifar.CIFAR["cifar10"].versions[0]
    content = small_cifar.files("cifar10", version)
    del content["data_batch_4.bin"]
    link = member("cifar-10-batches-bin/data_batch_4.bin", kind, str(tmp_path / "secret"))
    archive = small_cifar.packed(version, content, [link])
    small_cifar.write(tmp_path, made("cifar10", changes={version.archive: archive}), version.archive)
    with pytest.raises(DataError, match=r"lacks cifar-10-batches-bin/data_batch_4\.bin; delete it"):
        load(settings("cifar10"), tmp_path, download=False)


def test_an_archive_whose_names_begin_with_a_dot(tmp_path, made):
    version = cifar.CIFAR["cifar10"].versions[0]
    dotted = replace(version, folder=f"./{version.folder}")
    archive = small_cifar.packed(dotted, small_cifar.files("cifar10", version))
    small_cifar.write(tmp_path, made("cifar10", changes={version.archive: archive}), version.archive)
    same(load(settings("cifar10"), tmp_path, download=False), "cifar10")


@pytest.mark.parametrize("cut", [0, 1, 50, 500, -200])
def test_an_archive_that_is_none(tmp_path, made, cut):
    version = cifar.CIFAR["cifar10"].versions[0]
    archive = small_cifar.packed(version, small_cifar.files("cifar10", version))[:cut]
    small_cifar.write(tmp_path, made("cifar10", changes={version.archive: archive}), version.archive)
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: (not a whole \.tar\.gz file|lacks)"):
        load(settings("cifar10"), tmp_path, download=False)


# The table


def test_descriptions_need_no_files(tmp_path):
    for name, classes in (("cifar10", 10), ("cifar100", 100)):
        assert describe(settings(name), tmp_path) == Description((3, 32, 32), classes, 50_000, 10_000)


def test_every_file_has_a_checksum_of_its_own_and_archives_two_mirrors():
    sums = []
    for entry in cifar.CIFAR.values():
        for version in entry.versions:
            sums += [version.md5, *version.train.values(), *version.test.values()]
        assert len(entry.mirrors) >= 2
        assert all(address.startswith("https://") and address.endswith("/") for address in entry.mirrors)
    assert len(set(sums)) == len(sums) == 2 * 7 + 2 * 3
    assert all(len(digest) == 32 and set(digest) <= set("0123456789abcdef") for digest in sums)
