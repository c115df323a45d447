"""`tombola run` and `tombola plan`."""

from __future__ import annotations

import click

from tombola.commands.groups import StudyCommand
from tombola.commands.opening import console, load, open_page, quoted
from tombola.commands.options import STUDY_HELP, Work, work_options
from tombola.errors import InputError
from tombola.terminal import say


@click.command(cls=StudyCommand, epilog=STUDY_HELP)
@work_options
@click.option("--checkpoint-every", type=float, default=30.0, help="Set the seconds between checkpoints. [default: 30]")
@click.option("--energy", is_flag=True, help="Measure the energy of each run; needs the extra tombola[energy].")
@click.option("--tf32", is_flag=True, help="Let a GPU round float32 products to TF32: faster, three digits.")
@click.option("--no-figures", is_flag=True, help="Draw no figures, and write no report.")
@click.option("--open", "show", is_flag=True, help="Open the report in a browser at the end.")
@click.option("--tracker", metavar="NAME", help="Log finished runs to tensorboard, mlflow or wandb.")
@click.option("--quiet", "-q", is_flag=True, help="Write only results and errors.")
@click.option("--verbose", "-v", is_flag=True, help="Write more details.")
def run(
    work: Work,
    checkpoint_every: float,
    energy: bool,
    tf32: bool,
    no_figures: bool,
    show: bool,
    quiet: bool,
    verbose: bool,
    tracker: str | None,
) -> None:
    """Run or resume a study.

    Override any field with FIELD=VALUE, such as trials=3 training.lr=2e-4.
    """
    from tombola.extras import installed, need
    from tombola.figures.ending import ending_of
    from tombola.session import run as run_study

    if show and no_figures:
        raise InputError("--open shows the report, which --no-figures omits: remove one of them")
    if show:
        need("vl_convert", "--open")
    if verbose:
        _say_whence()
    loaded, folder = load(work.study, work.changes, work.out)
    results = run_study(
        loaded,
        folder,
        data=work.data,
        workers=work.workers,
        device=work.device,
        engine=work.engine,
        checkpoint_every=checkpoint_every,
        energy=energy,
        tf32=tf32,
        figures=not no_figures,
        quiet=quiet,
        verbose=verbose,
        tracker=tracker,
        max_runs=work.max_runs,
        on=work.on,
        cluster=work.cluster,
        store=work.store,
    )
    screen = console()
    screen.print(ending_of(results, screen.encoding))
    click.echo(f"Tables:   tombola results {quoted(folder)} shows all arms, and early stop")
    tables = ("results", "curves", "connectivity", "barriers", "mask_distance")
    paths = [folder / f"{name}.csv" for name in tables]
    click.echo(f"Results:  {', '.join(str(path) for path in paths if path.exists())}")
    if no_figures:
        return
    click.echo(f"Figures:  {folder / 'figures'}")
    if not installed("vl_convert"):
        click.echo(f"Report:   pip install 'tombola[report]', then: tombola report {quoted(folder)}")
        return
    from tombola.html.write import write_report

    path = write_report(results)
    click.echo(f"Report:   {path}")
    if show:
        open_page(path)


@click.command(cls=StudyCommand, epilog=STUDY_HELP)
@work_options
@click.option("--verbose", "-v", is_flag=True, help="Show which layers no sparse engine trains, and why.")
def plan(work: Work, verbose: bool) -> None:
    """Show the work of a study and its time.

    The command shows missing and finished work, and estimates the time on this machine. It writes nothing.
    """
    from tombola.running.run import data_folder
    from tombola.running.sites import Site, site_for
    from tombola.running.store import Store
    from tombola.studies.cluster import read_cluster
    from tombola.studies.plan import make_plan
    from tombola.studies.start_checks import check_data_at_hand
    from tombola.tables.overview import plan_table

    loaded, folder = load(work.study, work.changes, work.out)
    settings = read_cluster(work.cluster, loaded.cluster) if work.cluster else loaded.cluster
    site, data = site_for(work.on, settings, work.store), data_folder(work.data)
    made = make_plan(loaded, data, work.max_runs)
    check_data_at_hand(made, data)
    here = Site(site.settings)
    device = here.device(work.device)
    at_a_time = here.workers(work.workers or here.settings.workers, device, len(made.work))
    console().print(plan_table(made, Store(folder), device, work.engine, at_a_time, verbose))
    if where := site.describe():
        console().print(where, markup=False, soft_wrap=True)


def _say_whence() -> None:
    """Say of each name of a study where what it stands for was loaded from."""
    import logging

    class Said(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            say(record.getMessage())

    log = logging.getLogger("tombola.registry")
    log.setLevel(logging.DEBUG)
    log.handlers = [Said()]
