"""Bad input through `tombola export` and through `ticket.export`: one sentence, and nothing half-written."""

from __future__ import annotations

import importlib.util
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from small_tickets import random_ticket
from test_bad_input import without_layer
from zoo import ticket_of as zoo_ticket

from tombola.cli import cli
from tombola.errors import InputError, StoreError
from tombola.export.graph import Unsupported
from tombola.export.packed.decode import read
from tombola.export.packed.ticket import load_packed
from tombola.export.paths import NoPath
from tombola.running.ticket import Ticket

needs_onnx = pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="no ONNX Runtime")
FORMS = [
    ("compact", {}),
    ("packed", {}),
    ("c", {}),
    ("pytorch", {}),
    pytest.param("onnx", {}, marks=needs_onnx),
    pytest.param("onnx", {"variant": "int8"}, marks=needs_onnx),
]
Export = Callable[[Ticket, str, Path, dict[str, Any]], None]


def by_python(ticket: Ticket, form: str, path: Path, options: dict[str, Any]) -> None:
    ticket.export(form, path, **options)


def by_command(ticket: Ticket, form: str, path: Path, options: dict[str, Any]) -> None:
    """Save the ticket aside and export the file; an error is raised again as the command raised it."""
    source = path.parent.parent / "ticket.safetensors"
    if not source.exists():
        ticket.save(source)
    words = [f"{name}={value}" for name, value in options.items()]
    found = CliRunner().invoke(cli, ["export", str(source), "--to", form, "--trust", "--out", str(path), *words])
    if found.exception is not None:
        assert found.output == ""
        raise found.exception


@pytest.fixture(params=[by_python, by_command])
def export(request: pytest.FixtureRequest) -> Export:
    function: Export = request.param
    return function


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "target"
    made.mkdir()
    return made


@pytest.mark.parametrize(("form", "options"), FORMS)
def test_a_ticket_without_live_paths(export, form, options, folder):
    ticket = without_layer(random_ticket(), "fc2.weight")
    with pytest.raises(NoPath, match=r"no path of kept weights .*; export a level with more weights") as caught:
        export(ticket, form, folder / "x", options)
    assert len(str(caught.value).splitlines()) == 1
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("form", "network", "words"),
    [
        ("compact", "lstm", "layer 'memory' uses the operator 'lstm': replace the layer, or export to onnx"),
        ("c", "three-axes", "layer '0' uses a convolution over three axes: the format c holds one and two axes"),
        ("packed", "bfloat16", "layer 'first' uses 'weight' of type bfloat16: convert the network to float32 first"),
        pytest.param(
            "onnx",
            "one-axis-adaptive-maximum",
            "layer 'pool' uses the operator 'adaptive_max_pool2d', which PyTorch can't export to ONNX: replace the "
            "layer, or choose another format",
            marks=needs_onnx,
        ),
    ],
)
def test_an_operator_that_a_format_can_not_hold(export, form, network, words, folder):
    with pytest.raises(Unsupported) as caught:
        export(zoo_ticket(network), form, folder / "x", {})
    assert str(caught.value) == words
    assert not list(folder.iterdir())


@pytest.mark.parametrize("form", ["compact", "c", pytest.param("onnx", marks=needs_onnx)])
def test_a_branch_that_depends_on_the_example_is_refused_by_the_layer(export, form, folder):
    with pytest.raises(InputError, match=r"the forward pass of layer 'choice' can't be traced") as caught:
        export(zoo_ticket("branch"), form, folder / "x", {})
    assert len(str(caught.value).splitlines()) == 1
    assert not list(folder.iterdir())


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Let the system refuse to write more than `size` bytes into a file, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("form", "options"), FORMS)
def test_a_target_that_is_full(export, form, options, folder):
    ticket = random_ticket(density=0.5)
    before = {folder / "x.c": b"before", folder / "x.h": b"and before"}
    for path, content in before.items():
        path.write_bytes(content)
    ticket.save(folder.parent / "ticket.safetensors")
    with no_file_larger_than(1500), pytest.raises(StoreError, match=r"^can't write .*File too large; ") as caught:
        export(ticket, form, folder / "x.c", options)
    assert len(str(caught.value).splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_every_flipped_byte_of_a_packed_ticket_is_an_error(export, folder):
    path = folder / "x.tombola"
    export(zoo_ticket("no-biases"), "packed", path, {})
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << place % 8)]) + whole[place + 1 :])
        for function in (partial(load_packed, trust=True), read):
            with pytest.raises(InputError) as caught:
                function(path)
            assert len(str(caught.value).splitlines()) == 1
    path.write_bytes(whole)
    assert load_packed(path, trust=True)


def test_a_packed_file_is_no_ticket_to_export(folder):
    random_ticket(density=0.05).export("packed", folder / "x.tombola")
    found = CliRunner().invoke(cli, ["export", str(folder / "x.tombola"), "--to", "c", "--out", str(folder / "x.c")])
    assert isinstance(found.exception, InputError)
    assert len(str(found.exception).splitlines()) == 1
    assert [path.name for path in folder.iterdir()] == ["x.tombola"]


@pytest.mark.parametrize(
    ("form", "options", "words"),
    [
        ("packed", {"bits": "many"}, "bits='many' is not a whole number: write one, such as bits=4"),
        ("packed", {"other_bits": 2.5}, "other_bits=2.5 is not a whole number: write one, such as other_bits=8"),
        ("packed", {"bits": 9}, "bits 9: a shared value has 1 to 8 bits"),
        ("compact", {"weights": 3}, "weights=3 is not a word: write one, such as weights=trained"),
        ("c", {"inputs": 1}, "inputs=1 is not a word: write one, such as inputs=normalised"),
        ("c", {"name": 3}, "name '3' is not a C identifier: use letters, digits and underscores, such as my_network"),
        pytest.param(
            "onnx", {"opset": 5}, "PyTorch can't write this network in opset 5: give opset=18", marks=needs_onnx
        ),
    ],
)
def test_options_that_are_none(export, form, options, words, folder):
    with pytest.raises(InputError) as caught:
        export(random_ticket(density=0.05), form, folder / "x", options)
    assert str(caught.value) == words
    assert not list(folder.iterdir())


@pytest.mark.parametrize(("form", "name"), [("packed", "tuning"), ("onnx", "examples")])
def test_options_that_no_text_can_give(form, name, folder):
    with pytest.raises(InputError, match=rf"{name} takes no text: pass it to ticket\.export in Python"):
        by_command(random_ticket(density=0.05), form, folder / "x", {name: 3})
