"""Families of models, from `benchmarks.coverage_table`: what of each is prunable, and that a mask on it holds."""

import importlib.util
import sys
from pathlib import Path

import pytest

from tombola.errors import InputError

ROOT = Path(__file__).parents[2]
FILE = ROOT / "benchmarks" / "coverage_table.py"
SPEC = importlib.util.spec_from_file_location("coverage_table", FILE)
coverage_table = importlib.util.module_from_spec(SPEC)
sys.modules["coverage_table"] = coverage_table
SPEC.loader.exec_module(coverage_table)

FAMILIES = coverage_table.FAMILIES
REFUSED = {"lazy layers": "no size before the first batch"}
DENSE = {  # weights in matrices that stay dense, counted by hand
    "weight_norm": {"0.parametrizations.weight.original1": 16 * 12},
    "spectral_norm": {"0.parametrizations.weight.original": 16 * 12},
}
PRUNABLE = {
    "MLP": 16 * 12 + 12 * 3,
    "LSTM classifier": 4 * 32 * (16 + 32) + 32 * 3,
    "GRU classifier": 3 * 32 * (16 + 32) + 3 * 32 * (32 + 32) + 32 * 3,
    "nn.TransformerEncoder": 2 * (48 * 16 + 16 * 16 + 2 * 16 * 32) + 16 * 3,
    "U-Net": 9 * (3 * 16 + 16 * 32 + 32 * 64 + 64 * 32 + 32 * 16) + 4 * (64 * 32 + 32 * 16) + 16 * 2,
    "tied embedding": 50 * 16 + 2 * 3 * 16 * 16,
    "float64": 16 * 12 + 12 * 3,
    "x @ W and einsum": 16 * 12 + 12 * 2 * 5 + 10 * 3,
    "(x * W).sum()": 4 * 3,
    "weight_norm": 12 * 3,
    "spectral_norm": 12 * 3,
    "lazy layers, a batch run in the factory": 4 * 3 * 9 + 4 * 36 * 3,
    # Attention (4 matrices or one of 3 and one), two layers of the perceptron; pooler and head.
    "BERT classifier": 2 * (4 * 32 * 32 + 2 * 32 * 64) + 32 * 32 + 32 * 3,
    "GPT-2 classifier": 2 * (4 * 32 * 32 + 2 * 32 * 128) + 32 * 3,
    "GPT-2 language model (tied)": 2 * (4 * 32 * 32 + 2 * 32 * 128) + 50 * 32,
    # Encoder blocks attend once, decoder blocks twice.
    "T5": 2 * (4 * 32 * 32 + 2 * 32 * 64) + 2 * (8 * 32 * 32 + 2 * 32 * 64) + 50 * 32,
}


@pytest.mark.filterwarnings("default")  # those of timm and transformers are not ours
@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_prunable_of_a_family(name):
    family = FAMILIES[name]
    if family.needs:
        pytest.importorskip(family.needs)
    if name in REFUSED:
        with pytest.raises(InputError, match=REFUSED[name]):
            coverage_table.covered(family)
        return
    coverage = coverage_table.covered(family)
    if name in PRUNABLE:
        assert coverage.prunable == PRUNABLE[name]
    assert {each.name: each.size for each in coverage.skipped} == DENSE.get(name, {})
    assert coverage.prunable / coverage.parameters > (0.05 if name in (*DENSE, "(x * W).sum()") else 0.8)
    assert coverage_table.holds(family)


def test_every_family_of_pytorch_is_counted_by_hand():
    assert {name for name, family in FAMILIES.items() if family.needs != "timm"} == {*PRUNABLE, *REFUSED}
    assert len(FAMILIES) >= 14


def test_the_table_names_what_stays_dense():
    assert "stays dense: `0.parametrizations.weight.original1`" in coverage_table.row("x", FAMILIES["weight_norm"])
    assert "refused: the network's '0.weight' has no size" in coverage_table.row("x", FAMILIES["lazy layers"])
