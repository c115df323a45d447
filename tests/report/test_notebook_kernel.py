"""A real notebook: one live display for a loop, pictures and tables, and a loop that resumes after an interruption."""

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Jupyter's own warnings
nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

SETUP = """
import torch, tombola
from torch import nn

def make():
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))

def runs():
    return tombola.rounds(make, out="mine", rounds=2, rate=0.5, trials=2, figures=False)

def fit(run):
    optimizer = torch.optim.SGD(run.model.parameters(), lr=0.1)
    run.model(torch.ones(4, 8)).square().sum().backward()
    optimizer.step()
    run.report(1, accuracy=0.5 + run.level / 10)
"""
INTERRUPTED = """
import os, signal
for run in runs():
    if run.level == 1:
        os.kill(os.getpid(), signal.SIGINT)
    fit(run)
"""
LOOP = """
trained = []
for run in runs():
    fit(run)
    trained.append(run.level)
"""
SHOWN = ["results = tombola.Results.open('mine'); results", "results.ticket(0, 2)", "results.ticket(0, 2).mask"]
SHOWN += ["results.verdicts()", "results.plot('density')", "results.ticket(0, 1).build(trust=True)", "print(trained)"]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Return the outputs of each cell."""
    cells = [nbformat.v4.new_code_cell(text) for text in (SETUP, INTERRUPTED, LOOP, *SHOWN)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    place = {"metadata": {"path": str(tmp_path_factory.mktemp("notebook"))}}
    nbclient.NotebookClient(notebook, timeout=120, allow_errors=True, resources=place).execute()
    return [cell.outputs for cell in notebook.cells]


def test_an_interrupted_loop_resumes(outputs):
    _, stopped, _, *_, trained = outputs
    assert [each.ename for each in stopped if each.output_type == "error"] == ["KeyboardInterrupt"]
    assert trained[0].text.strip() == str([1] * 6 + [2] * 6)  # the dense runs were stored before the interruption


def test_a_loop_has_one_live_display(outputs):
    (display,) = outputs[2]
    assert "12/12 runs done" in display.data["text/html"]


def test_results_show_as_tables_and_pictures(outputs):
    *tables, verdicts, drawing = (each[0].data for each in outputs[3:8])
    assert all("<table" in each["text/html"] for each in (*tables, verdicts))
    assert drawing["image/png"].startswith("iVBOR")
    assert len(drawing["text/plain"]) < 100


def test_a_function_of_the_notebook_must_be_passed(outputs):
    (error,) = outputs[8]
    assert "pass `factory`" in error.evalue
