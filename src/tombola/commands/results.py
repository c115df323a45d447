"""`tombola status`, `results`, `figures`, `report` and `compare`."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from tombola.commands.opening import console, folder_of, is_table, open_page, opened, own_claims
from tombola.commands.options import CLAIMS_HELP, STUDY_HELP, LocalPath, data_option, out_option, study_argument
from tombola.errors import InputError
from tombola.terminal import printable

if TYPE_CHECKING:
    from tombola.figures.form import Bars
    from tombola.running.results import Results


@click.command()
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
        folders = [folder_of(study or str(out), out)]
    console().print(status_table(folders))


@click.command(epilog=STUDY_HELP)
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
    found = opened(folder_of(study, out), data)
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


@click.command(name="figures", epilog=STUDY_HELP)
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

    from tombola.analysis.reading import studies_beside
    from tombola.figures import FIGURES, SCREEN, draw, gather, gather_interpolations, gather_tables, paper
    from tombola.figures.setting import Setting
    from tombola.running.files import writing

    if columns and style != "paper":
        raise InputError("--columns needs --style paper: add it, or remove --columns")
    if against == "cost":
        if wanted:
            raise InputError("--against cost draws the figure cost alone: remove --figure, or --against cost")
        wanted = ("cost",)
    form = replace(paper(int(columns or 2)) if style == "paper" else SCREEN, bars=bars)
    alone, own = len(studies) == 1, [is_table(study) for study in studies]
    if any(own) and not all(own):
        raise InputError(
            "give results folders alone or tables alone; `tombola results FOLDER --format csv -o FILE` writes a "
            "folder's table"
        )
    if any(own):
        levels, curves = gather_tables([Path(study) for study in studies])
        beside = {name: whose for file in studies for name, whose in studies_beside(Path(file), levels).items()}
        settings, interpolations = {name: Setting.of(whose) for name, whose in beside.items()}, None
        target = out or Path("figures")
    else:
        folders = dict.fromkeys(folder_of(study, out if alone else None) for study in studies)
        found = [opened(folder, data) for folder in folders]
        levels, curves, settings = gather(found)
        interpolations = gather_interpolations(found, settings)
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


@click.command(epilog=STUDY_HELP)
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
    if is_table(study):
        if out is not None:
            raise InputError(f"--out names a results folder, and {study} is a table: name the page with --output")
        from tombola.analysis.reading import read_curves, read_table, studies_beside
        from tombola.tasks.metric import MARGIN

        levels = read_table(Path(study))
        curves = read_curves(Path(study), levels)
        target = output or Path(study).with_suffix(".html")
        whose = next(iter(studies_beside(Path(study), levels).values()), None)
        margin, missing = (whose.margin if whose else MARGIN) if margin is None else margin, 0
        path = write_table_report(levels, target, curves, Path(study), own_claims(own), margin, whose)
    else:
        found = opened(folder_of(study, out), data)
        path = write_report(found, output, own_claims(own), margin)
        levels, missing, partings = found.frame(), found.missing(), partings_of(found)
        margin = found.study.margin if margin is None else margin
    console().print(short_answer(levels, missing, margin, partings))
    click.echo(str(path))
    if show:
        open_page(path)


@click.command(epilog=STUDY_HELP)
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

    folders = {folder_of(study, None).resolve(): study for study in studies} if len(studies) > 1 else studies
    if len(folders) < 2:
        raise InputError(f"compare needs two or more studies; for a single study: tombola report {studies[0]}")
    found = [opened(folder, data) for folder in folders]
    click.echo(str(write_comparison(found, out, margin)))


def _print_summary(results: Results, file: IO[str] | None = None) -> None:
    from tombola.formatting import counted, counted_are
    from tombola.tables import barrier_table, level_tables
    from tombola.tables.captions import PM

    levels, screen = results.frame(), console(file)
    screen.print(level_tables(levels))
    if results.study.connectivity is not None and not (points := results.connectivity()).empty:
        screen.print(barrier_table(points, results.study.connectivity.threshold))
    screen.print(f"{PM}\n", markup=False, highlight=False)
    if missing := results.missing():
        trainer = results.study.trainer
        how = "your script" if trainer is not None and trainer.is_loop else f"tombola run {results.store.root}"
        text = f"{counted_are(missing, 'work item', len(results.plan.work))} missing. Resume with: {how}"
        screen.print(text, markup=False, soft_wrap=True)
        if others := results.store.finished() - results.plan.work.keys():
            screen.print(
                f"The folder also contains {counted(len(others), 'result')} of other settings, or of an earlier "
                "version of the code or the data.",
                soft_wrap=True,
            )
