"""Doing the work of a study from beginning to end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

import torch

from tombola.data import AnyDataset, balanced, rows_of
from tombola.data import load as load_data
from tombola.errors import InputError, StoppedByUser, WorkFailed
from tombola.extras import need
from tombola.formatting import counted
from tombola.registry import IMPORTING, resolve
from tombola.running.devices import choose_device
from tombola.running.energy import check_energy
from tombola.running.estimate import Levels, Pace, measure_pace
from tombola.running.kept_plan import keep_plan
from tombola.running.notes import lost_checkpoints, notes_on
from tombola.running.options import RunOptions, note_every
from tombola.running.progress import Display
from tombola.running.scheduler import Stop, Tally, run_plan
from tombola.running.sites import Site
from tombola.running.store import Store
from tombola.running.trackers import TRACKERS
from tombola.running.worker import STOPPING
from tombola.seeds import Seeds
from tombola.studies.loading import STUDY_FILE, load_study, preset_names
from tombola.studies.plan import Plan, make_plan
from tombola.studies.size import MAX_RUNS
from tombola.studies.start_checks import check_first_batch
from tombola.studies.study import Study
from tombola.studies.transfer import source_study
from tombola.tasks import Classification
from tombola.training.engines import check_engine, engine_named, slower_than_possible
from tombola.work import MaskSearch

STACK = 256  # runs; fewer where the memory does not allow it
SHORT = 0.03  # seconds for each measurement behind the forecast of the time that is left
FAILURES_SHOWN = 20  # in the summary of a run


def chosen_study(study: Study | str | Path, out: str | Path | None) -> tuple[Study, Path]:
    """Return the study to run and its results folder.

    Raises:
        InputError: it is not a study, or it is run by the import of a module that it names.
    """
    if module := IMPORTING.get():  # it would start workers that import it again, and so on
        raise InputError(
            f"tombola.run was called during the import of {module!r}, which the study names; put the call under "
            '`if __name__ == "__main__":`, or move the functions of the study into another module'
        )
    if not isinstance(study, Study | str | Path):
        raise InputError(f"{study!r} is not a study: give a tombola.Study, or the name or path of one")
    folder = Path(out) if out is not None else default_folder(study)
    return (study if isinstance(study, Study) else load_study(str(study))), folder


def check_tracker(name: str | None) -> None:
    """Refuse an unknown tracker, and one whose package is not installed.

    Raises:
        InputError: it is.
    """
    if name is None:
        return
    if not isinstance(name, str):
        raise InputError(f"tracker={name!r}: give a name, such as tensorboard, or package.module:function")
    resolve(name, TRACKERS, "tracker")
    if name in TRACKERS:  # each has the name of its package
        need(name, f"tracker {name}")


def prepare(
    study: Study,
    root: Path | None,
    workers: int | None,
    device: str,
    engine: str,
    checkpoint_every: float,
    energy: bool = False,
    max_runs: int = MAX_RUNS,
    choose: Callable[[str], str] = choose_device,
    tf32: bool = False,
) -> tuple[Plan, RunOptions]:
    """Check all that can be checked before anything is written, and fetch the data.

    Args:
        choose: returns the device that the text `device` means, where work is computed.
        tf32: the others are as in `tombola.run`, too.

    Raises:
        InputError: something can't be as it is asked for.
    """
    plan = make_plan(study, root, max_runs)
    chosen = choose(device)
    check_engine(engine)
    check_frozen(study, engine)
    if energy:
        check_energy()
    if tf32 and chosen == "cpu":
        raise InputError("tf32: only GPUs round products to TF32, but this study runs on the CPU; remove it")
    if not checkpoint_every > 0:  # nan too
        raise InputError(f"checkpoint-every={checkpoint_every} must be above 0 seconds")
    if workers is not None and workers < 0:
        raise InputError(f"workers={workers} must be 0 or more")
    if study.trainer is not None:
        return plan, RunOptions(device=chosen, checkpoint_every=checkpoint_every)
    dataset = load_data(study.data, root)
    check_examples(plan, dataset)
    check_first_batch(plan, dataset)
    if chosen == "cpu":
        levels = Levels(plan, engine)
        levels.kind(levels.mask(0))  # an engine that can't train the network says so before any work
    for arm in study.arms:
        if arm.transfer is not None:
            load_data(source_study(study, arm.transfer).data, root)
    stacks = engine == "stacked" or (engine == "auto" and chosen != "cpu")
    return plan, RunOptions(
        root=str(root.absolute()) if root else None,
        device=chosen,
        engine=engine,
        stack=STACK if stacks else 1,
        checkpoint_every=checkpoint_every,
        energy=energy,
        tf32=tf32,
    )


def check_frozen(study: Study, engine: str) -> None:
    """Refuse frozen weights for an engine that takes pruned weights for 0.0.

    Raises:
        InputError: an arm freezes weights, and that engine was asked for.
    """
    frozen = [arm for arm in study.arms if arm.pruned != "zero"]
    if frozen and engine not in ("auto", "stacked") and not engine_named(engine).freezes:
        raise InputError(
            f"arm {frozen[0].label!r}: pruned={frozen[0].pruned} holds weights at values other than 0.0, which engine "
            f"{engine!r} can't; take engine auto or dense"
        )


def check_examples(plan: Plan, dataset: AnyDataset) -> None:
    """Refuse more examples of each class, for methods that prune at initialisation, than some trial has.

    Raises:
        InputError: a class has fewer.
    """
    task = plan.study.task.make()
    if type(task).few is not Classification.few:
        return  # any number of examples will do
    searches = [item.spec for item in plan.work.values() if isinstance(item.spec, MaskSearch)]
    asked = {(search.trial, search.examples) for search in searches if search.examples}
    if not asked:
        return
    targets = torch.from_numpy(dataset.train_targets.copy())
    for trial, examples in sorted(asked):
        seeds = Seeds(plan.study.seed, trial)
        _, rows = rows_of(dataset, plan.study.data.validation, seeds)
        balanced(targets[rows], examples, seeds.generator("examples"))


def data_folder(data: str | Path | None) -> Path | None:
    """Return the folder of data sets that was asked for, None where none was.

    Raises:
        InputError: it is missing. It is not made: a mistyped one would be filled with downloads.
    """
    if data is None or Path(data).is_dir():
        return Path(data) if data is not None else None
    raise InputError(f"--data {data}: this folder does not exist; create it, and tombola downloads data sets into it")


def default_folder(study: Study | str | Path, changes: Sequence[str] = ()) -> Path:
    """Return where a study's results go unless told otherwise: where they are, or `results/<name of the study>`."""
    if isinstance(study, Study):
        return Path("results") / study.slug
    if str(study) not in preset_names() and (Path(study) / STUDY_FILE).is_file():
        return Path(study)
    return default_folder(load_study(str(study), assignments=changes))


