"""The numbers of small studies are the frozen ones, to the last bit: a change of structure leaves them alone.

`python tests/golden/freeze.py` freezes them again. On a machine other than the one they were frozen on they must be as
close as rounding allows: `golden_compare` says how close.
"""

import pytest
from golden_cases import CASES, FAMILIES
from golden_compare import differences
from golden_numbers import family_of, numbers_of, read, signature


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch):
    monkeypatch.delenv("TOMBOLA_DATA", raising=False)


def compare(name, folder, workers=0):
    """Run a case, and fail with the first numbers that differ."""
    where, cases = read(family_of(name))
    exact = where == signature()
    found = sorted(differences(cases[name], numbers_of(name, folder, workers), exact))
    kind = "bit-equal" if exact else "close (this is another machine)"
    assert not found, f"{len(found)} numbers of {name} are not {kind}; the first:\n" + "\n".join(found[:10])


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_the_frozen_ones(name, tmp_path):
    compare(name, tmp_path)


def test_the_numbers_do_not_depend_on_workers(tmp_path):
    compare("lenet-mnist", tmp_path, workers=2)


@pytest.mark.parametrize("family", FAMILIES)
def test_each_case_is_frozen(family):
    assert list(read(family)[1]) == list(FAMILIES[family])
