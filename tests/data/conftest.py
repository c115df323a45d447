from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
import small_idx

from tombola.data import download, published, sources


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of its own, no data folder in the environment, nothing remembered, no waiting."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(folder))
    monkeypatch.delenv("TOMBOLA_DATA", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "RETRIES", 0)
    for remembered in (sources._remember, sources._remember_fingerprint, sources._remember_description):
        remembered.cache_clear()
    yield folder
    for remembered in (sources._remember, sources._remember_fingerprint, sources._remember_description):
        remembered.cache_clear()


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[small_idx.Mirror]:
    """A server of the small files, which stand in for MNIST's."""
    with small_idx.serve() as served:
        monkeypatch.setitem(published.PUBLISHED, "mnist", small_idx.published((served.address,)))
        yield served


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small files stand in for MNIST's; there is nowhere to download them from."""
    monkeypatch.setitem(published.PUBLISHED, "mnist", small_idx.published(()))
