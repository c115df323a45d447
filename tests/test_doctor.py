"""`tombola doctor` tells what is there, and what is missing."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path

import pytest
from click.testing import CliRunner

import tombola.doctor as doctor
from tombola import extras
from tombola.cli import cli


def found(**options: Path) -> dict[str, doctor.Finding]:
    return {finding.what: finding for finding in doctor.findings(**options)}


def test_a_damaged_data_set_needs_help(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            (folder / f"{part}-{kind}-ubyte").write_bytes(b"\0" * 100)
    answer = CliRunner().invoke(cli, ["doctor", "--data", str(tmp_path)])
    assert answer.exit_code == 1
    of_mnist = found(data=tmp_path)["data: mnist"]
    assert of_mnist.found == "damaged"
    assert of_mnist.fault
    assert str(folder) in of_mnist.means


def test_what_is_not_there_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "cache"))
    lines = found(data=tmp_path, folder=tmp_path)
    for name in doctor.PUBLISHED:
        assert lines[f"data: {name}"].found == "none"
    assert not any(finding.fault for finding in lines.values())


def test_a_folder_of_data_that_run_refuses_is_a_fault(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    answer = CliRunner().invoke(cli, ["doctor", "--data", str(missing)])
    assert answer.exit_code == 1
    assert "downloads it when" not in answer.output
    line = found(data=missing)["data sets"]
    assert line.fault
    refused = CliRunner().invoke(cli, ["run", "demo", "--data", str(missing), "--out", str(tmp_path / "out")])
    assert refused.exit_code != 0
    assert line.means == str(refused.exception)
    assert "this folder does not exist" in line.means


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "installed", lambda module: module == "pyarrow")
    lines = found()
    assert lines["extras"].found == "parquet"
    assert {*extras.EXTRAS.values(), *extras.INTEGRATIONS.values()} - {"parquet"} == set(
        lines["extras"].means.removeprefix("not installed: ").split(", ")
    )
    assert "tombola[fast]" in lines["sparse engines"].means


def test_free_space_is_that_of_the_nearest_folder_that_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    asked: list[Path] = []

    def disk_usage(folder: Path) -> object:
        asked.append(folder)
        return usage(10, 10, 10**7)

    monkeypatch.setattr("shutil.disk_usage", disk_usage)
    line = found(folder=tmp_path / "not" / "yet")["results"]
    assert asked == [tmp_path]
    assert line.fault
    assert line.found == "0.0 GB free"
