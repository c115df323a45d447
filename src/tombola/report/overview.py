"""Terminal tables about work rather than findings: what a plan comes to, and how far studies are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.markup import escape
from rich.table import Table

from tombola.errors import InputError
from tombola.report.words import counted
from tombola.running.estimate import measure_pace
from tombola.running.kept_plan import what_changed
from tombola.running.progress import duration, elapsed, read_progress
from tombola.running.results import Results
from tombola.running.run import default_workers, skipped_rounds, surplus_outputs, threads_each
from tombola.running.store import Store
from tombola.studies.connectivity import Line
from tombola.studies.plan import Plan
from tombola.studies.trial import COPIES_APART
from tombola.training.engines import slower_than_possible


def plan_table(plan: Plan, store: Store, device: str, engine: str, workers: int | None) -> Group:
    """Return what a plan comes to: jobs by arm, weights, floating-point operations, and the time it takes here."""
    workers = default_workers(device, len(plan.work)) if workers is None else max(1, workers)
    pace = measure_pace(plan, engine, device, threads_each(plan, workers))
    todo = {
        job.id: pace.seconds(plan, job) for job in plan.work.values() if not (store.has(job) or store.elsewhere(job))
    }
    shown_by: dict[str, str] = {row.job: row.arm for row in reversed(plan.rows) if row.level}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("arm", "jobs to run", "already there", "operations", "time of one worker"):
        table.add_column(header, justify="left" if header == "arm" else "right")
    study = plan.study
    groups: dict[str, list[str]] = {}
    for job in plan.work.values():
        if isinstance(job, Line):
            name = "lines, for connectivity"
        elif job.noise >= COPIES_APART or (job.mask is None and job.origin.job):  # the second: copy 0 of the dense
            name = "copies, for connectivity"
        elif job.mask is None and job.popup is None:
            name = "dense (level 0 of all arms)"
        else:
            name = shown_by.get(job.id, f"{'edge-popup' if job.popup else 'ticket'}, for other arms' masks")
        groups.setdefault(name, []).append(job.id)
    totals = [0, 0, 0.0, 0.0]
    for name, jobs in groups.items():
        left = [job for job in jobs if job in todo]
        row = (
            len(left),
            len(jobs) - len(left),
            sum(plan.operations(plan.work[job]) for job in left),
            sum(todo[job] for job in left),
        )
        totals = [total + value for total, value in zip(totals, row, strict=True)]
        table.add_row(escape(name), f"{row[0]:,}", f"{row[1]:,}", f"{row[2]:.2e}", duration(row[3]))
    for arm in dict.fromkeys(row.arm for row in plan.rows):
        if study.pruning.rounds and arm not in groups:
            table.add_row(escape(f"{arm} (all its jobs are other arms')"), "0", "0", "", "")
    table.add_row("all", f"{totals[0]:,.0f}", f"{totals[1]:,.0f}", f"{totals[2]:.2e}", duration(totals[3]))
    counts = plan.remaining
    layers = ", ".join(f"{layer.name.removesuffix('.weight')} {layer.size:,}" for layer in plan.anatomy.layers)
    lines = [
        f"{study.name}: {study.network.name} on {study.data.source}, {counted(study.trials, 'trial')}, "
        f"levels 0 to {study.pruning.rounds}, {plan.budget():,} iterations a job",
        f"weights: {counts[0]:,} prunable ({layers}); {counts[-1]:,} ({counts[-1] / counts[0]:.2%}) at the last level",
    ]
    at_a_time = f"{counted(workers, 'job')} at a time"
    end = (
        f"about {duration(elapsed(plan, todo, workers))} on this machine with {at_a_time}, by a short measurement"
        + (f" with batches of {pace.batch} instead of {study.training.batch_size}" if pace.scaled else "")
        if totals[0]
        else "done"
    )
    remarks = (
        what_changed(store, plan),
        surplus_outputs(plan),
        skipped_rounds(plan),
        slower_than_possible(engine, device),
    )
    lines += [line for line in remarks if line]
    return Group(*(escape(line) for line in lines), "", table, "", escape(end))


def status_table(folders: Sequence[Path]) -> Table:
    """Return how far each study is, and which jobs run now or were interrupted."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for header in ("results folder", "study", "done", "diverged", "jobs", "under way"):
        table.add_column(header, justify="right" if header in ("done", "diverged", "jobs") else "left")
    for folder in folders:
        store = Store(folder)
        try:
            plan = Results.open(folder).plan
        except InputError as error:
            table.add_row(escape(str(folder)), escape(f"can't be read: {error}"))
            continue
        tally: Counter[str] = Counter()
        under_way = []
        for job in plan.work.values():
            if store.has(job):
                tally[store.outcome(job.id)] += 1
            elif state := read_progress(store, job.id):
                saved = "" if store.is_claimed(job.id) else ", interrupted"
                under_way.append(f"{state['label']} at {state['iteration']:,}/{state['budget']:,}{saved}")
        table.add_row(
            escape(str(folder)),
            escape(plan.study.name),
            str(tally["done"]),
            str(tally["diverged"]),
            str(len(plan.work)),
            escape("\n".join(under_way) or "-"),
        )
    return table
