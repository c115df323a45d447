"""Errors that a user can cause. Bugs keep their traceback."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class TombolaError(Exception):
    """Base class of all errors that a user can cause. The message says what is wrong, where, and what to do."""

    exit_status = 1


class InputError(TombolaError):
    """tombola can't use an input: a study, an option, a path or a data file."""

    exit_status = 2


class DataError(InputError):
    """A data set is missing, damaged, or has the wrong shape."""


class NotDownloaded(DataError):
    """A published data set is in no folder, and it may not be downloaded now."""


class ClusterError(InputError):
    """The workers of a cluster can't do a study's work, or can't be reached."""


class StoreError(TombolaError):
    """tombola can't read or write the results folder."""


class StoppedByUser(TombolaError):
    """The user stopped the run. The same command resumes it.

    Args:
        message: for the user.
        number: of the signal. The exit status is 128 more, as in a shell: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.exit_status = 128 + number


class WorkFailed(TombolaError):
    """Some work items failed. All others are finished."""


LONGEST_NAME = 100  # characters of a name that a near one is looked for


def shown(value: object, limit: int = 60) -> str:
    """Return a value in Python's notation, shortened."""
    text = repr(value)
    return text if len(text) < limit else text[: limit - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'a' or 'b'?"`. Without a near name, return the known names if they are few."""
    if len(name) > LONGEST_NAME:
        return ""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "; known: " + ", ".join(names) if 0 < len(names) <= 20 else ""
