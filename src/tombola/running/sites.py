"""Sites: where the work of a study is computed. `SITES` names them; Python also gives an executor of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

from tombola.errors import InputError, nearest
from tombola.extras import need
from tombola.running.devices import choose_device, default_workers, only, several_gpus, threads_each
from tombola.running.executors import InProcess, Workers
from tombola.running.remote import Remote, Sender, checking, release
from tombola.studies.cluster import ClusterSettings
from tombola.studies.plan import Plan


class Site:
    """This machine: the site `local`.

    Args:
        settings: of the cluster; this machine needs none but `lease`.
        about: what stands behind the name in `--on name=about`.
    """

    settings: ClusterSettings
    takes_address = False
    here = True  # whether its workers compute on this machine, as fast as this process

    def __init__(self, settings: ClusterSettings, about: str = ""):
        self.settings, self.about = settings, about
        self._gpus: tuple[str, ...] = ()  # one or more workers for each

    def describe(self) -> str:
        """Return for a person where work is computed; "" for this machine."""
        return ""

    @contextmanager
    def reached(self, workers: int | None) -> Iterator[None]:
        """Connect to the site, and leave it at the end.

        Args:
            workers: that the user asked for.

        Raises:
            ClusterError: it does not answer, or is not as the settings say.
        """
        yield

    def device(self, asked: str) -> str:
        """Return the device to train on.

        Raises:
            InputError: it is missing.
        """
        self._gpus = several_gpus(asked)
        return "cuda" if self._gpus else choose_device(asked)

    def workers(self, asked: int | None, device: str, items: int) -> int:
        """Return how many calls are made at a time; 0 uses this process.

        Raises:
            InputError: one process is to use several GPUs.
        """
        if self._gpus and asked == 0:
            raise InputError("workers=0 uses one process, and one process uses one GPU; name one --device")
        if self._gpus:
            return asked or len(self._gpus)
        return default_workers(device, items) if asked is None else asked

    def threads(self, plan: Plan, workers: int) -> int:
        """Return how many threads compute a run."""
        return threads_each(plan, workers)

    def executor(self, plan: Plan, workers: int, threads: int, file: Path) -> Executor:
        """Return what executes the work, once it is known that its workers can.

        Args:
            plan: of the study.
            workers: calls at a time.
            threads: of each.
            file: one in the results folder.

        Raises:
            ClusterError: its workers can't do the work.
        """
        environments = [only(gpu) for gpu in self._gpus] or [{}]
        return Workers(workers, threads, environments) if workers else InProcess()


class Given(Site):
    """An executor that a user's Python code made, such as a `concurrent.futures.ProcessPoolExecutor`."""

    here = False

    def __init__(self, settings: ClusterSettings, inner: Executor):
        super().__init__(settings)
        self._inner = inner

    @contextmanager
    def reached(self, workers: int | None) -> Iterator[None]:
        """Leave the executor as it was: one of threads has started processes here."""
        try:
            yield
        finally:
            release()

    def workers(self, asked: int | None, device: str, items: int) -> int:
        """Return how many calls are made at a time."""
        chosen = self.settings.workers if asked is None else asked
        if not chosen:
            raise InputError("workers: tombola can't tell how many calls your executor makes at a time; give workers=")
        return chosen

    def threads(self, plan: Plan, workers: int) -> int:
        """Return how many threads compute a run."""
        return self.settings.cores

    def executor(self, plan: Plan, workers: int, threads: int, file: Path) -> Executor:
        """Return the executor, which first makes a call that does nothing: its workers may lack something."""
        remote = Remote(self._inner, Sender.of(plan.study, str(file), threads))
        with checking("a worker of your executor"):
            remote.submit(int).result()
        return remote


def _site(name: str) -> type[Site]:
    module, _, attribute = f"tombola.running.{name}".partition(":")
    return getattr(import_module(module), attribute)


# Name -> what returns the class of a site. The classes of engines are imported when they are asked for.
SITES: dict[str, Callable[[], type[Site]]] = {
    "local": lambda: Site,
    "dask": partial(_site, "dask_site:DaskSite"),
    "slurm": partial(_site, "dask_site:SlurmSite"),
}
MODULES = {"dask": ("distributed", "dask_jobqueue"), "slurm": ("distributed", "dask_jobqueue")}


def site_for(on: str | Executor, settings: ClusterSettings | None) -> Site:
    """Return the site that is asked for.

    Args:
        on: a name in `SITES`; "dask=tcp://host:port"; or an executor.
        settings: of the cluster.

    Raises:
        InputError: no such site is known, or its library is not installed.
    """
    settings = settings or ClusterSettings()
    if isinstance(on, Executor):
        return Given(settings, on)
    if not isinstance(on, str):
        raise InputError(f"on={on!r}: give a name such as 'dask', or a concurrent.futures.Executor")
    name, equals, about = on.partition("=")
    if name not in SITES:
        raise InputError(f"--on {on}: unknown site {name!r}{nearest(name, SITES)}")
    for module in MODULES.get(name, ()):
        need(module, f"--on {name}")
    site = SITES[name]()
    if equals and not (site.takes_address and about):
        raise InputError(f"--on {on}: write --on {name}" + ("=tcp://HOST:PORT" if site.takes_address else ""))
    return site(settings, about)
