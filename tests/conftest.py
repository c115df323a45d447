"""What every test needs: the helpers can be imported, and PyTorch computes on one thread."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before PyTorch is imported: sums on one thread are the same every time
settings.register_profile("tombola", deadline=None)  # a time limit on an example fails on a busy machine
settings.load_profile("tombola")
sys.path.insert(0, str(Path(__file__).parent / "helpers"))

NEED = {
    "numba": [
        *(f"training/test_{name}.py" for name in ("convolutional_training", "engine_choice", "ready", "sparse_chain")),
        *("training/test_sparse_chain_trace.py", "training/test_sparse_linear.py"),
    ],
    "distributed": ["cluster/test_dask_cluster.py", "cluster/test_dask_site.py", "cluster/test_slurm.py"],
    "jsonschema": ["studies/test_schema.py"],
    "moto": ["cluster/test_s3.py"],
    "vl_convert": ["report/test_page_parts.py", "report/test_page_browser.py"],
}
"""Test files of an extra's feature, by the module that they need; `make test-cluster` installs what is left."""

MISSING = [module for module in NEED if importlib.util.find_spec(module) is None]
collect_ignore = [path for module in MISSING for path in NEED[module]]


def pytest_report_header() -> list[str]:
    """Say what is not tested, and why."""
    return [f"not tested, because {module} is not installed: {', '.join(NEED[module])}" for module in MISSING]


SLOW = Path(__file__).with_name("slow.txt")
"""Dear tests, most of more than 0.6 s on two quiet cores: `make test` leaves them out, `make test-all` runs them."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests in `slow.txt`; where all tests are collected, each of its lines must name some.

    A line without brackets names a test with all its parameters.
    """
    slow, found = set(SLOW.read_text().splitlines()), set[str]()
    for item in items:
        if names := slow & {item.nodeid, item.nodeid.partition("[")[0]}:
            found |= names
            item.add_marker(pytest.mark.slow)
    gone = slow - found
    if gone and not MISSING and config.args == config.getini("testpaths"):
        raise pytest.UsageError(f"{SLOW} names tests that do not exist: {', '.join(sorted(gone))}")
