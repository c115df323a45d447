"""The training loop: advance, evaluate, remember. How a step is computed is the engine's business."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tombola.tasks import CLASSIFICATION, Metric
from tombola.training.engine import Engine, Weights

ROUNDING = 1e-9  # of sums and differences of metrics: 0.97 - 0.96 is more than 0.01, and 1 / 10 + 0.2 than 0.3
SAVING = 20.0  # times what a checkpoint of a stack takes, until the next: files of many runs take seconds
SLICE = 0.25  # seconds of training between two looks at the clock and at a wish to stop


class Interrupted(Exception):
    """A stop was requested; what was reached has been saved."""


def history_columns(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Return the columns of a history: "val_loss" and "val_<metric>" for each metric, and the same of test."""
    return ("iteration", *_columns_of(metrics, "val", "test"))


def train_columns(metrics: Sequence[Metric]) -> tuple[str, ...]:
    """Return the columns that a history has besides where training examples are measured at evaluations too."""
    return _columns_of(metrics, "train")


def _columns_of(metrics: Sequence[Metric], *parts: str) -> tuple[str, ...]:
    names = dict.fromkeys(("loss", *(metric.name for metric in metrics)))  # the loss may be the metric itself
    return tuple(f"{part}_{name}" for part in parts for name in names)


COLUMNS = history_columns(CLASSIFICATION.metrics)


def new_history(metrics: Sequence[Metric] = CLASSIFICATION.metrics, train: bool = False) -> dict[str, list[float]]:
    """Return a history without any evaluation; `train` adds the columns of the training examples."""
    return {column: [] for column in (*history_columns(metrics), *(train_columns(metrics) if train else ()))}


@dataclass
class Record:
    """The known facts about one replica so far: with the engine's state, all that a checkpoint has to hold.

    Args:
        history: a list for each of the columns that `history_columns` gives for the task's metrics, in that order; and
            after those, for each that `train_columns` gives, if the training examples are measured at evaluations.
        snapshots: "start", "iteration-<k>" for the iterations asked for, "best" (lowest validation loss; the first
            of equals; without validation examples, the last evaluation) and "final".
        seconds: spent on this replica, evaluations included, over all interruptions.
        diverged_at: the iteration at which a loss was found not to be finite, if one was.
        train: mean loss and all metrics on the training examples at the end.
        energy_kwh: spent on this replica over all interruptions; None where a part of it was not measured.
        co2_kg: what that emitted; None where a part of it is not known.
    """

    history: dict[str, list[float]] = field(default_factory=new_history)
    snapshots: dict[str, Weights] = field(default_factory=dict)
    seconds: float = 0.0
    diverged_at: int | None = None
    train: tuple[float, ...] | None = None
    energy_kwh: float | None = None
    co2_kg: float | None = None

    def would_be_best(self, loss: float) -> bool:
        """Return whether an evaluation of that validation loss would be the best so far."""
        losses = self.history["val_loss"]
        return not losses or lowest([*losses, loss]) == len(losses)

    def has_test(self, row: int) -> bool:
        """Return whether the test examples were measured at an evaluation."""
        return not all(math.isnan(self.history[column][row]) for column in measured_on("test", self.history))

    def keep_asked(self, part: str, every: int | None, evaluate_every: int) -> None:
        """Clear the values of a part that nobody asked for: those at other iterations, but for the last row.

        Test values of the best row stay, too: tables show them. Which evaluations were the best so far depends on
        chance. As points of a curve they would mislead.

        Args:
            part: "test" or "train".
            every, evaluate_every: as `test_every` or `train_every`, and `evaluate_every`, of `train`.
        """
        rows = {len(self.history["iteration"]) - 1} | ({self.best_row} if part == "test" else set())
        for row, iteration in enumerate(self.history["iteration"]):
            if row not in rows and not _asks_for(int(iteration), every, evaluate_every):
                self.set_row(part, row, ())

    def set_row(self, part: str, row: int, values: Sequence[float]) -> None:
        """Set what was measured on a part of the data at an evaluation; no values clear it."""
        columns = measured_on(part, self.history)
        for column, value in zip(columns, values or (math.nan,) * len(columns), strict=True):
            self.history[column][row] = value

    @property
    def best_row(self) -> int | None:
        """Index in `history` of the lowest validation loss: the early-stopping iteration of the paper (its Sec. 2).

        None where none is known.
        """
        losses = self.history["val_loss"]
        return None if all(map(math.isnan, losses)) else lowest(losses)

    def is_over(self, patience: int | None) -> bool:
        """Return whether there is no use in continuing: a loss was not finite, or none was lower for long."""
        if self.diverged_at is not None:
            return True
        best = self.best_row
        return patience is not None and best is not None and len(self.history["val_loss"]) - 1 - best >= patience


