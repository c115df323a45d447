"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from importlib.resources import files
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from tombola.paths import local_path


class LocalPath(click.Path):
    """A path that the file system accepts."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Any:
        """Return the path, or raise an error that says what is wrong with it."""
        name = parameter.opts[0] if parameter and parameter.opts else "path"
        return super().convert(local_path(value, name), parameter, context)


CLAIMS_HELP = "Check the claims of this file; repeat for several. [default: the published claims]"
STUDY_HELP = "STUDY is a preset (see `tombola presets`), a study file, or a results folder."


def completed_study(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the presets that begin so, for shell completion; a file or folder if none does."""
    names = (entry.name for entry in files("tombola").joinpath("studies", "presets").iterdir())
    presets = sorted(name.removesuffix(".yaml") for name in names if name.startswith(begun))
    return [CompletionItem(name) for name in presets] or [CompletionItem(begun, type="file")]


study_argument = click.argument("study", shell_complete=completed_study)
changes_argument = click.argument("changes", nargs=-1, metavar="[FIELD=VALUE]...")
out_option = click.option("--out", type=LocalPath(), help="Set the results folder. [default: results/<study name>]")
data_option = click.option(
    "--data",
    type=LocalPath(),
    envvar="TOMBOLA_DATA",
    help="Set the folder of data sets, in torchvision's layout. [default: $TOMBOLA_DATA, or the cache]",
)
device_option = click.option(
    "--device",
    default="auto",
    help="Choose the device: auto, cpu, cuda; or several GPUs: cuda:0,cuda:1 or all. [default: auto]",
)
engine_option = click.option("--engine", default="auto", help="Choose the training engine. [default: auto]")
max_runs_option = click.option(
    "--max-runs",
    type=click.IntRange(1),
    default=100_000,
    help="Refuse a study with more runs than this. [default: 100000]",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(0),
    help="Set the number of parallel runs; 0 uses this process. [default: one per core]",
)
on_option = click.option(
    "--on",
    default="local",
    metavar="SITE",
    help="Choose where runs are computed: local, dask, dask=tcp://HOST:PORT or slurm. [default: local]",
)
cluster_option = click.option(
    "--cluster", type=LocalPath(), help="Read the settings of the cluster from this file, instead of the study."
)

store_option = click.option(
    "--store",
    metavar="STORE",
    help="Serve workers that don't see the results folder: via-engine, or an address such as s3://BUCKET/PREFIX.",
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What `run` and `plan` share: the study, its folders, and where and how it is computed."""

    study: str
    changes: tuple[str, ...]
    out: Path | None
    data: Path | None
    workers: int | None
    device: str
    engine: str
    max_runs: int
    on: str
    cluster: Path | None
    store: str | None


def work_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments and options of `Work`; the command gets them as its first argument."""

    @wraps(command)
    def with_work(**given: Any) -> None:
        command(Work(**{field.name: given.pop(field.name) for field in fields(Work)}), **given)

    shared: list[Any] = [study_argument, changes_argument, out_option, data_option, workers_option, device_option]
    shared += [engine_option, max_runs_option, on_option, cluster_option, store_option]
    decorated: Any = with_work
    for option in reversed(shared):
        decorated = option(decorated)
    return decorated
