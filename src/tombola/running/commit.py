"""Which commit of tombola is running, where that can be known."""

from __future__ import annotations

import json
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path


@lru_cache(maxsize=1)
def commit() -> str | None:
    """Return the git commit of tombola, with "-dirty" where files are not as committed; None of a released version."""
    return _of_checkout(Path(__file__).parent) or _of_installation()


def _of_checkout(folder: Path) -> str | None:
    # A package that is installed into someone else's repository is not tracked there.
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _of_installation() -> str | None:
    """Return what `pip install git+https://...` has noted (PEP 610)."""
    try:
        text = metadata.distribution("tombola").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return json.loads(text).get("vcs_info", {}).get("commit_id") if text else None


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None
