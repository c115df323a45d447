"""Files that are already there: found, verified, read - or refused with the file's name and what to do."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_idx

from tombola.data import DataSettings, Description, describe, fingerprint, load, published
from tombola.errors import DataError

MNIST = DataSettings(source="mnist", validation=2)
IMAGES = "train-images-idx3-ubyte"
LABELS = "t10k-labels-idx1-ubyte"


def unverified(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncompressed files of which no checksum is known, as with Fashion-MNIST."""
    monkeypatch.setitem(published.PUBLISHED, "mnist", replace(small_idx.published(), plain={}))


@pytest.mark.parametrize("compressed", [True, False])
def test_reads_compressed_and_plain_files(tmp_path, small, compressed):
    small_idx.write(tmp_path, compressed)
    dataset = load(MNIST, tmp_path, download=False)
    arrays = small_idx.arrays()
    np.testing.assert_array_equal(dataset.train_inputs, arrays[IMAGES].reshape(12, 1, 4, 5))
    np.testing.assert_array_equal(dataset.test_inputs, arrays["t10k-images-idx3-ubyte"].reshape(6, 1, 4, 5))
    np.testing.assert_array_equal(dataset.train_targets, arrays["train-labels-idx1-ubyte"])
    np.testing.assert_array_equal(dataset.test_targets, arrays[LABELS])
    assert dataset.train_inputs.dtype == np.uint8
    assert dataset.test_targets.dtype == np.int64
    assert dataset.description == describe(MNIST) == Description((1, 4, 5), 3, 12, 6)
    assert dataset.fingerprint == fingerprint(MNIST) == ""


def test_compressed_and_plain_may_be_mixed(tmp_path, small):
    folder = small_idx.write(tmp_path)
    packed = folder / (IMAGES + ".gz")
    (folder / IMAGES).write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    assert len(load(MNIST, tmp_path, download=False).train_inputs) == 12


def test_the_root_comes_before_the_environment_and_that_before_the_cache(tmp_path, cache, small, monkeypatch):
    for root in (tmp_path / "root", tmp_path / "env", cache):
        small_idx.write(root)
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "env"))
    (tmp_path / "env" / "MNIST" / "raw" / (IMAGES + ".gz")).write_bytes(b"")
    load(MNIST, tmp_path / "root", download=False)
    with pytest.raises(DataError, match="env"):
        load(MNIST, download=False)


def test_the_cache_supplies_what_the_root_lacks(tmp_path, cache, small):
    small_idx.write(cache)
    folder = small_idx.write(tmp_path / "root")
    (folder / (LABELS + ".gz")).unlink()
    assert len(load(MNIST, tmp_path / "root", download=False).test_targets) == 6


def test_a_tilde_stands_for_the_home_folder(tmp_path, small, monkeypatch):
    small_idx.write(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TOMBOLA_DATA", "~/data")
    assert len(load(MNIST, download=False).test_targets) == 6


def test_loaded_once_and_read_only(tmp_path, small):
    small_idx.write(tmp_path)
    dataset = load(MNIST, tmp_path)
    assert load(DataSettings(source="mnist", validation=5), Path(os.path.relpath(tmp_path))) is dataset
    for array in (dataset.train_inputs, dataset.train_targets, dataset.test_inputs, dataset.test_targets):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    "damage",
    [lambda body: b"", lambda body: body[:3], lambda body: body[: len(body) // 2], lambda body: body + b"\0"],
)
def test_truncated_or_longer(tmp_path, small, compressed, damage):
    folder = small_idx.write(tmp_path, compressed)
    path = folder / (IMAGES + (".gz" if compressed else ""))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"truncated or altered.*delete it, and tombola downloads it again") as caught:
        load(MNIST, tmp_path, download=False)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_one_altered_bit(tmp_path, small, compressed):
    folder = small_idx.write(tmp_path, compressed)
    path = folder / (LABELS + (".gz" if compressed else ""))
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(bytes(body))
    with pytest.raises(DataError, match="truncated or altered"):
        load(MNIST, tmp_path, download=False)


def test_missing_files_are_all_named(tmp_path, small):
    folder = small_idx.write(tmp_path)
    for stem in (IMAGES, LABELS):
        (folder / (stem + ".gz")).unlink()
    with pytest.raises(DataError, match=f"no {IMAGES}.gz, {LABELS}.gz in {folder}"):
        load(MNIST, tmp_path, download=False)


def test_a_folder_where_a_file_should_be(tmp_path, small):
    folder = small_idx.write(tmp_path)
    (folder / (IMAGES + ".gz")).unlink()
    (folder / (IMAGES + ".gz")).mkdir()
    with pytest.raises(DataError, match="can't be read"):
        load(MNIST, tmp_path, download=False)


def test_a_link_to_nowhere(tmp_path, small):
    folder = small_idx.write(tmp_path)
    path = folder / (IMAGES + ".gz")
    path.unlink()
    path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match="can't be read"):
        load(MNIST, tmp_path)


