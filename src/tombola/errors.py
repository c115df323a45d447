"""Errors that a user can cause, as opposed to bugs, which keep their traceback."""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable


class TombolaError(Exception):
    """Something outside the code is wrong. The message says what, where, and what to do about it."""

    exit_status = 1


class InputError(TombolaError):
    """What the user wrote - a study, an option, a path, a data file - can't be used as it is."""

    exit_status = 2


class DataError(InputError):
    """A data set is missing, damaged, or not of the shape that it should have."""


class StoreError(TombolaError):
    """The results folder can't be read or written."""


class StoppedByUser(TombolaError):
    """The run was interrupted; the same command goes on from there.

    Args:
        message: for the user.
        number: of the signal; the exit status is 128 more, as a shell has it: 130 of Ctrl-C, 143 of SIGTERM.
    """

    def __init__(self, message: str, number: int = signal.SIGINT):
        super().__init__(message)
        self.exit_status = 128 + number


class WorkFailed(TombolaError):
    """Some work could not be done; the rest is done."""


LONGEST_NAME = 100  # characters of a name that a near one is looked for


def shown(value: object, limit: int = 60) -> str:
    """Return a value as it would be written in Python, cut where it is long."""
    text = repr(value)
    return text if len(text) < limit else text[: limit - 3] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'a' or 'b'?"`, or the list of what is known where nothing comes close and it is short."""
    if len(name) > LONGEST_NAME:
        return ""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    return "; known: " + ", ".join(names) if 0 < len(names) <= 20 else ""
