"""What commands open and print: a study, its results, claims, the terminal, a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tombola.errors import InputError
from tombola.paths import local_path
from tombola.terminal import console as terminal_console
from tombola.terminal import printable, say

if TYPE_CHECKING:
    from tombola.analysis.claims import Claim
    from tombola.running.results import Results
    from tombola.studies.study import Study


def load(study: str, changes: tuple[str, ...], out: Path | None) -> tuple[Study, Path]:
    """Return the study with its changes, and its results folder."""
    from tombola.registry import add_user_folders
    from tombola.running.run import default_folder
    from tombola.studies.loading import load_study

    if study and local_path(study, "study").is_file():
        add_user_folders([Path(study).absolute().parent])  # the study's own network may be in the same folder
    return load_study(study, assignments=changes), out or default_folder(study, changes)


def is_table(study: str) -> bool:
    """Return whether a study is named by a CSV file of results."""
    return study.lower().endswith(".csv") and local_path(study, "study").is_file()


def own_claims(paths: tuple[Path, ...]) -> list[Claim] | None:
    """Return the claims of the user's files; None if none exists."""
    from tombola.analysis.claims import load_claims

    return [claim for path in paths for claim in load_claims(path)] or None


def folder_of(study: str, out: Path | None) -> Path:
    """Return the existing results folder of a study."""
    from tombola.studies.loading import STUDY_FILE

    folder = out if out is not None else load(study, (), None)[1]
    if not (folder / STUDY_FILE).is_file():
        raise InputError(f"{str(folder)!r} contains no results; create them with: tombola run {study}")
    return folder


def opened(folder: str | Path, data: Path | None) -> Results:
    """Return the results of a folder, and report the damaged results that it omits."""
    from tombola.running.results import Results

    found = Results.open(folder, data)
    for message in found.damaged():
        say(f"tombola: {message}; the table omits it, and `tombola run` repeats it")
    return found


def quoted(folder: Path) -> str:
    """Return a folder as a shell reads it, without control characters."""
    import shlex

    return printable(shlex.quote(str(folder)))


def open_page(path: Path) -> None:
    """Open a page in the user's browser, or say where it is."""
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        say(f"tombola: no browser was found; open this file yourself: {path}")


def console(file: IO[str] | None = None) -> Any:
    # Piped output and files are not cut at 80 columns.
    return terminal_console(file, highlight=False, width=None if file is None and sys.stdout.isatty() else 120)
