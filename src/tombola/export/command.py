"""`tombola export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tombola.commands.options import LocalPath
from tombola.errors import InputError

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket

EPILOG = """\b
Options of all formats:
  weights=trained|start
Options of packed:
  bits=1..8, other_bits=1..8 (biases and batch norm), values=kmeans|grid,
  finetune=ITERATIONS (needs a results folder and its data),
  form=values|recipe (recipe: mask and seed alone)
Options of c:
  inputs=normalised|raw|bytes, name=PREFIX, favour=size|speed
Options of onnx:
  variant=dense|compact|int8|compact-int8, opset=18
"""


IN_PYTHON = {"packed": ("tuning",), "onnx": ("examples",)}
"""Options that only Python can give."""


@click.command(name="export", epilog=EPILOG)
@click.argument("source", metavar="RESULTS|TICKET", type=LocalPath())
@click.argument("options", nargs=-1, metavar="[OPTION=VALUE]...")
@click.option("--to", "form", required=True, help="Choose the format: compact, packed, c, pytorch or onnx.")
@click.option(
    "--out",
    type=LocalPath(),
    help="Set the file to write. [default: named after the ticket, in this folder]",
)
@click.option("--trial", type=int, help="Choose the trial of a results folder. [default: the first]")
@click.option(
    "--level",
    type=int,
    help="Choose the level of a results folder. [default: the sparsest as good as dense in validation accuracy]",
)
@click.option("--arm", help="Choose the arm of a results folder. [default: ticket]")
@click.option("--repeat", type=int, help="Choose the repeat of a results folder. [default: 0]")
@click.option("--trust", is_flag=True, help="Import the function of your own network. [default: off]")
@click.option(
    "--data",
    type=LocalPath(),
    envvar="TOMBOLA_DATA",
    help="Set the folder of data sets, in torchvision's layout. [default: $TOMBOLA_DATA, or the cache]",
)
def export(
    source: Path,
    options: tuple[str, ...],
    form: str,
    out: Path | None,
    trial: int | None,
    level: int | None,
    arm: str | None,
    repeat: int | None,
    trust: bool,
    data: Path | None,
) -> None:
    """Export a ticket to a smaller form.

    The form is a smaller network, a small file, or a model for another runtime.
    RESULTS is a results folder. TICKET is a file from Ticket.save.
    """
    from tombola.errors import nearest
    from tombola.export import FORMATS, default_path
    from tombola.export.sizes import held_bytes
    from tombola.export.source import ticket_of

    if form not in FORMATS:
        raise InputError(f"--to {form}: unknown format{nearest(form, FORMATS)}")
    given = dict(_option(text) for text in options)
    ticket = ticket_of(str(source), trial, level, arm, repeat, data)
    if trust:
        ticket = ticket.trusted()
    given = _with_examples(form, given, source, ticket, data)
    path = out / default_path(ticket, form) if out is not None and out.is_dir() else out
    written = ticket.export(form, path, **given)
    dense = held_bytes(ticket.build(trained=True))
    size = written.stat().st_size
    click.echo(f"{written}: {size:,} bytes; the dense network's tensors have {dense:,} ({dense / size:.1f}x)")
    # Fine-tuned values and starting weights from a seed are not meant to give the ticket's outputs.
    if form == "packed" and "finetune" not in given and given.get("form", "values") == "values":
        from tombola.export.packed.ticket import largest_difference

        if (share := largest_difference(ticket, written, given.get("weights", "trained"))) is not None:
            click.echo(
                f"its outputs differ from the ticket's by up to {share:.1%} of the largest, on random inputs; "
                "`tombola measure` tests it on data"
            )


def _option(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"{text!r} is not an option of a format: write NAME=VALUE, such as bits=4")
    return name, _value(value)


def _value(text: str) -> Any:
    """Return a number or a word."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _with_examples(form: str, given: dict[str, Any], source: Path, ticket: Ticket, data: Path | None) -> dict[str, Any]:
    """Return the options with the training examples that some of them need."""
    from tombola.data import Part
    from tombola.export.source import splits_of
    from tombola.running.results import Results

    for name in given:
        if name in IN_PYTHON.get(form, ()):
            raise InputError(f"{name} takes no text: pass it to ticket.export in Python")
    trial = ticket.origin["trial"]
    if form == "packed" and "finetune" in given:
        from tombola.export.packed.finetune import Tuning

        iterations = given.pop("finetune")
        if not isinstance(iterations, int) or iterations < 0:
            raise InputError(
                f"finetune={iterations} is not a number of iterations: write a whole number, such as finetune=4000"
            )
        if not iterations:
            return given
        if not source.is_dir():
            raise InputError(
                f"finetune={iterations} needs training data: pass a results folder instead of {str(source)!r}"
            )
        train = splits_of(Results.open(source, data), trial, data).train
        if not isinstance(train, Part):
            raise InputError(
                f"finetune={iterations} needs all training examples in memory, and data.stream is set; leave finetune "
                "out"
            )
        return given | {"finetune": (train.inputs, train.targets), "tuning": Tuning(iterations=iterations)}
    if form == "onnx" and str(given.get("variant", "")).endswith("int8") and source.is_dir():
        from tombola.export.onnx import CALIBRATION

        given["examples"] = splits_of(Results.open(source, data), trial, data).train.select(slice(CALIBRATION)).inputs
    return given
