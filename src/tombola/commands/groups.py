"""A group of commands, and a command with overrides, which know what a person may have meant."""

from __future__ import annotations

from typing import Any

import click

from tombola.errors import InputError, nearest


class Commands(click.Group):
    """A group that suggests the nearest name for an unknown command."""

    def resolve_command(self, context: click.Context, arguments: list[str]) -> Any:
        """Find the command, or suggest the nearest ones."""
        name = arguments[0]
        if self.get_command(context, name) is None and not name.startswith("-"):
            raise InputError(f"unknown command {name!r}{nearest(name, self.list_commands(context))}")
        return super().resolve_command(context, arguments)


class StudyCommand(click.Command):
    """A command with overrides FIELD=VALUE, which a person may write as options."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Read the arguments, or say how to set a field that was written as an option."""
        try:
            return super().parse_args(context, arguments)
        except click.NoSuchOption as error:
            from tombola.studies.study import Study

            field = error.option_name.lstrip("-")
            if field.partition(".")[0] not in Study.model_fields:
                raise
            raise InputError(
                f"{error.option_name} is a field of the study; write {field}=VALUE, without dashes"
            ) from None
