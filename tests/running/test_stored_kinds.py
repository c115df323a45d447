"""Every kind of work has its results checked on reading."""

from tombola.running import stored
from tombola.work import KINDS


def test_each_kind_has_its_facts_checked():
    assert set(stored._OF_KIND) == set(KINDS)
