"""The commit that results were made with: known in a checkout, and never someone else's."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from tombola.running import commit as module


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=someone", "-c", "user.email=someone@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(
        ["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the module's file in it, which takes that file for its own."""
    file = tmp_path / "commit.py"
    file.write_text("")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "commit.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(module, "__file__", str(file))
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution(None))
    return tmp_path


class Distribution:
    def __init__(self, text: str | None):
        self.text = text

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.text


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Neither what other tests found counts here, nor what is found here there."""
    module.commit.cache_clear()
    yield
    module.commit.cache_clear()


def test_the_commit_of_a_checkout(checkout: Path) -> None:
    assert module.commit() == git(checkout, "rev-parse", "HEAD")


def test_altered_files_are_told(checkout: Path) -> None:
    (checkout / "commit.py").write_text("altered = True\n")
    assert module.commit() == git(checkout, "rev-parse", "HEAD") + "-dirty"


def test_a_tag_does_not_take_its_place(checkout: Path) -> None:
    git(checkout, "tag", "-a", "v1", "-m", "one")
    assert module.commit() == git(checkout, "rev-parse", "HEAD")


def test_the_repository_of_someone_else_is_not_ours(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = checkout / "site-packages"
    installed.mkdir()
    (installed / "commit.py").write_text("")
    monkeypatch.setattr(module, "__file__", str(installed / "commit.py"))
    assert module.commit() is None


def test_an_installation_from_git_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "commit.py"))
    text = '{"url": "https://example.org/x.git", "vcs_info": {"vcs": "git", "commit_id": "0123abcd"}}'
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution(text))
    assert module.commit() == "0123abcd"


def test_a_released_version_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "__file__", str(tmp_path / "commit.py"))
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution('{"url": "file:///x", "dir_info": {}}'))
    assert module.commit() is None


def test_without_git_there_is_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout / "empty"))
    assert module.commit() is None
