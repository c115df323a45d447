"""What a study on many workers costs: `python -m benchmarks.clusters simulate`, `messages` or `overhead`.

simulate: the scheduler, the leases and the store of tombola at work, with threads as workers and runs that sleep.
messages: what Dask's scheduler receives and sends for each call.
overhead: `--on dask` against `--on local`, in alternation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from distributed import Client, LocalCluster
from distributed.batched import BatchedSend

import tombola
from tombola.registry import add_user_folders
from tombola.running.heartbeat import Heartbeat
from tombola.running.options import RunOptions, note_every
from tombola.running.progress import Display
from tombola.running.scheduler import Stop, run_plan
from tombola.running.sites import site_for
from tombola.running.store import Store
from tombola.studies.cluster import ClusterSettings
from tombola.studies.plan import Plan, make_plan
from tombola.terminal import console
from tombola.work import RESULT, WEIGHTS, Cost, Item, Kind, Spec

BEAT = 0.5  # seconds between two heartbeats of a sleeping run


class Sleep(Spec):
    """A run that sleeps. The runs of one chain need each other.

    Args:
        chain, level: its place.
        seconds: that it sleeps.
        size: bytes of its result.
        before: identity of the run that it needs.
    """

    kind: ClassVar[str] = "benchmarks.clusters:sleeping"

    chain: int
    level: int
    seconds: float
    size: int
    before: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[str, ...]:
        """The run before it."""
        return self.before


def sleeping() -> Kind:
    """Return the kind of work that sleeps."""
    return Kind(Sleep.kind, "run", Sleep, "benchmarks.clusters:sleep", (RESULT, WEIGHTS))


def sleep(items: Sequence[Item], store: Store, options: RunOptions) -> None:
    """Sleep as long as the item says, with a trained run's heartbeats, and store a result."""
    for item in items:
        spec, begin = item.spec, time.monotonic()
        assert isinstance(spec, Sleep)
        for parent in spec.needs:
            store.tensors(parent, "mask")
        elapsed = 0.0

        def state(label: str = item.label, identity: str = item.id) -> dict[str, Any]:
            return {identity: {"label": label, "iteration": int(10 * elapsed), "budget": 10 * 30}}  # noqa: B023

        beat = Heartbeat(store, options, state)
        while (elapsed := time.monotonic() - begin) < spec.seconds:
            time.sleep(min(BEAT, spec.seconds - elapsed))
            beat()
        tensors = {"mask/weight": torch.zeros(spec.size, dtype=torch.uint8)}
        store.save(item, {"seconds": spec.seconds}, tensors, {"mask": {}, "snapshots": []})


