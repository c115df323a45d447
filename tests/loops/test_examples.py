"""The scripts in `examples/`, in small: each is skipped where its library is missing."""

import difflib
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tombola

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_is_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) < 60, path


def test_a_script_changes_by_five_lines_at_most():
    before, after = ((EXAMPLES / f"plain_{name}.py").read_text().splitlines()[1:] for name in ("before", "after"))
    added = [line for line in difflib.ndiff(before, after) if line.startswith("+ ") and line.strip("+ ")]
    assert len(added) <= 5, added


def test_plain(monkeypatch, tmp_path):
    module = example("plain_after")
    inputs, labels = module.make_data(400)
    for run in tombola.rounds(module.make_model, out=tmp_path, rounds=1, trials=1, figures=False, quiet=True):
        module.fit(run.model, inputs[:300], labels[:300], steps=20)
        run.report(accuracy=module.accuracy(run.model, inputs[300:], labels[300:]))
    assert len(run.results.frame()) == 6


def test_regression(tmp_path):
    pytest.importorskip("sklearn")
    frame = example("regression").main(tmp_path, rounds=1, trials=1, steps=40).frame()
    assert set(frame.metric_better) == {"lower"}
    assert frame.early_stop_test_absolute_error.between(0, 2).all()


@pytest.mark.slow
def test_char_gpt(tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    options = {"rounds": 1, "trials": 1, "steps": 4, "rewind": 2, "batch": 4}
    results = example("char_gpt").main(tmp_path / "text.txt", tmp_path / "out", **options)
    assert results.frame().final_test_loss.between(1, 5).all()
    names = {layer.kind for layer in results.plan.coverage.layers}
    assert "attention" in names
    assert sys.modules.get("char_gpt") is None


SMALL = {"rounds": 1, "trials": 1}


def check(results, column):
    """Require runs of all three arms that learned something, under masks that held."""
    frame = results.frame()
    assert len(frame) == 6
    assert frame[column].between(0, 1).all()
    ticket = results.ticket(0, 1)
    for name, keep in ticket.mask.items():
        assert not ticket.trained[name][~keep].any()
    assert not torch.equal(ticket.trained[name], ticket.weights[name])
    return results


@pytest.mark.slow
def test_segmentation(tmp_path):
    results = example("segmentation").main(tmp_path, steps=10, **SMALL)
    check(results, "final_test_iou")
    assert {layer.kind for layer in results.plan.coverage.layers} >= {"conv"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Lightning's own
def test_lightning(tmp_path):
    pytest.importorskip("lightning")
    pytest.importorskip("sklearn")
    results = check(example("lightning_digits").main(tmp_path, epochs=1, **SMALL), "final_test_accuracy")
    assert results.frame().early_stop_val_loss.notna().all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_bert(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    pages = EXAMPLES.parent / "docs"
    results = check(example("bert_pages").main(pages, tmp_path, steps=5, **SMALL), "final_test_accuracy")
    assert any("query" in layer.name for layer in results.plan.coverage.layers)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # timm's own
def test_timm(tmp_path):
    pytest.importorskip("timm", exc_type=ImportError, reason="timm, or torchvision, which it needs, is missing")
    generator = np.random.default_rng(0)
    arrays = {}
    for part, number in (("train", 200), ("test", 100)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (number, 3, 32, 32), dtype=np.uint8)
        arrays[f"y_{part}"] = generator.integers(0, 10, number)
    np.savez(tmp_path / "images.npz", **arrays)
    check(
        example("timm_cifar").main(tmp_path / "images.npz", tmp_path / "out", steps=3, **SMALL), "final_test_accuracy"
    )
