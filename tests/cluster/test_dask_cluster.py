"""A Dask cluster whose workers die, freeze and come back: results are those of one process."""

from __future__ import annotations

import contextlib
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from same_results import assert_same_results

import tombola
from tombola.errors import ClusterError, InputError

CHANGES = {"trials": 2, "pruning.rounds": 4, "arms": ["ticket", "reinit"], "training.iterations": 1500}
KILLS = int(os.environ.get("TOMBOLA_KILLS", "12"))
LEASE = 4.0
SCHEDULER_GONE = "its scheduler has ended|no Dask scheduler answers"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "out"
    tombola.run(study(), folder, workers=0, figures=False, quiet=True)
    return folder


class Cluster:
    """A scheduler and workers, each with a nanny, as `dask scheduler` and `dask worker` start them."""

    def __init__(self, folder: Path, workers: int):
        self.folder, self.count = folder, workers
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.nannies: list[subprocess.Popen[bytes]] = []
        self.start_scheduler()

    def start_scheduler(self) -> None:
        self.scheduler = self._start("scheduler", "--port", str(self.port), "--host", "127.0.0.1", "--no-dashboard")

    def _start(self, what: str, *options: str) -> subprocess.Popen[bytes]:
        settings = {"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s"}
        with (self.folder / "dask.log").open("ab") as log:
            command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *options]
            return subprocess.Popen(command, stderr=log, stdout=log, cwd=self.folder, env=os.environ | settings)

    def keep(self) -> None:
        """Replace nannies that have ended."""
        self.nannies = [each for each in self.nannies if each.poll() is None]
        while len(self.nannies) < self.count:
            options = ("--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--death-timeout", "60")
            self.nannies.append(self._start("worker", self.address, *options))

    def processes(self) -> list[psutil.Process]:
        """Return nannies, workers, and the processes in which workers compute."""
        found = []
        for nanny in self.nannies:
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(nanny.pid)
                found += [process, *process.children(recursive=True)]
        return found

    def close(self) -> None:
        for process in [*self.processes(), psutil.Process(self.scheduler.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for started in (*self.nannies, self.scheduler):
            started.wait()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path, 4)
    made.keep()
    yield made
    made.close()


def study(seed: int = 0) -> tombola.Study:
    return tombola.Study.load("demo", seed=seed, **CHANGES)


def command(cluster: Cluster, out: Path, seed: int = 0, more: Sequence[str] = ()) -> subprocess.Popen[str]:
    settings = out.with_name("cluster.yaml")
    settings.write_text(f"lease: {LEASE}\nworkers: {cluster.count}\n")
    changes = [f"{name}={str(value).replace(chr(39), '')}" for name, value in (CHANGES | {"seed": seed}).items()]
    where = ["--on", f"dask={cluster.address}", "--cluster", str(settings)]
    options = ["--out", str(out), *where, "--checkpoint-every", "0.3", "--no-figures", "--quiet", *more]
    return subprocess.Popen(
        [sys.executable, "-m", "tombola", "run", "demo", *changes, *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def wait_for_workers(cluster: Cluster) -> None:
    from distributed import Client

    with Client(cluster.address, timeout=60, set_as_default=False) as client:
        end = time.monotonic() + 120
        while not client.nthreads():
            assert time.monotonic() < end
            cluster.keep()  # workers may have ended with an earlier scheduler
            time.sleep(0.5)


class Violence:
    """Kills and freezes processes of a cluster at random: nannies, workers, and those in which workers compute.

    Once each, when there are results, it kills the scheduler and the command; both are started again.
    """

    def __init__(self, cluster: Cluster, kills: int, options: Sequence[str]):
        self.cluster, self.most, self.options = cluster, kills, options
        self.kills, self.freezes, self.special = 0, 0, ["command", "scheduler"]
        self._draw = random.Random(0)
        self._frozen: list[tuple[float, psutil.Process]] = []

    def during(self, out: Path, seed: int) -> None:
        """Run a study to its end, and attack whatever computes it until all kills are spent."""
        run, until = command(self.cluster, out, seed, self.options), time.monotonic() + 7000
        while run.poll() is None or run.returncode:
            assert time.monotonic() < until
            if run.poll() is not None:  # only because of what was done to it
                _, message = run.communicate()
                assert run.returncode == -signal.SIGKILL or re.search(SCHEDULER_GONE, message), message
                wait_for_workers(self.cluster)
                run = command(self.cluster, out, seed, self.options)
            time.sleep(self._draw.uniform(0.5, 4.0))
            self.cluster.keep()
            self._thaw(time.monotonic())
            if self.kills < self.most or self.special:
                self._strike(run, len(list((out / "jobs").glob("lenet*"))))
        self._thaw(math.inf)
        run.communicate()

    def _strike(self, run: subprocess.Popen[str], results: int) -> None:
        special = self.special.pop() if results > 5 * (3 - len(self.special)) and self.special else ""
        if special == "scheduler":
            self.cluster.scheduler.kill()
            self.cluster.scheduler.wait()
            run.wait(60)
            self.cluster.start_scheduler()
        elif special == "command":
            run.kill()
        elif self.kills >= self.most:
            return
        else:
            with contextlib.suppress(psutil.NoSuchProcess, IndexError):
                victim = self._draw.choice(self.cluster.processes())
                if self._draw.random() < 0.25:
                    victim.suspend()
                    self._frozen.append((time.monotonic() + self._draw.uniform(1.5, 5.0) * LEASE, victim))
                    self.freezes += 1
                else:
                    victim.kill()
        self.kills += 1

    def _thaw(self, now: float) -> None:
        for entry in [entry for entry in self._frozen if entry[0] < now]:
            self._frozen.remove(entry)
            with contextlib.suppress(psutil.NoSuchProcess):
                entry[1].resume()


# Workers note each training that they end, and each result that they put into place.
NOTES = """
import os, sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != "tombola.running.store":
            return None
        spec = super().find_spec(name, path, target)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (load(module), note(module.Store))
        return spec

def note(store):
    save, move = store.save_training, store._move_into_place

    def line(what, item):
        with open(os.environ["TOMBOLA_NOTES"], "a") as file:
            file.write(f"{what} {item.id}\\n")

    def save_training(self, item, *rest):
        line("trained", item)
        save(self, item, *rest)

    def move_into_place(self, aside, item):
        own = os.stat(aside).st_ino
        move(self, aside, item)
        if os.stat(self.jobs / item.folder).st_ino == own and "tombola-worker-" not in str(self.jobs):
            line("stored", item)

    store.save_training, store._move_into_place = save_training, move_into_place

sys.meta_path.insert(0, Finder)
"""


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("store", ["shared", "via-engine"])
def test_results_after_random_kills_are_those_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    notes = tmp_path / "notes"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(NOTES)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"), prepend=os.pathsep)
    monkeypatch.setenv("TOMBOLA_NOTES", str(notes))
    cluster = Cluster(tmp_path, 4)
    try:
        cluster.keep()
        wait_for_workers(cluster)
        violence, studies = Violence(cluster, KILLS, () if store == "shared" else ("--store", store)), 0
        while violence.kills < KILLS or violence.special:
            violence.during(tmp_path / f"out-{studies}", studies)
            studies += 1
    finally:
        cluster.close()
    assert violence.special == []
    noted = Counter(notes.read_text().splitlines())
    results = [path.name.rpartition("-")[2] for path in tmp_path.glob("out-*/jobs/lenet*")]
    assert {line: count for line, count in noted.items() if line.startswith("stored")} == {
        f"stored {result}": 1 for result in results
    }
    again = sum(count - 1 for line, count in noted.items() if line.startswith("trained"))
    print(f"{violence.kills} kills, {violence.freezes} of them freezes; {studies} studies, {len(results)} results")
    print(f"{again} trainings ended again, because their result was not stored at the first end")
    for number in range(studies):
        alone = tmp_path / f"alone-{number}" / "out"  # results of neighbouring folders would be copied
        tombola.run(study(number), alone, workers=0, figures=False, quiet=True)
        assert_same_results(tmp_path / f"out-{number}", alone)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_after_its_scheduler_died_the_same_command_resumes(cluster: Cluster, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wait_for_workers(cluster)
    run = command(cluster, out)
    while len(list((out / "jobs").glob("lenet*"))) < 3:
        assert run.poll() is None
        time.sleep(0.1)
    cluster.scheduler.kill()
    cluster.scheduler.wait()
    _, message = run.communicate(timeout=120)
    assert (run.returncode, message.strip().splitlines()[-1]) == (
        2,
        "tombola: the cluster has dropped the work: its scheduler has ended; run the same command again",
    )
    cluster.start_scheduler()
    wait_for_workers(cluster)
    again = command(cluster, out)
    _, message = again.communicate(timeout=400)
    assert again.returncode == 0, message
    assert_same_results(out, alone)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_workers_that_are_told_to_go_give_their_work_back(cluster: Cluster, alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    wait_for_workers(cluster)
    run = command(cluster, out)
    told = 0
    while run.poll() is None:
        time.sleep(2.0)
        cluster.keep()
        under_way = list((out / "jobs").glob(".*.part"))
        workers = [child for nanny in cluster.nannies for child in psutil.Process(nanny.pid).children()]
        if under_way and workers and told < 4:
            told += 1
            with contextlib.suppress(psutil.NoSuchProcess):
                workers[-1].send_signal(signal.SIGUSR1 if told % 2 else signal.SIGTERM)
    _, message = run.communicate()
    assert run.returncode == 0, message
    assert told
    assert_same_results(out, alone)


@pytest.mark.slow
def test_workers_of_this_machine_are_started_and_ended(alone: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = {process.pid for process in psutil.process_iter()}
    tombola.run(study(), out, on="dask", workers=2, figures=False, quiet=True)
    assert_same_results(out, alone)
    left = [each.info for each in psutil.process_iter(["pid", "cmdline"]) if each.pid not in before]
    assert not [each for each in left if any("dask_worker" in word for word in each["cmdline"] or ())]


@pytest.mark.slow
def test_an_address_that_nobody_answers_is_said_within_ten_seconds(tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 within 8 seconds"):
        tombola.run("demo", tmp_path / "out", on="dask=tcp://127.0.0.1:9", quiet=True)
    assert time.monotonic() - begin < 10
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["nonsense", "tcp://", "ftp://a:1", "127.0.0.1"])
def test_an_address_of_another_form_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="write tcp://HOST:PORT"):
        tombola.run("demo", tmp_path / "out", on=f"dask={address}", quiet=True)
