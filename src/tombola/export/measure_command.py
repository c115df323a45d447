"""The command `tombola measure`."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tombola import terminal
from tombola.commands.options import LocalPath
from tombola.errors import InputError

if TYPE_CHECKING:
    from tombola.export.measure import Examples, Measurement
    from tombola.running.results import Results
    from tombola.running.ticket import Ticket


@click.command(
    "measure", epilog="TICKET is a ticket's file, or a results folder. Choose its ticket with --trial and --level."
)
@click.argument("tickets", metavar="TICKET...", nargs=-1, required=True, type=LocalPath())
@click.option("--trial", type=int, help="Choose the trial of a results folder. [default: the first]")
@click.option(
    "--level",
    type=int,
    help="Choose the level of a results folder. [default: the sparsest as good as dense in validation accuracy]",
)
@click.option("--arm", help="Choose the arm of a results folder. [default: ticket]")
@click.option("--trust", is_flag=True, help="Import the function of your own network. [default: off]")
@click.option(
    "--test",
    "test_set",
    help="Test on this data set: mnist, ..., or an .npz file. [default: that of the results folder]",
)
@click.option(
    "--data",
    type=LocalPath(),
    envvar="TOMBOLA_DATA",
    help="Set the folder of data sets, in torchvision's layout. [default: $TOMBOLA_DATA, or the cache]",
)
@click.option(
    "--rival", "rivals", multiple=True, help="Compare with this runtime; repeat for several. [default: all installed]"
)
@click.option(
    "--batch", "batches", type=int, multiple=True, help="Set a batch size; repeat for several. [default: 1 and 64]"
)
@click.option(
    "--threads", type=int, multiple=True, help="Set a number of threads; repeat for several. [default: 1 and all cores]"
)
@click.option("--rounds", type=int, default=20, help="Set the number of measurements of each runtime. [default: 20]")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    help="Choose the format. [default: table]",
)
def measure_command(
    tickets: tuple[Path, ...],
    trial: int | None,
    level: int | None,
    arm: str | None,
    trust: bool,
    test_set: str | None,
    data: Path | None,
    rivals: tuple[str, ...],
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    rounds: int,
    form: str,
) -> None:
    """Measure exported tickets.

    The command compares their size, latency and accuracy with dense networks and other runtimes. It stores the
    measurement of a results folder in the folder; `tombola report` shows it.
    """
    from tombola.export.measure import check_measurable, measure
    from tombola.export.source import ticket_of
    from tombola.export.stored import store
    from tombola.running.results import Results

    found, made = [], []
    for path in tickets:
        ticket = ticket_of(str(path), trial, level, arm, None, data)
        check_measurable(ticket)
        ticket = ticket.trusted() if trust else ticket
        results = Results.open(path, data) if path.is_dir() else None
        examples = _test_examples(ticket, results, test_set, data)
        measured = measure(ticket, examples, rivals or None, batches or (1, 64), threads or None, rounds)
        found.append(measured)
        if results is not None:
            made.append(
                (results.store.root, ticket, measured, _command(ticket, test_set, rivals, batches, threads, rounds))
            )
    _show(found, form)
    for each in made:
        click.echo(f"{store(*each)}: `tombola report` shows it", err=True)


def _command(
    ticket: Ticket,
    test_set: str | None,
    rivals: tuple[str, ...],
    batches: tuple[int, ...],
    threads: tuple[int, ...],
    rounds: int,
) -> str:
    """Return the command that measures the same again; the results folder may be anywhere."""
    words = ["tombola", "measure", "RESULTS"]
    for name in ("arm", "trial", "level"):
        words += [f"--{name}", str(ticket.origin[name])]
    words += [] if test_set is None else ["--test", test_set]
    for name, values in (("rival", rivals), ("batch", batches), ("threads", threads)):
        for value in values:
            words += [f"--{name}", str(value)]
    return shlex.join([*words, "--rounds", str(rounds)])


def _test_examples(ticket: Ticket, results: Results | None, test_set: str | None, data: Path | None) -> Examples | None:
    """Return the test set, as the ticket takes it; None where nobody says which."""
    from tombola.export.source import examples_of

    if test_set is not None:
        return _named_examples(ticket, test_set, data, results)
    return None if results is None else examples_of(results, ticket.origin["trial"], data)


def _named_examples(ticket: Ticket, source: str, data: Path | None, results: Results | None = None) -> Examples:
    """Return the test set of a data set, with the deciding metric of the study if there are results.

    Raises:
        InputError: the data set does not exist, its examples have another shape, its targets are not for the study's
            task, or the study's metric is computed by the user's own code.
    """
    import torch

    from tombola.data import DataSettings, Part, load
    from tombola.export.check import outputs_of, shape_of
    from tombola.export.measure import Examples
    from tombola.export.source import scored, task_of
    from tombola.tasks import ACCURACY

    task = None if results is None else task_of(results)
    if results is not None and task is None and (metric := results.plan.measures.primary).name != ACCURACY.name:
        raise InputError(
            f"--test {source}: the study's metric is {metric.words}, which your own code computes; tombola computes "
            "only accuracy for it, so leave --test out"
        )
    own = source.endswith(".npz")
    settings = DataSettings(source="npz" if own else source, validation=1, path=source if own else None)
    dataset = load(settings, data)
    shape = shape_of(ticket)
    if dataset.test_inputs.shape[1:] != shape:
        raise InputError(
            f"--test {source}: its examples have shape {dataset.test_inputs.shape[1:]}, but the ticket takes {shape}; "
            "name the data set of the ticket's study"
        )
    inputs = ticket.normalise(dataset.test_inputs.copy())
    if task is None:
        return Examples(inputs.numpy(), dataset.test_targets)
    task.check_data(dataset.description, source)
    targets = task.checked(torch.from_numpy(dataset.test_targets.copy()), source)
    few = Part(inputs[:2], targets[:2])
    task.check_output(outputs_of(ticket.build(trained=True), few.inputs), few, dataset.description, source)
    return scored(inputs, targets, task)


def _show(found: list[Measurement], form: str) -> None:
    import pandas as pd

    from tombola.export.measure_table import measurement_table
    from tombola.formatting import as_csv

    if form == "table":
        console = terminal.console(highlight=False, width=None if sys.stdout.isatty() else 120)
        for each in found:
            console.print(measurement_table(each))
    elif form == "csv":
        click.echo(as_csv(pd.concat([each.frame() for each in found])).decode(), nl=False)
    else:
        click.echo(json.dumps([as_json(each) for each in found], indent=1))


def as_json(measured: Measurement) -> dict[str, object]:
    """Return a measurement as JSON; missing values are null."""
    return {
        "ticket": measured.ticket,
        "conditions": asdict(measured.conditions),
        "artefacts": json.loads(measured.artefacts.to_json(orient="records")),
        "latencies": json.loads(measured.latencies.to_json(orient="records")),
        "notes": list(measured.notes),
    }
