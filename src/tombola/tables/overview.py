"""Terminal tables about work: the size of a plan, and the progress of studies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Group
from rich.table import Table

from tombola.errors import InputError
from tombola.formatting import counted
from tombola.networks import Coverage
from tombola.running.devices import default_workers, threads_each
from tombola.running.estimate import Levels, measure_pace
from tombola.running.forecast import elapsed
from tombola.running.notes import notes_on
from tombola.running.progress import duration, position, read_progress
from tombola.running.results import Results
from tombola.running.store import Store
from tombola.studies.plan import Plan
from tombola.terminal import markup
from tombola.training.engines import (
    reasons_against,
    slower_than_possible,
    why_dense_alone,
    why_not_stacked,
)
from tombola.work import is_counted


def plan_table(plan: Plan, store: Store, device: str, engine: str, workers: int | None, verbose: bool = False) -> Group:
    """Return the size of a plan: work by arm, weights, floating-point operations, and time on this machine.

    Args:
        plan: of the study.
        store: of its results folder.
        device, engine, workers: as in `tombola.run`.
        verbose: add the layers that no sparse engine trains, with the reason.
    """
    workers = default_workers(device, len(plan.work)) if workers is None else max(1, workers)
    # A trainer's own steps can't be measured.
    pace = None if plan.study.trainer else measure_pace(plan, engine, device, threads_each(plan, workers))
    left = [item for item in plan.work.values() if not (store.has(item) or store.elsewhere(item))]
    todo = {item.id: pace.seconds(item) if pace else 0.0 for item in left}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("work", "missing", "finished", "operations", "time on one worker"):
        table.add_column(header, justify="left" if header == "work" else "right")
    study = plan.study
    groups: dict[str, list[str]] = {}
    for item in plan.work.values():
        groups.setdefault(item.group, []).append(item.id)
    totals = [0, 0, 0.0, 0.0]
    for name, items in groups.items():
        here = [item for item in items if item in todo]
        row = (
            len(here),
            len(items) - len(here),
            sum(plan.operations(plan.work[item]) for item in here),
            sum(todo[item] for item in here),
        )
        totals = [total + value for total, value in zip(totals, row, strict=True)]
        table.add_row(
            markup(name),
            f"{row[0]:,}",
            f"{row[1]:,}",
            f"{row[2]:.2e}" if pace else "",
            duration(row[3]) if pace else "",
        )
    for arm in dict.fromkeys(row.arm for row in plan.rows):
        if study.pruning.rounds and arm not in groups:
            table.add_row(markup(f"{arm} (shares all its runs with other arms)"), "0", "0", "", "")
    table.add_row(
        "total",
        f"{totals[0]:,.0f}",
        f"{totals[1]:,.0f}",
        f"{totals[2]:.2e}" if pace else "",
        duration(totals[3]) if pace else "",
    )
    counts, last = plan.remaining, plan.density(len(plan.remaining) - 1)
    lines = [
        f"{study.name}: {study.network.name} {_trained(plan)}, "
        f"{study.trials_text if study.first_trial else counted(study.trials, 'trial')}, "
        f"levels 0 to {study.pruning.rounds}" + ("" if study.trainer else f", {plan.budget():,} iterations per run"),
        f"{counts[-1]:,} of {counts[0]:,} prunable weights remain at the last level: {last:.2%} of all matrix weights",
        "",
        *coverage_lines(plan.coverage),
    ]
    at_a_time = f"{counted(workers, 'worker')}"
    end = (
        "time unknown: tombola can't measure the trainer's steps"
        if not pace
        else (
            f"about {duration(elapsed(plan, todo, workers))} on this machine with {at_a_time}, by a short measurement"
            + (f" with batches of {pace.batch} instead of {study.training.batch_size}" if pace.scaled else "")
            + (
                " of the dense network alone: sparse levels may be faster"
                if len(pace.densities) == 1 < len(counts)
                else ""
            )
            if totals[0]
            else "finished"
        )
    )
    remarks = (
        *notes_on(plan, store),
        slower_than_possible(engine, device),
    )
    lines += [line for line in remarks if line]
    if verbose and not plan.study.trainer:
        lines += engine_lines(plan)
    return Group(*(markup(line) for line in lines), "", table, "", markup(end))


def engine_lines(plan: Plan) -> list[str]:
    """Return which engine `auto` takes for the sparsest level on the CPU, what stays dense, and whether a GPU stacks.

    Each line names a layer and the reason.
    """
    study, levels = plan.study, Levels(plan, "auto")
    mask, streams = levels.mask(len(plan.remaining) - 1), study.data.stream
    lines = ["", f"engine at the last level on the CPU: {levels.kind(mask).name}"]
    if alone := why_dense_alone(levels.task, levels.example, study.training):
        against = {"no sparse engine": alone}
    else:
        against = reasons_against(levels.build, mask, study.training, streams, levels.made_up(2).inputs)
    lines += [f"  {name}: {reason}" for name, reason in against.items()]
    alone = why_not_stacked(levels.build, mask, study.training, levels.example, levels.task, streams)
    return [*lines, f"on a GPU each run is trained alone: {alone}" if alone else "on a GPU runs are trained in stacks"]


def _trained(plan: Plan) -> str:
    """Return the data or the trainer of a study's runs."""
    trainer = plan.study.trainer
    if trainer is None:
        return f"on {plan.study.data.source}"
    return "trained by a script's own loop" if trainer.is_loop else f"trained by {trainer.name}"


