"""A local S3 server: workers that do not see the results folder get and put results there."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from same_results import assert_same_results

import tombola
from tombola.errors import StoreError

BUCKET = "tickets"
CHANGES = {"trials": 2, "pruning.rounds": 2, "arms": ["ticket"], "training.iterations": 1500}


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
    server.stop()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone") / "out"
    tombola.run(tombola.Study.load("demo", **CHANGES), folder, workers=0, figures=False, quiet=True)
    return folder


def names(s3: Any) -> list[str]:
    return [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]


@pytest.mark.slow
def test_results_through_s3_are_those_of_one_process(s3: Any, alone: Path, tmp_path: Path) -> None:
    study, out = tombola.Study.load("demo", **CHANGES), tmp_path / "out"
    tombola.run(study, out, on="dask", workers=2, store=f"s3://{BUCKET}/one", figures=False, quiet=True)
    assert_same_results(out, alone)
    assert names(s3) == []


@pytest.mark.slow
def test_processes_of_the_users_own_executor_use_s3(s3: Any, alone: Path, tmp_path: Path) -> None:
    study, out = tombola.Study.load("demo", **CHANGES), tmp_path / "out"
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        tombola.run(study, out, on=pool, workers=2, store=f"s3://{BUCKET}/three", figures=False, quiet=True)
    assert_same_results(out, alone)
    assert names(s3) == []


@pytest.mark.slow
def test_a_command_that_was_killed_resumes_from_s3(s3: Any, tmp_path: Path) -> None:
    alone, out = tmp_path / "alone", tmp_path / "elsewhere" / "out"
    longer = CHANGES | {"trials": 1, "training.iterations": 12_000}  # workers send a checkpoint every 5 seconds
    tombola.run(tombola.Study.load("demo", **longer), alone, workers=0, figures=False, quiet=True)
    changes = [f"{name}={str(value).replace(chr(39), '')}" for name, value in longer.items()]
    command = [sys.executable, "-m", "tombola", "run", "demo", *changes, "--out", str(out), "--on", "dask", "--quiet"]
    command += ["--workers", "2", "--store", f"s3://{BUCKET}/two", "--checkpoint-every", "0.3", "--no-figures"]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 200
    while not any(name.endswith(".checkpoint") for name in names(s3)):
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert names(s3)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ, timeout=250)
    assert_same_results(out, alone)
    assert names(s3) == []


@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_said_before_anything_is_queued(s3: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"the store s3://nowhere/a can't be written .*bucket does not exist"):
        tombola.run("demo", tmp_path / "out", on="dask", workers=1, store="s3://nowhere/a", quiet=True)
    assert not [path for path in (tmp_path / "out" / "jobs").iterdir() if not path.name.startswith(".")]
