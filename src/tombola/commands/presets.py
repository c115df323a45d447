"""`tombola presets` and `tombola schema`."""

from __future__ import annotations

import json

import click

from tombola.commands.groups import Commands
from tombola.commands.opening import console


@click.group(invoke_without_command=True, cls=Commands)
@click.pass_context
def presets(context: click.Context) -> None:
    """List the presets.

    `tombola presets show NAME` prints a preset as a file to copy.
    """
    if context.invoked_subcommand is None:
        from rich.table import Table

        from tombola.studies.loading import load_study, preset_names

        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        for name in preset_names():
            table.add_row(name, load_study(name).description)
        console().print(table)


@presets.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a preset as a study file."""
    from tombola.studies.loading import preset_text

    click.echo(preset_text(name), nl=False)


@click.command()
def schema() -> None:
    """Print the JSON schema of study files.

    An editor completes and checks study files with it: write it to a file, and name that file in the study's first
    line, "# yaml-language-server: $schema=study.schema.json".
    """
    from tombola.studies.schema import study_schema

    click.echo(json.dumps(study_schema(), indent=1))
