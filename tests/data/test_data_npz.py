"""A user's own .npz: everything that people get wrong, each with its remedy."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.data import DataSettings, Description, describe, fingerprint, load, own
from tombola.errors import DataError


def good(**changes: object) -> dict[str, np.ndarray]:
    """Return arrays that load; None in `changes` leaves one out."""
    generator = np.random.default_rng(0)
    arrays: dict[str, object] = {
        "x_train": generator.integers(0, 256, (9, 2, 5, 4), dtype=np.uint8),
        "y_train": np.arange(9) % 3,
        "x_test": generator.integers(0, 256, (6, 2, 5, 4), dtype=np.uint8),
        "y_test": np.arange(6) % 3,
    } | changes
    return {key: array for key, array in arrays.items() if array is not None}


def saved(path: Path, arrays: dict[str, np.ndarray], save=np.savez) -> DataSettings:
    save(path, **arrays)
    return DataSettings(source="npz", validation=2, path=str(path))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_loads_what_was_saved(tmp_path, save):
    arrays = good()
    wanted = saved(tmp_path / "own.npz", arrays, save)
    dataset = load(wanted)
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(dataset, f"{part}_inputs"), arrays[f"x_{part}"])
        np.testing.assert_array_equal(getattr(dataset, f"{part}_targets"), arrays[f"y_{part}"])
    assert dataset.train_targets.dtype == np.int64
    assert dataset.description == describe(wanted) == Description((2, 5, 4), 3, 9, 6)
    digest = hashlib.sha256((tmp_path / "own.npz").read_bytes()).hexdigest()
    assert dataset.fingerprint == fingerprint(wanted) == digest
    assert dataset.name == str(tmp_path / "own.npz")


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("labels", [np.int8, np.uint8, np.int32, np.uint64, ">i2"])
def test_types(tmp_path, dtype, labels):
    arrays = good()
    wanted = saved(
        tmp_path / "own.npz", {key: array.astype(dtype if key[0] == "x" else labels) for key, array in arrays.items()}
    )
    dataset = load(wanted)
    assert dataset.train_inputs.dtype.isnative
    assert dataset.train_inputs.dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(dataset.train_inputs, arrays["x_train"])
    np.testing.assert_array_equal(dataset.train_targets, arrays["y_train"])


@pytest.mark.parametrize(("shape", "result"), [((7,), (7,)), ((6, 5), (1, 6, 5)), ((3, 6, 5), (3, 6, 5))])
def test_shapes(tmp_path, shape, result):
    wanted = saved(tmp_path / "own.npz", good(x_train=np.ones((9, *shape), "f4"), x_test=np.ones((6, *shape), "f4")))
    assert describe(wanted).input_shape == load(wanted).train_inputs.shape[1:] == result


def test_column_major_arrays(tmp_path):
    arrays = good(x_train=np.asfortranarray(good()["x_train"]))
    np.testing.assert_array_equal(load(saved(tmp_path / "own.npz", arrays)).train_inputs, arrays["x_train"])


def test_other_arrays_are_left_alone(tmp_path):
    assert load(saved(tmp_path / "own.npz", good(names=np.array(["a", None], dtype=object)))).classes == 3


def test_a_relative_path_starts_from_the_current_directory(tmp_path, monkeypatch):
    saved(tmp_path / "own.npz", good())
    monkeypatch.chdir(tmp_path)
    assert load(DataSettings(source="npz", validation=2, path="own.npz")).name == str(tmp_path / "own.npz")


def test_a_file_that_changes_is_read_again(tmp_path):
    wanted = saved(tmp_path / "own.npz", good())
    first, mark = load(wanted), fingerprint(wanted)
    assert load(wanted) is first
    saved(tmp_path / "new.npz", good(x_train=good()["x_train"] // 2))
    os.replace(tmp_path / "new.npz", tmp_path / "own.npz")
    assert load(wanted) is not first
    assert fingerprint(wanted) == load(wanted).fingerprint != mark


def test_the_fingerprint_is_of_the_content_not_of_the_place(tmp_path):
    first = saved(tmp_path / "own.npz", good())
    (tmp_path / "copy.npz").write_bytes((tmp_path / "own.npz").read_bytes())
    copy = DataSettings(source="npz", validation=2, path=str(tmp_path / "copy.npz"))
    assert fingerprint(first) == fingerprint(copy)


X, Y = good()["x_train"], good()["y_train"]
FAULTS = {
    # keys
    "missing": (good(y_test=None), "no array y_test; the file contains: x_train, y_train, x_test"),
    "misnamed": (good(x_train=None, X_train=X), "no array x_train.*for x_train did you mean 'X_train'"),
    "other names": (
        {"images": X, "labels": Y},
        "no array x_train nor .* nor y_test; the file contains: images, labels$",
    ),
    "no arrays": ({}, "the file contains: none"),
    # inputs
    "integers": (good(x_train=X.astype(int)), r"x_train is int64; save it as uint8.*x_train.astype\('float32'\)"),
    "bool": (good(x_test=good()["x_test"] > 9), "x_test is bool"),
    "complex": (good(x_train=X.astype(complex)), "x_train is complex128"),
    "long double": (good(x_train=X.astype(np.longdouble)), "x_train is "),
    "text": (good(x_train=np.array(["a"] * 9)), "x_train is <U1"),
    "one dimension": (good(x_train=np.ones(9, "f4")), r"x_train has shape \(9,\).*reshape"),
    "no dimension": (good(x_train=np.float32(1)), r"x_train has shape \(\)"),
    "five dimensions": (good(x_train=np.ones((9, 1, 2, 2, 2), "f4")), "x_train has shape .9, 1, 2, 2, 2."),
    "no examples": (good(x_train=X[:0], y_train=Y[:0]), "x_train is empty"),
    "no features": (good(x_train=np.ones((9, 0), "f4")), "x_train is empty"),
    "channels last": (good(x_train=np.ones((9, 8, 8, 3), "f4")), r"save x_train.transpose\(0, 3, 1, 2\)"),
    "objects": (good(x_train=np.array([[1], None], dtype=object)), "x_train holds Python objects"),
    "NaN": (
        good(x_train=np.where(np.arange(9)[:, None] == 4, np.nan, np.ones((9, 40))), x_test=np.ones((6, 40))),
        r"x_train holds NaN or infinity in 1 of 9 examples, the first at x_train\[4\]",
    ),
    "infinity": (good(x_train=np.ones((9, 2), "f4"), x_test=np.full((6, 2), -np.inf, "f4")), "x_test holds NaN or inf"),
    # labels
    "negative": (good(y_train=Y - 1), "y_train holds the label -1; classes are numbered from 0"),
    "from one": (good(y_train=Y + 1, y_test=good()["y_test"] + 1), "none is 0; number the classes from 0"),
    "a gap": (good(y_train=np.where(Y == 1, 5, Y)), "none is 1, 3, 4;"),
    "enormous": (
        good(y_train=np.array([2**63 + 1] * 9, np.uint64)),
        "9223372036854775809, which is not a class number",
    ),
    "identifiers": (good(y_train=Y + 10**6), "none is 0, 1, 2, 3, 4;"),
    "one class": (good(y_train=Y * 0, y_test=good()["y_test"] * 0), "single label 0"),
    "unknown in test": (good(y_test=np.arange(6)), "y_test holds the label 5, but training has only classes 0 to 2"),
    "floating labels": (good(y_train=Y.astype("f4")), r"y_train is float32.*y_train.astype\('int64'\)"),
    "bool labels": (good(y_train=Y > 1), "y_train is bool"),
    "text labels": (good(y_train=np.array(["cat"] * 9)), "y_train is <U3.*names, y_train = numpy.unique"),
    "object labels": (good(y_test=np.array([None] * 6)), "y_test holds Python objects"),
    "a column": (good(y_train=Y[:, None]), r"y_train has shape \(9, 1\); it must be \(N,\): save y_train\[:, 0\]"),
    "one-hot": (good(y_train=np.eye(3)[Y]), r"one-hot labels do.*y_train.argmax\(axis=1\)"),
    "labels of pixels": (good(y_train=np.zeros((9, 5, 4), int)), r"y_train has shape \(9, 5, 4\)"),
    "no labels": (good(y_train=Y[:0]), "y_train is empty"),
    # both
    "lengths": (good(y_train=Y[:8]), "x_train has 9 examples and y_train 8 labels"),
    "test lengths": (good(y_test=np.arange(7) % 3), "x_test has 6 examples and y_test 7 labels"),
    "different shapes": (good(x_test=np.ones((6, 2, 4, 5), np.uint8)), r"shape \(2, 5, 4\), one of x_test \(2, 4, 5\)"),
    "different scales": (good(x_test=(good()["x_test"] / 255)), "x_train is uint8 and x_test float64"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(tmp_path, fault):
    arrays, message = FAULTS[fault]
    wanted = saved(tmp_path / "own.npz", arrays)
    with pytest.raises(DataError, match=message) as caught:
        load(wanted)
    assert str(tmp_path / "own.npz") in str(caught.value)
    if fault not in ("NaN", "infinity"):  # what the headers and labels show is said before any job is planned
        with pytest.raises(DataError, match=message):
            describe(wanted)


class Trap:
    """Unpickling this would raise."""

    def __reduce__(self):
        return (exec, ("raise RuntimeError('unpickled')",))


def test_nothing_is_unpickled(tmp_path):
    wanted = saved(tmp_path / "own.npz", good(x_train=np.array([Trap()] * 9, dtype=object)))
    with pytest.raises(DataError, match="never loaded"):
        load(wanted)
    (tmp_path / "own.npz").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DataError, match=r"not a \.npz archive"):
        load(wanted)
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for key in own.KEYS:
            archive.writestr(key + ".npy", pickle.dumps(Trap()))
    with pytest.raises(DataError, match="x_train can't be read"):
        load(wanted)


def test_no_such_file(tmp_path):
    wanted = DataSettings(source="npz", validation=2, path=str(tmp_path / "own.npz"))
    for ask in (load, describe, fingerprint):
        with pytest.raises(DataError, match=r"own\.npz: this file does not exist"):
            ask(wanted)


def test_a_folder(tmp_path):
    with pytest.raises(DataError, match="can't be read"):
        load(DataSettings(source="npz", validation=2, path=str(tmp_path)))


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 and no more"])
def test_no_archive(tmp_path, content):
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"not a \.npz archive.*numpy\.savez"):
        load(DataSettings(source="npz", validation=2, path=str(tmp_path / "own.npz")))


def test_a_single_array(tmp_path):
    np.save(tmp_path / "own.npy", X)
    with pytest.raises(DataError, match=r"not a \.npz archive"):
        load(DataSettings(source="npz", validation=2, path=str(tmp_path / "own.npy")))


def test_truncated(tmp_path):
    wanted = saved(tmp_path / "own.npz", good())
    body = (tmp_path / "own.npz").read_bytes()
    (tmp_path / "own.npz").write_bytes(body[: len(body) // 2])
    with pytest.raises(DataError, match="truncated"):
        load(wanted)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_altered_byte_of_an_array(tmp_path, save):
    noise = np.random.default_rng(1).random((9, 40))
    wanted = saved(tmp_path / "own.npz", good(x_train=noise, x_test=noise[:6]), save)
    body = bytearray((tmp_path / "own.npz").read_bytes())
    body[1_000] ^= 1
    (tmp_path / "own.npz").write_bytes(bytes(body))
    with pytest.raises(DataError, match=r"x_train can't be read.*damaged"):
        load(wanted)


def test_a_header_that_announces_more_than_there_is(tmp_path):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for key, array in good().items():
            with archive.open(key + ".npy", "w") as member:
                header = np.lib.format.header_data_from_array_1_0(array)
                if key == "x_train":
                    header["shape"] = (10**6, 10**6)
                np.lib.format.write_array_header_1_0(member, header)
                member.write(array.tobytes())
    with pytest.raises(DataError, match="x_train announces 1,000,000,000,128 bytes"):
        describe(DataSettings(source="npz", validation=2, path=str(tmp_path / "own.npz")))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_loads_right_or_is_refused(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("fuzz")
    wanted = saved(folder / "own.npz", good())
    body = bytearray((folder / "own.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    (folder / "own.npz").write_bytes(bytes(body))
    try:
        dataset = load(wanted)
    except DataError:
        return
    np.testing.assert_array_equal(dataset.train_inputs, X)
    np.testing.assert_array_equal(dataset.train_targets, Y)


def test_arrays_of_three_dimensions_may_be_sequences(tmp_path):
    generator = np.random.default_rng(0)
    path = tmp_path / "sequences.npz"
    inputs = generator.normal(size=(30, 7, 2)).astype(np.float32)
    labels = np.arange(30) % 3
    np.savez(path, x_train=inputs, y_train=labels, x_test=inputs[:6], y_test=labels[:6])
    settings = DataSettings(source="npz", path=str(path), validation=5, kind="sequence")
    assert describe(settings).input_shape == (7, 2)
    np.testing.assert_array_equal(load(settings).train_inputs, inputs)
    pictures = settings.model_copy(update={"kind": "image"})
    assert describe(pictures).input_shape == (1, 7, 2)
    assert load(pictures).train_inputs.shape == (30, 1, 7, 2)
    np.savez(path, x_train=inputs[:, 0], y_train=labels, x_test=inputs[:6, 0], y_test=labels[:6])
    with pytest.raises(DataError, match=r"data.kind=sequence needs floating x_train of shape \(N, steps, features\)"):
        describe(settings)