def plan_of(runs: int, seconds: float, size: int, length: int) -> Plan:
    """Return a plan of sleeping runs, in chains of some length as iterative pruning has them."""
    plan = make_plan(tombola.Study.load("demo", trials=1, **{"pruning.rounds": 0}))
    work: dict[str, Item] = {}
    for chain in range(-(-runs // length)):
        before: tuple[str, ...] = ()
        for level in range(min(length, runs - chain * length)):
            spec = Sleep(chain=chain, level=level, seconds=seconds, size=size, before=before)
            label = f"sleeping.trial-{chain}.level-{level:02d}"
            work[spec.id] = Item(spec, label, "dense", Cost(iterations=300, batch_size=1))
            before = (spec.id,)
    return replace(plan, work=work, rows=(), pairs=())


class Workers(ThreadPoolExecutor):
    """Threads that stand for workers, and note for how long each has had work."""

    def __init__(self, count: int):
        super().__init__(count)
        self.busy = 0.0
        self._lock = threading.Lock()

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Any:
        """Call a function in a thread that is idle."""
        return super().submit(self._timed, function, *arguments, **options)

    def _timed(self, function: Any, *arguments: Any) -> Any:
        begin = time.monotonic()
        try:
            return function(*arguments)
        finally:
            with self._lock:
                self.busy += time.monotonic() - begin


EVENTS = {"open": "opened", "os.scandir": "listed", "os.listdir": "listed", "os.rename": "renamed"}
EVENTS |= {"os.remove": "deleted", "os.rmdir": "deleted", "os.mkdir": "created", "os.link": "created"}


def simulate(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run sleeping runs through the scheduler, and return figures of it."""
    plan = plan_of(arguments.runs, arguments.seconds, arguments.size, arguments.chain)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        store, stop = Store(folder), Stop(Path(folder) / "running")
        store.create()
        stop.path.touch()
        operations = _counted(folder)
        workers = Workers(arguments.workers)
        with open(os.devnull, "w") as nowhere:
            display = Display(plan, store, arguments.workers, console(file=nowhere))
            options = RunOptions(stop_file=str(stop.path), note_every=note_every(arguments.workers))
            begin, used = time.monotonic(), time.process_time()
            scheduler = time.thread_time()
            tally = run_plan(plan, store, options, arguments.workers, lambda: workers, display, stop)
            wall, used, scheduler = (
                time.monotonic() - begin,
                time.process_time() - used,
                time.thread_time() - scheduler,
            )
        assert len(tally.done) == arguments.runs, tally
        size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    # A chain's last runs leave workers idle whatever the scheduler does.
    slept = arguments.runs * arguments.seconds
    return {
        "runs": arguments.runs,
        "workers": arguments.workers,
        "seconds of a run": arguments.seconds,
        "wall seconds": wall,
        "share of worker time slept": slept / (wall * arguments.workers),
        "share of worker time with work": workers.busy / (wall * arguments.workers),
        "share possible": slept / (-(-arguments.runs // arguments.workers) * arguments.seconds * arguments.workers),
        "processor seconds in all": used,
        "processor ms of the scheduler for a run": 1000 * scheduler / arguments.runs,
        "store operations for a run": {name: count / arguments.runs for name, count in operations.items()},
        "store operations a second": sum(operations.values()) / wall,
        "bytes for a run": size / arguments.runs,
        "peak memory, MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def _counted(folder: str) -> Counter[str]:
    """Count from now on what this process asks the file system for in a folder, but for looks at names and times."""
    found: Counter[str] = Counter()

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS and arguments and str(arguments[0]).startswith(folder):
            found[EVENTS[event]] += 1

    sys.addaudithook(hear)
    return found


def overhead(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the same sleeping work on local and on Dask workers in alternation, and return the ratio of their times.

    Starting and ending workers is left out: it is the same for any number of runs. So the time is that of the second
    to the last run of each worker.
    """
    add_user_folders((str(Path.cwd()),))  # where workers find this module
    walls: dict[str, list[float]] = {"local": [], "dask": []}
    for repeat in range(arguments.repeats):
        for on in ("local", "dask") if repeat % 2 else ("dask", "local"):
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                walls[on].append(_wall(on, Path(folder), arguments))
    ratios = [dask / local for dask, local in zip(walls["dask"], walls["local"], strict=True)]
    return {
        "runs": arguments.runs,
        "workers": arguments.workers,
        "seconds of a run": arguments.seconds,
        "seconds in all": walls,
        "median ratio of dask to local": statistics.median(ratios),
    }


def _wall(on: str, folder: Path, arguments: argparse.Namespace) -> float:
    """Return the seconds from the end of the first run of each worker to the end of the last run."""
    plan = plan_of(arguments.runs, arguments.seconds, arguments.size, arguments.chain)
    site = site_for(on, ClusterSettings(workers=arguments.workers))
    store = Store(folder)
    store.create()
    with site.reached(arguments.workers), store.running_file() as path:
        stop, ends = Stop(path), _Ends()
        options = RunOptions(stop_file=str(path), note_every=note_every(arguments.workers))

        def make() -> Executor:
            return site.executor(plan, arguments.workers, 1, path)

        tally = run_plan(plan, store, options, arguments.workers, make, ends, stop)
    assert len(tally.done) == arguments.runs, tally
    return ends.times[-1] - ends.times[arguments.workers - 1]


class _Ends:
    """A listener that notes when runs end."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def begin(self, waiting: Sequence[Item]) -> None: ...

    def started(self, item: Item) -> None: ...

    def finished(self, item: Item, outcome: str) -> None:
        self.times.append(time.monotonic())

    def note(self, message: str) -> None:
        print(message, file=sys.stderr)

    def tick(self, running: list[Item]) -> None: ...


def messages(arguments: argparse.Namespace) -> dict[str, Any]:
    """Count the messages of Dask's scheduler while calls sleep on workers of this process."""
    counts: Counter[str] = Counter()
    send = BatchedSend.send

    def counted(self: BatchedSend, *many: Any) -> None:
        counts.update(str(each.get("op", "other")) for each in many if isinstance(each, dict))
        send(self, *many)

    BatchedSend.send = counted  # type: ignore[method-assign]
    cluster = LocalCluster(
        n_workers=arguments.workers, threads_per_worker=1, processes=False, dashboard_address=None, memory_limit=0
    )
    with cluster, Client(cluster) as client:
        executor = client.get_executor(pure=False)
        list(executor.map(time.sleep, [0.01] * arguments.workers))
        counts.clear()
        begin, used = time.monotonic(), time.process_time()
        wait([executor.submit(time.sleep, arguments.seconds) for _ in range(arguments.runs)])
        wall, used = time.monotonic() - begin, time.process_time() - used
        sent = Counter(counts)  # without the messages of the end
    return {
        "calls": arguments.runs,
        "workers": arguments.workers,
        "messages for a call": {name: count / arguments.runs for name, count in sent.most_common(8)},
        "messages for a call in all": sum(sent.values()) / arguments.runs,
        "processor ms for a call, of the client, the scheduler and the workers": 1000 * used / arguments.runs,
        "wall seconds": wall,
    }


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=list(MEASURES))
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=30.0, help="that a run sleeps")
    parser.add_argument("--size", type=int, default=100_000, help="bytes of a result's tensors")
    parser.add_argument("--chain", type=int, default=20, help="runs in a row, each of which needs the one before")
    parser.add_argument("--folder", type=Path, help="where the results folder is made")
    parser.add_argument("--repeats", type=int, default=5, help="of each side, for the overhead")
    print(json.dumps(MEASURES[parser.parse_args().what](parser.parse_args()), indent=1))


MEASURES = {"simulate": simulate, "messages": messages, "overhead": overhead}

if __name__ == "__main__":
    from benchmarks.clusters import main as imported  # so that the kind's module has its name

    imported()
