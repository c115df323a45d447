"""Computing on a Dask cluster: this machine's processes, or the workers of a scheduler."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dask
import torch
from distributed import Client, Scheduler, WorkerPlugin
from distributed.core import Status
from distributed.deploy.spec import SpecCluster
from distributed.deploy.subprocess import SubprocessWorker
from distributed.scheduler import KilledWorker

from tombola.errors import ClusterError, InputError
from tombola.running import preemption
from tombola.running.courier import leave
from tombola.running.dask_depot import DaskCounter, DaskDepot
from tombola.running.depots import Depot
from tombola.running.devices import choose_device, cores
from tombola.running.executors import opened
from tombola.running.remote import PROCESSES, ProcessDied, Remote, Sender, check, checking, on_node
from tombola.running.sites import WorkersElsewhere
from tombola.running.worker import Answer
from tombola.studies.cluster import ClusterSettings
from tombola.studies.plan import Plan

JOBS = ("memory", "gpus", "walltime", "partition", "account", "directives", "environment", "interface")  # of SLURM
SCHEMES = ("tcp", "tls", "ws", "wss")
ANSWER = 8.0  # seconds within which an address answers
CHECKED = 120.0  # seconds within which all workers have said whether they can do the work; each imports PyTorch first
START = 60.0  # seconds that a worker of this machine has to start
STARTS = 3  # that each worker's process has, as it may be killed like any other
TRIES = 20  # to reach all workers while some of them die
LEAVE = 5.0  # seconds that a worker that goes has to hand its answers to others
LOST = 2.0  # leases: a silent worker's calls are then given to others


class DaskSite(WorkersElsewhere):
    """The workers of a Dask scheduler; without an address, processes of this machine."""

    takes_address = True
    here = False

    def __init__(self, settings: ClusterSettings, about: str = "", store: str | None = None):
        super().__init__(settings, about, store)
        self._client: Any = None
        self.count = 0

    def describe(self) -> str:
        """Return for a person where work is computed."""
        where = f"the Dask scheduler at {self.about}" if self.about else "Dask workers on this machine"
        return f"computed by {where}: {self.settings.text(JOBS)}{self.stored()}"

    @contextmanager
    def reached(self, workers: int | None) -> Iterator[None]:
        """Connect to the scheduler, or start one with its workers."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(_silent())
            stack.enter_context(
                dask.config.set({"distributed.scheduler.worker-ttl": f"{self.settings.lease * LOST} s"})
            )
            address = self.about or self.started(stack, workers)
            self._client = stack.enter_context(_connected(address))
            if self.about and not self._client.nthreads():
                raise ClusterError(
                    f"the Dask scheduler at {address} has no workers; start one: dask worker {address} --nthreads 1"
                )
            try:
                yield
            finally:
                if self.about or self.store:
                    with contextlib.suppress(Exception):  # workers or the scheduler may have gone
                        _answers(self._client, leave, self._command, within=ANSWER)

    def started(self, stack: contextlib.ExitStack, workers: int | None) -> str:
        """Start a scheduler in this process, and workers that do not import the caller's main module."""
        self.count = workers or self.settings.workers or max(1, cores() // self.settings.cores)
        worker = {"cls": _LocalWorker, "options": {"threads": self.settings.cores}}
        scheduler = {"cls": Scheduler, "options": {"host": "127.0.0.1", "dashboard": False, "dashboard_address": ":0"}}
        cluster = stack.enter_context(
            SpecCluster(scheduler=scheduler, worker=worker, name="tombola", silence_logs=logging.CRITICAL)
        )
        return self.kept(cluster)

    def kept(self, cluster: Any) -> str:
        """Keep the number of a cluster's workers, also when some end; return its address."""
        cluster.adapt(minimum=self.count, maximum=self.count, interval="1s")
        return cluster.scheduler_address

    def device(self, asked: str) -> str:
        """Return the device to train on: every worker must have it."""
        if not self.about:
            return choose_device(asked)
        gpus = _answers(self._client, _gpus)
        if asked == "auto":
            return "cuda" if gpus and all(gpus.values()) else "cpu"
        if asked not in ("cpu", "cuda"):
            raise InputError(f"device={asked!r}: workers of a cluster take auto, cpu or cuda; each has one GPU")
        if asked == "cuda" and (without := [worker for worker, count in gpus.items() if not count]):
            raise ClusterError(f"device='cuda': the worker at {without[0]} has no GPU; use --device cpu")
        return asked

    def workers(self, asked: int | None, device: str, items: int) -> int:
        """Return how many calls are made at a time."""
        return asked or self.settings.workers or self.count or sum(self._client.nthreads().values())

    def threads(self, plan: Plan, workers: int) -> int:
        """Return how many threads compute a run."""
        return self.settings.cores

    def executor(self, plan: Plan, workers: int, threads: int, file: Path, data: str | None = None) -> Executor:
        """Return what sends work to the workers, after each worker has said that it can do it."""
        client, sender = self._client, Sender.of(plan.study, "" if self.store else str(file), threads, data)
        self.wait()
        with self.courier(file) as (courier, depot):
            self._check(on_node if courier is None else courier.check, sender)
            _register(client)
        node = on_node if courier is None else courier
        remote = Remote(client.get_executor(pure=False), sender, (KilledWorker,), lambda: not client.nthreads(), node)
        return remote if depot is None else self.dispatch(remote, depot, plan, file)

    def _engine_depot(self, file: Path) -> tuple[Callable[[], Depot], Depot]:
        """Return what opens the depot on a worker, and the depot: this machine's, which workers reach through Dask."""
        name = f"tombola-{file.name}"
        return partial(DaskDepot, name), DaskCounter(self._client, name, file.parent / ".depot")

    def _check(self, node: Callable[[Sender, bytes], Answer], sender: Sender) -> None:
        """Let each worker make a call that does nothing.

        Raises:
            ClusterError: a worker can't do the sender's work, or its processes die.
        """
        for left in reversed(range(STARTS)):
            try:
                for worker, answer in _answers(self._client, node, sender, check()).items():
                    with checking(f"the worker at {worker}"):
                        opened(answer)
                return
            except ProcessDied:
                if not left:
                    raise

    def wait(self) -> None:
        """Wait for the first worker."""
        try:
            self._client.wait_for_workers(1, timeout=START)
        except TimeoutError:
            raise ClusterError(f"no Dask worker has started within {START:.0f} seconds; try again") from None


class _LocalWorker(SubprocessWorker):
    """A worker of this machine. Ctrl-C does not reach it: the command tells it to save."""

    def __init__(self, scheduler: str, threads: int, name: Any = None):
        super().__init__(scheduler, name=name)
        self._threads = str(threads)

    async def _start(self) -> None:
        command = [sys.executable, "-P", "-m", "distributed.cli.dask_worker", self.scheduler, "--nthreads", "1"]
        command += ["--name", str(self.name), "--memory-limit", "0", "--no-dashboard", "--death-timeout", "20"]
        command += ["--no-nanny"]  # the cluster replaces workers, and waits half a minute for a nanny that is frozen
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), self._threads)
        quiet = {"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error"}
        self.process = await asyncio.create_subprocess_exec(
            *command,
            env=os.environ | threads | quiet,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )


