"""Measures an exported ticket: its size, its cost, its speed beside rivals, and the accuracy of what was exported."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tombola.errors import InputError, nearest
from tombola.export.artefacts import ARTEFACTS, Artefact, dense
from tombola.export.check import examples_for, input_count
from tombola.export.conditions import Conditions, conditions
from tombola.export.rivals import RIVALS, Call, Contest, NotFor, Rival
from tombola.export.timing import Timing, interleave, torch_threads

if TYPE_CHECKING:
    import pandas as pd

    from tombola.running.ticket import Ticket

CALIBRATION = 256
"""Examples that a quantiser sees."""

Metric = Callable[[np.ndarray, np.ndarray], float]


def accuracy(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Return the fraction of examples whose highest output is that of their class.

    Raises:
        InputError: an example has no row of class scores, or its target is no class number.
    """
    if outputs.ndim != 2 or outputs.shape[1] < 2 or targets.ndim != 1 or targets.dtype.kind not in "iub":
        raise InputError(
            "the accuracy of classes needs outputs [N, 2 or more] and class numbers [N], but the outputs have shape "
            f"{outputs.shape} and the targets {targets.shape}, of type {targets.dtype}; leave the test set out, or "
            "give a results folder, whose study names its task"
        )
    return float((outputs.argmax(1) == targets).mean())


@dataclass(frozen=True, eq=False)
class Examples:
    """A test set.

    Args:
        inputs: float32 [N, ...], normalised, as the network takes them.
        targets: [N].
        metric: of outputs and targets.
        metric_name: how tables call it.
    """

    inputs: np.ndarray
    targets: np.ndarray
    metric: Metric = accuracy
    metric_name: str = "accuracy"


@dataclass(frozen=True, eq=False)
class Measurement:
    """What `measure` found.

    Args:
        artefacts: a row for each form: "form", "bytes", "parameters", "multiply_adds", "memory_bytes", the metric by
            its name where there is a test set, and "largest_difference" of outputs from PyTorch's dense ones.
        latencies: a row for each contender, batch and number of threads: "contender", "kind" ("exported", "dense" or
            "sparse"), "float32", "batch", "threads", "p50_us", "p95_us", "least_us", and "speedup": the median of the
            best dense float32 rival of that batch and those threads, divided by this one's. "speedup_least" is the
            same of the shortest times: on a busy machine the medians of slow rivals are inflated most.
        notes: what could not be measured and why, one sentence each.
        conditions: what it was measured with.
        ticket: what was measured.
        metric: name of the metric's column in `artefacts`; None where no test set was given.
    """

    artefacts: pd.DataFrame
    latencies: pd.DataFrame
    notes: tuple[str, ...]
    conditions: Conditions
    ticket: str
    metric: str | None = None

    def frame(self) -> pd.DataFrame:
        """Return one table: each latency with what is known of its form."""
        sizes = self.artefacts.rename(columns={"form": "contender"})
        merged = self.latencies.merge(sizes, on="contender", how="outer")
        merged.insert(0, "ticket", self.ticket)
        return merged


def check_measurable(ticket: Ticket) -> None:
    """Check that `measure` supports a ticket's network.

    Raises:
        InputError: the network takes several inputs.
    """
    if (count := input_count(ticket)) > 1:
        raise InputError(
            f"tombola measures networks with one input, and this network takes {count}; for the size alone, export the "
            "ticket as packed or pytorch"
        )


