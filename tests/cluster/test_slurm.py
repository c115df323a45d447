"""A real SLURM of one node, which `slurm.sh` starts: jobs reach their walltime, and the study finishes all the same."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from same_results import assert_same_results

import tombola
from tombola.errors import ClusterError
from tombola.running.sites import site_for
from tombola.studies.cluster import ClusterSettings

MISSING = [program for program in ("slurmctld", "slurmd", "sbatch", "munged") if shutil.which(program) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (apt-get install slurm-wlm munge)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start SLURM's daemons"),
]
SCRIPT = Path(__file__).with_name("slurm.sh")
SETTINGS = {"partition": "tests", "memory": "500MB", "workers": 2}


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    done = subprocess.run([SCRIPT, "start", folder], check=True, capture_output=True, text=True)
    name, _, value = done.stdout.strip().partition("=")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, value)
        yield
    subprocess.run([SCRIPT, "stop", folder], check=True)


def test_a_partition_that_does_not_exist_is_said_before_anything_is_queued(tmp_path: Path) -> None:
    settings = ClusterSettings(**SETTINGS | {"partition": "nowhere"})
    with pytest.raises(ClusterError, match=r"SLURM refuses the job \(.*[Ii]nvalid partition.*\); correct the settings"):
        tombola.run("demo", tmp_path / "out", on="slurm", cluster=settings, quiet=True)
    assert not (tmp_path / "out").exists()
    assert not subprocess.run(["squeue", "-h"], check=True, capture_output=True).stdout


def test_a_gpu_needs_the_setting() -> None:
    site = site_for("slurm", ClusterSettings())
    assert site.device("auto") == "cpu"
    assert site_for("slurm", ClusterSettings(gpus=1)).device("auto") == "cuda"
    with pytest.raises(tombola.InputError, match="device='cuda': with gpus: 0, jobs of SLURM have only cpu"):
        site.device("cuda")


@pytest.mark.timeout(900)
def test_runs_longer_than_the_walltime_finish(tmp_path: Path) -> None:
    changes = {"trials": 1, "pruning.rounds": 1, "arms": ["ticket"], "training.iterations": 60_000}
    study = tombola.Study.load("demo", **changes, **{"training.evaluate_every": 2000})
    settings = ClusterSettings(**SETTINGS, walltime="0:01:00")
    tombola.run(
        study, tmp_path / "out", on="slurm", cluster=settings, engine="dense", figures=False, checkpoint_every=1000
    )
    tombola.run(study, tmp_path / "alone", workers=2, engine="dense", figures=False, quiet=True)
    assert_same_results(tmp_path / "out", tmp_path / "alone")
