"""A user's own arrays in an .npz file: checks, with a remedy for each fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tombola.data.dataset import Description, looks_channels_last
from tombola.data.held import Dataset
from tombola.data.npz import Archive, Header, open_archive
from tombola.errors import DataError, nearest

KEYS = ("x_train", "y_train", "x_test", "y_test")
_RENUMBER = "names, y_train = numpy.unique(y_train, return_inverse=True); y_test = numpy.searchsorted(names, y_test)"


def describe(path: Path, kind: str = "image") -> Description:
    """Return what the archive holds from its headers and labels; the inputs are not read.

    Args:
        path: of the archive.
        kind: the meaning of inputs with three dimensions: "image" or "sequence".

    Raises:
        DataError: the archive or the arrays are not as `load` needs them.
    """
    with open_archive(path) as archive:
        headers = _headers(archive)
        train, test = _labels(archive)
        _check_kind(path, kind, headers["x_train"])
    shape = headers["x_train"].shape[1:]
    return Description(
        input_shape=(1, *shape) if len(shape) == 2 and kind == "image" else shape,
        classes=_classes(path, train, test),
        train=len(train),
        test=len(test),
    )


def fingerprint(path: Path) -> str:
    """Return the sha256 of the file's bytes."""
    with open_archive(path) as archive:
        return archive.fingerprint()


def load(path: Path, kind: str = "image") -> Dataset:
    """Read all four arrays; `kind` as in `describe`.

    Raises:
        DataError: the file is missing or damaged, or an array is invalid.
    """
    with open_archive(path) as archive:
        _check_kind(path, kind, _headers(archive)["x_train"])
        train, test = _labels(archive)
        classes = _classes(path, train, test)
        return Dataset(
            name=str(path),
            train_inputs=_inputs(archive, "x_train", kind),
            train_targets=train,
            test_inputs=_inputs(archive, "x_test", kind),
            test_targets=test,
            classes=classes,
            fingerprint=archive.fingerprint(),
        )


def _headers(archive: Archive) -> dict[str, Header]:
    names = archive.names()
    missing = [key for key in KEYS if key not in names]
    if missing:
        others = [name for name in names if name not in KEYS]
        # Only what comes close: the whole list stands in the message already.
        close = {key: hint for key in missing if "did you mean" in (hint := nearest(key, others))}
        hints = "".join(f"; for {key}{hint[1:]}" for key, hint in close.items())
        raise DataError(
            f"{archive.path}: no array {' nor '.join(missing)}; the file contains: {', '.join(names) or 'none'}{hints}"
        )
    headers = {key: archive.header(key) for key in KEYS}
    for key in KEYS:
        fault = (_input_fault if key.startswith("x") else _label_fault)(key, headers[key])
        if fault:
            raise DataError(f"{archive.path}: {key} {fault}")
    for inputs, labels in (("x_train", "y_train"), ("x_test", "y_test")):
        if headers[inputs].shape[0] != headers[labels].shape[0]:
            raise DataError(
                f"{archive.path}: {inputs} has {headers[inputs].shape[0]:,} examples and {labels} "
                f"{headers[labels].shape[0]:,} labels; every example needs one label"
            )
    train, test = headers["x_train"], headers["x_test"]
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{archive.path}: an example of x_train has shape {train.shape[1:]}, one of x_test {test.shape[1:]}; "
            "both need one shape"
        )
    if train.dtype.kind != test.dtype.kind:
        raise DataError(
            f"{archive.path}: x_train is {train.dtype} and x_test {test.dtype}; tombola divides uint8 by 255 but not "
            "floating values, so save both with one type"
        )
    return headers


