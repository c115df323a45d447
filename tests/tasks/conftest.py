import pytest
import task_nets

from tombola.data import sources


@pytest.fixture(autouse=True)
def made_up_sources(monkeypatch):
    """Make the data of `task_nets` known as sources, as a user's own data are."""
    for kind in task_nets.KINDS:
        source = sources.Source(
            describe=lambda place, kind=kind: task_nets.dataset(kind).description,
            load=lambda place, kind=kind: task_nets.dataset(kind),
        )
        monkeypatch.setitem(sources.SOURCES, kind, source)
