"""Writing an exported file: whole, or not at all."""

from __future__ import annotations

from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Write a file aside and move it into place.

    Raises:
        StoreError: the folder does not exist, is full, or can't be written to.
    """
    from tombola.running.files import write_whole  # the only place that knows where it lives

    write_whole(path, content, "name an existing folder with free space; tombola wrote nothing")
