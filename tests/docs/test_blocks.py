"""Every block of code in README.md and docs/ is checked by a test; none is left out in silence.

Here are the fast checks: each block has a language, each shell line parses and names what exists, each YAML block is
valid. `test_doc_commands.py` runs the Python blocks and the commands.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from doc_pages import PAGES, PUBLISHED, ROOT, Block, blocks, files_of, of_language, shell_lines
from ruamel.yaml import YAML

import tombola
from tombola.analysis.claims import load_claims
from tombola.cli import cli
from tombola.studies.cluster import ClusterSettings, read_cluster
from tombola.studies.loading import preset_names

LANGUAGES = {"sh", "python", "yaml", "text"}
DIRECTIVE = re.compile(r"\{[a-z-]+\}.*")  # Sphinx runs it

# Blocks that are not code: (page, first line) -> what they are.
NOT_CODE = {
    ("docs/architecture.md", "study (file, command line, Python)"): "a drawing of the data flow",
    ("docs/results.md", "arm,trial,level,density,early_stop_iteration,early_stop_test_accuracy"): (
        "a table, which test_doc_commands.py reads as mine.csv"
    ),
    ("docs/studies.md", "results/quick/"): "the files of a results folder",
}
# Shell lines of other programs: first words -> why they are not run.
OTHERS = {
    ("python3", "-m", "venv"): "Python's own",
    ("source", ".venv/bin/activate"): "Python's own",
    ("eval",): "run by test_doc_commands.py::test_shell_completion",
    ("_TOMBOLA_COMPLETE=fish_source",): "run by test_doc_commands.py::test_shell_completion",
    ("cp", "-r", "results/two/jobs"): "done by running/test_results.py::test_two_folders_with_trials_of_one_study_join",
}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_language(page: str) -> None:
    for block in blocks(page):
        if block.language == "text":
            assert (page, block.first) in NOT_CODE, block
        elif not (page in PUBLISHED and block.language == "indented") and not DIRECTIVE.fullmatch(block.language):
            assert block.language in LANGUAGES, block


def test_what_is_no_code_exists() -> None:
    found = {(block.page, block.first) for page in PAGES for block in of_language(page, "text")}
    assert found == set(NOT_CODE)


def test_pages_are_found() -> None:
    assert len(PUBLISHED) >= 10
    assert sum(len(list(shell_lines(page))) for page in PAGES) > 60
    assert sum(len(of_language(page, "python")) for page in PAGES) > 30


def checked_tombola(words: list[str], page: str, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Parse a command, and load the study that it names."""
    context = click.Context(cli, info_name="tombola", **cli.context_settings)
    name, command, arguments = cli.resolve_command(context, words)
    if isinstance(command, click.Group) and arguments:
        name, command, arguments = command.resolve_command(context, arguments)
    if ">" in arguments:
        arguments = arguments[: arguments.index(">")]
    assert command is not None
    parsed = command.make_context(name, arguments, parent=context).params  # refuses unknown options and values
    studies = [parsed["study"]] if parsed.get("study") else list(parsed.get("studies", ()))
    for study in studies:
        known = study in preset_names() or study.startswith("results/") or study.endswith((".csv", ".safetensors"))
        assert known or study in (*files_of(page), "mine"), f"{study}: no preset, folder or file"
    if parsed.get("changes") and (studies[0] in preset_names() or studies[0] in files_of(page)):
        monkeypatch.chdir(folder)
        for file, text in files_of(page).items():
            Path(file).write_text(text)
        assert tombola.studies.loading.load_study(studies[0], assignments=parsed["changes"])


