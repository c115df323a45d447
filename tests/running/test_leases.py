"""Leases: who executes an item where machines share a folder, whose clocks and locks tell nothing of each other."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import tombola
import tombola.running.leases as leases
from tombola.errors import StoreError
from tombola.pruning.mask import Mask
from tombola.running.leases import Leases
from tombola.running.store import Store
from tombola.studies.plan import make_plan

ID = "0123456789abcdef"
HOLD = """
import sys, time, tombola.running.leases as leases
from pathlib import Path
leases.machine = lambda: sys.argv[2]
held = leases.Leases(Path(sys.argv[1]), float(sys.argv[3]))
print(held.claim(sys.argv[4]), flush=True)
time.sleep(60)
"""


def no_links(*_: object) -> None:
    raise OSError(errno.EPERM, "no hard links here")


class Clock:
    """This observer's monotonic clock, as the test sets it; the time of day is wrong by years."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1.0

    def sleep(self, _seconds: float) -> None:
        raise AssertionError("only keepers sleep")


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    Store(tmp_path).create()
    return tmp_path / "jobs"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Take all keepers and clocks away: leases change, and time passes, when the test says so."""
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    monkeypatch.setattr(leases._KEEPER, "keep", lambda lease: None)
    return clock


def on_machine(name: str, jobs: Path, monkeypatch: pytest.MonkeyPatch) -> Leases:
    """Return the leases as a process of another machine sees them: locks of this one tell it nothing."""
    made = Leases(jobs, seconds=60)
    own = made.claim

    def claim(work_id: str, expired: str | None = None) -> bool:
        with monkeypatch.context() as patch:
            patch.setattr(leases, "machine", lambda: name)
            patch.setattr(made, "_lock", lambda work_id: None)
            return own(work_id, expired)

    made.claim = claim  # type: ignore[method-assign]
    return made


def wait_out(observer: Leases, clock: Clock) -> None:
    for _ in range(2 * leases.BEATS):
        observer.is_held(ID)
        clock.now += 60 / leases.BEATS


def test_a_silent_holder_loses_its_item_and_may_write_no_more(
    jobs: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (on_machine(name, jobs, monkeypatch) for name in ("one", "other"))
    assert one.claim(ID)
    assert not other.claim(ID)
    assert one.may_write(ID)
    wait_out(other, clock)
    assert other.claim(ID)
    assert not one.may_write(ID)
    assert one.is_lost(ID)
    assert other.may_write(ID)
    one.let_go(ID, finished=True)  # and takes nothing from its successor
    assert other.may_write(ID)
    other.let_go(ID, finished=True)
    assert not (jobs / ".leases" / ID).exists()


def test_a_holder_that_beats_keeps_its_item(jobs: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (on_machine(name, jobs, monkeypatch) for name in ("one", "other"))
    assert one.claim(ID)
    for _ in range(5 * leases.BEATS):
        one._held[ID].beat()
        assert other.is_held(ID)
        clock.now += 59.0
    assert not other.claim(ID)


def test_an_observer_that_was_stopped_itself_looks_again(
    jobs: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (on_machine(name, jobs, monkeypatch) for name in ("one", "other"))
    assert one.claim(ID)
    assert other.is_held(ID)
    clock.now += 3600
    assert other.is_held(ID)


def test_of_two_that_give_a_holder_up_one_takes_over(jobs: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, third = (on_machine(name, jobs, monkeypatch) for name in ("one", "other", "third"))
    assert one.claim(ID)
    for observer in (other, third):
        wait_out(observer, clock)
    mark = third.expired(ID)
    assert other.claim(ID)
    assert not third.claim(ID, mark)
    assert third.is_held(ID)


def test_a_worker_takes_the_word_of_its_scheduler(jobs: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    one, scheduler, worker = (on_machine(name, jobs, monkeypatch) for name in ("one", "other", "third"))
    assert one.claim(ID)
    assert not worker.claim(ID)
    wait_out(scheduler, clock)
    assert not scheduler.is_held(ID)
    assert worker.claim(ID, scheduler.expired(ID))


def test_who_lets_go_is_followed_at_once_and_its_folder_is_kept(
    jobs: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (on_machine(name, jobs, monkeypatch) for name in ("one", "other"))
    assert one.claim(ID)
    part = one.part(ID)
    part.mkdir()
    one.let_go(ID, finished=False)
    assert not other.is_held(ID)
    assert other.claim(ID)
    assert other.part(ID) == part


def test_what_a_silent_holder_saved_goes_to_its_successor_and_out_of_its_reach(
    jobs: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (on_machine(name, jobs, monkeypatch) for name in ("one", "other"))
    assert one.claim(ID)
    part = one.part(ID)
    part.mkdir()
    (part / "checkpoint").write_text("saved")
    wait_out(other, clock)
    assert other.claim(ID)
    assert (other.part(ID) / "checkpoint").read_text() == "saved"
    assert one.part(ID) == part != other.part(ID)
    assert not part.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"owner": 3}', "9" * 5000, "\0\0"])
def test_a_lease_that_makes_no_sense_is_waited_for(jobs: Path, clock: Clock, content: str) -> None:
    folder = jobs / ".leases" / ID
    folder.mkdir(parents=True)
    (folder / "3").write_text(content)
    (folder / "no number").touch()
    observer = Leases(jobs)
    assert observer.is_held(ID)
    assert not observer.claim(ID)
    wait_out(observer, clock)
    assert observer.claim(ID)
    assert sorted(os.listdir(folder)) == ["4", "no number"]


def test_a_dead_process_of_this_machine_holds_nothing(jobs: Path) -> None:
    here = Leases(jobs)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(jobs), leases.machine(), "1e5", ID], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert here.is_held(ID)
        assert not here.claim(ID)
        other.kill()
    assert not here.is_held(ID)
    assert here.claim(ID)
    here.let_go(ID, finished=True)


@pytest.mark.slow
def test_a_dead_process_of_another_machine_is_given_up_when_its_lease_ends(jobs: Path) -> None:
    here = Leases(jobs)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(jobs), "another machine", "0.3", ID], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        for _ in range(20):  # it beats
            leases.time.sleep(0.05)
            assert not here.claim(ID)
        other.kill()
    for _ in range(100):
        leases.time.sleep(0.05)
        if here.claim(ID):
            break
    assert here.may_write(ID)
    here.let_go(ID, finished=True)


def test_a_worker_that_wakes_up_replaces_no_result(
    tmp_path: Path, jobs: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, demo: tombola.Study
) -> None:
    item = next(item for item in make_plan(demo).work.values() if item.kind == "mask-search")
    mask = Mask({"fc.weight": torch.tensor([True, False])})
    stale, fresh = Store(tmp_path), Store(tmp_path)
    stale.leases, fresh.leases = (on_machine(name, jobs, monkeypatch) for name in ("stale", "fresh"))

    def save(store: Store) -> None:
        store.save_mask(
            item, mask, {"seconds": 1.0, "remaining": {"fc.weight": 1}, "by": store.leases.part(item.id).name}
        )

    assert stale.leases.claim(item.id)
    for _ in range(2 * leases.BEATS):
        fresh.is_claimed(item.id)
        clock.now += 60 / leases.BEATS
    with fresh.claim(item.id) as mine:
        assert mine
        save(fresh)
    before = (jobs / item.folder).lstat().st_ino
    save(stale)
    assert (jobs / item.folder).lstat().st_ino == before
    monkeypatch.setattr(stale.leases, "may_write", lambda work_id: True)  # it looked just before it was stopped
    monkeypatch.setattr(stale, "folder", lambda work_id: None)
    save(stale)
    assert (jobs / item.folder).lstat().st_ino == before
    assert fresh.facts(item.id)["by"] != f".{item.id}.part"
    assert not list(jobs.glob(".*.part"))
    assert not list(jobs.glob(".*.old"))


def test_a_run_that_a_dead_machine_had_is_done_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tombola.running.scheduler.PATIENCE", 0.05)
    changes = {"trials": 1, "arms": ["ticket"], "pruning.rounds": 0, "training.iterations": 5}
    study = tombola.Study.load("demo", **changes)
    store = Store(tmp_path / "shared")
    store.create()
    (first,) = make_plan(study).work
    dead = on_machine("dead", store.jobs, monkeypatch)
    dead.seconds = 0.5
    with monkeypatch.context() as patch:
        patch.setattr(leases._KEEPER, "keep", lambda lease: None)  # it never shows a sign of life
        assert dead.claim(first)
    results = tombola.run(study, store.root, workers=0, figures=False, quiet=True)
    assert not results.missing()
    assert not dead.may_write(first)


def test_a_holder_that_dies_as_it_claims_leaves_no_empty_lease(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(leases, "Lease", die)
        with pytest.raises(KeyboardInterrupt):
            Leases(jobs).claim(ID)
    here = Leases(jobs)
    assert here.note(ID) is not None
    assert not here.is_held(ID)
    assert here.claim(ID)
    here.let_go(ID, finished=True)
    assert not list(jobs.glob(".*.tmp"))


def test_leases_need_no_hard_links(jobs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", no_links)
    here, other = Leases(jobs), Leases(jobs)
    assert here.claim(ID)
    assert here.note(ID) is not None
    assert not other.claim(ID)
    here.let_go(ID, finished=False)
    assert other.claim(ID)
    other.let_go(ID, finished=True)


@pytest.mark.parametrize("links", [True, False])
def test_a_folder_that_its_holder_deletes_meanwhile_ends_no_command(
    jobs: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    here, number_of = Leases(jobs), leases.numbers_in

    def then_gone(folder: Path) -> list[int]:
        found = number_of(folder)
        folder.rmdir()
        return found

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    with monkeypatch.context() as patch:
        patch.setattr(leases, "numbers_in", then_gone)
        assert not here.claim(ID)
    assert here.claim(ID)
    here.let_go(ID, finished=True)


def test_a_short_lease_beats_in_time_beside_a_long_one(jobs: Path) -> None:
    long, short = Leases(jobs, 3600.0), Leases(jobs, 0.3)
    assert long.claim("long")
    time.sleep(0.1)  # its keeper waits now
    assert short.claim(ID)
    before = short.note(ID)
    time.sleep(0.3)
    after = short.note(ID)
    for held, work_id in ((long, "long"), (short, ID)):
        held.let_go(work_id, finished=True)
    assert before is not None
    assert after is not None
    assert after.beat > before.beat


def test_a_late_beat_writes_into_no_other_file(jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = Leases(jobs)
    assert here.claim(ID)
    lease = here._held[ID]
    beats, close = threading.Thread(target=lease.beat), os.close

    def beat_and_close(file: int) -> None:
        if file == number:
            beats.start()
            time.sleep(0.05)  # it would be past its look
        close(file)

    number = lease.file
    with monkeypatch.context() as patch:
        patch.setattr("tombola.running.lease.os.close", beat_and_close)
        here.let_go(ID, finished=False)
    reused = os.open(tmp_path / "precious", os.O_CREAT | os.O_RDWR)
    beats.join()
    os.close(reused)
    note = here.note(ID)
    assert note is not None
    assert (note.free, note.beat) == (True, 0)
    assert not (tmp_path / "precious").read_bytes()


@pytest.mark.parametrize(("code", "lost"), [(errno.ESTALE, True), (errno.EIO, False)])
def test_a_stale_handle_means_that_the_lease_is_lost(
    jobs: Path, monkeypatch: pytest.MonkeyPatch, code: int, lost: bool
) -> None:
    def fail(_file: int) -> None:
        raise OSError(code, os.strerror(code))

    here = Leases(jobs)
    assert here.claim(ID)
    with monkeypatch.context() as patch:
        patch.setattr("tombola.running.lease.os.fstat", fail)
        assert here.may_write(ID) is not lost
    assert here.is_lost(ID) is lost
    here.let_go(ID, finished=True)


@pytest.mark.parametrize("name", [".leases", f".leases/{ID}", ".locks", f".{ID}.part", f".leases/{ID}/1"])
@pytest.mark.parametrize("links", [True, False])
def test_a_link_in_the_place_of_a_folder_or_lease_is_refused(
    jobs: Path, tmp_path: Path, clock: Clock, name: str, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / ID / "2024").mkdir(parents=True)
    (home / "7").write_text("precious")
    (home / ID / "2024" / "photo").write_text("precious")
    before = sorted(home.rglob("*"))
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    place = jobs / name
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rmdir()
    place.symlink_to(home)
    observer = Leases(jobs)
    wait_out(observer, clock)
    with pytest.raises(StoreError, match="delete it"):
        observer.claim(ID)
    assert sorted(home.rglob("*")) == before
    place.unlink()
    (jobs / ".locks").mkdir(exist_ok=True)
    assert Leases(jobs).claim(ID)


def test_folders_named_like_leases_keep_their_content(jobs: Path) -> None:
    (jobs / ".leases" / ID / "2024").mkdir(parents=True)
    photo = jobs / ".leases" / ID / "2024" / "photo"
    photo.write_text("precious")
    here = Leases(jobs)
    assert here.claim(ID)
    here.let_go(ID, finished=True)
    assert photo.exists()


def test_what_a_link_leads_to_is_not_inherited(
    jobs: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = (on_machine(name, jobs, monkeypatch) for name in ("one", "other"))
    assert one.claim(ID)
    (jobs / f".{ID}.0123.part").symlink_to(tmp_path)
    wait_out(other, clock)
    assert other.claim(ID)
    assert not other.part(ID).exists()


@pytest.mark.parametrize("code", ["ENOSYS", "ENOLCK", "ENOTSUP", "EOPNOTSUPP"])
def test_a_file_system_without_locks_has_leases_all_the_same(
    jobs: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def fail(_file: int, _operation: int) -> None:
        raise OSError(getattr(errno, code), os.strerror(getattr(errno, code)))

    monkeypatch.setattr(fcntl, "flock", fail)
    here, other = Leases(jobs), Leases(jobs)
    assert here.claim(ID)
    note = here.note(ID)
    assert note is not None
    assert not note.locked
    assert other.is_held(ID)
    assert not other.claim(ID)
    here.let_go(ID, finished=False)
    assert other.claim(ID)
    other.let_go(ID, finished=True)
    one, another = Store(jobs.parent), Store(jobs.parent)
    with one.running_file() as running:
        another.clean()
        assert running.exists()
