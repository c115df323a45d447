"""Running a study from beginning to end: its work, its tables, its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tombola.analysis.connectivity import barrier_statistics
from tombola.figures import Setting, draw
from tombola.formatting import as_csv
from tombola.running.files import write_whole, writing
from tombola.running.results import Results
from tombola.running.rounds import rounds as loop_rounds
from tombola.running.run import run as run_work
from tombola.studies.plan import MAX_RUNS
from tombola.studies.study import Study

if TYPE_CHECKING:
    from torch import nn

    from tombola.running.rounds import LoopRun


def run(
    study: Study | str | Path,
    out: str | Path | None = None,
    *,
    data: str | Path | None = None,
    workers: int | None = None,
    device: str = "auto",
    engine: str = "auto",
    checkpoint_every: float = 30.0,
    energy: bool = False,
    figures: bool = True,
    quiet: bool = False,
    verbose: bool = False,
    tracker: str | None = None,
    max_runs: int = MAX_RUNS,
) -> Results:
    """Run a study and return its results; finished work is not repeated.

    >>> results = tombola.run(tombola.Study.load("demo", trials=1))         # doctest: +SKIP

    Args:
        study: a `Study`, or what `Study.load` takes.
        out: the results folder; `results/<name of the study>` where it is not given.
        data: folder of data sets, which must exist; else the environment variable TOMBOLA_DATA, else the cache.
        workers: jobs at a time, each in a process of its own; 0 runs them in this process. By default one a core. Each
            job is computed by one thread, or, where its training steps are large (see `threads_each`), by its share of
            the cores.
        device: "cpu", "cuda", or "auto", which takes a GPU where there is one.
        engine: forces one; "auto" chooses.
        checkpoint_every: seconds between checkpoints of a running job.
        energy: measure the energy that each job takes; needs the extra `tombola[energy]`.
        figures: also draw them, in `<out>/figures`.
        quiet: write nothing but what goes wrong.
        verbose: write more.
        tracker: logs each finished run: "tensorboard", "mlflow", "wandb", or `package.module:function`.
        max_runs: a study that comes to more runs than this is refused.

    Raises:
        InputError: the study, its data or the folder can't be used; nothing has been written then.
        StoreError: results can't be written.
        StoppedByUser: Ctrl-C: what runs is saved. A second Ctrl-C ends the workers at once; what they have done since
            their last checkpoints is then lost.
        WorkFailed: a job failed by a bug, in tombola or in the user's own network.
    """
    return run_work(
        study,
        out,
        data=data,
        workers=workers,
        device=device,
        engine=engine,
        checkpoint_every=checkpoint_every,
        energy=energy,
        quiet=quiet,
        verbose=verbose,
        tracker=tracker,
        max_runs=max_runs,
        finish=lambda results: save(results, figures),
    )


def rounds(make_model: Callable[..., nn.Module], *, figures: bool = True, **options: Any) -> Iterator[LoopRun]:
    """Return the runs of iterative pruning, one after the other, for any training loop.

    Args:
        make_model: returns a fresh model.
        figures: also draw them after the last run.
        options: of `tombola.running.rounds.rounds`, where they are described.
    """
    return loop_rounds(make_model, finish=lambda results: save(results, figures), **options)


def save(results: Results, figures: bool = True) -> list[Path]:
    """Write the tables and figures of a study into its results folder; return the paths of the figures.

    The tables are those of `Results.save`. A study that asks for connectivity also gets `barriers.csv`, a row per kind,
    iteration and level: see `tombola.analysis.barrier_statistics`.

    Raises:
        StoreError: they can't be written.
    """
    results.save()
    points, folder = results.connectivity(), results.store.root
    if results.study.connectivity is not None:
        barriers = barrier_statistics(points, results.study.connectivity.threshold)
        write_whole(folder / "barriers.csv", as_csv(barriers))
    if not figures:
        return []
    settings = {results.study.name: Setting.of_results(results)}
    with writing(folder / "figures"):
        return draw(results.frame(), results.curves(), folder / "figures", lines=points, settings=settings)
