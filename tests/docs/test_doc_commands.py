"""The commands and the Python blocks of the pages run, on a small study instead of a long one.

What is cut down: `tombola run` of a long preset becomes `tombola plan` of the same line on the embedded digits. A run
of `demo` trains for few iterations. Results folders that a page names hold a small study; its level 3 stands for all.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from doc_pages import PAGES, PUBLISHED, ROOT, files_of, of_language, shell_lines

import tombola
from tombola.cli import cli
from tombola.extras import install, installed
from tombola.studies.loading import preset_names

SMALL = ["trials=1", "training.iterations=120", "training.evaluate_every=20", "training.test_every=20"]
SMALL += ["network.arguments.hidden=[40, 20]"]
FOLDERS = {
    word
    for page in PAGES
    if page not in PUBLISHED
    for words in shell_lines(page)
    for word in words
    if word.startswith("results/")
}
# Lines that are not run here: a word of the line -> who runs it.
ELSEWHERE = {
    "--on": "tests/cluster",
    "schema": "tests/studies/test_schema.py",
    "onnx": "tests/export, where ONNX is installed",
}
# Pages with Python blocks -> the test that runs them.
PYTHON = {
    "docs/api.md": "test_docs.py::test_the_page_on_python",
    "docs/clusters.md": "test_python_blocks",
    "docs/figures.md": "test_python_blocks",
    "docs/how-to.md": "test_python_blocks, test_docs.py::test_a_model_and_data_of_ones_own",
    "docs/own-models.md": "tests/loops/test_docs_own_models.py",
    "docs/package.md": "test_python_blocks",
    "docs/results.md": "test_python_blocks",
    "docs/studies.md": "test_docs.py, test_a_task_of_ones_own, test_files_that_are_streamed",
}


def test_every_page_with_python_has_a_test() -> None:
    assert {page for page in PAGES if of_language(page, "python")} == set(PYTHON)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with results of each name that a page uses, all of one small study."""
    folder = tmp_path_factory.mktemp("pages")
    overrides = {
        "network": {"arguments": {"hidden": [20, 10]}},
        "training": {"iterations": 60, "test_every": 20, "evaluate_every": 20},
        "pruning.rounds": 5,
        "arms": ["ticket", "reinit"],
        "trials": 2,
    }
    for name in sorted(FOLDERS | {"results/demo", "results/mine"}):
        study = tombola.Study.load("demo", name=Path(name).name, **overrides)
        out = folder / ("results/small" if name.endswith(".csv") else name)
        tombola.run(study, out, workers=0, quiet=True, figures=False)
    tombola.Results.open(folder / "results/demo").ticket(trial=0, level=3).save(folder / "ticket.safetensors")
    return folder


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder, with nothing known of a folder of data sets."""
    before, environment = Path.cwd(), dict(os.environ)
    os.environ.pop("TOMBOLA_DATA", None)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        os.environ.clear()
        os.environ.update(environment)


def cut_down(words: list[str]) -> list[str]:
    """Return a shorter form of a line."""
    if words[0] == "run" and words[1] in {*preset_names(), "my-study.yaml"} - {"demo"}:
        return ["plan", *words[1:], "data.source=digits", "data.validation=200"]
    if words[0] == "run":
        return [*words, *SMALL, "--workers", "0", "--no-figures"]
    text = " ".join(f"\0{word}" for word in words)
    text = re.sub(r"\0--level \0\d+", "\0--level \0003", text).replace("finetune=4000", "finetune=20")
    return text.replace("\0--test \0mnist", "\0--test \0digits").lstrip("\0").split(" \0")


def ran(words: list[str]) -> str:
    """Run a command, and return what it prints."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's own, of the runtimes that are measured
        done = CliRunner().invoke(cli, cut_down(words), prog_name="tombola")
    if isinstance(done.exception, tombola.TombolaError):
        raise done.exception
    assert done.exit_code == 0, (words, done.output, done.exception)
    return done.output


