"""The command line. It imports nothing heavy before a command needs it, so help appears at once."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sys
from importlib.resources import files
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from tombola import __version__
from tombola.doctor import doctor
from tombola.errors import InputError, TombolaError, nearest
from tombola.export.command import export
from tombola.export.measure_command import measure_command
from tombola.paths import local_path
from tombola.terminal import console as terminal_console
from tombola.terminal import printable, say, standard_output

if TYPE_CHECKING:
    from tombola.analysis.claims import Claim, Outcome
    from tombola.figures.form import Bars
    from tombola.running.results import Results
    from tombola.studies.study import Study


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
READ_ONLY = ("status", "results", "figures", "report", "compare", "claims")  # commands that import no user's module


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


def work_options(command: Any) -> Any:
    """Add the arguments and options that `run` and `plan` share."""
    shared: list[Any] = [study_argument, changes_argument, out_option, data_option, workers_option, device_option]
    shared += [engine_option, max_runs_option, on_option, cluster_option, store_option]
    for option in reversed(shared):
        command = option(command)
    return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tombola")
@click.pass_context
def cli(context: click.Context) -> None:
    """Find winning lottery tickets: sparse subnetworks that train as well as the dense network."""
    from tombola.registry import reading, user_path

    context.with_resource(user_path(Path.cwd()))  # finds a user's own network in the current folder
    if context.invoked_subcommand in READ_ONLY:
        context.with_resource(reading())


@cli.command(cls=StudyCommand, epilog=STUDY_HELP)
@work_options
@click.option("--checkpoint-every", type=float, default=30.0, help="Set the seconds between checkpoints. [default: 30]")
@click.option("--energy", is_flag=True, help="Measure the energy of each run; needs the extra tombola[energy].")
@click.option("--tf32", is_flag=True, help="Let a GPU round float32 products to TF32: faster, three digits.")
@click.option("--no-figures", is_flag=True, help="Draw no figures, and write no report.")
@click.option("--open", "show", is_flag=True, help="Open the report in a browser at the end.")
@click.option("--tracker", metavar="NAME", help="Log finished runs to tensorboard, mlflow or wandb.")
@click.option("--quiet", "-q", is_flag=True, help="Write only results and errors.")
@click.option("--verbose", "-v", is_flag=True, help="Write more details.")
def run(
    study: str,
    changes: tuple[str, ...],
    out: Path | None,
    data: Path | None,
    workers: int | None,
    device: str,
    engine: str,
    max_runs: int,
    on: str,
    cluster: Path | None,
    store: str | None,
    checkpoint_every: float,
    energy: bool,
    tf32: bool,
    no_figures: bool,
    show: bool,
    quiet: bool,
    verbose: bool,
    tracker: str | None,
) -> None:
    """Run or resume a study.

    Override any field with FIELD=VALUE, such as trials=3 training.lr=2e-4.
    """
    from tombola.extras import installed, need
    from tombola.session import run as run_study

    if show and no_figures:
        raise InputError("--open shows the report, which --no-figures omits: remove one of them")
    if show:
        need("vl_convert", "--open")
    if verbose:
        _say_whence()
    loaded, folder = _load(study, changes, out)
    results = run_study(
        loaded,
        folder,
        data=data,
        workers=workers,
        device=device,
        engine=engine,
        checkpoint_every=checkpoint_every,
        energy=energy,
        tf32=tf32,
        figures=not no_figures,
        quiet=quiet,
        verbose=verbose,
        tracker=tracker,
        max_runs=max_runs,
        on=on,
        cluster=cluster,
        store=store,
    )
    _print_ending(results)
    click.echo(f"Tables:   tombola results {_quoted(folder)} shows all arms, and early stop")
    tables = ("results", "curves", "connectivity", "barriers", "mask_distance")
    paths = [folder / f"{name}.csv" for name in tables]
    click.echo(f"Results:  {', '.join(str(path) for path in paths if path.exists())}")
    if no_figures:
        return
    click.echo(f"Figures:  {folder / 'figures'}")
    if not installed("vl_convert"):
        click.echo(f"Report:   pip install 'tombola[report]', then: tombola report {_quoted(folder)}")
        return
    from tombola.html.write import write_report

    path = write_report(results)
    click.echo(f"Report:   {path}")
    if show:
        _open(path)


@cli.command(cls=StudyCommand, epilog=STUDY_HELP)
@work_options
@click.option("--verbose", "-v", is_flag=True, help="Show which layers no sparse engine trains, and why.")
def plan(
    study: str,
    changes: tuple[str, ...],
    out: Path | None,
    data: Path | None,
    workers: int | None,
    device: str,
    engine: str,
    max_runs: int,
    on: str,
    cluster: Path | None,
    store: str | None,
    verbose: bool,
) -> None:
    """Show the work of a study and its time.

    The command shows missing and finished work, and estimates the time on this machine. It writes nothing.
    """
    from tombola.running.run import data_folder
    from tombola.running.sites import Site, site_for
    from tombola.running.store import Store
    from tombola.studies.cluster import read_cluster
    from tombola.studies.plan import make_plan
    from tombola.studies.start_checks import check_data_at_hand
    from tombola.tables.overview import plan_table

    loaded, folder = _load(study, changes, out)
    site = site_for(on, read_cluster(cluster, loaded.cluster) if cluster else loaded.cluster, store)
    made = make_plan(loaded, data_folder(data), max_runs)
    check_data_at_hand(made, data_folder(data))
    here = Site(site.settings)
    chosen = here.device(device)
    at_a_time = here.workers(workers or site.settings.workers, chosen, len(made.work))
    _console().print(plan_table(made, Store(folder), chosen, engine, at_a_time, verbose))
    if where := site.describe():
        _console().print(where, markup=False, soft_wrap=True)


@cli.group(invoke_without_command=True, cls=Commands)
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
        _console().print(table)


@presets.command()
@click.argument("name")
def show(name: str) -> None:
    """Print a preset as a study file."""
    from tombola.studies.loading import preset_text

    click.echo(preset_text(name), nl=False)


@cli.command()
def schema() -> None:
    """Print the JSON schema of study files.

    An editor completes and checks study files with it: write it to a file, and name that file in the study's first
    line, "# yaml-language-server: $schema=study.schema.json".
    """
    from tombola.studies.schema import study_schema

    click.echo(json.dumps(study_schema(), indent=1))


@cli.command()
@click.argument("study", required=False)
@out_option
def status(study: str | None, out: Path | None) -> None:
    """Show the progress of studies.

    Without STUDY, the command shows all studies in ./results.
    """
    from tombola.tables.overview import status_table

    if study is None and out is None:
        folders = sorted(path.parent for path in Path("results").glob("*/study.yaml"))
        if not folders:
            click.echo("The folder ./results contains no study. Start one with: tombola run demo")
            return
    else:
        folders = [_folder_of(study or str(out), out)]
    _console().print(status_table(folders))


@cli.command(epilog=STUDY_HELP)
@study_argument
@out_option
@data_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    default="table",
    help="Choose the format: table shows means and spread; csv, json and parquet have one row per run. parquet needs "
    "the extra tombola[parquet]. [default: table]",
)
@click.option("--curves", is_flag=True, help="Print one row per evaluation. [default: one row per run]")
@click.option("--output", "-o", type=LocalPath(), help="Write to this file. [default: the terminal]")
def results(study: str, out: Path | None, data: Path | None, form: str, curves: bool, output: Path | None) -> None:
    """Print the results of a study.

    The study may be unfinished. A damaged result is named; the exit status is then 1.
    """
    from tombola.extras import need
    from tombola.formatting import as_csv
    from tombola.running.files import write_whole

    if form == "parquet":
        need("pyarrow", "--format parquet")
    found = _opened(_folder_of(study, out), data)
    frame = found.curves() if curves else found.frame()
    if form == "table" and not curves:
        if output is None:
            _print_summary(found)
            content = b""
        else:
            text = io.StringIO()
            _print_summary(found, text)
            content = text.getvalue().encode()
    elif form == "table":
        content = (frame.to_string(index=False) + "\n").encode()
    elif form == "csv":
        content = as_csv(frame)
    elif form == "json":
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        content = (json.dumps(rows, indent=1) + "\n").encode()
    else:
        content = frame.to_parquet(index=False)
        if output is None and sys.stdout.isatty():
            raise InputError("--format parquet writes binary data: add --output FILE, or redirect the output")
    if output is not None:
        write_whole(output, content, "name an existing folder with free space")
    elif sys.stdout.isatty():
        click.echo(printable(content.decode()), nl=False)
    else:
        sys.stdout.buffer.write(content)
    if found.damaged():
        sys.exit(1)


@cli.command(name="figures", epilog=STUDY_HELP)
@click.argument("studies", nargs=-1, required=True, metavar="STUDY...")
@click.option(
    "--out",
    type=LocalPath(),
    help="Set the results folder; for several studies, the folder of the figures. [default: ./figures]",
)
@data_option
@click.option(
    "--figure",
    "wanted",
    multiple=True,
    help="Draw only this figure: 1, 3 to 8, rounds, criteria, barriers, ...; repeat for several. [default: all]",
)
@click.option(
    "--against",
    type=click.Choice(["density", "cost"]),
    default="density",
    help="Choose density, for all figures; or cost, for accuracy at equal training cost. [default: density]",
)
@click.option(
    "--style",
    type=click.Choice(["screen", "paper"]),
    default="screen",
    help="Choose the style: paper has print size and no title. [default: screen]",
)
@click.option(
    "--columns", type=click.Choice(["1", "2"]), help="Set the columns that a figure of style paper spans. [default: 2]"
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(["png", "svg", "pdf"]),
    multiple=True,
    help="Choose the file format; repeat for several. [default: png and svg; for --style paper, pdf]",
)
@click.option(
    "--bars",
    type=click.Choice(["range", "interval"]),
    default="range",
    help="Choose the bars: lowest to highest run, or 95 % t interval of the mean. [default: range]",
)
def draw_figures(
    studies: tuple[str, ...],
    out: Path | None,
    data: Path | None,
    wanted: tuple[str, ...],
    against: str,
    style: str,
    columns: str | None,
    formats: tuple[str, ...],
    bars: Bars,
) -> None:
    """Draw the figures of one or more studies.

    The studies may be unfinished. STUDY may also be a CSV file of your own results: docs/results.md has its columns.
    """
    from dataclasses import replace

    from tombola.figures import FIGURES, SCREEN, draw, gather, gather_interpolations, gather_tables, paper
    from tombola.running.files import writing

    if columns and style != "paper":
        raise InputError("--columns needs --style paper: add it, or remove --columns")
    if against == "cost":
        if wanted:
            raise InputError("--against cost draws the figure cost alone: remove --figure, or --against cost")
        wanted = ("cost",)
    form = replace(paper(int(columns or 2)) if style == "paper" else SCREEN, bars=bars)
    alone, own = len(studies) == 1, [_is_table(study) for study in studies]
    if any(own) and not all(own):
        raise InputError(
            "give results folders alone or tables alone; `tombola results FOLDER --format csv -o FILE` writes a "
            "folder's table"
        )
    if any(own):
        levels, curves, settings, interpolations = *gather_tables([Path(study) for study in studies]), None, None
        target = out or Path("figures")
    else:
        folders = dict.fromkeys(_folder_of(study, out if alone else None) for study in studies)
        opened = [_opened(folder, data) for folder in folders]
        levels, curves, settings = gather(opened)
        interpolations = gather_interpolations(opened, settings)
        target = next(iter(folders)) / "figures" if alone else out or Path("figures")
    names = [name if name in FIGURES else f"figure-{name.removeprefix('figure-')}" for name in wanted]
    with writing(target):
        paths = draw(
            levels,
            curves,
            target,
            names or None,
            interpolations=interpolations,
            settings=settings,
            form=form,
            formats=formats or (("pdf",) if style == "paper" else ("png", "svg")),
        )
    for path in paths:
        click.echo(str(path))
    if not paths:
        click.echo("The results contain no data for a figure yet. Show the progress with: tombola status")


@cli.command(epilog=STUDY_HELP)
@study_argument
@out_option
@data_option
@click.option(
    "--output", "-o", type=LocalPath(), help="Set the file to write. [default: report.html in the results folder]"
)
@click.option("--claims", "own", multiple=True, type=LocalPath(), help=CLAIMS_HELP)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, max_open=True),
    help="Set the accepted loss: 0.001 is 0.1 percentage points, or 0.1 % of another metric. [default: the study's]",
)
@click.option("--open", "show", is_flag=True, help="Open the report in a browser.")
def report(
    study: str,
    out: Path | None,
    data: Path | None,
    output: Path | None,
    own: tuple[Path, ...],
    margin: float | None,
    show: bool,
) -> None:
    """Write the HTML report of a study, and print its answer.

    The study may be unfinished. The report is one file and needs no network connection. STUDY may also be a CSV file of
    your own results: docs/results.md has its columns.
    """
    from tombola.analysis.stability import Parting, partings_of
    from tombola.figures.ending import short_answer
    from tombola.html.write import write_report, write_table_report

    partings: tuple[Parting, ...] = ()
    if _is_table(study):
        if out is not None:
            raise InputError(f"--out names a results folder, and {study} is a table: name the page with --output")
        from tombola.analysis.reading import read_curves, read_table
        from tombola.tasks.metric import MARGIN

        levels = read_table(Path(study))
        curves = read_curves(Path(study), levels)
        target = output or Path(study).with_suffix(".html")
        margin, missing = MARGIN if margin is None else margin, 0
        path = write_table_report(levels, target, curves, Path(study), _own_claims(own), margin)
    else:
        found = _opened(_folder_of(study, out), data)
        path = write_report(found, output, _own_claims(own), margin)
        levels, missing, partings = found.frame(), found.missing(), partings_of(found)
        margin = found.study.margin if margin is None else margin
    _console().print(short_answer(levels, missing, margin, partings))
    click.echo(str(path))
    if show:
        _open(path)


@cli.command(epilog=STUDY_HELP)
@click.argument("studies", metavar="STUDY STUDY...", nargs=-1, required=True)
@click.option(
    "--out", type=LocalPath(), default="comparison.html", help="Set the file to write. [default: comparison.html]"
)
@data_option
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, max_open=True),
    help="Set the accepted loss: 0.001 is 0.1 percentage points, or 0.1 % of another metric. [default: the study's]",
)
def compare(studies: tuple[str, ...], out: Path, data: Path | None, margin: float | None) -> None:
    """Compare several studies in one HTML file."""
    from tombola.html.write import write_comparison

    folders = {_folder_of(study, None).resolve(): study for study in studies} if len(studies) > 1 else studies
    if len(folders) < 2:
        raise InputError(f"compare needs two or more studies; for a single study: tombola report {studies[0]}")
    found = [_opened(folder, data) for folder in folders]
    click.echo(str(write_comparison(found, out, margin)))


@cli.command()
@click.argument("results", nargs=-1, required=True, type=LocalPath())
@data_option
@click.option("--claims", "own", multiple=True, type=LocalPath(), help=CLAIMS_HELP)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    help="Choose the format. [default: table]",
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if a claim is not reproduced. [default: status 0]")
@click.option("--power", is_flag=True, help="Show how many trials would decide each claim with 90 % probability.")
def claims(
    results: tuple[Path, ...], data: Path | None, own: tuple[Path, ...], form: str, strict: bool, power: bool
) -> None:
    """Check claims against results.

    RESULTS are results folders, or results.csv files. The default claims are the published ones.
    """
    from tombola.analysis.claims import evaluate, published_claims
    from tombola.analysis.power import seconds_per_trial
    from tombola.analysis.reading import read_levels, read_points
    from tombola.tables.claims import as_rows, claims_table, power_rows, power_table

    wanted = _own_claims(own) or published_claims()
    found: list[tuple[str, Outcome]] = []
    seconds: dict[tuple[str, str], float | None] = {}
    for path in results:
        (levels, settings), points = read_levels(path, data), read_points(path, data)
        found += [(str(path), outcome) for outcome in evaluate(levels, wanted, settings, points=points)]
        seconds |= {(str(path), str(study)): seconds_per_trial(rows) for study, rows in levels.groupby("study")}
    if form == "table":
        _console().print(power_table(found, seconds) if power else claims_table(found))
        _strictly(strict, found)
        return
    rows = power_rows(found, seconds) if power else as_rows(found)
    if form == "json":
        click.echo(json.dumps(rows, indent=1))
    else:
        import pandas as pd

        from tombola.formatting import as_csv

        click.echo(as_csv(pd.DataFrame(rows)).decode(), nl=False)
    _strictly(strict, found)


def _strictly(strict: bool, found: list[tuple[str, Outcome]]) -> None:
    """Exit with status 1 if that is asked for and a claim is not reproduced."""
    from tombola.analysis.claims import NOT_REPRODUCED

    if strict and any(outcome.outcome == NOT_REPRODUCED for _, outcome in found):
        sys.exit(1)


cli.add_command(export)


def _load(study: str, changes: tuple[str, ...], out: Path | None) -> tuple[Study, Path]:
    """Return the study with its changes, and its results folder."""
    from tombola.registry import add_user_folders
    from tombola.running.run import default_folder
    from tombola.studies.loading import load_study

    if study and local_path(study, "study").is_file():
        add_user_folders([Path(study).absolute().parent])  # the study's own network may be in the same folder
    return load_study(study, assignments=changes), out or default_folder(study, changes)


def _say_whence() -> None:
    """Say of each name of a study where what it stands for was loaded from."""
    import logging

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    log = logging.getLogger("tombola.registry")
    log.setLevel(logging.DEBUG)
    log.handlers = [Said()]


def _is_table(study: str) -> bool:
    """Return whether a study is named by a CSV file of results."""
    return study.lower().endswith(".csv") and local_path(study, "study").is_file()


def _own_claims(paths: tuple[Path, ...]) -> list[Claim] | None:
    """Return the claims of the user's files; None if none exists."""
    from tombola.analysis.claims import load_claims

    return [claim for path in paths for claim in load_claims(path)] or None


