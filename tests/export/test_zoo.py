"""Every network of the zoo in every format: the same outputs as PyTorch's, or a refusal that names the layer."""

from __future__ import annotations

import ctypes
import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from zoo import ZOO, examples_of, outputs, ticket_of
from zoo_expected import EXPECTED, FORMATS

from tombola.errors import InputError
from tombola.export import FORMATS as ALL_FORMATS
from tombola.export import onnx, sparse_torch
from tombola.export.c.build import compiler
from tombola.export.packed.ticket import load_packed
from tombola.export.smaller import load_compact

TOLERANCE = dict.fromkeys(FORMATS, 1e-4) | {"packed": 2e-3}
"""Largest difference relative to the largest output: of float32 sums, and of shared values of 16 bits."""
OPTIONS: dict[str, dict[str, Any]] = {"packed": {"bits": 8, "other_bits": 8}, "c": {"name": "net"}}

STRICT = ("-std=c99", "-O0", "-Wall", "-Wextra", "-pedantic", "-Werror", "-DTOMBOLA_PLAIN")
VECTORS = ("-std=c99", "-O0", "-march=native")

is_without = {
    "c": compiler() is None,
    "onnx": not all(importlib.util.find_spec(name) for name in onnx.PACKAGES),
}


def cases() -> list[Any]:
    """Return all pairs; `make test` takes one format of each network in turn, `make test-all` takes all."""
    found = []
    for number, name in enumerate(ZOO):
        for place, form in enumerate(FORMATS):
            marks = [pytest.mark.skipif(is_without.get(form, False), reason=f"not installed: {form}")]
            if form == "onnx" or number % len(FORMATS) != place:
                marks.append(pytest.mark.slow)
            found.append(pytest.param(name, form, marks=marks, id=f"{name}-{form}"))
    return found


def run_c(path: Path, name: str) -> Callable[[Tensor], Tensor]:
    """Return a function that compiles an exported file, and runs it example by example."""
    module = ticket_of(name).build(trained=True).eval()
    shape = outputs(module, examples_of(name, 2)).shape[1:]
    flags = STRICT if list(ZOO).index(name) % 2 else VECTORS
    library = path.with_suffix(".so")
    command = [str(compiler()), *flags, "-shared", "-fPIC", "-o", str(library), str(path), "-lm"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    loaded = ctypes.CDLL(str(library))

    def run(examples: Tensor) -> Tensor:
        given = np.ascontiguousarray(examples.numpy(), np.float32).reshape(len(examples), -1)
        found, batch = (np.full((len(examples), *shape), np.nan, np.float32) for _ in range(2))
        for one, result in zip(given, found.reshape(len(examples), -1), strict=True):
            loaded.net_run(*(ctypes.c_void_p(each.ctypes.data) for each in (one, result)))
        both = (ctypes.c_void_p(each.ctypes.data) for each in (given, batch))
        loaded.net_run_batch(*both, len(examples))
        np.testing.assert_allclose(found, batch, rtol=1e-4, atol=1e-5)
        return torch.from_numpy(found)

    return run


def read(form: str, path: Path, name: str) -> Callable[[Any], Any]:
    """Return what an exported file computes."""
    if form == "compact":
        return load_compact(path)
    if form == "packed":
        return load_packed(path, trust=True)
    if form == "pytorch":
        return sparse_torch.load(path, compiled=False, trust=True)
    if form == "c":
        return run_c(path, name)
    content = path.read_bytes()
    return lambda examples: onnx.run_onnx(content, examples)


def flat(result: Any) -> Tensor:
    """Return all numbers of what a network returned."""
    if isinstance(result, Tensor):
        return result.double().flatten()
    parts = result.values() if isinstance(result, dict) else result
    return torch.cat([flat(each) for each in parts])


def seeded(function: Callable[[Any], Any], examples: Any) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return flat(outputs(function, examples))


@pytest.mark.parametrize(("name", "form"), cases())
def test_a_network_is_exported_right_or_refused_by_name(name, form, tmp_path):
    ticket, expected = ticket_of(name), EXPECTED[name][form]
    path = tmp_path / f"net.{form}" if form != "c" else tmp_path / "net.c"
    if expected != "=":
        with pytest.raises(InputError) as caught:
            ticket.export(form, path, **OPTIONS.get(form, {}))
        words = str(caught.value)
        assert ("network" in words or "model" in words) if expected == "(network)" else f"layer {expected!r}" in words
        assert len(words.splitlines()) == 1
        assert not list(tmp_path.iterdir())
        return
    assert ticket.export(form, path, **OPTIONS.get(form, {})) == path
    function, module = read(form, path, name), ticket.build(trained=True).eval()
    for count in ZOO[name].counts:
        examples = examples_of(name, count, seed=count)
        wanted, found = seeded(module, examples), seeded(function, examples)
        assert found.shape == wanted.shape
        assert wanted.isfinite().all()
        assert (found - wanted).abs().max() <= TOLERANCE[form] * wanted.abs().max()


def test_the_table_knows_each_network_and_each_format():
    assert list(EXPECTED) == list(ZOO)
    assert set(FORMATS) == set(ALL_FORMATS)
    assert len(ZOO) >= 80


@pytest.mark.parametrize("name", list(ZOO)[::9])
def test_outputs_of_the_zoo_depend_on_inputs_and_weights(name):
    """A network that gave nothing but constants would agree with any export."""
    module = ticket_of(name).build(trained=True).eval()
    one, other = (flat(outputs(module, examples_of(name, 3, seed))) for seed in (1, 2))
    assert not torch.allclose(one, other)