def execute(plan: Plan, store: Store, options: RunOptions, workers: int, display: Display, site: Site) -> Tally:
    """Run all work of a plan that is not done.

    Args:
        plan: what to run.
        store: where the results go; it exists.
        options: how to run.
        workers: calls at a time, each in a process; 0 runs them in this process.
        display: tells a person how it goes.
        site: where the work is computed; it has been reached.

    Raises:
        ClusterError: the site's workers can't do the work.
        StoreError: results can't be written.
        StoppedByUser: Ctrl-C: what runs is saved. After a second one, work since the last checkpoints is lost.
    """
    for remark in (
        *notes_on(plan, store),
        "" if display.quiet else slower_than_possible(options.engine, options.device),
    ):
        if remark:
            display.note(remark)
    keep_plan(store.root, plan)
    adopted = sum(store.adopt(item) for item in plan.work.values() if not store.has(item))
    if adopted:
        display.note(f"copied {counted(adopted, 'result')} from neighbouring results folders")
    threads = site.threads(plan, workers)
    options = replace(options, threads=threads, lease=site.settings.lease, note_every=note_every(workers))
    if lost := lost_checkpoints(plan, store, options):
        display.note(lost)
    store.clean()
    if site.here and options.device == "cpu" and plan.study.trainer is None:
        display.measure = lambda: _pace(plan, options, display.note)
    try:
        with store.running_file() as path:
            stop = Stop(path)
            options = replace(options, stop_file=str(path.absolute()))

            def make() -> Executor:
                return site.executor(plan, workers, threads, path.absolute(), options.root)

            with _stopped_by_signals(stop, display.note, in_process=not workers), display:
                tally = run_plan(plan, store, options, max(1, workers), make, display, stop)
    except KeyboardInterrupt:
        raise StoppedByUser(
            "stopped at once; the work since the last checkpoints is lost. The same command resumes from them"
        ) from None
    if stop.asked:
        raise StoppedByUser(
            f"stopped; {len(tally.done) + len(tally.diverged)} of {len(plan.work)} work items are finished, and "
            "running work is saved. The same command resumes",
            stop.number,
        )
    if tally.skipped:
        display.note(
            f"{len(tally.skipped)} of {len(plan.work)} work items were skipped: they need work that diverged or failed"
        )
    return tally


def _pace(plan: Plan, options: RunOptions, tell: Callable[[str], None]) -> Pace | None:
    """Measure how long steps take at each density here, for the forecast; None where made-up data can't tell."""

    def compiling() -> None:
        tell("compiling the sparse engines, once on this machine: about 20 seconds")

    try:
        with torch.random.fork_rng(devices=[]):
            return measure_pace(plan, options.engine, options.device, options.threads, each=SHORT, compiling=compiling)
    except Exception:  # whatever a user's network does with made-up data, the run itself will tell
        return None


def require_success(plan: Plan, tally: Tally) -> None:
    """Name the work that failed, each failure with its reason in one line.

    Raises:
        WorkFailed: some has.
    """
    if not tally.failed:
        return
    lines = [f"  {plan.work[item].label}: {_last_line(reason)}" for item, reason in tally.failed.items()]
    shown, more = lines[:FAILURES_SHOWN], len(lines) - FAILURES_SHOWN
    rest = [f"  and {more} more; see their messages above"] if more > 0 else []
    head = (
        f"{len(lines)} of {len(plan.work)} work items failed; {len(tally.done) + len(tally.diverged)} are finished. "
        "The same command tries these again:"
    )
    raise WorkFailed("\n".join([head, *shown, *rest]))


def _last_line(reason: str) -> str:
    """Return the line of a reason that says most: the last one of a traceback."""
    return reason.strip().splitlines()[-1].strip()


@contextlib.contextmanager
def _stopped_by_signals(stop: Stop, tell: Callable[[str], None], in_process: bool) -> Iterator[None]:
    """Turn Ctrl-C, SIGTERM and a lost terminal into a wish to stop, and a later Ctrl-C into one to stop at once.

    What trains in this process can only be stopped at once by an exception; for workers the scheduler sees to it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}

    def hear(number: int, _frame: object) -> None:
        first = not stop.asked
        if stop.hear(number) and in_process:
            raise KeyboardInterrupt
        if first and number in (signal.SIGINT, signal.SIGTERM):  # at once, whatever this process is doing
            tell("stopping: tombola saves running work (a second Ctrl-C stops at once)")

    for number in STOPPING:
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:  # of nohup, say
            before[number] = signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