def checked_pip(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = [match[1].split(",") for word in words if (match := re.fullmatch(r"(?:\.|tombola)\[(.+)\]", word))]
    assert wanted, words
    assert {name for names in wanted for name in names} <= set(extras)


def checked_python(words: list[str]) -> None:
    """Check that a script or module exists, and knows the options."""
    if words[1] == "-m":
        module = ROOT / words[2].replace(".", "/")
        file = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
    else:
        file = ROOT / words[1]
        if words[1].startswith("examples/"):
            tests = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
            assert any(file.name in text or f'"{file.stem}"' in text for text in tests), f"no test runs {file.name}"
    text = file.read_text()
    for option in (word for word in words[2:] if word.startswith("--")):
        assert option in text, (words, option)


@pytest.mark.parametrize("page", PAGES)
def test_shell_lines_name_what_exists(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in shell_lines(page):
        program = words[0].removeprefix(".venv/bin/")
        if program == "tombola":
            checked_tombola(words[1:], page, monkeypatch, tmp_path)
        elif program == "make":
            assert words[1] in targets, words
        elif program == "pip":
            checked_pip(words)
        elif program == "python":
            checked_python(words)
        else:
            assert any(tuple(words[: len(start)]) == start for start in OTHERS), words


def test_what_the_checks_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("run dmeo", "run demo --wrokers 2", "run demo trails=3", "figures demo --style print", "rnu demo"):
        with pytest.raises((click.ClickException, tombola.TombolaError, AssertionError)):
            checked_tombola(wrong.split(), "README.md", monkeypatch, tmp_path)
    with pytest.raises(AssertionError):
        checked_pip(["pip", "install", ".[fats]"])
    with pytest.raises((AssertionError, OSError)):
        checked_python(["python", "-m", "benchmarks.nothing"])
    with pytest.raises(AssertionError):
        checked_python(["python", "-m", "benchmarks.packed", "--no-such-option"])


@pytest.mark.parametrize("page", [page for page in PAGES if of_language(page, "yaml")])
def test_yaml_blocks_are_valid(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is a study or a part of one, the settings of a cluster, or claims."""
    monkeypatch.chdir(tmp_path)
    for block in of_language(page, "yaml"):
        fields = YAML(typ="safe").load(block.text)
        assert isinstance(fields, dict), block
        if "claims" in fields:
            Path("claims.yaml").write_text(block.text)
            assert load_claims(Path("claims.yaml"))
        elif fields.keys() <= set(ClusterSettings.model_fields):
            Path("cluster.yaml").write_text(block.text)
            assert read_cluster(Path("cluster.yaml"))
        else:
            checked_study(block, fields)


def checked_study(block: Block, fields: dict[str, Any]) -> None:
    whole = "extends" in fields or "network" in fields
    Path("study.yaml").write_text(block.text if whole else f"extends: demo\n{block.text}")
    study = tombola.Study.load("study.yaml")
    assert set(fields) - {"extends"} <= set(type(study).model_fields)
    jsonschema = pytest.importorskip("jsonschema")
    from tombola.studies.schema import study_schema

    checker = jsonschema.Draft7Validator(study_schema())
    assert [error.message for error in checker.iter_errors(fields if whole else {"extends": "demo"} | fields)] == []


def test_the_notebook_holds_no_outputs() -> None:
    cells = json.loads((ROOT / "docs/tutorial.ipynb").read_text())["cells"]
    assert sum(cell["cell_type"] == "code" for cell in cells) >= 8
    assert [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_the_reference_has_every_section_and_command() -> None:
    """The pages name what the directives describe; a new section or command needs a line there."""
    page = (ROOT / "docs/reference/study-file.md").read_text()
    asked = re.findall(r"^```\{study-fields\} (\S+)$", page, re.MULTILINE)
    assert re.findall(r"^## (\S+)$", page, re.MULTILINE) == asked
    from tombola.studies.schema import study_schema

    assert len(asked) == len(study_schema()["definitions"])
    page = (ROOT / "docs/reference/commands.md").read_text()
    described = re.findall(r"^```\{command\} (.+)$", page, re.MULTILINE)
    assert re.findall(r"^## tombola (.+)$", page, re.MULTILINE) == described
    every = [name for name in cli.commands if not isinstance(cli.commands[name], click.Group)]
    groups = [(name, command) for name, command in cli.commands.items() if isinstance(command, click.Group)]
    every += [each for name, group in groups for each in (name, *(f"{name} {inner}" for inner in group.commands))]
    assert sorted(described) == sorted(every)
