"""ONNX models, where onnx, onnxscript and onnxruntime are installed."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from made_up_tickets import ticket_of

from tombola.errors import InputError
from tombola.export import onnx

MISSING = [name for name in onnx.PACKAGES if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")
pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters


@needs_onnx
@pytest.mark.parametrize("variant", onnx.VARIANTS)
@pytest.mark.parametrize(
    ("name", "shape", "arguments"),
    [("lenet-300-100", (1, 6, 6), {"hidden": [12, 9]}), ("made_up_modules:mixed", (3, 9, 9), {})],
)
def test_a_model_gives_what_pytorch_gives_for_batches_of_any_size(variant, name, shape, arguments, tmp_path):
    ticket = ticket_of(name, shape, 0.5, **arguments)
    path = ticket.export("onnx", tmp_path / "x.onnx", variant=variant)
    module = ticket.build(trained=True).eval()
    for count in (1, 5):
        inputs = torch.randn(count, *shape, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = module(inputs)
        found = onnx.run_onnx(path.read_bytes(), inputs)
        allowed = onnx.INT8_TOLERANCE if variant.endswith("int8") else onnx.TOLERANCE
        assert float((expected - found).abs().max()) <= 2 * allowed * float(expected.abs().max())


@needs_onnx
def test_a_model_that_differs_is_refused(tmp_path, monkeypatch):
    ticket = ticket_of(hidden=[9], density=0.5)
    real = onnx.run_onnx
    monkeypatch.setattr(onnx, "run_onnx", lambda content, inputs: real(content, inputs) + 1)
    with pytest.raises(InputError, match="the largest difference is 1"):
        ticket.export("onnx", tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_named_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx, "PACKAGES", ("onnx_that_nobody_has",))
    with pytest.raises(InputError, match=r"needs onnx_that_nobody_has: pip install 'tombola\[onnx\]'"):
        ticket_of(hidden=[9], density=0.5).export("onnx", tmp_path / "x.onnx")


def test_an_unknown_variant_is_refused(tmp_path):
    with pytest.raises(InputError, match="choose dense, compact, int8, compact-int8"):
        ticket_of(hidden=[9]).export("onnx", tmp_path / "x.onnx", variant="int4")
