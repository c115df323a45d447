from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from tombola.data import SOURCES, DataSettings, describe, fingerprint, load
from tombola.errors import InputError


@pytest.mark.parametrize("ask", [describe, fingerprint, load])
def test_an_unknown_source_names_its_neighbours(ask):
    with pytest.raises(InputError, match="unknown source 'minst'; did you mean 'mnist'"):
        ask(DataSettings(source="minst", validation=1))
    with pytest.raises(InputError, match="known: cifar10, cifar100, digits, fashion-mnist, mnist, mnist-permuted, npz"):
        ask(DataSettings(source="zzz", validation=1))


@pytest.mark.parametrize("path", [None, ""])
def test_npz_needs_a_path(path):
    with pytest.raises(ValidationError, match="npz needs path"):
        DataSettings(source="npz", validation=1, path=path)


@pytest.mark.parametrize("source", ["mnist", "fashion-mnist", "mnist-permuted", "cifar10", "cifar100", "digits"])
def test_other_sources_have_none(source):
    with pytest.raises(ValidationError, match="path needs source: npz"):
        DataSettings(source=source, validation=1, path="own.npz")


@pytest.mark.parametrize("validation", [-1, 1.0, 1.5, None])
def test_validation_is_a_number_of_examples(validation):
    with pytest.raises(ValidationError):
        DataSettings(source="mnist", validation=validation)


def test_identity():
    assert DataSettings(source="mnist", validation=5_000).identity() == {"source": "mnist", "validation": 5_000}


def test_every_source_can_be_described_or_says_what_it_lacks():
    assert set(SOURCES) == {"mnist", "fashion-mnist", "mnist-permuted", "cifar10", "cifar100", "digits", "npz"}


def test_importing_the_room_imports_no_http_library():
    code = "import sys, tombola.data; print([m for m in ('pooch', 'requests', 'urllib3') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
