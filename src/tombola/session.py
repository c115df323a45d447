"""Runs a study from beginning to end: its work, its tables, its figures."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tombola import terminal
from tombola.analysis.connectivity import barrier_statistics
from tombola.errors import InputError
from tombola.figures import Setting, draw
from tombola.figures.ending import ending_of
from tombola.formatting import as_csv
from tombola.notebook import Results
from tombola.running.files import write_whole, writing
from tombola.running.progress import Display
from tombola.running.results import Results as RunningResults
from tombola.running.rounds import ARMS, Loop, pruning_section, trainer_section
from tombola.running.run import (
    check_tracker,
    chosen_study,
    data_folder,
    execute,
    prepare,
    require_success,
)
from tombola.running.screens import screen_for
from tombola.running.sites import site_for
from tombola.running.store import Store
from tombola.running.trackers import Tracking
from tombola.studies.cluster import ClusterSettings, read_cluster
from tombola.studies.plan import MAX_RUNS
from tombola.studies.study import Study
from tombola.tasks.metric import MARGIN

if TYPE_CHECKING:
    from rich.console import Console
    from torch import nn

    from tombola.running.loop_run import LoopRun


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
    tf32: bool = False,
    figures: bool = True,
    quiet: bool = False,
    verbose: bool = False,
    tracker: str | None = None,
    max_runs: int = MAX_RUNS,
    on: str | Executor = "local",
    cluster: ClusterSettings | str | Path | None = None,
    store: str | None = None,
) -> Results:
    """Run or resume a study, and return its results. It does not repeat finished work.

    >>> results = tombola.run(tombola.Study.load("demo", trials=1))         # doctest: +SKIP

    Args:
        study: a `Study`; or a preset, a study file or a results folder, as for `Study.load`.
        out: the results folder; by default `results/<name of the study>`.
        data: an existing folder of data sets; by default the environment variable TOMBOLA_DATA, else the cache.
        workers: the number of parallel runs, each in its own process; 0 uses this process. By default one per core.
            Each run has one thread; a run with large training steps has its share of the cores (see `threads_each`).
        device: "cpu", "cuda", or "auto", which uses a GPU if one exists; "cuda:0,cuda:1" or "all" uses several GPUs,
            each with a worker of its own.
        engine: the training engine; "auto" chooses.
        checkpoint_every: seconds between checkpoints.
        energy: measure the energy of each run; needs the extra `tombola[energy]`.
        tf32: let a GPU round the factors of float32 products to TF32, about three digits, which is several times as
            fast. Results say so. It is not part of a run's identity, as other rounding is not.
        figures: draw figures into `<out>/figures`.
        quiet: write only errors.
        verbose: write more details.
        tracker: logs each finished run: "tensorboard", "mlflow", "wandb", or `package.module:function`.
        max_runs: refuse a study with more runs than this.
        on: where runs are computed: "local" on this machine; "dask" on a Dask cluster of this machine's processes;
            "dask=tcp://host:port" on the workers of a Dask scheduler; "slurm" in jobs of SLURM; or any
            `concurrent.futures.Executor`, which tombola does not shut down. All but "local" need the extra
            `tombola[cluster]`, and workers that see the results folder.
        cluster: settings of these workers, or a file of them, instead of those of the study: see
            `tombola.studies.cluster.ClusterSettings`.
        store: for workers that do not see the results folder: "via-engine" sends results through Dask, and an address
            such as "s3://bucket/prefix" sends them there first.

    Raises:
        InputError: tombola can't use the study, its data or the folder; it has written nothing.
        ClusterError: the workers of a cluster can't do the study's work, or can't be reached.
        StoreError: tombola can't write results.
        StoppedByUser: Ctrl-C, after saving running work. A second Ctrl-C ends the workers at once and loses the work
            since their last checkpoints.
        WorkFailed: a run failed by a bug, in tombola or in the user's own network.
    """
    loaded, folder = chosen_study(study, out)
    check_tracker(tracker)
    settings = read_cluster(Path(cluster), loaded.cluster) if isinstance(cluster, str | Path) else cluster
    site = site_for(on, settings or loaded.cluster, store)
    with site.reached(workers):
        plan, options = prepare(
            loaded, data_folder(data), workers, device, engine, checkpoint_every, energy, max_runs, site.device, tf32
        )
        kept = Store(folder, site.settings.lease)
        kept.create()
        workers = site.workers(workers, options.device, len(plan.work))
        display = Display(plan, kept, workers or 1, terminal.console(stderr=True), quiet, verbose)
        display.tracking = Tracking(tracker, plan, kept, display.note) if tracker else None
        tally = execute(plan, kept, options, workers, display, site)
    results = Results(plan, kept)
    if figures and not quiet:
        display.note("writing tables and figures")
    save(results, figures)
    require_success(plan, tally)
    return results


def rounds(
    make_model: Callable[..., nn.Module],
    *,
    out: str | Path,
    rounds: int | None = None,
    rate: float = 0.2,
    arms: Sequence[str | Mapping[str, Any]] = ARMS,
    trials: int = 3,
    first_trial: int = 0,
    name: str = "loop",
    settings: Mapping[str, Any] | None = None,
    metric: str | Mapping[str, Any] = "accuracy",
    inputs: Any = None,
    rewind: int | str | Sequence[int | str] = 0,
    pruning: Mapping[str, Any] | None = None,
    connectivity: Mapping[str, Any] | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, Any]] | None = None,
    noise: str = "trial",
    seed: int = 0,
    margin: float = MARGIN,
    tracker: str | None = None,
    quiet: bool = False,
    figures: bool = True,
) -> Iterator[LoopRun]:
    """Return the runs of iterative pruning, one at a time, for any training loop.

    >>> for run in tombola.rounds(make_model, out="results/mine"):          # doctest: +SKIP
    ...     fit(run.model)
    ...     run.report(accuracy=evaluate(run.model))

    The dense run of a trial comes first, then the levels of each arm. A run is stored when the body of the loop ends
    normally. After `break`, an error or a kill, the same loop continues at the run it was in. Tables and figures are
    written after the last run, and the answer is printed; `tombola.Results.open(out)` reads what is done at any time.

    Before each run the global generators of torch, numpy and random are seeded, equally for all arms and levels of a
    trial.

    Args:
        make_model: returns a fresh model. It takes a `seed`, or draws from torch's global generator.
        out: the results folder.
        rounds: number of pruning rounds; 10 unless `pruning` says how many.
        rate: share of the remaining weights that a round removes; the output layer's is half of it.
        arms: as in a study file.
        trials: independent repetitions.
        first_trial: the number of the first of them; machines that share no folder divide the trials by it.
        name: of the loop. A results folder holds one loop: one name and one `make_model`.
        settings: of the training, such as {"lr": 0.1, "epochs": 10}. Tombola stores them and does not use them. It
            does not see what the body does: once the body trains differently, change the settings, and tombola trains
            all runs again.
        metric: the one that decides, or {"metric": name, "better": "lower", "unit": "kW"}.
        inputs: a batch, or the shape of one example, for a model from which tombola can't tell.
        rewind: the snapshot that kept weights go back to, such as "step-500"; 0 is the initialisation.
        pruning: further fields of the section `pruning` of a study file, such as {"scope": "global"}.
        connectivity: as in a study file, such as {"levels": [0, 3]}: are runs joined by lines of low error? Its copies
            are further runs of the loop; needs `evaluate`.
        evaluate: returns the metrics of a model by the names that are reported, such as {"accuracy": 0.9, "loss": 0.3}.
        noise: "trial", or "level": each level has a `seed` of its own.
        seed: all randomness follows from it and the trial's number.
        margin: the accepted loss of verdicts: 0.001 is 0.1 points of a percentage, or 0.1 % of another metric. Choose
            it before the first run.
        tracker: logs each finished run: "tensorboard", "mlflow", "wandb", or `package.module:function`.
        quiet: write only errors.
        figures: also draw them after the last run, in `<out>/figures`.

    Raises:
        InputError: an argument or the results folder can't be used. Tombola has written nothing.
    """
    if not isinstance(out, str | PathLike) or not str(out):
        raise InputError(f"out={out!r}: name the results folder, such as results/mine")
    fields = {
        "name": name,
        "seed": seed,
        "trainer": trainer_section(name, settings, metric, evaluate),
        "pruning": pruning_section(rounds, rate, pruning),
        "connectivity": None if connectivity is None else dict(connectivity),
        "noise": noise,
        "rewind": list(rewind) if isinstance(rewind, list | tuple) else rewind,
        "arms": list(arms) if not isinstance(arms, str) else [arms],
        "trials": trials,
        "first_trial": first_trial,
        "margin": margin,
    }
    loop = Loop.of(make_model, inputs, fields, Results, evaluate)
    check_tracker(tracker)
    console = terminal.console(stderr=True, quiet=quiet)

    def finish(results: RunningResults) -> None:
        save(results, figures)
        if screen_for(console, in_script=True) is None:  # a notebook shows results by itself
            _say_ending(results, console)

    return loop.runs(Store(out), tracker, console, finish)


def _say_ending(results: RunningResults, console: Console) -> None:
    """Write the answer of a finished loop, and the commands that show more."""
    folder = shlex.quote(str(results.store.root))
    console.print(ending_of(results, console.encoding))
    for what, command in (("Tables:", "results"), ("Report:", "report")):
        console.print(f"{what:<9} tombola {command} {folder}", markup=False, highlight=False, soft_wrap=True)


def save(results: RunningResults, figures: bool = True) -> list[Path]:
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
        return draw(results.frame(), results.curves(), folder / "figures", interpolations=points, settings=settings)
