"""A wheel, built and installed into a fresh environment, holds every file and works."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from tombola.extras import installed

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "tombola"
pytestmark = pytest.mark.slow


def call(*words: object, folder: Path) -> str:
    """Run a program that does not see the source tree, and return its output."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "TOMBOLA_DATA")}
    line = list(map(str, words))
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "LICENSE", "docs/package.md"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(SOURCE, folder / "src" / "tombola", ignore=shutil.ignore_patterns("__pycache__"))
    call(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-index",
        "--no-build-isolation",
        ".",
        folder=folder,
    )
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_every_file(wheel: Path) -> None:
    held = {name.removeprefix("tombola/") for name in zipfile.ZipFile(wheel).namelist() if name.startswith("tombola/")}
    there = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*") if path.is_file()}
    there = {name for name in there if "__pycache__" not in name}
    assert held == there
    for needed in ("py.typed", "studies/presets/demo.yaml", "html/page.js", "html/style.css", "claims/lenet.yaml"):
        assert needed in held
    assert any(name.startswith("export/c/runtime/") for name in held)


def test_what_an_index_shows(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    about = message_from_bytes(archive.read(name))
    text = about.get_payload()
    assert "tombola run demo" in text
    assert [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link] == []
    assert about["Author"] == "the tombola authors"
    assert "Typing :: Typed" in about.get_all("Classifier")
    assert about["Keywords"]


def test_it_works_in_a_fresh_environment(wheel: Path, tmp_path: Path) -> None:
    place = tmp_path / "environment"
    call(sys.executable, "-m", "venv", "--without-pip", place, folder=tmp_path)
    python, tombola = place / "bin" / "python", place / "bin" / "tombola"
    line = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel]
    call(*line, folder=tmp_path)
    packages = Path(call(python, "-c", "import site; print(site.getsitepackages()[0])", folder=tmp_path).strip())
    others = {sysconfig.get_paths()["purelib"], str(Path(pytest.__file__).parents[1])}
    others |= {str(Path(path)) for path in sys.path if path.endswith("site-packages")}
    (packages / "others.pth").write_text("\n".join(sorted(others)))  # PyTorch and all else that the project needs

    where = call(python, "-c", "import tombola; print(tombola.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(place)
    small = ["trials=1", "training.iterations=20", "training.evaluate_every=10", "pruning.rounds=1"]
    call(tombola, "run", "demo", *small, "--workers", 0, folder=tmp_path)
    assert (tmp_path / "results/demo/results.csv").is_file()
    if installed("vl_convert"):
        call(tombola, "report", "demo", folder=tmp_path)
        assert "<html" in (tmp_path / "results/demo/report.html").read_text()
    call(tombola, "export", "results/demo", "--to", "c", "--level", 1, "--out", "digits.c", folder=tmp_path)
    assert "digits" in (tmp_path / "digits.c").read_text()
    assert "lenet-mnist" in call(tombola, "presets", folder=tmp_path)
    assert call(tombola, "claims", "results/demo", folder=tmp_path)
    assert str(place) in "".join(call(tombola, "doctor", folder=tmp_path).split())  # which folds long paths
