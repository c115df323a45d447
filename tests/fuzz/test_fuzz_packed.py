"""Packed files, masks and CIFAR's files from strangers."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fuzz_harness import change, changed, damaged, few_cases, harmless, json_values, many_cases, sizes
from hypothesis import given
from hypothesis import strategies as st
from made_up_tickets import ticket_of
from small_cifar import small

import tombola
from tombola.data import cifar
from tombola.errors import InputError
from tombola.export.packed import decode
from tombola.export.packed.recipe import digest, drawn
from tombola.export.packed.ticket import load_packed
from tombola.export.smaller import load_compact
from tombola.running.files import pack_tensors, unpack_tensors

MOST = 20_000  # values; in plain Python a million take seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module", autouse=True)
def nothing_is_compiled() -> Iterator[None]:
    """Compiling takes seconds, and these files are small."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tombola.export.packed.ticket.compiled", lambda: decode.PLAIN_PYTHON)
        yield


@pytest.fixture(scope="module")
def values(folder: Path) -> bytes:
    """A packed file of values."""
    return ticket_of(hidden=[5], density=0.5).export("packed", folder / "values", bits=2).read_bytes()


@pytest.fixture(scope="module")
def recipe(folder: Path) -> bytes:
    """A packed file of a mask and a seed."""
    ticket = ticket_of(hidden=[5], density=0.5)
    origin = ticket.origin | {"seed": 5}
    weights = drawn(origin, {"seed": 5, "draw": 0}, ticket.mask)
    path = replace(ticket, weights=weights, origin=origin).export("packed", folder / "recipe", form="recipe")
    assert digest(load_packed(path).state_dict()) == digest(weights)
    return path.read_bytes()


def resealed(content: bytes) -> bytes:
    """Return a packed file with the checksum that it should have: whoever makes one can compute it."""
    return content[:8] + hashlib.sha256(content[16:]).digest()[:8] + content[16:]


def with_header(content: bytes, header: Any) -> bytes:
    """Return a packed file with another header, length and checksum of it right."""
    old = int.from_bytes(content[16:20], "little")
    deflate = zlib.compressobj(zdict=decode.WORDS)
    packed = deflate.compress(json.dumps(header).encode()) + deflate.flush()
    return resealed(content[:16] + len(packed).to_bytes(4, "little") + packed + content[20 + old :])


def header_of(content: bytes) -> dict[str, Any]:
    return decode._inflate(content[20 : 20 + int.from_bytes(content[16:20], "little")])


def read(folder: Path, content: bytes) -> None:
    path = folder / "ticket.tombola"
    path.write_bytes(content)
    with harmless():
        decode.unpack(content, "ticket.tombola", MOST)
    with harmless():
        load_packed(path, MOST)


@many_cases
@given(st.data())
def test_damaged_packed_files(folder: Path, values: bytes, recipe: bytes, data: st.DataObject) -> None:
    content = data.draw(st.sampled_from([values, recipe]).flatmap(damaged))
    read(folder, data.draw(st.sampled_from([content, resealed(content)])))


@pytest.mark.parametrize("number", [np.inf, np.nan])
def test_shared_values_that_are_no_numbers(folder: Path, values: bytes, number: float) -> None:
    """Once found: a warning of NumPy, and then weights that are not numbers."""
    begin = 20 + int.from_bytes(values[16:20], "little")
    content = resealed(values[:begin] + np.float32(number).tobytes() + values[begin + 4 :])
    with pytest.raises(InputError, match="not a finite number"):
        decode.unpack(content)
    read(folder, content)


@many_cases
@given(st.data())
def test_crafted_packed_files(folder: Path, values: bytes, recipe: bytes, data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([values, recipe]))
    header = header_of(whole)
    about, tensor = header["about"], data.draw(st.sampled_from(range(len(header["tensors"]))))
    place = data.draw(st.integers(0, len(header["tensors"][tensor]) - 1))
    entry = [*header["tensors"][tensor]]
    entry[place] = data.draw(st.one_of(json_values, sizes))
    entries = [*header["tensors"][:tensor], entry, *header["tensors"][tensor + 1 :]]
    origin = changed(about["origin"], ["network", "input_shape", "classes", "trial"])
    seeds = changed(about.get("recipe", {}), ["seed", "draw", "digest"])
    made = data.draw(
        st.one_of(
            st.just(header | {"tensors": entries}),
            json_values,
            changed(header, ["tensors", "about"]),
            changed(about, [*about]).map(lambda new: header | {"about": new}),
            origin.map(lambda new: header | {"about": about | {"origin": new}}),
            seeds.map(lambda new: header | {"about": about | {"recipe": new}}),
            sizes.map(lambda new: header | {"about": about | {"origin": about["origin"] | {"input_shape": new}}}),
        )
    )
    read(folder, with_header(whole, made))


@pytest.fixture(scope="module")
def compact(folder: Path) -> bytes:
    return ticket_of("conv-2", (1, 4, 4), density=0.02).export("compact", folder / "compact").read_bytes()


@many_cases
@given(st.data())
def test_damaged_compact_files(folder: Path, compact: bytes, data: st.DataObject) -> None:
    path = folder / "damaged.safetensors"
    path.write_bytes(data.draw(damaged(compact)))
    with harmless():
        load_compact(path)


@few_cases
@given(st.data())
def test_crafted_compact_files(folder: Path, compact: bytes, data: st.DataObject) -> None:
    path = folder / "crafted.safetensors"
    path.write_bytes(compact)
    tensors, about = unpack_tensors(path)
    for _ in range(data.draw(st.integers(1, 2))):
        change(data, about)
    path.write_bytes(pack_tensors(tensors, about))
    with harmless():
        load_compact(path)


MASK = {"fc.weight": torch.tensor([[True, False], [True, True]]), "b": torch.zeros(3, dtype=torch.bool)}
WHOLE = tombola.Mask(MASK)


@many_cases
@given(st.one_of(damaged(pack_tensors(WHOLE.pack(), {"mask": WHOLE.shapes()})), st.binary(max_size=40)))
def test_damaged_masks(folder: Path, content: bytes) -> None:
    path = folder / "mask.safetensors"
    path.write_bytes(content)
    with harmless():
        assert tombola.Mask.load(path) == WHOLE, "another mask"


@many_cases
@given(
    st.one_of(
        json_values, json_values.map(lambda value: {"mask": value}), sizes.map(lambda shape: {"mask": {"b": shape}})
    ),
    st.sampled_from([torch.uint8, torch.bool, torch.float32, torch.int64]),
    st.integers(0, 3),
)
def test_crafted_masks(folder: Path, about: Any, dtype: torch.dtype, size: int) -> None:
    path = folder / "mask.safetensors"
    path.write_bytes(pack_tensors({"b": torch.ones(size, dtype=dtype)}, about))
    with harmless():
        repr(tombola.Mask.load(path))


SMALL, FILES = small("cifar10")  # 2 examples a file


@many_cases
@given(st.data())
def test_files_of_cifar(data: st.DataObject) -> None:
    """As if their checksum were right: a checksum is not a proof against someone who can choose two files of one."""
    name = data.draw(st.sampled_from(sorted(file for file in FILES if "/" in file)))
    content = data.draw(damaged(FILES[name]))
    read = cifar._binary if name.endswith(".bin") else cifar._python
    with harmless():
        images, labels = read(SMALL, content, name, 2)
        assert images.shape == (2, 60)
        assert np.issubdtype(labels.dtype, np.integer)
        assert ((labels >= 0) & (labels < 10)).all()
