"""What is installed: a small core, and an extra for each feature that needs more; without it the message names it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from plain_loop import random_mask, recipe

import tombola
from tombola import extras
from tombola.cli import cli
from tombola.errors import InputError
from tombola.networks import NETWORKS
from tombola.training.engines import choose_engine, slower_than_possible
from tombola.training.engines.dense import DenseEngine

ROOT = Path(tombola.__file__).parents[2]
CORE = {
    "click", "filelock", "jinja2", "loky", "matplotlib", "numpy", "pandas", "pillow", "platformdirs", "pooch",
    "pydantic", "requests", "rich", "ruamel.yaml", "safetensors", "torch",
}  # fmt: skip
"""Together 290 MB beyond PyTorch. A package of more than a few MB belongs into an extra."""

OF_CORE = {"llvmlite": "numba", "PIL": "pillow", "ruamel": "ruamel.yaml", "markupsafe": "jinja2", "urllib3": "requests"}
OF_CORE |= {"pydantic_core": "pydantic", "fsspec": "torch"}
"""Modules that come with a package of another name."""

INTEGRATIONS = {
    "accelerate": {"accelerate"},
    "lightning": {"lightning"},
    "transformers": {"transformers", "accelerate"},
}
INTEGRATIONS |= {"mlflow": {"mlflow-skinny"}, "tensorboard": {"tensorboard"}, "wandb": {"wandb"}}
INTEGRATIONS |= {"huggingface_hub": {"huggingface_hub"}}
"""The packages of each extra for another library's trainer, which its file in `integrations/` imports at once."""

PACKAGES = {"codecarbon": "codecarbon", "numba": "numba", "pyarrow": "pyarrow", "vl_convert": "vl-convert-python"}
PACKAGES["dask_jobqueue"] = "dask-jobqueue"
FAST_ONLY = {
    *(f"running/{name}.py" for name in ("dask_depot", "dask_site", "slurm_site")),  # of the extra `cluster`
    "training/engines/conv_kernels.py",
    "training/engines/conv_plan.py",
    "training/engines/kernels.py",
    "training/engines/ready.py",
}  # imported where Numba is installed


@pytest.fixture(scope="module")
def project() -> dict[str, object]:
    path = ROOT / "pyproject.toml"
    if not path.exists():
        pytest.skip("tombola runs from an installation, not from its sources")
    return tomllib.loads(path.read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ]", each, maxsplit=1)[0] for each in requirements}


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """Make modules look as if they were not installed."""

    def hide(*modules: str) -> None:
        for module in modules:
            monkeypatch.setitem(sys.modules, module, None)  # found by no search, and an import of it raises

    return hide


RIVALS = {"openvino", "scipy"}  # `tombola measure` races those that are installed, and names the others
NOTEBOOK = ("screens.py", "IPython")  # imported in a notebook alone, which runs on it


def test_the_core_is_small(project):
    assert names(project["dependencies"]) == CORE


def test_every_extra_is_known_by_its_module(project):
    declared = project["optional-dependencies"]
    for extra in extras.EXTRAS.values():
        together = {PACKAGES.get(each, each) for each, other in extras.EXTRAS.items() if other == extra}
        assert names(declared[extra]) == together
    for module, extra in extras.INTEGRATIONS.items():
        assert names(declared[extra]) == INTEGRATIONS[module]
    assert set(declared["all"][0].partition("[")[2].rstrip("]").split(",")) == set(extras.EXTRAS.values())


def test_only_core_packages_are_imported_without_asking_for_an_extra():
    """All imports, those within functions too, are of the core, the standard library or an extra."""
    known = CORE | {"tombola"} | set(sys.stdlib_module_names)
    for path in sorted((ROOT / "src" / "tombola").rglob("*.py")):
        tree = ast.parse(path.read_text())
        top = {id(node) for node in tree.body}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                modules = [each.name for each in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module or ""]
            else:
                continue
            for module in {each.partition(".")[0] for each in modules}:
                package = OF_CORE.get(module, module)
                if path.parent.name == "integrations" and package in extras.INTEGRATIONS:
                    assert path.stem == package
                elif (path.name == "rivals.py" and package in RIVALS) or (path.name, package) == NOTEBOOK:
                    assert id(node) not in top
                elif package in extras.EXTRAS | extras.INTEGRATIONS:
                    lazy = id(node) not in top or path.relative_to(ROOT / "src" / "tombola").as_posix() in FAST_ONLY
                    assert lazy, f"{path} imports {module}, an extra, on every start"
                else:
                    assert package in known, f"{path} imports {module}, which the core does not install"


@pytest.mark.parametrize(
    ("module", "arguments", "feature"),
    [
        ("codecarbon", ["run", "demo", "--energy"], "--energy"),
        ("numba", ["run", "demo", "--engine", "sparse"], "--engine sparse"),
        ("pyarrow", ["results", "demo", "--format", "parquet"], "--format parquet"),
    ],
)
def test_a_missing_extra_is_named_with_its_command(without, tmp_path, monkeypatch, module, arguments, feature):
    monkeypatch.chdir(tmp_path)
    without(module)
    done = CliRunner().invoke(cli, arguments)
    assert isinstance(done.exception, InputError)
    command = f"pip install 'tombola[{extras.EXTRAS[module]}]'"
    assert str(done.exception) == f"{feature} needs {module}, which is not installed: {command}"
    assert not (tmp_path / "results").exists()


def test_a_report_without_its_extra(without):
    from tombola.html import render

    without("vl_convert")
    render._vega.cache_clear()
    with pytest.raises(InputError, match=r"the HTML report needs vl_convert, .* 'tombola\[report\]'"):
        render._vega()


CORE_ALONE = """
import sys
for name in ("codecarbon", "numba", "llvmlite", "pyarrow", "vl_convert", "scipy", "sklearn", "statsmodels"):
    sys.modules[name] = None
import tombola
settings = {"trials": 1, "training.iterations": 20, "training.evaluate_every": 10, "pruning.rounds": 6}
study = tombola.Study.load("demo", arms=["ticket"], **settings)
results = tombola.run(study, "demo", workers=0)
frame = results.frame()
print(len(frame), frame["density"].min() < 0.3, set(frame["status"]))
"""


@pytest.mark.slow
def test_the_core_alone_runs_a_study_and_says_what_would_be_faster(tmp_path):
    done = subprocess.run([sys.executable, "-c", CORE_ALONE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "7 True {'ok'}"
    assert "pip install 'tombola[fast]'" in " ".join(done.stderr.split())
    assert (tmp_path / "demo" / "results.csv").exists()
    assert list((tmp_path / "demo" / "figures").iterdir())


def test_sparse_networks_train_densely_without_numba(without):
    pytest.importorskip("numba")
    build, example = partial(NETWORKS["lenet-300-100"], (1, 28, 28), 10), torch.zeros(1, 1, 28, 28)
    mask = random_mask(build, (1, 28, 28), 0.1)
    assert choose_engine("auto", build, mask, recipe(), example) is not DenseEngine
    assert slower_than_possible("auto", "cpu") == ""
    without("numba")
    assert choose_engine("auto", build, mask, recipe(), example) is DenseEngine
    assert [slower_than_possible(*asked) for asked in (("dense", "cpu"), ("auto", "cuda"))] == ["", ""]
    assert "tombola[fast]" in slower_than_possible("auto", "cpu")