class Preemption(WorkerPlugin):
    """Saves the work of a worker that is told to go, and gives it back."""

    def setup(self, worker: Any) -> None:
        """Hear the signals of a node that goes; the event loop of a worker runs in its main thread."""
        loop = asyncio.get_running_loop()

        def hear(_number: int, _frame: object) -> None:
            PROCESSES.preempt()
            loop.call_soon_threadsafe(lambda: loop.create_task(_leave(worker)))

        with contextlib.suppress(ValueError):  # a worker in some thread can't hear signals
            for number in preemption.SIGNALS:
                signal.signal(number, hear)


def _register(client: Any) -> None:
    """Give all workers, and those that come later, the plugin.

    Raises:
        ClusterError: workers died at each try.
    """
    for _ in range(TRIES):
        with contextlib.suppress(OSError):  # a worker died just now
            client.register_plugin(Preemption(), name="tombola-preemption")
            return
    raise ClusterError(f"workers of the Dask cluster died at each of {TRIES} tries; look at their logs")


async def _leave(worker: Any) -> None:
    """Take no more calls, finish those under way, and go.

    A worker that is only paused would continue as soon as Dask finds its memory free.
    """
    if worker.status in (Status.closing_gracefully, Status.closing, Status.closed):
        return
    worker.status = Status.closing_gracefully
    while worker.state.executing_count:
        await asyncio.sleep(0.1)
    with contextlib.suppress(Exception):  # the worker may be the last one, or the scheduler may have gone
        retiring = worker.scheduler.retire_workers(workers=[worker.address], close_workers=False, remove=True)
        await asyncio.wait_for(retiring, LEAVE)  # its last answers go to other workers, and its other calls too
    await asyncio.sleep(0.5)  # until the command has read its last answers
    await worker.close(reason="preempted")


@contextmanager
def _silent() -> Iterator[None]:
    """Keep Dask's log from the terminal: what a user must know of its errors, tombola says in a sentence."""
    logs = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith("distributed")]
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    scheme, mark, place = address.partition("://")
    port = place.rpartition(":")[2]
    if scheme not in SCHEMES or not mark or not port.isdigit() or int(port) >= 2**16:
        raise InputError(f"--on dask={address}: the address has another form; write tcp://HOST:PORT")
    try:
        with dask.config.set({"distributed.comm.timeouts.connect": ANSWER}):
            client = Client(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError, TimeoutError):
        raise ClusterError(
            f"no Dask scheduler answers at {address} within {ANSWER:.0f} seconds; start one: dask scheduler"
        ) from None
    with client:
        yield client


def _answers(client: Any, function: Any, *arguments: Any, within: float = CHECKED) -> dict[str, Any]:
    """Return what a function returns on each worker, by address.

    Args:
        client: of the scheduler.
        function, arguments: the call.
        within: seconds.

    Raises:
        ClusterError: a worker can't make the call; the message says why.
    """
    try:
        found = client.sync(client._run, _aside, function, *arguments, on_error="return", callback_timeout=within)
    except (TimeoutError, OSError) as error:
        raise ClusterError(
            f"some workers do not answer within {within:.0f} seconds ({error}); end or restart them"
        ) from None
    found = {worker: answer for worker, answer in found.items() if not isinstance(answer, OSError)}  # others have gone
    for worker, answer in found.items():
        if isinstance(answer, BaseException):
            raise ClusterError(
                f"the worker at {worker} can't execute tombola ({type(answer).__name__}: {answer}); install the same "
                "version of tombola there"
            )
    return found


async def _aside(function: Any, *arguments: Any) -> Any:
    """Call a function on a worker, whose event loop answers the scheduler meanwhile."""
    return await asyncio.to_thread(function, *arguments)


def _gpus() -> int:
    return torch.cuda.device_count()