def early_stop_row(facts: Mapping[str, Any]) -> int:
    """Return the row of the history at which a run stops early, from its stored facts.

    That is "early_stop" where the run says so: one whose mask moves has more weights than its level before the last
    move, and a trainer of the user's own reports what it likes. Else it is the lowest validation loss, and the last row
    without validation examples.
    """
    row, losses = facts.get("early_stop"), facts["history"]["val_loss"]
    if row is None:
        return len(losses) - 1 if all(map(math.isnan, losses)) else lowest(losses)
    return int(row)


def early_stop_metric(facts: Mapping[str, Any], metric: str) -> float:
    """Return a metric on the validation examples at `early_stop_row`."""
    return float(facts["history"][f"val_{metric}"][early_stop_row(facts)])


def measured_on(part: str, history: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the columns of a history that are of a part of the data: "val", "test" or "train"."""
    return [column for column in history if column.startswith(f"{part}_")]


def lowest_from(record: Record, iteration: int) -> int:
    """Return the row of the lowest validation loss among evaluations after that iteration; the last one without any."""
    losses = record.history["val_loss"]
    rows = [row for row, seen in enumerate(record.history["iteration"]) if seen > iteration]
    known = [row for row in rows if not math.isnan(losses[row])]
    return min(known, key=losses.__getitem__) if known else len(losses) - 1


def lowest(losses: Sequence[float]) -> int:
    """Return the index of the lowest loss, the first of equals."""
    return min(range(len(losses)), key=losses.__getitem__)


def train(
    engine: Engine,
    records: Sequence[Record],
    *,
    budget: int,
    evaluate_every: int,
    test_every: Sequence[int | None] | None = None,
    train_every: Sequence[int | None] | None = None,
    patience: int | None = None,
    validates: bool = True,
    keep: Iterable[int] = (),
    observe: Callable[[int], None] = lambda replica: None,
    save: Callable[[], None] = lambda: None,
    save_every: float = math.inf,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Train every replica of `engine` until `budget` iterations lie behind it, writing down what happens in `records`.

    Args:
        records: one a replica; as they were when `engine`'s state was saved, or new.
        budget: iterations in all, those before `engine.iteration` included.
        evaluate_every: iterations between evaluations on validation; also before the first step and after the last.
        test_every: of each replica, iterations between measurements on the test examples, each at the next evaluation.
            None measures them at the lowest validation loss and at the last evaluation alone; others have NaN. Without
            this argument, each evaluation measures them.
        train_every: the same of the training examples, for records whose history has columns for them. None measures
            them at the last evaluation alone. Without this argument, that holds for all.
        patience: training ends early after that many evaluations in a row without a lower validation loss, once
            that holds for every replica.
        validates: whether validation examples exist. Without them, their values are NaN.
        keep: iterations at which to take a snapshot.
        observe: called with a replica's number after each of its evaluations but one that finds it diverged; it must
            leave engine and records as they are.
        save: writes a checkpoint; called every `save_every` seconds, and when `check` raises. Of several replicas it
            takes at most a twentieth of the time.
        check: called several times a second; raises `Interrupted` to stop. It sees `engine` and `records` in step.
    """
    keep = set(keep)
    every = {"test": test_every or [1] * len(records), "train": train_every or [None] * len(records)}
    losses = [0.0] * len(records)  # of the latest batch
    pace = 0.0  # seconds an iteration, of the latest slice
    saved = clock = time.perf_counter()

    def tick() -> None:
        nonlocal clock
        now = time.perf_counter()
        for record in records:
            record.seconds += (now - clock) / len(records)
        clock = now

    try:
        while True:
            _remember(engine, records, losses, keep, budget, evaluate_every, every, validates, observe, check)
            tick()
            if engine.iteration >= budget or all(record.is_over(patience) for record in records):
                break
            check()
            if clock - saved > save_every:
                save()
                saved = time.perf_counter()
                if len(records) > 1:
                    save_every = max(save_every, SAVING * (saved - clock))
            stops = [budget, (engine.iteration // evaluate_every + 1) * evaluate_every]
            stops += [iteration for iteration in keep if iteration > engine.iteration]
            iterations = min(stops) - engine.iteration
            iterations = min(iterations, max(1, int(SLICE / pace)) if pace else 10)
            begun = time.perf_counter()
            losses = engine.advance(iterations)
            pace = (time.perf_counter() - begun) / iterations
        _test_at_end(engine, records, check)
        scores = engine.evaluate("train", check)
        tick()
    except Interrupted:
        tick()
        save()
        raise
    for replica, record in enumerate(records):
        record.train = scores[replica].values
        if record.history["iteration"][-1] == engine.iteration and measured_on("train", record.history):
            record.set_row("train", -1, record.train)
        for part, asked in every.items():
            record.keep_asked(part, asked[replica], evaluate_every)
        record.snapshots["final"] = engine.weights(replica)
        if not validates:
            record.snapshots["best"] = engine.weights(replica)


def _remember(
    engine: Engine,
    records: Sequence[Record],
    losses: Sequence[float],
    keep: set[int],
    budget: int,
    evaluate_every: int,
    every: Mapping[str, Sequence[int | None]],
    validates: bool,
    observe: Callable[[int], None],
    check: Callable[[], None],
) -> None:
    """Take the snapshots and evaluations that are due at this iteration and not yet taken."""
    now = engine.iteration
    for replica, record in enumerate(records):
        if not record.snapshots:
            record.snapshots["start"] = engine.weights(replica)
        if now in keep:
            record.snapshots[f"iteration-{now}"] = engine.weights(replica)
    due = [
        replica
        for replica, record in enumerate(records)
        if record.diverged_at is None and _is_due(record, now, budget, evaluate_every)
    ]
    if not due:
        return
    asking = {
        part: {replica for replica in due if _asks_for(now, asked[replica], evaluate_every)}
        for part, asked in every.items()
    }
    found = {}
    if validates:
        asking["validation"] = set(due)
        found["validation"] = validation = engine.evaluate("validation", check)
        asking["test"] |= {replica for replica in due if records[replica].would_be_best(validation[replica].loss)}
    found |= {part: engine.evaluate(part, check) for part, asked in asking.items() if asked and part not in found}
    for replica in due:
        record = records[replica]
        for values in record.history.values():
            values.append(math.nan)
        record.history["iteration"][-1] = now
        for part, scores in found.items():
            if replica in asking[part]:
                record.set_row("val" if part == "validation" else part, -1, scores[replica].values)
        # Looked at here alone, so that the iteration does not depend on how training was cut into slices.
        if not math.isfinite(losses[replica]) or (validates and not math.isfinite(record.history["val_loss"][-1])):
            record.diverged_at = now
            continue
        if record.best_row == len(record.history["iteration"]) - 1:
            record.snapshots["best"] = engine.weights(replica)
        observe(replica)


def _asks_for(now: int, every: int | None, evaluate_every: int) -> bool:
    """Return whether an evaluation is the first one at or after a multiple of `every`; without one, none is."""
    return every is not None and now % every < evaluate_every


def _test_at_end(engine: Engine, records: Sequence[Record], check: Callable[[], None]) -> None:
    """Measure the test examples at the last evaluation where that was not due before; patience may end training."""
    missing = [
        (replica, record)
        for replica, record in enumerate(records)
        if record.history["iteration"][-1] == engine.iteration and not record.has_test(-1)
    ]
    if missing:
        test = engine.evaluate("test", check)
        for replica, record in missing:
            record.set_row("test", -1, test[replica].values)


def _is_due(record: Record, now: int, budget: int, evaluate_every: int) -> bool:
    seen = record.history["iteration"]
    return (not seen or now % evaluate_every == 0 or now >= budget) and not (seen and seen[-1] == now)
