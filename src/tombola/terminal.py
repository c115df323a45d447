"""Terminals and pipes: the one place where names of users' files become harmless there, and where writing may fail."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, TYPE_CHECKING, Any

from tombola.errors import StoreError

if TYPE_CHECKING:
    from rich.console import Console

# Characters that move the cursor, clear or retitle a terminal, or turn the direction of writing; not tab and new line.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """Return a text whose control characters are shown as `\\x1b` shows them, and do nothing."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def markup(text: str) -> str:
    """Return a text as rich shows it, with brackets as they are and without control characters."""
    from rich.markup import escape

    return escape(printable(text))


def console(file: IO[str] | None = None, **options: Any) -> Console:
    """Return a console of rich's that lets no control character of a text through.

    Args:
        file: to write to; standard output by default.
        options: of `rich.console.Console`.
    """
    return _safe_console()(file=file, **options)


@cache
def _safe_console() -> type[Console]:
    from rich.console import Console
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(self, *arguments: Any, **options: Any) -> Iterable[Segment]:
            for segment in super().render(*arguments, **options):
                yield segment if segment.control else Segment(printable(segment.text), segment.style)

    return SafeConsole


def say(text: str) -> None:
    """Write a line to standard error, if anyone can read it."""
    with suppress(OSError, ValueError):
        if sys.stderr is not None:
            sys.stderr.write(f"{printable(text)}\n")
            sys.stderr.flush()


@contextmanager
def printing(what: str = "standard output") -> Iterator[None]:
    """Turn a failure to write to a stream, such as `> /dev/full` or a closed one, into an error of one sentence.

    A reader that has gone, as `| head` does, is not a failure: `BrokenPipeError` passes.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StoreError(f"can't write to {what}: {error.strerror or error}") from error
    except ValueError as error:  # of Python, for a stream that has been closed
        if "closed file" not in str(error):
            raise
        raise StoreError(f"can't write to {what}: it is closed") from error


class _Output(io.RawIOBase):
    """Standard output whose failures are errors of one sentence, and which is silent after the first one."""

    def __init__(self, raw: io.FileIO | None):
        self._raw, self._failed = raw, False

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._raw is not None and self._raw.isatty()

    def fileno(self) -> int:
        if self._raw is None:
            raise io.UnsupportedOperation("fileno")
        return self._raw.fileno()

    def write(self, content: Any) -> int:
        if self._failed:  # Python flushes once more at its end
            return len(content)
        self._failed = True
        with printing():
            if self._raw is None:
                raise ValueError("I/O operation on closed file")
            written = self._raw.write(content)
        self._failed = False
        return written


@contextmanager
def standard_output() -> Iterator[None]:
    """Say in one sentence, within the `with` block, that standard output can't be written to.

    Raises:
        StoreError: its device is full, or it is closed.
        BrokenPipeError: its reader has gone.
    """
    before = sys.stdout
    if before is not sys.__stdout__:  # a caller has put something else there
        yield
        return
    if before is not None:
        before.flush()
    raw = None if before is None else io.FileIO(before.fileno(), "w", closefd=False)
    encoding, errors = (before.encoding, before.errors) if before is not None else ("utf-8", "replace")
    output = _Output(raw)
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(output), encoding=encoding, errors=errors, line_buffering=output.isatty()
    )
    try:
        yield
        sys.stdout.flush()
    finally:
        with suppress(StoreError, OSError):
            sys.stdout.flush()
        sys.stdout = before