def _input_fault(key: str, header: Header) -> str:
    """Return the fault of an array of inputs, and the remedy; "" for none."""
    shape, dtype = header.shape, header.dtype
    if dtype.hasobject:
        return "holds Python objects, which are never loaded; save one array of uint8 or float32"
    if not (dtype == np.uint8 or (dtype.kind == "f" and dtype.itemsize <= 8)):
        return f"is {dtype}; save it as uint8 (0 to 255; tombola divides by 255) or {key}.astype('float32')"
    if not 2 <= len(shape) <= 4:
        return (
            f"has shape {shape}; it must be (N, features), (N, height, width) or (N, channels, height, width): "
            "use reshape before saving"
        )
    if 0 in shape:
        return f"is empty: its shape is {shape}"
    if looks_channels_last(shape) and (shape[3] == 3 or shape[1] == shape[2]):
        return (
            f"has shape {shape}, which looks like (N, height, width, channels); channels come second: "
            f"save {key}.transpose(0, 3, 1, 2)"
        )
    return ""


def _label_fault(key: str, header: Header) -> str:
    """Return the fault of an array of labels, and the remedy; "" for none."""
    shape, dtype = header.shape, header.dtype
    if dtype.hasobject:
        return "holds Python objects, which are never loaded; save class numbers from 0 as int64"
    if len(shape) == 2 and shape[1] == 1:
        return f"has shape {shape}; it must be (N,): save {key}[:, 0]"
    if len(shape) == 2:
        return f"has shape {shape}, as one-hot labels do; it must be class numbers (N,): save {key}.argmax(axis=1)"
    if len(shape) != 1:
        return f"has shape {shape}; it must be class numbers (N,)"
    if 0 in shape:
        return "is empty"
    if dtype.kind in "USMm":
        return f"is {dtype}; it must be class numbers from 0: {_RENUMBER}"
    if dtype.kind not in "iu":
        return f"is {dtype}; it must be class numbers from 0 of an integer type: save {key}.astype('int64')"
    return ""


def _labels(archive: Archive) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of both parts as int64."""
    found = []
    for key in ("y_train", "y_test"):
        labels = archive.array(key)
        # In Python's integers: the largest uint64 would turn negative as int64.
        lowest, highest = int(labels.min()), int(labels.max())
        if lowest < 0:
            raise DataError(f"{archive.path}: {key} holds the label {lowest}; classes are numbered from 0")
        if highest >= 2**31:
            raise DataError(f"{archive.path}: {key} holds the label {highest}, which is not a class number")
        found.append(labels.astype(np.int64))
    return found[0], found[1]


def _classes(path: Path, train: np.ndarray, test: np.ndarray) -> int:
    """Return the number of classes; every one of them must occur in training."""
    present = np.unique(train)
    classes = int(present[-1]) + 1
    if len(present) != classes:
        absent = np.setdiff1d(np.arange(min(classes, len(present) + 5)), present)[:5]
        raise DataError(
            f"{path}: y_train holds {len(present):,} different labels up to {classes - 1:,}, but none is "
            f"{', '.join(map(str, absent))}; number the classes from 0 without gaps: {_RENUMBER}"
        )
    if classes < 2:
        raise DataError(f"{path}: y_train holds the single label 0; a study needs two or more classes")
    if test.max() >= classes:
        raise DataError(
            f"{path}: y_test holds the label {test.max()}, but training has only classes 0 to {classes - 1}; remove "
            "those test examples, or use the same numbers in both parts"
        )
    return classes


def _check_kind(path: Path, kind: str, inputs: Header) -> None:
    if kind == "sequence" and (len(inputs.shape) != 3 or inputs.dtype.kind != "f"):
        raise DataError(
            f"{path}: data.kind=sequence needs floating x_train of shape (N, steps, features); it is {inputs.dtype} of "
            f"shape {inputs.shape}; remove kind"
        )


def _inputs(archive: Archive, key: str, kind: str) -> np.ndarray:
    """Return uint8 or floating [N, features], [N, channels, height, width] or, of sequences, [N, steps, features]."""
    inputs = archive.array(key)
    if inputs.dtype.kind == "f":
        bad = [row for row, example in enumerate(inputs) if not np.isfinite(example).all()]
        if bad:
            raise DataError(
                f"{archive.path}: {key} holds NaN or infinity in {len(bad):,} of {len(inputs):,} examples, the first "
                f"at {key}[{bad[0]}]; replace those values, or remove the examples"
            )
    return inputs[:, None] if inputs.ndim == 3 and kind == "image" else inputs
