"""What no format writes or reads: tickets without live paths, full folders, damaged files."""

from __future__ import annotations

import errno
import importlib.util
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_tickets import random_ticket

from tombola.errors import InputError, StoreError
from tombola.export.paths import NoPath
from tombola.export.smaller import load_compact
from tombola.export.sparse_torch import load
from tombola.pruning.mask import Mask

needs_onnx = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="no ONNX Runtime")
FORMS = [
    ("compact", {}),
    ("packed", {}),
    ("packed", {"form": "recipe"}),
    ("c", {}),
    ("pytorch", {}),
    pytest.param("onnx", {}, marks=needs_onnx),
    pytest.param("onnx", {"variant": "compact-int8"}, marks=needs_onnx),
]


def without_layer(ticket, name):
    """Return the ticket with nothing left of a layer."""
    mask = Mask({layer: keep & (layer != name) for layer, keep in ticket.mask.items()})
    return replace(ticket, mask=mask, weights=mask.apply(ticket.weights), trained=mask.apply(ticket.trained))


@pytest.mark.parametrize(("form", "options"), FORMS)
@pytest.mark.parametrize(("network", "layer"), [("lenet-300-100", "fc2.weight"), ("conv-2", "conv1.weight")])
def test_a_ticket_without_live_paths(network, layer, form, options, tmp_path):
    ticket = random_ticket(network)
    assert layer in ticket.mask
    with pytest.raises(NoPath, match="no path of kept weights leads from an input to an output") as caught:
        without_layer(ticket, layer).export(form, tmp_path / "x", **options)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("form", "options"), [each for each in FORMS if each != ("packed", {"form": "recipe"})])
def test_a_full_folder_keeps_what_was_there(form, options, tmp_path, monkeypatch):
    before = {tmp_path / "x.c": b"before", tmp_path / "x.h": b"and before"}
    for path, content in before.items():
        path.write_bytes(content)
    left = 1  # the second file of a format is the one that does not fit

    def sync(file):
        nonlocal left
        left -= 1
        if left < 0 or form != "c":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", sync)
    with pytest.raises(StoreError, match="No space left on device; name an existing folder with free space; tombola"):
        random_ticket(density=0.05).export(form, tmp_path / "x.c", **options)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(("form", "read"), [("compact", load_compact), ("pytorch", lambda path: load(path, False))])
def test_a_flipped_byte_is_an_error(form, read, tmp_path):
    path = random_ticket(input_shape=(4,), density=0.02).export(form, tmp_path / "x")
    content = path.read_bytes()
    for place in [*range(0, 300, 7), *range(300, len(content), 401), len(content) - 1]:
        for change in (0x01, 0xFF):
            path.write_bytes(content[:place] + bytes([content[place] ^ change]) + content[place + 1 :])
            with pytest.raises(InputError) as caught:
                read(path)
            assert len(str(caught.value).splitlines()) == 1, place
    path.write_bytes(content)
    assert read(path)(torch.zeros(1, 4)).shape == (1, 4)


def test_a_folder_in_the_place_of_a_file_leaves_no_header(tmp_path: Path) -> None:
    (tmp_path / "net.c").mkdir()
    (tmp_path / "net.h").write_text("mine")
    with pytest.raises(StoreError, match="not a regular file"):
        random_ticket().export("c", tmp_path / "net.c")
    assert (tmp_path / "net.h").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.c", "net.h"]
