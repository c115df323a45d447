"""A stored measurement in a model card, as Markdown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tombola.export.stored import Latency, StoredMeasurement, measurement_of, sentences
from tombola.formatting import byte_size, counted, latency, plain

if TYPE_CHECKING:
    from tombola.running.results import Results
    from tombola.running.ticket import Ticket


def card_lines(results: Results | None, ticket: Ticket) -> list[str]:
    """Return the lines of a model card on size, speed and accuracy of a ticket's exported forms.

    Args:
        results: of the ticket's study, which hold what `tombola measure` found; None where they are not given.
        ticket: that the card describes.
    """
    measured = None if results is None else measurement_of(results, ticket)
    if measured is None:
        return ["Not measured: `tombola measure` finds size, speed and accuracy of exported forms."]
    return [*_sizes(measured), "", *_latencies(measured), "", *(_text(each) for each in sentences(measured))]


def _text(text: object, longest: int = 300) -> str:
    """Return a text that Markdown takes as plain words; it comes from a file."""
    return "".join(f"\\{each}" if each in "\\`*_[]<>|#" else each for each in plain(text, longest))


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _sizes(measured: StoredMeasurement) -> list[str]:
    metric = [] if measured.metric is None else [_text(measured.metric)]
    titles = ["form", "bytes", "parameters", "multiply-adds", "memory", *metric]
    lines = [_row(titles), _row(["---", *["---:"] * (len(titles) - 1)])]
    for form in measured.forms:
        numbers = [f"{form.bytes:,}", f"{form.parameters:,}", f"{form.multiply_adds:,}", byte_size(form.memory_bytes)]
        shown = [] if measured.metric is None else ["" if form.metric is None else f"{form.metric:.4f}"]
        lines.append(_row([_text(form.form), *numbers, *shown]))
    return lines


def _latencies(measured: StoredMeasurement) -> list[str]:
    if not measured.latencies:
        return []
    heads = [f"batch {batch}, {counted(threads, 'thread')}" for batch, threads in measured.settings]
    lines = [_row(["median latency", *heads]), _row(["---", *["---:"] * len(heads)])]
    for name, times in measured.contenders:
        exact = next(iter(times.values())).float32
        cells = [_time(times.get(setting)) for setting in measured.settings]
        lines.append(_row([_text(name) + ("" if exact else " (lower precision)"), *cells]))
    return lines


def _time(found: Latency | None) -> str:
    return "" if found is None else latency(found.p50_us)
