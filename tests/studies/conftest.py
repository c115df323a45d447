from pathlib import Path

import platformdirs
import pytest


@pytest.fixture(autouse=True)
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data on disk, no data folder in the environment, and a current directory of one's own."""
    monkeypatch.delenv("TOMBOLA_DATA", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "no-cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