def coverage_lines(coverage: Coverage, most: int = 40) -> list[str]:
    """Return the prunable parameters, and the others with the reason. Long lists are shortened."""
    lines = coverage.text().splitlines()
    if len(lines) - 2 <= most:
        return lines
    skipped = [line for line in lines[1 + most : -1] if "not prunable" in line]
    hidden = len(lines) - 2 - most - len(skipped)
    return [*lines[: 1 + most], f"... and {hidden} more prunable parameters", *skipped, lines[-1]]


def _holder(store: Store, work_id: str) -> str:
    """Return on which machine an item is executed, and since when by that machine's clock.

    One look does not tell whether a process of another machine, or of an earlier start of this one, is alive.
    """
    note = store.leases.note(work_id)
    if note is None or not store.is_claimed(work_id):
        return ", interrupted"
    doubt = "" if store.leases.is_alive(work_id) else ", if it still runs"
    return f", on {note.node} since {datetime.fromtimestamp(note.since):%Y-%m-%d %H:%M}{doubt}"


def status_table(folders: Sequence[Path]) -> Table:
    """Return the progress of each study, with running and interrupted work.

    It counts runs, as the progress of `tombola run` does, and no mask searches.
    """
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("results folder", "study", "finished", "diverged", "total", "running"):
        table.add_column(header, justify="right" if header in ("finished", "diverged", "total") else "left")
    for folder in folders:
        store = Store(folder)
        try:
            plan = Results.open(folder).plan
        except InputError as error:
            table.add_row(markup(str(folder)), markup(f"can't be read: {error}"))
            continue
        tally: Counter[str] = Counter()
        under_way = []
        for item in plan.work.values():
            if store.has(item):
                tally[store.outcome(item.id)] += is_counted(item)
            elif state := read_progress(store, item.id):
                under_way.append(f"{state['label']} at {position(state)}{_holder(store, item.id)}")
            elif is_counted(item) and store.is_claimed(item.id):  # before a trainer's first report
                under_way.append(f"{item.label}{_holder(store, item.id)}")
        table.add_row(
            markup(str(folder)),
            markup(plan.study.name),
            str(tally["done"]),
            str(tally["diverged"]),
            str(sum(map(is_counted, plan.work.values()))),
            markup("\n".join(under_way) or "-"),
        )
    return table
