"""Small files of the store: noticed when altered, and cleaned up after a killed process."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tombola.errors import StoreError
from tombola.running.files import Damaged, clean_leftovers, read_json_checked, write_json_checked
from tombola.terminal import printing

CONTENT = {"study": "demo", "rows": [1, 2.5, None, "é", math.inf], "empty": {}}


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write_json_checked(tmp_path / "plan.json", CONTENT)
    assert read_json_checked(tmp_path / "plan.json") == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_every_flipped_bit_is_noticed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "plan.json"
    write_json_checked(path, CONTENT)
    content = bytearray(path.read_bytes())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"plan\.json"):
        read_json_checked(path)


@pytest.mark.parametrize("cut", [0, 1, 40, 90, -1])
def test_so_is_a_cut(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "plan.json"
    write_json_checked(path, CONTENT)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(Damaged, match="is not what was written"):
        read_json_checked(path)


def test_other_things_than_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(Damaged):
            read_json_checked(path)
    with pytest.raises(FileNotFoundError):
        read_json_checked(tmp_path / "gone")
    write_json_checked(tmp_path / "large", list(range(1000)))
    with pytest.raises(Damaged, match="more than 100 bytes"):
        read_json_checked(tmp_path / "large", limit=100)


def test_a_full_device_and_a_closed_stream_are_said() -> None:
    no_space = pytest.raises(StoreError, match="can't write to standard output: No space left")
    with no_space, printing(), open("/dev/full", "wb", buffering=0) as full:
        full.write(b"x")
    with open(os.devnull, "w") as closed:
        pass
    with pytest.raises(StoreError, match="it is closed"), printing():
        closed.write("x")
    with pytest.raises(BrokenPipeError), printing():
        raise BrokenPipeError


def test_what_a_killed_process_left_is_cleaned(tmp_path: Path) -> None:
    """Only what is old: another process may be at work."""
    old = [".plan.json.123.tmp", ".probe.77"]
    kept = [".running.0f", ".0123abcd.old", "plan.json", "study.yaml", "old", "x.tmp"]
    for name in old + kept:
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - 7200,) * 2)
    (tmp_path / ".folder.tmp").mkdir()
    (tmp_path / ".folder.tmp" / "weights").write_text("")
    os.utime(tmp_path / ".folder.tmp", (time.time() - 7200,) * 2)
    (tmp_path / ".new.5.tmp").write_text("")
    assert {path.name for path in clean_leftovers(tmp_path)} == {*old, ".folder.tmp"}
    assert {path.name for path in tmp_path.iterdir()} == {*kept, ".new.5.tmp"}
    assert clean_leftovers(tmp_path / "gone") == []
