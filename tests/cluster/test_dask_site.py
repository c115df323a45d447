"""Parts of the sites of Dask and SLURM, without processes or jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import distributed
import pytest
from distributed import Scheduler, Worker

from tombola.errors import ClusterError, InputError, StoppedByUser
from tombola.running import dask_site, slurm_site
from tombola.running.courier import leave
from tombola.running.dask_site import DaskSite
from tombola.studies.cluster import ClusterSettings


class Client:
    """A client whose scheduler has one worker, and keeps what it was asked to call there."""

    def __init__(self) -> None:
        self.called: list[Any] = []
        self._run = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None: ...

    def nthreads(self) -> dict[str, int]:
        return {"tcp://there:1": 1}

    def sync(self, _run: object, _aside: object, function: Any, *_: Any, **options: Any) -> dict[str, Any]:
        self.called.append(function)
        assert options["callback_timeout"] < 10
        raise TimeoutError


def test_workers_end_their_processes_also_after_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    monkeypatch.setattr(dask_site, "_connected", lambda address: client)
    with pytest.raises(StoppedByUser), DaskSite(ClusterSettings(), "tcp://there:0").reached(None):
        raise StoppedByUser("stopped")
    assert client.called == [leave]


def test_a_worker_that_is_told_to_go_takes_no_more_calls() -> None:
    async def executed() -> tuple[int, str]:
        quiet: dict[str, Any] = {"host": "127.0.0.1", "dashboard": False, "dashboard_address": ":0"}
        async with (
            Scheduler(**quiet, port=0) as scheduler,
            Worker(scheduler.address, **quiet, nthreads=1, memory_limit="4GiB") as going,
            Worker(scheduler.address, **quiet, nthreads=1),
            distributed.Client(scheduler.address, asynchronous=True, set_as_default=False) as client,
        ):
            calls = [client.submit(time.sleep, 0.3, pure=False) for _ in range(6)]
            while not going.state.executing_count:
                await asyncio.sleep(0.02)
            await dask_site._leave(going)
            assert await client.gather(calls) == [None] * 6
            assert not any(task.suspicious for task in scheduler.tasks.values())  # nobody counts it as a crash
            return going.state.executed_count, going.status.name

    assert asyncio.run(executed()) == (1, "closed")


@pytest.mark.parametrize(("cores", "each", "expected"), [(8, 1, 8), (8, 4, 2), (8, 3, 2), (2, 4, 1)])
def test_workers_of_this_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, each: int, expected: int
) -> None:
    monkeypatch.setattr(dask_site, "cores", lambda: cores)
    monkeypatch.setattr(dask_site, "SpecCluster", lambda **options: contextlib.nullcontext())
    monkeypatch.setattr(DaskSite, "kept", lambda self, cluster: "tcp://127.0.0.1:1")
    site = DaskSite(ClusterSettings(cores=each))
    with contextlib.ExitStack() as stack:
        site.started(stack, None)
    assert site.workers(None, "cpu", 100) == expected


def test_a_search_path_with_quotes_reaches_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/home/o'neil/my code:/tmp/$(touch x)"
    monkeypatch.setenv("PYTHONPATH", path)
    script = "\n".join([*slurm_site._environment(3), 'printf "%s|%s" "$PYTHONPATH" "$OMP_NUM_THREADS"'])
    assert subprocess.run(["sh", "-c", script], check=True, capture_output=True, text=True).stdout == f"{path}|3"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("exit 3", r"SLURM refuses the job \(sbatch says nothing, and ends with status 3\)"),
        ("echo no nodes >&2; exit 1", "settings of the cluster: cores 2, memory 4GB, gpus 0, walltime 1:00:00$"),
        ("echo Could not establish a configuration source >&2; exit 1", "SLURM is not set up on this machine .* login"),
        ("echo allocation failure: no such partition >&2; exit 1", r"SLURM refuses the job \(no such partition\)"),
    ],
)
def test_what_sbatch_says_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(f"#!/bin/sh\n{script}\n")
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(ClusterError, match=message):
        slurm_site._check_job("#!/bin/sh", ClusterSettings(cores=2))


@pytest.mark.parametrize("address", ["head:8786", "tcp://head", "http://head:8786", "tcp://head:99999"])
def test_an_address_of_another_form_is_refused_at_once(address: str) -> None:
    with pytest.raises(InputError, match=r"--on dask=.*: the address has another form; write tcp://HOST:PORT"):
        DaskSite(ClusterSettings(), address).reached(None).__enter__()


def test_the_terminal_stays_free_of_dasks_log() -> None:
    log = logging.getLogger("distributed.client")
    before = log.level
    with dask_site._silent():
        assert not log.isEnabledFor(logging.ERROR)
    assert log.level == before


def test_settings_are_shown_with_their_defaults() -> None:
    assert DaskSite(ClusterSettings(workers=3)).describe().endswith(": workers 3, cores 1, lease 60")
    slurm = slurm_site.SlurmSite(ClusterSettings(partition="gpu", environment=("module load cuda",)), store="s3://b/p")
    wanted = "cores 1, memory 4GB, gpus 0, walltime 1:00:00, partition gpu, environment ['module load cuda'], lease 60"
    assert slurm.describe() == f"computed by jobs of SLURM: {wanted}; results travel by s3://b/p"