def _folder_of(study: str, out: Path | None) -> Path:
    """Return the existing results folder of a study."""
    from tombola.studies.loading import STUDY_FILE

    folder = out if out is not None else _load(study, (), None)[1]
    if not (folder / STUDY_FILE).is_file():
        raise InputError(f"{str(folder)!r} contains no results; create them with: tombola run {study}")
    return folder


def _opened(folder: str | Path, data: Path | None) -> Results:
    """Return the results of a folder, and report the damaged results that it omits."""
    from tombola.running.results import Results

    found = Results.open(folder, data)
    for message in found.damaged():
        say(f"tombola: {message}; the table omits it, and `tombola run` repeats it")
    return found


def _print_summary(results: Results, file: IO[str] | None = None) -> None:
    from tombola.formatting import counted, counted_are
    from tombola.tables import barrier_table, summary_table, ticket_versus_reinit
    from tombola.tables.captions import PM

    levels, console = results.frame(), _console(file)
    console.print(summary_table(levels))
    if {"ticket", "reinit"} <= set(levels["arm"]):
        console.print(ticket_versus_reinit(levels))
    if results.study.connectivity is not None and not (points := results.connectivity()).empty:
        console.print(barrier_table(points, results.study.connectivity.threshold))
    console.print(f"{PM}\n", markup=False, highlight=False)
    if missing := results.missing():
        trainer = results.study.trainer
        how = "your script" if trainer is not None and trainer.is_loop else f"tombola run {results.store.root}"
        text = f"{counted_are(missing, 'work item', len(results.plan.work))} missing. Resume with: {how}"
        console.print(text, markup=False, soft_wrap=True)
        if others := results.store.finished() - results.plan.work.keys():
            console.print(
                f"The folder also contains {counted(len(others), 'result')} of other settings, or of an earlier "
                "version of the code or the data.",
                soft_wrap=True,
            )


def _print_ending(results: Results) -> None:
    from tombola.figures.ending import ending_of

    console = _console()
    console.print(ending_of(results, console.encoding))


def _quoted(folder: Path) -> str:
    """Return a folder as a shell reads it, without control characters."""
    import shlex

    return printable(shlex.quote(str(folder)))


def _open(path: Path) -> None:
    """Open a page in the user's browser, or say where it is."""
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        say(f"tombola: no browser was found; open this file yourself: {path}")


def _console(file: IO[str] | None = None) -> Any:
    # Piped output and files are not cut at 80 columns.
    return terminal_console(file, highlight=False, width=None if file is None and sys.stdout.isatty() else 120)


cli.add_command(measure_command)
cli.add_command(doctor)


def main() -> None:
    """Run the command line. A user's mistake gives one message and status 2, never a traceback."""
    try:
        status = _status()
        _hear_no_more(status)
    except (click.exceptions.Abort, KeyboardInterrupt):
        status = 130
        _hear_no_more(status)
        say("tombola: stopped")
    if status:
        sys.exit(status)


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
