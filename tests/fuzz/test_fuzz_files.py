"""Data files and tickets from strangers."""

from __future__ import annotations

import gzip
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_harness import cases, damaged, harmless, json_values
from hypothesis import given
from hypothesis import strategies as st

import tombola
from tombola.data import idx, own, python2_pickle
from tombola.errors import DataError
from tombola.running.files import pack_tensors

IDX = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (2, 3, 4)) + bytes(range(24))
GZIP = gzip.compress(IDX, mtime=0)


def archive(compressed: bool) -> bytes:
    """Return a .npz file as a user would save it."""
    stream = io.BytesIO()
    arrays: dict[str, Any] = {"x_train": np.ones((4, 3), np.float32), "y_train": np.array([0, 1, 0, 1])}
    arrays |= {"x_test": np.ones((2, 3), np.float32), "y_test": np.array([0, 1])}
    (np.savez_compressed if compressed else np.savez)(stream, **arrays)
    return stream.getvalue()


# A batch of two images in the words of Python 2's pickle, as CIFAR is published: protocol 2, byte strings.
BATCH = pickle.dumps({b"labels": [1, 2], b"data": b"\x01\x02", b"batch_label": b"one"}, protocol=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@cases
@given(st.one_of(damaged(IDX), st.binary(max_size=40)))
def test_idx(content: bytes) -> None:
    with harmless():
        idx.parse(content, "file", "delete it")


@cases
@given(damaged(GZIP))
def test_gzip(content: bytes) -> None:
    with harmless():
        idx.unzip(content, "file", "delete it")


@cases
@given(st.sampled_from([archive(False), archive(True)]).flatmap(damaged))
def test_npz(folder: Path, content: bytes) -> None:
    path = folder / "own.npz"
    path.write_bytes(content)
    with harmless():
        own.describe(path)
    with harmless():
        own.load(path)


@cases
@given(st.one_of(damaged(BATCH), st.binary(max_size=60)))
def test_pickles(content: bytes) -> None:
    with harmless():
        python2_pickle.parse(content, "file", "delete it")


class Evil:
    """A pickle that runs a command."""

    def __reduce__(self) -> Any:
        import os

        return os.system, ("touch RAN",)


HUGE = [
    b"\x80\x04r\xff\xff\xff\x7f.",  # a memo of 2^31 entries
    b"\x80\x04}r\xff\xff\xff\x7f.",
    b"\x80\x04}r\0\0\0\x06.",  # one that fits into memory: 1.6 GB
    b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b"x.",  # bytes that are not there
    b"\x80\x04\x8d" + (2**40).to_bytes(8, "little") + b"x.",
    b"\x80\x04\x96" + (2**40).to_bytes(8, "little") + b"x.",
    b"\x80\x04\x95" + (2**40).to_bytes(8, "little") + b"}.",  # a frame
    b"\x80\x02\x8b\xff\xff\xff\x7f.",  # a long of 2^31 bytes
    b"I" + b"9" * 10_000 + b"\n.",
    b"\x80\x02" + b"(" * 100_000 + b".",
    b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    pickle.dumps(Evil(), protocol=2),
]


@pytest.mark.parametrize("content", HUGE, ids=range(len(HUGE)))
def test_pickles_that_ask_for_much(content: bytes) -> None:
    with harmless():
        python2_pickle.parse(content, "file", "delete it")


def test_an_archive_that_unfolds_to_much_more(folder: Path) -> None:
    """A thousand times, as the best case of the compression does, until memory is full."""
    path, half = folder / "bomb.npz", 80 * 1024**2
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as members:
        for key in ("x_train", "y_train", "x_test", "y_test"):
            shape = (2, half) if key[0] == "x" else (2,)
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
            with members.open(f"{key}.npy", "w") as member:
                member.write(header.getvalue())
                for _ in range(2):
                    member.write(bytes(half if key == "x_train" else 1))
    assert path.stat().st_size < 2_000_000
    with harmless(), pytest.raises(DataError, match=r"x_train unfolds from [\d,]+ to 167,772,\d+ bytes"):
        own.describe(path)


# A ticket whose checksum is right may say anything: whoever makes one can compute a checksum.

MASK = {"fc.weight": torch.tensor([[True, False], [True, True]])}
WEIGHTS = {"fc.weight": torch.ones(2, 2), "fc.bias": torch.zeros(2)}
ORIGIN = {"network": {"name": "lenet-300-100"}, "input_shape": [1, 2, 2], "classes": 2, "study": "a", "arm": "b"}
ABOUT = {"origin": ORIGIN, "normalisation": {"mean": [0.0], "std": [1.0]}, "mask": {"fc.weight": [2, 2]}}


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Return the tensors of a ticket."""
    found = {f"mask/{name}": bits for name, bits in tombola.Mask(MASK).pack().items()}
    for prefix in ("start", "trained"):
        found |= {f"{prefix}/{name}": tensor.to(dtype).clone() for name, tensor in WEIGHTS.items()}
    return found


def use(path: Path) -> None:
    """Load a ticket, and do with it what a person would."""
    ticket = tombola.Ticket.load(path)
    repr(ticket)
    assert (ticket == ticket) is True
    with harmless():
        ticket.normalise(np.zeros((1, 1, 2, 2), np.uint8))
    ticket.build()


@cases
@given(damaged(pack_tensors(tensors(), ABOUT)))
def test_damaged_tickets(folder: Path, content: bytes) -> None:
    path = folder / "ticket.safetensors"
    path.write_bytes(content)
    with harmless():
        use(path)


sizes = st.lists(st.integers(-1, 2**40), max_size=5)


def changed(whole: dict[str, Any], fields: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Return a map in which one field has another value."""
    return st.tuples(st.sampled_from(fields), json_values).map(lambda pair: whole | {pair[0]: pair[1]})


@cases
@given(
    st.one_of(
        json_values,
        changed(ABOUT, ["origin", "normalisation", "mask"]),
        changed(ORIGIN, ["network", "input_shape", "classes"]).map(lambda origin: ABOUT | {"origin": origin}),
        changed({"mean": [0.0], "std": [1.0]}, ["mean", "std"]).map(lambda both: ABOUT | {"normalisation": both}),
        json_values.map(lambda shape: ABOUT | {"mask": {"fc.weight": shape}}),
        sizes.map(lambda shape: ABOUT | {"origin": ORIGIN | {"input_shape": shape}}),
        sizes.map(lambda shape: ABOUT | {"mask": {"fc.weight": shape}}),
    ),
    st.sampled_from([None, "mask/fc.weight", "start/fc.weight", "trained/fc.bias"]),
    st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.bool, torch.complex64, torch.int64]),
)
def test_crafted_tickets(folder: Path, about: Any, missing: str | None, dtype: torch.dtype) -> None:
    kept = {name: tensor for name, tensor in tensors(dtype).items() if name != missing}
    path = folder / "ticket.safetensors"
    path.write_bytes(pack_tensors(kept, about))
    with harmless():
        use(path)
