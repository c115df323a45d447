"""Results folders and tables of results from strangers, or from a disk that forgets."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fuzz_harness import cases, change, damaged, damaged_text, few_cases, harmless, json_values, many_cases
from hypothesis import example, given
from hypothesis import strategies as st

import tombola
from tombola.analysis.claims import evaluate, published_claims
from tombola.analysis.reading import read_levels
from tombola.running.files import read_json_checked, write_json_checked, write_sums
from tombola.running.progress import position, read_progress
from tombola.running.store import Store
from tombola.tables.overview import status_table

SMALL = {"trials": 1, "training.iterations": 20, "training.evaluate_every": 10, "pruning.rounds": 2}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "demo"
    study = tombola.Study.load("demo", arms=["ticket", "reinit"], **SMALL)
    tombola.run(study, folder, workers=0, figures=False, quiet=True)
    return folder


@pytest.fixture(scope="module")
def truth(finished: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    return rows_of(tombola.Results.open(finished).frame())


@pytest.fixture(scope="module")
def copy(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Return a fresh copy of the folder, always at one place: files that nothing has changed are left as they are."""
    place = tmp_path_factory.mktemp("copy") / "demo"

    def make() -> Path:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(finished, place)
        return place

    return make


def rows_of(frame: pd.DataFrame) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return rows by what they are about; as text, for NaN is not equal to itself."""
    rows = frame.to_dict("records")
    return {
        (row["arm"], row["trial"], row["repeat"], row["level"]): {k: repr(v) for k, v in row.items()} for row in rows
    }


def check(folder: Path, truth: dict[tuple[Any, ...], dict[str, Any]]) -> None:
    """Read a folder as all commands do; what is shown must be true, apart from how the study calls itself."""
    with harmless():
        found = tombola.Results.open(folder)
        for key, row in rows_of(found.frame()).items():
            assert key in truth, "a row of nothing"
            different = {name for name in row if row[name] != truth[key][name]}
            assert different <= {"study"}, f"a wrong row: {key}: {different}"
        found.missing()
        found.damaged()
        found.curves()
        for level in (0, 2):
            with contextlib.suppress(tombola.InputError):
                found.ticket(level=level)
    with harmless():
        status_table([folder])


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not {".leases", ".locks"} & set(path.parts))


@few_cases
@given(st.data())
def test_damaged_files_of_a_store(
    copy: Callable[[], Path], truth: dict[tuple[Any, ...], dict[str, Any]], data: st.DataObject
) -> None:
    folder = copy()
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(
            st.sampled_from([path.relative_to(folder) for path in files_of(folder)]).map(lambda p: folder / p)
        )
        path.write_bytes(data.draw(damaged(path.read_bytes())))
    check(folder, truth)


NAMES = ("..", "...", "-", "a-b", "x" * 255, "\u202e", "\x1b[2J", "=1", ".part", ".0.part", "..part", "\udcff", "\n")


@few_cases
@given(st.data())
def test_moved_and_swapped_parts_of_a_store(
    copy: Callable[[], Path], truth: dict[tuple[Any, ...], dict[str, Any]], data: st.DataObject
) -> None:
    folder = copy()
    jobs = folder / "jobs"
    results = sorted(path.name for path in jobs.iterdir() if not path.name.startswith("."))
    one, other = (jobs / data.draw(st.sampled_from(results)) for _ in range(2))
    identity = one.name.rpartition("-")[2]
    kind = data.draw(st.integers(0, 9))
    if kind == 0:  # two folders change their names
        one.rename(jobs / ".aside")
        if other.exists():
            other.rename(one)
        (jobs / ".aside").rename(other)
    elif kind == 1:  # a copy passes for another
        shutil.rmtree(other)
        if one.exists():
            shutil.copytree(one, other)
    elif kind == 2:  # files of one in the other
        for name in data.draw(st.lists(st.sampled_from(sorted(os.listdir(one))))):
            shutil.copyfile(one / name, jobs / ".aside")
            (jobs / ".aside").replace(other / name)
    elif kind == 3:  # a result with right checksums that says something else
        facts = json.loads((one / "result.json").read_text())
        field = data.draw(st.sampled_from(["id", "settings", "kind", "spec"]))
        facts[field] = data.draw(
            st.one_of(json_values, st.just(json.loads((other / "result.json").read_text())[field]))
        )
        (one / "result.json").write_text(json.dumps(facts))
        write_sums(one, [path.name for path in one.iterdir() if path.name != "SHA256SUMS"])
    elif kind == 4:
        shutil.rmtree(one)
        one.symlink_to(data.draw(st.sampled_from([other, Path("/"), Path("/dev/zero"), one, Path("/proc/self")])))
    elif kind == 5:
        name = data.draw(st.sampled_from(sorted(os.listdir(one))))
        (one / name).unlink()
        target = data.draw(st.sampled_from(["/dev/zero", "/dev/full", "/proc/kmsg", "nowhere", name, "/etc/passwd"]))
        (one / name).symlink_to(target)
    elif kind == 6:
        name = data.draw(
            st.sampled_from([*NAMES, f"x-{identity}", f".{identity}.part", f".{identity}.old", f"-{identity}"])
        )
        with contextlib.suppress(OSError):
            if data.draw(st.booleans()):
                (jobs / name).mkdir(exist_ok=True)
            else:
                (jobs / name).touch()
    elif kind == 7:
        one.rename(jobs / f"other.{identity}")
    elif kind == 8:
        shutil.rmtree(one)
        one.write_bytes(b"a file")
    else:
        os.mkfifo(jobs / f"pipe-{identity}")
    check(folder, truth)


def use(folder: Path) -> None:
    """Read a folder whose author may have written anything: no row can be called wrong."""
    with harmless():
        found = tombola.Results.open(folder)
        found.frame()
        found.curves()
        found.settling()
        found.connectivity()
        found.missing()
        found.damaged()
        for level in (0, 2):
            with contextlib.suppress(tombola.InputError):
                found.ticket(level=level)
    with harmless():
        status_table([folder])


@few_cases
@given(st.data())
def test_crafted_plans(copy: Callable[[], Path], data: st.DataObject) -> None:
    """Whoever makes a plan can compute its checksum."""
    folder = copy()
    content = read_json_checked(folder / "plan.json")
    change(data, content)
    write_json_checked(folder / "plan.json", content)
    use(folder)


@few_cases
@given(st.data())
def test_crafted_results(copy: Callable[[], Path], data: st.DataObject) -> None:
    """Whoever makes a result can compute its checksums."""
    folder = copy()
    one = data.draw(st.sampled_from(sorted(path.name for path in (folder / "jobs").iterdir() if path.name[0] != ".")))
    path = folder / "jobs" / one / "result.json"
    content = json.loads(path.read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        change(data, content)
    path.write_text(json.dumps(content))
    write_sums(path.parent, [path.name for path in path.parent.iterdir() if path.name != "SHA256SUMS"])
    use(folder)


@many_cases
@example('{"label": "a", "iteration": 1}')
@given(
    st.one_of(json_values.map(json.dumps), damaged_text('{"label": "a", "iteration": 1, "budget": 2, "metrics": {}}'))
)
def test_progress_notes(tmp_path_factory: pytest.TempPathFactory, note: str) -> None:
    folder = tmp_path_factory.getbasetemp() / "notes"
    store = Store(folder)
    store.part("0123456789abcdef").mkdir(parents=True, exist_ok=True)
    (store.part("0123456789abcdef") / "progress.json").write_text(note, encoding="utf-8", errors="surrogatepass")
    with harmless():
        state = read_progress(store, "0123456789abcdef")
        if state is not None:
            f"{state['label']} at {position(state)}"


@cases
@given(st.data())
def test_tables_of_results(copy: Callable[[], Path], finished: Path, data: st.DataObject) -> None:
    text = (finished / "results.csv").read_text()
    damage = st.one_of(damaged_text(text), damaged(text.encode()).map(lambda content: content.decode("latin-1")))
    path = finished.parent / "results.csv"
    path.write_text(data.draw(damage), encoding="utf-8", errors="surrogatepass")
    with harmless():
        levels, settings = read_levels(path)
        wanted = random.Random(0).sample(published_claims(), 3)
        evaluate(levels, wanted, settings)