BY_HAND = [page for page in PAGES if page not in PUBLISHED]
COMMANDS = [page for page in BY_HAND if any("tombola" in words[0] for words in shell_lines(page))]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", COMMANDS)
def test_commands(page: str, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    files = files_of(page) | files_of("docs/studies.md")
    (table,) = of_language("docs/results.md", "text")
    claims = next(block for block in of_language("docs/statistics.md", "yaml") if "claims:" in block.text)
    for name, text in (files | {"mine.csv": table.text, "my-claims.yaml": claims.text}).items():
        (tmp_path / name).write_text(text)
    with inside(tmp_path):
        for words in shell_lines(page):
            if words[0].removeprefix(".venv/bin/") != "tombola" or ELSEWHERE.keys() & set(words):
                continue
            if words[1] in ("report", "compare") and not installed("vl_convert"):
                with pytest.raises(tombola.InputError, match=re.escape(install("vl_convert"))):
                    ran(words[1:])
            else:
                ran(words[1:])


def test_lines_that_run_elsewhere_exist() -> None:
    every = [words for page in PAGES if page not in PUBLISHED for words in shell_lines(page)]
    assert [word for word in ELSEWHERE if not any(word in words for words in every)] == []


CHANGES = {
    "docs/clusters.md": ('tombola.run("demo", on=pool', 'tombola.run(tombola.Study.load("results/demo"), on=pool'),
    "docs/package.md": ('tombola.run("demo")', 'tombola.Results.open("results/demo")'),
}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, test in PYTHON.items() if "test_python_blocks" in test])
def test_python_blocks(page: str, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path, dirs_exist_ok=True)
    (table,) = of_language("docs/results.md", "text")
    (tmp_path / "mine.csv").write_text(table.text)
    shown = [block for block in of_language(page, "python") if not re.match(r"# \w+\.py\n", block.text)]
    code = "\n".join(block.text for block in shown)
    before, after = CHANGES.get(page, ("", ""))
    assert before in code
    (tmp_path / "example_to_run.py").write_text(code.replace(before, after) if before else code)
    environment = {name: value for name, value in os.environ.items() if name != "TOMBOLA_DATA"}
    line = [sys.executable, "-W", "error", "example_to_run.py"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_tutorial(tmp_path: Path) -> None:
    """Its cells run as they stand there; `make docs` also shows what they print."""
    import json

    cells = json.loads((ROOT / "docs/tutorial.ipynb").read_text())["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    (tmp_path / "tutorial_to_run.py").write_text(code)
    environment = os.environ | {"MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-W", "error", "tutorial_to_run.py"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (kept,) = re.findall(r"is proven: (\d+)% of the weights", done.stdout)
    assert int(kept) < 70
    ((before, after),) = re.findall(r"of the ticket ([\d.]+)%, of the packed file ([\d.]+)%", done.stdout)
    assert float(before) > 90
    assert abs(float(before) - float(after)) < 2


def test_a_task_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = files_of("docs/studies.md")["my_tasks.py"]
    found: dict[str, object] = {}
    exec(compile(code, "my_tasks.py", "exec", dont_inherit=True), found)
    task = found["Distance"](radius=2.0)  # type: ignore[operator]

    class Batch:
        targets = torch.zeros(3, 2)

        def __len__(self) -> int:
            return 3

    output = torch.tensor([[3.0, 4.0], [0.0, 1.0], [0.0, 0.0]])
    assert float(task.loss(output, Batch())) == pytest.approx(2.0)
    assert task.scores(task.sums(output, Batch())) == pytest.approx((2.0, 2.0, 2 / 3))


def test_files_that_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train").mkdir()
    np.savez("train/7.npz", image=np.ones((1, 4, 4), dtype=np.float32), label=2)
    found: dict[str, object] = {}
    exec(compile(files_of("docs/studies.md")["my_files.py"], "my_files.py", "exec", dont_inherit=True), found)
    data = found["files"]()  # type: ignore[operator]
    image, label = data["train"][7]
    assert (tuple(image.shape), label, len(data["train"]), data["classes"]) == ((1, 4, 4), 2, 1_000_000, 1000)


def test_shell_completion(tmp_path: Path) -> None:
    """The lines of docs/start.md give each shell a script, and the script's question is answered."""
    text = "\n".join(block.text for block in of_language("docs/start.md", "sh"))
    for shell in ("bash", "zsh", "fish"):
        assert f"_TOMBOLA_COMPLETE={shell}_source tombola" in text

    def answer(mode: str, **variables: str) -> str:
        code = "import sys; sys.argv = ['tombola']; from tombola.cli import main; main()"
        environment = os.environ | {"_TOMBOLA_COMPLETE": mode} | variables
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout

    assert "_tombola_completion" in answer("zsh_source")
    assert "complete --no-files --command tombola" in answer("fish_source")
    assert answer("bash_complete", COMP_WORDS="tombola pre", COMP_CWORD="1") == "plain,presets\n"
    studies = answer("bash_complete", COMP_WORDS="tombola run lenet-mnist-re", COMP_CWORD="2")
    assert studies == "plain,lenet-mnist-rewind\n"
    if shutil.which("bash"):
        assert "complete -o nosort -F _tombola_completion tombola" in answer("bash_source")
