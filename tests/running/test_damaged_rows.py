"""A damaged result is left out of tables, named, and shown in the exit status."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import tombola
from tombola import cli


@pytest.mark.parametrize("form", ["csv", "json", "table"])
def test_a_damaged_row_is_named(
    copied: Path, form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder,) = (copied / "jobs").glob("*trial-0.ticket.level-02-*")
    damaged = folder / "weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    monkeypatch.setattr(sys, "argv", ["tombola", "results", str(copied), "--format", form])
    with pytest.raises(SystemExit) as end:
        cli.main()
    out, err = capsys.readouterr()
    assert end.value.code == 1
    assert err.count("tombola: ") == 1
    assert str(damaged) in err
    assert "the table omits it, and `tombola run` repeats it" in err
    assert out.strip(), "the other rows are there"
    frame = tombola.Results.open(copied).frame()
    assert not (frame["job"] == folder.name.rpartition("-")[2]).any()


def test_whole_results_are_no_error(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tombola", "results", str(finished), "--format", "csv"])
    cli.main()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("target", ["/dev/zero", "/proc/kmsg"])
@pytest.mark.parametrize("name", ["result.json", "weights.safetensors", "SHA256SUMS"])
def test_a_link_to_a_device_does_not_hang(copied: Path, name: str, target: str) -> None:
    """Found by fuzzing: the checksum of /dev/zero never ends, and /proc/kmsg, a regular file, waits for ever."""
    (folder,) = (copied / "jobs").glob("*trial-0.ticket.level-02-*")
    (folder / name).unlink()
    (folder / name).symlink_to(target)
    found = tombola.Results.open(copied)
    assert found.missing() == 1
    (message,) = found.damaged()
    assert str(folder) in message
