"""Where live progress is shown: a few lines at the end of a terminal, or one table in a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from html import escape as escape_html
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from tombola.terminal import markup

EVERY = 0.5  # seconds between two updates of a notebook's table


@dataclass(frozen=True)
class View:
    """What is shown at one moment.

    Args:
        rows: of work under way: label, position, metric.
        totals: in words: "3/9 done, about 5 min left".
        share: of all work that is done, 0 to 1; work under way counts in part.
    """

    rows: tuple[tuple[str, str, str], ...]
    totals: str
    share: float


class Screen(Protocol):
    """Shows the latest view in the place of the one before."""

    def open(self) -> None:
        """Begin to show."""

    def show(self, view: Callable[[], View]) -> None:
        """Show what `view` returns, if it is time for an update."""

    def close(self, view: Callable[[], View]) -> None:
        """End. A terminal is left clean, and a notebook keeps the last view."""


def screen_for(console: Console, in_script: bool = False) -> Screen | None:
    """Return where to show live progress; None where only lines can be written, such as a log of CI.

    Args:
        console: that lines are written to.
        in_script: whether a user's own loop runs in this process. It may write to the terminal, so nothing moves there.
    """
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if hasattr(shell, "kernel"):  # a notebook; IPython in a terminal has none
        return NotebookScreen()
    return TerminalScreen(console) if console.is_terminal and not in_script else None


class TerminalScreen:
    """The last lines of a terminal."""

    def __init__(self, console: Console):
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def open(self) -> None:
        """Begin to show."""
        self._live.__enter__()

    def show(self, view: Callable[[], View]) -> None:
        """Show the view; the terminal is drawn a few times a second."""
        self._live.update(lines(view()))

    def close(self, view: Callable[[], View]) -> None:
        """Remove the lines."""
        self._live.__exit__(None, None, None)


def lines(view: View) -> Group:
    """Return a view for a terminal."""
    grid = Table.grid(padding=(0, 1))
    for _ in range(3):
        grid.add_column(no_wrap=True)
    for label, where, metric in view.rows:
        grid.add_row(markup(label), where, metric)
    bar = Progress(BarColumn(), TextColumn("{task.description}"))
    bar.add_task(view.totals, total=1000, completed=round(1000 * view.share))
    return Group(grid, bar)


class NotebookScreen:
    """One table below a notebook's cell."""

    def __init__(self) -> None:
        self._shown = 0.0
        self._handle: Any = None

    def open(self) -> None:
        """Nothing is shown before the first view."""

    def show(self, view: Callable[[], View]) -> None:
        """Replace the table, twice a second at most."""
        if time.monotonic() - self._shown > EVERY:
            self._put(view())

    def close(self, view: Callable[[], View]) -> None:
        """Show the last view, which stays."""
        self._put(view())

    def _put(self, view: View) -> None:
        from IPython.display import HTML, display  # a notebook has it

        self._shown, content = time.monotonic(), HTML(table(view))
        if self._handle is None:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)


def table(view: View) -> str:
    """Return a view as HTML."""
    bar = f'<progress value="{view.share:.4f}" max="1"></progress> {escape_html(view.totals)}'
    rows = "".join("<tr>" + "".join(f"<td>{escape_html(cell)}</td>" for cell in row) + "</tr>" for row in view.rows)
    return f"<div>{bar}<table>{rows}</table></div>" if rows else f"<div>{bar}</div>"
