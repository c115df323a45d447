"""The energy of jobs, by a tracker that counts 1 kWh at each reading - and, where it is installed, by codecarbon."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

import tombola
from tombola.errors import InputError
from tombola.running.energy import check_energy, metered
from tombola.training.loop import Record


class Tracker:
    """Stands for codecarbon's: tells its handlers the total when it is flushed, unless it could not measure."""

    made: ClassVar[list[Tracker]] = []
    fails = False

    def __init__(self, *, output_handlers: list[Any], **options: Any):
        self.handlers, self.options, self.total, self.running = output_handlers, options, 0.0, False
        Tracker.made.append(self)

    def start(self) -> None:
        self.running = True

    def flush(self) -> None:
        assert self.running
        self.total += 1.0
        for handler in self.handlers:
            if not self.fails:
                handler.out(SimpleNamespace(energy_consumed=self.total, emissions=self.total / 4), None)

    def stop(self) -> None:
        self.running = False


@pytest.fixture
def tracker(monkeypatch: pytest.MonkeyPatch) -> type[Tracker]:
    """Put the tracker in codecarbon's place."""
    codecarbon, output = ModuleType("codecarbon"), ModuleType("codecarbon.output")
    codecarbon.OfflineEmissionsTracker = Tracker
    codecarbon.__spec__ = importlib.util.spec_from_loader("codecarbon", None)
    output.BaseOutput = object
    monkeypatch.setitem(sys.modules, "codecarbon", codecarbon)
    monkeypatch.setitem(sys.modules, "codecarbon.output", output)
    monkeypatch.setattr(Tracker, "made", [])
    monkeypatch.setattr(Tracker, "fails", False)
    return Tracker


def begun() -> Record:
    """Return the record of a job that has been trained on."""
    record = Record()
    record.history["iteration"].append(0)
    return record


def test_jobs_that_are_trained_together_share(tracker: type[Tracker]) -> None:
    records = [Record(), Record()]
    with metered(records, True) as note:
        note()
        assert [record.energy_kwh for record in records] == [0.5, 0.5]
        note()
        note()
    assert [record.energy_kwh for record in records] == [1.5, 1.5]
    assert not tracker.made[0].running


def test_it_adds_up_over_interruptions(tracker: type[Tracker]) -> None:
    record = begun()
    record.energy_kwh = 3.0
    with metered([record], True) as note:
        note()
    assert record.energy_kwh == 4.0


@pytest.mark.parametrize(("before", "on"), [(None, True), (3.0, False), (None, False)])
def test_a_job_measured_in_part_has_none(tracker: type[Tracker], before: float | None, on: bool) -> None:
    record = begun()
    record.energy_kwh = before
    with metered([record], on) as note:
        note()
    assert record.energy_kwh is None
    assert len(tracker.made) == on


@pytest.mark.parametrize("country", ["", "DEU"])
def test_carbon_is_known_where_the_country_is(
    tracker: type[Tracker], monkeypatch: pytest.MonkeyPatch, country: str
) -> None:
    monkeypatch.setenv("TOMBOLA_COUNTRY", country)
    records = [Record(), Record(), begun()]
    with metered(records, True) as note:
        note()
        note()
    assert [record.energy_kwh for record in records] == [2 / 3, 2 / 3, None]
    assert [record.co2_kg for record in records] == ([1 / 6, 1 / 6, None] if country else [None] * 3)
    assert tracker.made[0].options["country_iso_code"] == (country or "USA")


def test_a_country_that_codecarbon_does_not_know(tracker: type[Tracker], monkeypatch: pytest.MonkeyPatch) -> None:
    known = ModuleType("codecarbon.input")
    known.DataSource = lambda: SimpleNamespace(get_global_energy_mix_data=lambda: {"DEU": {}})
    monkeypatch.setitem(sys.modules, "codecarbon.input", known)
    monkeypatch.setenv("TOMBOLA_COUNTRY", "DEU")
    check_energy()
    monkeypatch.setenv("TOMBOLA_COUNTRY", "Germany")
    with pytest.raises(InputError, match=r"TOMBOLA_COUNTRY='Germany' is not a country .* such as DEU"):
        check_energy()


def test_what_could_not_be_measured_is_not_nought(tracker: type[Tracker]) -> None:
    tracker.fails = True
    record = Record()
    with metered([record], True) as note:
        note()
    assert record.energy_kwh is None


def test_the_tracker_is_stopped_whatever_happens(tracker: type[Tracker]) -> None:
    with pytest.raises(ZeroDivisionError), metered([Record()], True):
        raise ZeroDivisionError
    assert not tracker.made[0].running


def test_a_run_states_the_energy_of_each_job(tracker: type[Tracker], demo: tombola.Study) -> None:
    results = tombola.run(demo, "measured", workers=0, energy=True, checkpoint_every=1000, figures=False, quiet=True)
    frame = results.frame()
    assert {"energy_kwh", "job"} <= set(frame.columns)
    assert set(frame["energy_kwh"]) == {1.0}
    assert len(tracker.made) == frame["job"].nunique()
    assert {made.options["tracking_mode"] for made in tracker.made} == {"process"}
    assert all(made.options["output_methods"] == [] for made in tracker.made)


def test_checkpoints_hold_what_was_used_so_far(tracker: type[Tracker], demo: tombola.Study) -> None:
    results = tombola.run(demo, "often", workers=0, energy=True, checkpoint_every=1e-9, figures=False, quiet=True)
    notes = [made.total for made in tracker.made]
    assert max(notes) > 2
    by_job = results.frame().drop_duplicates("job")["energy_kwh"]
    assert sorted(by_job) == sorted(notes)


def test_without_the_extra_nothing_begins(demo: tombola.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find: Callable[..., Any] = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "codecarbon" else find(name))
    with pytest.raises(InputError, match=r"pip install 'tombola\[energy\]'"):
        tombola.run(demo, tmp_path / "out", workers=0, energy=True, quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(importlib.util.find_spec("codecarbon") is None, reason="codecarbon is not installed")
def test_codecarbon_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    record = Record()
    with metered([record], True) as note:
        sum(range(3_000_000))
        note()
        first = record.energy_kwh
        sum(range(3_000_000))
        note()
    assert first is not None
    assert 0 < first < record.energy_kwh < 0.01
    assert list(Path().iterdir()) == []
    assert capfd.readouterr() == ("", "")
