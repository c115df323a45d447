"""The numbers of small studies are the frozen ones, to the last bit: a change of structure leaves them alone.

`python tests/golden/freeze.py` freezes them again. On a machine other than the one they were frozen on they must be as
close as rounding allows: `golden_compare` says how close.
"""

import math

import pytest
from golden_cases import CASES, DEEP, FAMILIES, SENSITIVE
from golden_compare import CLOSE, differences, tolerance_of
from golden_numbers import family_of, numbers_of, read, signature


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch):
    monkeypatch.delenv("TOMBOLA_DATA", raising=False)


def compare(name, folder, workers=0):
    """Run a case, and fail with the first numbers that differ."""
    where, cases = read(family_of(name))
    tolerance = tolerance_of(where == signature(), name in SENSITIVE)
    found = sorted(differences(cases[name], numbers_of(name, folder, workers), tolerance))
    kind = f"close ({tolerance}; frozen on another machine)" if tolerance else "bit-equal"
    assert not found, f"{len(found)} numbers of {name} are not {kind}; the first:\n" + "\n".join(found[:10])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in DEEP else name for name in CASES]
)
def test_the_numbers_are_the_frozen_ones(name, tmp_path):
    compare(name, tmp_path)


@pytest.mark.slow
def test_the_numbers_do_not_depend_on_workers(tmp_path):
    compare("lenet-mnist", tmp_path, workers=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_case_is_frozen(family):
    assert list(read(family)[1]) == list(FAMILIES[family])


@pytest.mark.parametrize("tolerance", [None, CLOSE], ids=["exact", "close"])
def test_a_changed_number_is_found_and_named(tolerance):
    frozen = read("lenet")[1]["lenet-mnist"]
    row = "row ticket 0 0 1"
    assert list(differences(frozen, frozen, tolerance)) == []
    for name, value in (("density", frozen[row]["density"] + 1e-6), ("final_val_loss", 9.0), ("status", "diverged")):
        changed = frozen | {row: frozen[row] | {name: value}}
        (line,) = differences(frozen, changed, tolerance)
        assert line.startswith(f"{row}: {name} was ")
    changed = {key: numbers for key, numbers in frozen.items() if key != row}
    assert list(differences(frozen, changed, tolerance)) == [f"{row}: only among the frozen numbers"]


def test_the_last_bit_of_a_number_counts_on_the_same_machine():
    frozen = read("lenet")[1]["lenet-mnist"]
    row = "row ticket 0 0 1"
    loss = frozen[row]["final_val_loss"]
    changed = frozen | {row: frozen[row] | {"final_val_loss": math.nextafter(loss, 9.0)}}
    assert len(list(differences(frozen, changed))) == 1
    assert list(differences(frozen, changed, CLOSE)) == []
