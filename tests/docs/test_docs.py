"""The examples in README.md and docs/ do what stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from doc_pages import PAGES, files_of

import tombola

ROOT = Path(__file__).parents[2]
PREAMBLE = "import os; os.sched_getaffinity = lambda pid: {0, 1}\n"  # two workers are enough, whatever the machine


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)


def write_modules(page: str, folder: Path) -> list[str]:
    """Write the examples that begin with a file's name as that file; return the others, in order."""
    others = []
    for code in examples(page):
        if name := re.match(r"# (\w+\.py)\n", code):
            (folder / name[1]).write_text(code)
        else:
            others.append(code)
    return others


def run(code: str, folder: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TOMBOLA")}
    (folder / "example_to_run.py").write_text(PREAMBLE + code)
    line = [sys.executable, "-W", "error", "example_to_run.py"]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_model_and_data_of_ones_own(tmp_path: Path) -> None:
    write_modules("docs/how-to.md", tmp_path)
    rng = np.random.default_rng(0)
    arrays = {}
    for part, number in (("train", 800), ("test", 100)):
        arrays[f"y_{part}"] = targets = rng.integers(0, 3, number)
        images = rng.integers(0, 100, (number, 6, 6), dtype=np.uint8)
        images[np.arange(number), targets] += 100  # a bright row that says the class
        arrays[f"x_{part}"] = images
    np.savez(tmp_path / "my.npz", **arrays)
    code = (tmp_path / "find_tickets.py").read_text()
    assert "trials=3" in code
    out = run(code.replace("trials=3", "trials=1"), tmp_path)  # a third of the time
    rows = [line.split() for line in out.splitlines() if re.match(r"(ticket|reinit)? +\d", line)]
    assert len(rows) == 14
    assert all(float(row[-1]) > 0.6 for row in rows if row[0] == "ticket"), out
    ticket = tombola.Ticket.load(tmp_path / "ticket.safetensors")
    assert ticket.origin["level"] == 6
    assert ticket.mask.density == pytest.approx(0.7**6, rel=0.15)  # the output layer at half the rate


@pytest.mark.slow
def test_a_table_with_numbers_and_categories(tmp_path: Path) -> None:
    write_modules("docs/how-to.md", tmp_path)
    (tmp_path / "my-table.yaml").write_text(files_of("docs/how-to.md")["my-table.yaml"])
    code = "import tombola; study = tombola.Study.load('my-table.yaml', trials=1, **{'pruning.rounds': 1})\n"
    code += "print(tombola.run(study, workers=0, figures=False, quiet=True).frame().early_stop_test_accuracy.min())"
    assert float(run(code, tmp_path).splitlines()[-1]) > 0.8


@pytest.mark.slow
def test_the_page_on_python(tmp_path: Path) -> None:
    code = "\n".join(write_modules("docs/api.md", tmp_path))
    out = run(code, tmp_path)
    assert "0 work items are missing" in out
    assert "Ticket(study='demo', arm='ticket', trial=0, repeat=0, level=3, Mask(" in out
    assert "late" in out
    assert "did you mean 'demo'?" in out
    assert (tmp_path / "results" / "movement" / "results.csv").is_file()


def test_the_study_file_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my-study.yaml").write_text(files_of("docs/how-to.md")["my-study.yaml"])
    study = tombola.Study.load("my-study.yaml")
    assert (study.name, study.rewind, study.trials) == ("my-study", 500, 3)
    assert [(arm.rule, arm.per_trial) for arm in study.arms] == [("ticket", 1), ("reinit", 3), ("random-mask", 1)]
    assert study.training.optimizer == "adam"
    assert study.training.lr == 2.0e-4


def test_a_criterion_and_an_arm_as_in_the_page_on_studies(tmp_path: Path) -> None:
    assert write_modules("docs/studies.md", tmp_path) == []
    arms = "[ticket, {rule: 'my_arms:random_reinit', name: random, per_trial: 2}]"
    changes = [
        "trials=1",
        "training.iterations=20",
        "pruning.rounds=1",
        "pruning.criterion=my_criteria:smallest_change",
    ]
    line = [sys.executable, "-m", "tombola", "run", "demo", *changes, f"arms={arms}", "--workers", "0", "--no-figures"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("done ") == 4


def test_data_and_training_as_in_the_page_on_studies(tmp_path: Path) -> None:
    write_modules("docs/studies.md", tmp_path)
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs/studies.md").read_text(), re.MULTILINE | re.DOTALL)
    (data,) = (block for block in blocks if block.startswith('data: {source: "my_data'))
    (training,) = (block for block in blocks if "my_training:optimizer" in block)
    rest = "  lr: 0.01\n  batch_size: 50\n  iterations: 40\n  evaluate_every: 20\n"
    text = f"name: own\nnetwork: lenet-300-100\n{data}{training}{rest}"
    (tmp_path / "own.yaml").write_text(text + "pruning: {rate: 0.5, rounds: 1}\narms: [ticket]\ntrials: 1\n")
    line = [sys.executable, "-m", "tombola", "run", "own.yaml", "--workers", "0", "--no-figures"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "2/2 runs done" in done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
        assert "://" in target or ((ROOT / page).parent / target).exists(), target


def test_every_public_name_is_documented() -> None:
    text = (ROOT / "docs/api.md").read_text()
    assert [name for name in tombola.__all__ if name not in text] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_table_has_a_head_and_no_gaps(page: str) -> None:
    """Rows behind an empty line would be shown as text."""
    lines = ["", *(ROOT / page).read_text().splitlines(), ""]
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if line.startswith("|") and not before.startswith("|"):
            assert set(after) <= set("|-: "), line
            assert after, line
