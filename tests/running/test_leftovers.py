"""What killed processes leave is cleaned by the next run, and what living ones need is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tombola
from tombola.running.files import is_locked, read_json_checked, write_json_checked
from tombola.running.kept_plan import kept_plan
from tombola.running.store import Store

HOLD = """
import sys, time
from tombola.running.store import Store
store = Store(sys.argv[1])
with store.running_file() as path, store.claim("held"):
    print(path.name, flush=True)
    time.sleep(60)
"""


def test_what_nobody_holds_is_cleaned(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.create()
    for name in (".running.dead", ".gone.old/result.json", ".gone.adopted/result.json", ".held.old/result.json"):
        path = store.jobs / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    for path in (store.jobs / ".probe.77", tmp_path / ".results.csv.77.tmp"):
        path.touch()
        os.utime(path, (0, 0))
    kept = {".locks", ".leases", ".held.old", ".gone.part", "a-gone"}
    for name in (".gone.part", "a-gone", ".gone.0a.part"):  # the last one's worker woke up after the result was there
        (store.jobs / name).mkdir()
    (store.jobs / ".gone.part" / "checkpoint.safetensors").touch()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        running = other.stdout.readline().strip()
        store.clean()
        assert {path.name for path in store.jobs.iterdir()} == kept | {running}
        assert not list(tmp_path.glob(".*"))
        assert is_locked(store.jobs / running)
        other.send_signal(signal.SIGKILL)
    store.clean()
    assert {path.name for path in store.jobs.iterdir()} == kept - {".held.old"}


def test_looking_whether_a_job_is_held_writes_nothing(tmp_path: Path) -> None:
    """Not even where a stranger's folder holds a link in place of the lock."""
    store = Store(tmp_path / "out")
    store.create()
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (store.jobs / ".locks" / "linked").symlink_to(victim)
    before = victim.stat()
    for name in ("linked", "none", "../../../victim"):
        assert not store.is_claimed(name)
    assert victim.read_text() == "precious"
    assert victim.stat().st_mtime_ns == before.st_mtime_ns
    assert not (store.jobs / ".locks" / "none").exists()
    with store.claim("mine") as mine:
        assert mine
        assert store.is_claimed("mine")
    assert not store.is_claimed("mine")


@pytest.mark.parametrize("identity", ["../../../victim", "0123456789abcdef", "x" * 16])
def test_a_plan_names_only_its_own_work(copied: Path, identity: str) -> None:
    """A stranger can compute a checksum: whatever the plan says of identities is checked against the work."""
    content = read_json_checked(copied / "plan.json")
    content["work"][1]["id"] = identity
    write_json_checked(copied / "plan.json", content)
    with pytest.raises(tombola.StoreError, match="can't be read by this version"):
        kept_plan(copied)
    assert tombola.Results.open(copied).missing() == 0  # it is planned again, from the study
