from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small_runs
import torch

import tombola
import tombola.running.devices as devices


@pytest.fixture(autouse=True)
def own_corner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty current folder, one core for what runs in this process, and no traces afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TOMBOLA_DATA", raising=False)
    monkeypatch.setattr(devices, "cores", lambda: 1)
    monkeypatch.setattr(sys, "path", list(sys.path))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def demo() -> tombola.Study:
    """The demo, made small."""
    return tombola.Study.load("demo", **small_runs.SMALL_DEMO)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of the small demo, finished; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "results" / "demo"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "cores", lambda: 1)
        study = tombola.Study.load("demo", **small_runs.SMALL_DEMO)
        tombola.run(study, folder, workers=0, figures=False, quiet=True)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished results folder, to be damaged."""
    folder = tmp_path / "copy" / "demo"
    shutil.copytree(finished, folder)
    return folder


@pytest.fixture(scope="session")
def own_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study of a user's own network, which can be imported."""
    return small_runs.write_study(tmp_path_factory.mktemp("own")).parent


@pytest.fixture
def small(own_network: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tombola.Study]:
    """Return the study of the user's own network, with changes."""
    monkeypatch.syspath_prepend(str(own_network))

    def load(**changes: Any) -> tombola.Study:
        return tombola.Study.load(own_network / "small.yaml", **changes)

    return load


@pytest.fixture(scope="session")
def uninterrupted(own_network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results folder of that study, run without a hitch."""
    folder = tmp_path_factory.mktemp("uninterrupted") / "results" / "small"
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(own_network))
        tombola.run(own_network / "small.yaml", folder, workers=0, figures=False, quiet=True)
    torch.set_num_threads(threads)
    return folder


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., small_runs.Command]]:
    """Start `tombola run` on that study in a process of its own."""
    small_runs.write_study(tmp_path)
    started = []

    def start(*arguments: str, **options: Any) -> small_runs.Command:
        started.append(small_runs.Command(tmp_path, *arguments, **options))
        return started[-1]

    yield start
    for each in started:
        each.clean_up()