def measure(
    ticket: Ticket,
    examples: Examples | None = None,
    rivals: Sequence[str] | None = None,
    batches: Sequence[int] = (1, 64),
    threads: Sequence[int] | None = None,
    rounds: int = 20,
) -> Measurement:
    """Measure a ticket's exported forms and their rivals on this machine, in interleaved rounds.

    Args:
        ticket: what to measure, with its trained weights.
        examples: the test set; None measures no metric, and takes random numbers as examples.
        rivals: names in `RIVALS`; None takes all that are installed.
        batches: numbers of examples.
        threads: numbers of threads; None takes 1 and the machine's cores.
        rounds: how often each contender has its turn.

    Raises:
        InputError: a rival that is not known, a number that is not positive, a network with several inputs, or outputs
            that the metric is not for.
    """
    import pandas as pd

    check_measurable(ticket)
    chosen = _chosen(rivals)
    cores = os.cpu_count() or 1
    threads = sorted({1, cores}) if threads is None else list(threads)
    if min([*batches, *threads, rounds], default=1) < 1:
        raise InputError(
            f"batches {list(batches)}, threads {threads}, rounds {rounds}: give whole numbers of 1 or more"
        )
    inputs = _inputs(ticket, examples, max([CALIBRATION, *batches]))
    packages = [package for rival in chosen.values() for package in rival.needs]
    now = conditions(packages, rounds, None if examples is None else len(examples.inputs))
    notes: list[str] = []
    whole = dense(ticket)
    forms = [whole, *_forms(ticket, notes)]
    rows = [_size_row(form, whole, examples, inputs) for form in forms]
    latencies: list[dict[str, Any]] = []
    for batch in batches:
        for count in threads:
            module = ticket.build(trained=True).eval()
            contest = Contest(module, torch.from_numpy(inputs[:batch].copy()), count, torch.from_numpy(inputs))
            with torch_threads(count):
                latencies += _race(contest, forms, chosen, notes, rounds)
    name = ", ".join(f"{key} {ticket.origin.get(key)}" for key in ("study", "arm", "trial", "level"))
    unique = tuple(dict.fromkeys(notes))
    metric = None if examples is None else examples.metric_name
    return Measurement(pd.DataFrame(rows), pd.DataFrame(latencies), unique, now, name, metric)


def _chosen(names: Sequence[str] | None) -> dict[str, Rival]:
    for name in names or ():
        if name not in RIVALS:
            raise InputError(f"unknown rival {name!r}{nearest(name, RIVALS)}")
    return RIVALS if names is None else {name: RIVALS[name] for name in names}


def _inputs(ticket: Ticket, examples: Examples | None, count: int) -> np.ndarray:
    """Return float32 [count, ...]: examples of the test set, again and again if it is small, or random numbers."""
    if examples is None:
        return examples_for(ticket, count).numpy()
    return np.ascontiguousarray(examples.inputs[np.arange(count) % len(examples.inputs)], np.float32)


def _forms(ticket: Ticket, notes: list[str]) -> list[Artefact]:
    forms = []
    for name, make in ARTEFACTS.items():
        try:
            forms.append(make(ticket))
        except InputError as error:
            notes.append(f"{name}: {error}")
    return forms


def _size_row(form: Artefact, whole: Artefact, examples: Examples | None, inputs: np.ndarray) -> dict[str, Any]:
    inputs = inputs if examples is None else np.ascontiguousarray(examples.inputs, np.float32)
    outputs = form.run(inputs)
    row: dict[str, Any] = {
        "form": form.name,
        "bytes": form.bytes,
        "parameters": form.parameters,
        "multiply_adds": form.multiply_adds,
        "memory_bytes": form.memory,
    }
    if examples is not None:
        row[examples.metric_name] = examples.metric(outputs, np.asarray(examples.targets))
    row["largest_difference"] = float(np.abs(outputs - whole.run(inputs)).max()) if form is not whole else 0.0
    return row


def _race(
    contest: Contest, forms: Sequence[Artefact], rivals: dict[str, Rival], notes: list[str], rounds: int
) -> list[dict[str, Any]]:
    """Return the rows of one batch size and number of threads."""
    calls: dict[str, Call] = {form.name: form.call(contest) for form in forms if form.call is not None}
    about: dict[str, tuple[str, bool]] = dict.fromkeys(calls, ("exported", True))
    for name, rival in rivals.items():
        if missing := rival.missing():
            notes.append(f"{name}: not installed ({', '.join(missing)})")
            continue
        try:
            calls[name] = rival.make(contest)
        except NotFor as reason:
            notes.append(f"{name}: {reason}")
            continue
        about[name] = "dense" if rival.dense else "sparse", rival.exact
    timings = interleave(calls, rounds)
    best = [timings[name] for name, kind in about.items() if kind == ("dense", True)]
    return [_time_row(name, timings[name], about[name], contest, best) for name in calls]


def _time_row(
    name: str, timing: Timing, about: tuple[str, bool], contest: Contest, dense_ones: Sequence[Timing]
) -> dict[str, Any]:
    kind, exact = about
    return {
        "contender": name,
        "kind": kind,
        "float32": exact,
        "batch": len(contest.inputs),
        "threads": contest.threads,
        "p50_us": timing.p50 * 1e6,
        "p95_us": timing.p95 * 1e6,
        "least_us": timing.least * 1e6,
        "speedup": min((each.p50 for each in dense_ones), default=float("nan")) / timing.p50,
        "speedup_least": min((each.least for each in dense_ones), default=float("nan")) / timing.least,
    }