ARRAYS = small_idx.arrays()
FAULTS = {
    "empty": (IMAGES, b"", "only 0 bytes"),
    "text": (IMAGES, b"<html>", "begins with the bytes 3c 68 74 6d"),
    "floats": (IMAGES, b"\0\0\x0d\x03" + bytes(12), "begins with"),
    "no dimensions": (IMAGES, b"\0\0\x08\0", "begins with"),
    "half a header": (IMAGES, small_idx.encode(ARRAYS[IMAGES])[:10], "truncated within its header"),
    "truncated": (IMAGES, small_idx.encode(ARRAYS[IMAGES])[:-1], "truncated: 239 bytes"),
    "longer": (IMAGES, small_idx.encode(ARRAYS[IMAGES]) + b"\0", "too long: 241 bytes"),
    "huge": (IMAGES, b"\0\0\x08\x03" + struct.pack(">3I", *[2**32 - 1] * 3), "truncated: 0 bytes"),
    "fewer": (IMAGES, small_idx.encode(ARRAYS[IMAGES][:-1]), r"shape \(11, 4, 5\) instead of \(12, 4, 5\)"),
    "turned": (IMAGES, small_idx.encode(ARRAYS[IMAGES].swapaxes(1, 2)), r"shape \(12, 5, 4\)"),
    "labels for images": (IMAGES, small_idx.encode(ARRAYS[LABELS]), r"shape \(6,\)"),
    "label out of range": (LABELS, small_idx.encode(ARRAYS[LABELS] + small_idx.CLASSES), "beyond the 3 classes"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_structure_of_a_file_without_a_checksum(tmp_path, monkeypatch, fault):
    stem, body, message = FAULTS[fault]
    unverified(monkeypatch)
    folder = small_idx.write(tmp_path, compressed=False)
    (folder / stem).write_bytes(body)
    with pytest.raises(DataError, match=f"{stem}.*{message}.*delete it"):
        load(MNIST, tmp_path, download=False)


PACKED = small_idx.files()[IMAGES + ".gz"]


@pytest.mark.parametrize("body", [b"no gzip at all", PACKED[:-5], PACKED[:20] + b"\7" * 30])
def test_what_is_published_as_gzip_and_is_none(tmp_path, monkeypatch, body):
    folder = small_idx.write(tmp_path)
    (folder / (IMAGES + ".gz")).write_bytes(body)
    known = small_idx.published()
    sums = known.compressed | {IMAGES: hashlib.sha256(body).hexdigest()}
    monkeypatch.setitem(published.PUBLISHED, "mnist", replace(known, compressed=sums))
    with pytest.raises(DataError, match="not a whole gzip file"):
        load(MNIST, tmp_path, download=False)


def test_descriptions_need_no_files(tmp_path):
    expected = Description(input_shape=(1, 28, 28), classes=10, train=60_000, test=10_000)
    for source in ("mnist", "fashion-mnist"):
        assert describe(DataSettings(source=source, validation=5_000), tmp_path) == expected


def test_every_published_file_has_a_checksum_and_two_mirrors():
    for entry in published.PUBLISHED.values():
        assert set(entry.compressed) == set(published.TRAIN + published.TEST)
        assert all(len(digest) == 64 for digest in (*entry.compressed.values(), *entry.plain.values()))
        assert len(set(entry.compressed.values())) == 4
        assert len(entry.mirrors) >= 2
        assert all(address.endswith("/") for address in entry.mirrors)
