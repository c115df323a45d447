"""Measurements that stay beside the results: a file for each measured ticket, `measurements/ARM-trial-T-...json`.

`tombola measure RESULTS` writes them. The report and the model card show them, and measure nothing themselves.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tombola.running.files import Damaged, read_json_checked, write_json_checked, writing

if TYPE_CHECKING:
    from tombola.export.measure import Measurement
    from tombola.running.results import Results
    from tombola.running.ticket import Ticket

FOLDER = "measurements"
FORMAT = 1
MOST = 4 * 1024**2  # bytes of a file that is read
MOST_FILES = 200

Text = Annotated[str, Field(max_length=2000)]
Count = Annotated[int, Field(ge=0, le=2**60)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Form(_Stored):
    """One form of the ticket: its size, its cost and its metric over the whole test set."""

    form: Text
    bytes: Count
    parameters: Count
    multiply_adds: Count
    memory_bytes: Count
    metric: float | None = None
    largest_difference: float | None = None


class Latency(_Stored):
    """The time that one contender takes for a batch on some threads, in microseconds."""

    contender: Text
    kind: Literal["exported", "dense", "sparse"]
    float32: bool
    batch: Count
    threads: Count
    p50_us: Positive
    p95_us: Positive
    least_us: Positive
    speedup: Positive | None = None
    speedup_least: Positive | None = None


class MeasuredTicket(_Stored):
    """Which row of the results was measured; `job` is the identity of its run."""

    arm: Text
    trial: Count
    repeat: Count
    level: Count
    density: Annotated[float, Field(ge=0, le=1)]
    job: Text


class MeasuredOn(_Stored):
    """What it was measured on: see `tombola.export.conditions.Conditions`."""

    machine: Text
    load: float | None
    versions: dict[Text, Text]
    rounds: Count
    examples: Count | None


class StoredMeasurement(_Stored):
    """A measurement as its file holds it.

    Args:
        format: of the file.
        command: that made it.
        metric: what `Form.metric` is called; None where it was not measured.
        ticket, conditions, forms, latencies: what was measured, and on what.
        notes: what could not be measured and why, one sentence each.
    """

    format: Literal[1]
    command: Text
    metric: Text | None
    ticket: MeasuredTicket
    conditions: MeasuredOn
    forms: Annotated[list[Form], Field(max_length=100)]
    latencies: Annotated[list[Latency], Field(max_length=2000)]
    notes: Annotated[list[Text], Field(max_length=200)]

    @property
    def settings(self) -> list[tuple[int, int]]:
        """The batch sizes and numbers of threads that were timed, in order."""
        return list(dict.fromkeys((each.batch, each.threads) for each in self.latencies))

    @property
    def contenders(self) -> list[tuple[str, dict[tuple[int, int], Latency]]]:
        """Each contender with its time in each setting; the fastest in the first setting comes first."""
        found: dict[str, dict[tuple[int, int], Latency]] = {}
        for each in self.latencies:
            found.setdefault(each.contender, {})[each.batch, each.threads] = each
        first = self.settings[:1]
        return sorted(
            found.items(), key=lambda pair: min((pair[1][at].p50_us for at in first if at in pair[1]), default=0)
        )


@dataclass(frozen=True)
class Measurements:
    """The measurements of a results folder.

    Args:
        found: those of its present tickets, in the order of arm, trial, repeat and level.
        left_out: for each other file a sentence that says why it is not shown.
    """

    found: tuple[StoredMeasurement, ...]
    left_out: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.found or self.left_out)


def store(root: Path, ticket: Ticket, measured: Measurement, command: str) -> Path:
    """Write a measurement beside the results, in the place of an earlier one of the same ticket; return its path.

    Args:
        root: of the results folder.
        ticket: what was measured.
        measured: what was found.
        command: that found it.

    Raises:
        StoreError: it can't be written.
    """
    names = {name: ticket.origin[name] for name in ("arm", "trial", "repeat", "level", "job")}
    forms = _records(measured.artefacts)
    metric = measured.metric
    for form in forms:
        if metric is not None:
            form["metric"] = form.pop(metric)
    content = {
        "format": FORMAT,
        "command": command,
        "metric": metric,
        "ticket": {**names, "density": ticket.mask.density},
        "conditions": asdict(measured.conditions),
        "forms": forms,
        "latencies": _records(measured.latencies),
        "notes": list(measured.notes),
    }
    path = root / FOLDER / _file_name(MeasuredTicket.model_validate(content["ticket"]))
    with writing(path.parent, ROOM):
        path.parent.mkdir(exist_ok=True)
    write_json_checked(path, content)
    return path


ROOM = "make room, or give a folder that you may write to"


def _records(frame: Any) -> list[dict[str, Any]]:
    """Return rows as JSON holds them; what was not measured is null."""
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", double_precision=15))
    return rows


def _file_name(ticket: MeasuredTicket) -> str:
    arm = re.sub("[^A-Za-z0-9_-]", "_", ticket.arm)[:60]
    if arm != ticket.arm:  # two names must not become one
        arm += "-" + hashlib.sha256(ticket.arm.encode()).hexdigest()[:8]
    return f"{arm}-trial-{ticket.trial}-repeat-{ticket.repeat}-level-{ticket.level:02}.json"


def read_measurements(results: Results) -> Measurements:
    """Return the measurements that lie beside results. Whoever made the folder may have written anything into it."""
    rows = {(row.arm, row.trial, row.repeat, row.level): row.job for row in results.plan.rows}
    found, left_out = [], []
    paths = sorted((results.store.root / FOLDER).glob("*.json"))
    if len(paths) > MOST_FILES:
        left_out.append(
            f"{FOLDER} has {len(paths):,} files, and the first {MOST_FILES} are read; delete those of no use"
        )
    for path in paths[:MOST_FILES]:
        name = f"{FOLDER}/{path.name}"
        try:
            each = StoredMeasurement.model_validate(read_json_checked(path, MOST))
        except (FileNotFoundError, Damaged, ValidationError):
            left_out.append(f"{name} is damaged; delete it, and measure the ticket again")
            continue
        ticket = each.ticket
        if rows.get((ticket.arm, ticket.trial, ticket.repeat, ticket.level)) != ticket.job:
            left_out.append(f"{name} is of a ticket that the study no longer has; delete it, or measure again")
            continue
        found.append(each)
    found.sort(key=lambda each: (each.ticket.arm, each.ticket.trial, each.ticket.repeat, each.ticket.level))
    return Measurements(tuple(found), tuple(left_out))


def measurement_of(results: Results, ticket: Ticket) -> StoredMeasurement | None:
    """Return the stored measurement of a ticket; None where it was not measured."""
    found = read_measurements(results).found
    return next((each for each in found if each.ticket.job == ticket.origin.get("job") and _same(each, ticket)), None)


def _same(each: StoredMeasurement, ticket: Ticket) -> bool:
    names = ("arm", "trial", "repeat", "level")
    return all(getattr(each.ticket, name) == ticket.origin.get(name) for name in names)


def sentences(measured: StoredMeasurement) -> Sequence[str]:
    """Return what a person must know of a measurement: on what, with what and over how much it was made."""
    on = measured.conditions
    versions = ", ".join(f"{name} {version}" for name, version in on.versions.items())
    said = [f"Measured on {on.machine}.", f"Versions: {versions}."]
    if measured.latencies:
        load = "" if on.load is None else f" The machine's load was {on.load:.1f} at the start."
        said.append(f"Latencies are of {on.rounds} interleaved rounds.{load}")
    if on.examples is not None and measured.metric is not None:
        said.append(f"The {measured.metric} is that of the exported form over all {on.examples:,} test examples.")
    return [*said, *(f"{note}." for note in measured.notes)]
