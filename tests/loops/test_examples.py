"""The scripts in `examples/`, in small."""

import difflib
import importlib.util
import sys
from pathlib import Path

import pytest

import tombola

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_is_short():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 75, path


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


def test_char_gpt(tmp_path):
    (tmp_path / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    options = {"rounds": 1, "trials": 1, "steps": 4, "rewind": 2, "batch": 4}
    results = example("char_gpt").main(tmp_path / "text.txt", tmp_path / "out", **options)
    assert results.frame().final_test_loss.between(1, 5).all()
    names = {layer.kind for layer in results.plan.coverage.layers}
    assert "attention" in names
    assert sys.modules.get("char_gpt") is None
