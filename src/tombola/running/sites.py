"""Sites: where the work of a study is computed. `SITES` names them; Python also gives an executor of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

from tombola.errors import InputError, StoreError, nearest
from tombola.extras import need
from tombola.running.courier import Courier, leave
from tombola.running.depots import RUNNING, AddressDepot, Depot
from tombola.running.devices import choose_device, default_workers, only, several_gpus, threads_each
from tombola.running.dispatch import Dispatch, announce
from tombola.running.executors import InProcess, Workers
from tombola.running.remote import Remote, Sender, checking, on_node
from tombola.studies.cluster import ClusterSettings
from tombola.studies.plan import Plan


class Site:
    """This machine: the site `local`.

    Args:
        settings: of the cluster; this machine needs none but `lease`.
        about: what stands behind the name in `--on name=about`.
        store: where workers get and put results that do not see the results folder; None where they see it.
    """

    settings: ClusterSettings
    takes_address = False
    here = True  # whether its workers compute on this machine, as fast as this process

    def __init__(self, settings: ClusterSettings, about: str = "", store: str | None = None):
        self.settings, self.about, self.store = settings, about, store
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

    def executor(self, plan: Plan, workers: int, threads: int, file: Path, data: str | None = None) -> Executor:
        """Return what executes the work, once it is known that its workers can.

        Args:
            plan: of the study.
            workers: calls at a time.
            threads: of each.
            file: one in the results folder.
            data: the folder of data sets that the user names.

        Raises:
            ClusterError: its workers can't do the work.
        """
        environments = [only(gpu) for gpu in self._gpus] or [{}]
        return Workers(workers, threads, environments) if workers else InProcess()


class WorkersElsewhere(Site):
    """A site whose workers may not see the results folder."""

    def stored(self) -> str:
        """Return for a person how results travel; "" through the results folder."""
        return f"; results travel by {self.store}" if self.store else ""

    _command = ""  # the name by which they know this command, if they don't

    @contextmanager
    def courier(self, file: Path) -> Iterator[tuple[Courier | None, Depot | None]]:
        """Lend what makes calls on a worker that does not see the results folder, and the depot; None where it does.

        The depot stays open, unless an error comes: then nothing is left there.

        Args:
            file: in the folder of results; it is there while this command wants its work.

        Raises:
            InputError: the site has no such store.
            StoreError: the store can't be written.
        """
        if self.store is None:
            yield None, None
            return
        opens, depot = self._engine_depot(file) if self.store == VIA_ENGINE else self._address_depot(self.store)
        self._command = file.name.removeprefix(".")
        try:
            announce(depot, file, self._command)
            yield Courier(opens, self._command, looks=self.store != VIA_ENGINE), depot
        except BaseException:
            with contextlib.suppress(StoreError):
                depot.delete(f"{RUNNING}/{self._command}")
            depot.close()
            raise

    def dispatch(self, remote: Remote, depot: Depot, plan: Plan, file: Path) -> Dispatch:
        """Return what sends work to a `Courier` on a worker."""
        return Dispatch(remote, depot, plan, file, self._command, self.settings.lease)

    def _engine_depot(self, file: Path) -> tuple[Callable[[], Depot], Depot]:
        raise InputError(
            f"--store {VIA_ENGINE}: an executor has no connections of its own; give an address such as "
            "s3://bucket/prefix, or a folder that all machines share"
        )

    @staticmethod
    def _address_depot(address: str) -> tuple[Callable[[], Depot], Depot]:
        return partial(AddressDepot, address), AddressDepot(address)


class Given(WorkersElsewhere):
    """An executor that a user's Python code made, such as a `concurrent.futures.ProcessPoolExecutor`."""

    here = False

    def __init__(self, settings: ClusterSettings, inner: Executor, store: str | None = None):
        super().__init__(settings, store=store)
        self._inner = inner

    @contextmanager
    def reached(self, workers: int | None) -> Iterator[None]:
        """Leave the executor as it was: one of threads has started processes here."""
        try:
            yield
        finally:
            leave(self._command)

    def workers(self, asked: int | None, device: str, items: int) -> int:
        """Return how many calls are made at a time."""
        chosen = self.settings.workers if asked is None else asked
        if not chosen:
            raise InputError("workers: tombola can't tell how many calls your executor makes at a time; give workers=")
        return chosen

    def threads(self, plan: Plan, workers: int) -> int:
        """Return how many threads compute a run."""
        return self.settings.cores

    def executor(self, plan: Plan, workers: int, threads: int, file: Path, data: str | None = None) -> Executor:
        """Return the executor, which first makes a call that does nothing: its workers may lack something."""
        sender = Sender.of(plan.study, "" if self.store else str(file), threads, data)
        with self.courier(file) as (courier, depot), checking("a worker of your executor"):
            Remote(self._inner, sender, node=on_node if courier is None else courier.check).submit(int).result()
        remote = Remote(self._inner, sender, node=on_node if courier is None else courier)
        return remote if depot is None else self.dispatch(remote, depot, plan, file)


def _site(name: str) -> type[Site]:
    module, _, attribute = f"tombola.running.{name}".partition(":")
    return getattr(import_module(module), attribute)


# Name -> what returns the class of a site. The classes of engines are imported when they are asked for.
SITES: dict[str, Callable[[], type[Site]]] = {
    "local": lambda: Site,
    "dask": partial(_site, "dask_site:DaskSite"),
    "slurm": partial(_site, "slurm_site:SlurmSite"),
}
VIA_ENGINE = "via-engine"
MODULES = {"dask": ("distributed", "dask_jobqueue"), "slurm": ("distributed", "dask_jobqueue")}


def site_for(on: str | Executor, settings: ClusterSettings | None, store: str | None = None) -> Site:
    """Return the site that is asked for.

    Args:
        on: a name in `SITES`; "dask=tcp://host:port"; or an executor.
        settings: of the cluster.
        store: `VIA_ENGINE` or an address that fsspec knows, for workers that do not see the results folder.

    Raises:
        InputError: no such site or store is known, or its library is not installed.
    """
    settings = settings or ClusterSettings()
    check_store(store, on)
    if isinstance(on, Executor):
        return Given(settings, on, store)
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
    return site(settings, about, store)


def check_store(store: str | None, on: str | Executor) -> None:
    """Refuse a store that no worker could use.

    Raises:
        InputError: it is not one, or work is computed on this machine.
    """
    if store is None or (store == VIA_ENGINE and on != "local"):
        return
    if on == "local":
        raise InputError(f"--store {store}: --on local works in the results folder itself; leave --store out")
    scheme, mark, _ = str(store).partition("://")
    if not mark or scheme in ("file", "local", "memory", ""):
        raise InputError(f"--store {store}: give {VIA_ENGINE}, or an address such as s3://bucket/prefix")
    AddressDepot(store)
