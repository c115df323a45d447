"""Several GPUs of one machine, which these tests make up."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tombola.errors import InputError
from tombola.running.devices import VISIBLE, only, several_gpus
from tombola.running.executors import Workers
from tombola.running.sites import Site
from tombola.studies.cluster import ClusterSettings


@pytest.fixture(autouse=True)
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv(VISIBLE, raising=False)


def test_each_gpu_has_a_worker() -> None:
    site = Site(ClusterSettings())
    assert site.device("cuda:0, cuda:2") == "cuda"
    assert site.workers(None, "cuda", 10) == 2
    assert site.workers(4, "cuda", 10) == 4
    assert site.device("all") == "cuda"
    assert site.workers(None, "cuda", 10) == 3
    assert site.device("cuda:1") == "cuda:1"
    assert site.workers(None, "cuda:1", 10) == 1


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:0,cuda:3", "PyTorch finds 3 GPUs, counted from cuda:0"),
        ("cuda:0,cpu", "'cpu' is not a GPU"),
        ("cuda:0,", "'' is not a GPU"),
        ("cuda:1,cuda:1", "names cuda:1 twice"),
    ],
)
def test_a_list_names_each_gpu_that_is_there_once(device: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        several_gpus(device)


def test_one_process_uses_one_gpu() -> None:
    site = Site(ClusterSettings())
    site.device("all")
    with pytest.raises(InputError, match="one process uses one GPU"):
        site.workers(0, "cuda", 10)


def test_numbers_count_what_this_process_may_see(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only("cuda:1") == {VISIBLE: "1"}
    monkeypatch.setenv(VISIBLE, "4, 7")
    assert only("cuda:1") == {VISIBLE: "7"}


def seen(folder: Path, number: int) -> str | None:
    """Return which GPU this worker sees, once both workers are at work."""
    (folder / str(number)).touch()
    while len(list(folder.iterdir())) < 2:
        time.sleep(0.01)
    return os.environ.get(VISIBLE)


def test_workers_share_the_gpus_and_keep_theirs(tmp_path: Path) -> None:
    with Workers(2, 1, [only("cuda:0"), only("cuda:2")]) as workers:
        found = [workers.submit(seen, tmp_path, number) for number in range(2)]
        assert {each.result() for each in found} == {"0", "2"}
