"""Parts of the sites of Dask and SLURM, without processes or jobs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import distributed
import pytest
from distributed import Scheduler, Worker

from tombola.errors import StoppedByUser
from tombola.running import dask_site
from tombola.running.dask_site import DaskSite
from tombola.running.remote import release
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
    assert client.called == [release]


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
