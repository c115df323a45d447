"""The command line. It imports nothing heavy before a command needs it, so help appears at once."""

from __future__ import annotations

import contextlib
import signal
import sys
from pathlib import Path

import click

from tombola import __version__
from tombola.commands.claims import claims
from tombola.commands.groups import Commands
from tombola.commands.presets import presets, schema
from tombola.commands.results import compare, draw_figures, report, results, status
from tombola.commands.work import plan, run
from tombola.doctor import doctor
from tombola.errors import TombolaError
from tombola.export.command import export
from tombola.export.measure_command import measure_command
from tombola.terminal import say, standard_output

READ_ONLY = ("status", "results", "figures", "report", "compare", "claims")  # commands that import no user's module


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tombola")
@click.pass_context
def cli(context: click.Context) -> None:
    """Find winning lottery tickets: sparse subnetworks that train as well as the dense network."""
    from tombola.registry import reading, user_path

    context.with_resource(user_path(Path.cwd()))  # finds a user's own network in the current folder
    if context.invoked_subcommand in READ_ONLY:
        context.with_resource(reading())


for command in (run, plan, presets, schema, status, results, draw_figures, report, compare, claims):
    cli.add_command(command)
for command in (export, measure_command, doctor):
    cli.add_command(command)


def main() -> None:
    """Run the command line. A user's mistake gives one message and status 2, never a traceback."""
    try:
        code = _status()
        _hear_no_more(code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        code = 130
        _hear_no_more(code)
        say("tombola: stopped")
    if code:
        sys.exit(code)


def _hear_no_more(status: int) -> None:
    """Who presses Ctrl-C once more gets no traceback of Python's end."""
    if status > 128:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _status() -> int:
    """Run the command line and return the exit status."""
    try:
        with standard_output():
            return cli(prog_name="tombola", standalone_mode=False) or 0
    except click.ClickException as error:
        with contextlib.suppress(OSError):
            error.show()
        return 2
    except BrokenPipeError:
        return 0  # the reader closed the pipe, as `| head` does
    except TombolaError as error:
        say(f"tombola: {error}")
        return error.exit_status
