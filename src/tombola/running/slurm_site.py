"""Computing in jobs of SLURM, which are workers of a Dask scheduler in this process."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import subprocess
import tempfile
from typing import Any

import platformdirs
from dask_jobqueue import SLURMCluster

from tombola.errors import ClusterError, InputError
from tombola.running.dask_site import DaskSite
from tombola.studies.cluster import ClusterSettings

SUBMIT = 60.0  # seconds that sbatch has to judge a job


class SlurmSite(DaskSite):
    """Jobs of SLURM, each with one worker. Dask's scheduler runs in this process; a job that ends is replaced."""

    takes_address = False

    def describe(self) -> str:
        """Return for a person where work is computed."""
        return f"computed by jobs of SLURM: {self.settings.text()}{self.stored()}"

    def started(self, stack: contextlib.ExitStack, workers: int | None) -> str:
        """Start a scheduler in this process, and queue jobs that are its workers; return its address."""
        if shutil.which("sbatch") is None:
            raise ClusterError("--on slurm: this machine has no sbatch; run tombola on a login node of the cluster")
        self.count = workers or self.settings.workers or 1
        cluster = stack.enter_context(_slurm_cluster(self.settings))
        _check_job(cluster.job_script(), self.settings)
        return self.kept(cluster)

    def wait(self) -> None:
        """Wait for nothing: jobs may stand in a queue for hours."""

    def device(self, asked: str) -> str:
        """Return the device to train on, as the settings say: no job runs yet."""
        has = "cuda" if self.settings.gpus else "cpu"
        if asked not in ("auto", "cpu", has):
            raise InputError(
                f"device={asked!r}: with gpus: {self.settings.gpus}, jobs of SLURM have only {has}; change gpus in the "
                "settings of the cluster, or give --device auto"
            )
        return has if asked == "auto" else asked


def _slurm_cluster(settings: ClusterSettings) -> Any:
    more = [*settings.directives, *([f"--gres=gpu:{settings.gpus}"] if settings.gpus else [])]
    return SLURMCluster(
        cores=settings.cores,
        processes=1,
        memory=settings.memory,
        walltime=settings.walltime,
        queue=settings.partition,
        account=settings.account,
        interface=settings.interface,
        job_extra_directives=more,
        job_script_prologue=[*_environment(settings.cores), *settings.environment],
        worker_extra_args=["--nthreads", "1", "--memory-limit", "0"],
        nanny=False,
        job_name="tombola",
        scheduler_options={"dashboard": False, "dashboard_address": ":0"},
        death_timeout=60,
        log_directory=platformdirs.user_log_dir("tombola"),
    )


def _environment(threads: int) -> list[str]:
    """Return shell lines that give a job this process's search path, and its libraries their threads."""
    path = os.environ.get("PYTHONPATH", "")
    lines = [f"export {name}={threads}" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")]
    return [*lines, f"export PYTHONPATH={shlex.quote(path)}"] if path else lines


def _check_job(script: str, settings: ClusterSettings) -> None:
    """Let SLURM judge a job without queueing it: partition, account, resources.

    Raises:
        ClusterError: it would not run such a job.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".sh") as file:
        file.write(script)
        file.flush()
        try:
            done = subprocess.run(
                ["sbatch", "--test-only", file.name], capture_output=True, text=True, timeout=SUBMIT, check=False
            )
        except subprocess.TimeoutExpired:
            raise ClusterError(f"SLURM does not answer within {SUBMIT:.0f} seconds; try again later") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"sbatch says nothing, and ends with status {done.returncode}"]
        said = lines[-1].removeprefix("allocation failure: ")
        if "configuration source" in said:
            raise ClusterError(f"--on slurm: SLURM is not set up on this machine ({said}); run tombola on a login node")
        asked = settings.text(without=("workers", "environment", "lease"))
        raise ClusterError(f"SLURM refuses the job ({said}); correct the settings of the cluster: {asked}")
