"""Parts of the sites of Dask and SLURM, without processes or jobs."""

from __future__ import annotations

from typing import Any

import pytest

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
