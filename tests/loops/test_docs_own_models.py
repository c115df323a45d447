"""The examples of docs/own-models.md run as they stand there."""

import difflib
import importlib.util
import inspect
import re
import sys
import warnings
from pathlib import Path

import own_trainer
import pytest
import torch
from ruamel.yaml import YAML

import tombola

PAGE = (Path(__file__).parents[2] / "docs" / "own-models.md").read_text()


def test_the_loops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    small = {"rounds": 1, "trials": 1, "figures": False, "quiet": True}
    steps = []

    def train_one_batch(model, step):
        steps.append(step)
        with torch.no_grad():
            model[1].bias += 0.01

    names = {
        "tombola": tombola,
        "make_model": own_trainer.make,
        "fit": lambda model: own_trainer.train(model, 0, steps=2),
        "evaluate": own_trainer.accuracy,
        "measure": lambda model: {"accuracy": own_trainer.accuracy(model)},
        "train_one_batch": train_one_batch,
    }
    loops = [block for block in blocks if "import" not in block]
    assert len(loops) == 3
    for number, block in enumerate(loops):
        code = block.replace("make_model, ", "make_model, **small, ").replace("[0, 3]", "[0, 1]")
        code = code.replace("10_001", "503").replace("10_000", "502")
        exec(code.replace("results/mine", f"results/{number}"), {**names, "small": small})
    assert steps[:502] == list(range(1, 503))  # the dense run
    assert steps[502:504] == [501, 502]  # a ticket continues at its snapshot
    assert len(tombola.Results.open("results/1").frame()) == 6
    assert not tombola.Results.open("results/2").connectivity().empty


def test_the_table_of_arguments_names_each_one_with_its_default():
    section = PAGE.split("## The arguments")[1].split("## ")[0]
    rows = re.findall(r"^\| (`[^|]*) \| .* \| (.*) \|$", section, re.MULTILINE)
    told = {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    known = inspect.signature(tombola.rounds).parameters
    assert set(told) == set(known)
    for name in ("rate", "trials", "metric", "name", "seed", "noise", "figures", "quiet"):
        assert told[name] == str(known[name].default)
    assert told["arms"].split(", ") == list(known["arms"].default)
    assert told["rewind"].startswith(f"{known['rewind'].default}:")


def test_the_callback():
    """The tests don't install Lightning: the block compiles, and `test_integrations.py` tests its callback."""
    (block,) = (block for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S) if "import" in block)
    compile(block, "docs/own-models.md", "exec")
    home = Path(tombola.__file__).parent / "integrations" / "lightning.py"
    assert "class TombolaCallback" in home.read_text()


def test_the_study_file(tmp_path):
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    study = tombola.Study.model_validate(YAML(typ="safe").load(text))
    assert study.trainer.name == "my_train:fit"
    assert study.trainer.metric == "accuracy"


def coverage_table():
    file = Path(__file__).parents[2] / "benchmarks" / "coverage_table.py"
    spec = importlib.util.spec_from_file_location("coverage_table_of_the_page", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_table_of_families_is_current():
    """Rows of packages that are not installed here are taken as they are; the script has written them."""
    script = coverage_table()
    table = PAGE.partition(script.BEGIN)[2].partition(script.END)[0].splitlines()
    assert "\n".join(table[:2]) == script.HEAD
    families = script.FAMILIES
    assert len(families) == len(table) - 2 >= 14
    for line, (name, family) in zip(table[2:], families.items(), strict=True):
        assert line.startswith(f"| {name} |")
        if script.installed(family):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of other packages
                torch.manual_seed(0)
                assert script.row(name, family) == line


def test_the_number_of_changed_lines_is_that_of_the_plain_example():
    examples = Path(__file__).parents[2] / "examples"
    before, after = ((examples / f"plain_{name}.py").read_text().splitlines()[1:] for name in ("before", "after"))
    added = [line for line in difflib.ndiff(before, after) if line.startswith("+ ") and line.strip("+ ")]
    assert {family.lines for family in coverage_table().FAMILIES.values()} == {len(added), len(added) + 1}
