"""What a notebook shows of results, tickets, masks and verdicts."""

import own_trainer
import pytest

import tombola
from tombola.errors import InputError

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    out = tmp_path_factory.mktemp("loop")
    options = {"rounds": 1, "trials": 2, "figures": False, "quiet": True, "name": HOSTILE}
    for run in tombola.rounds(own_trainer.make, out=out, arms=["ticket", "reinit"], **options):
        own_trainer.fit(run)
        assert isinstance(run.results, tombola.Results)
    return tombola.Results.open(out)


def test_tables(results):
    text = results._repr_html_()
    mean = results.frame().query("arm == 'ticket' and level == 1").early_stop_test_accuracy.mean()
    assert f"<td>{mean:.2%}</td>".replace("%", " %") in text
    assert "<th>ticket</th><th>reinit</th>" in text
    assert f"{len(results.plan.work)} of {len(results.plan.work)} done" in text
    judged = results.verdicts()
    assert judged.equals(tombola.analysis.verdicts(results.frame()))
    assert judged.reason[0].replace(">", "&gt;") in judged._repr_html_()  # whole
    assert "<table" in judged[["n"]]._repr_html_()
    ticket = results.ticket(1, 1)._repr_html_()
    assert "trial 1" in ticket
    assert "1.weight" in ticket


def test_names_from_files_stay_text(results):
    ticket = results.ticket(0, 1)
    ticket.origin["study"] = HOSTILE
    for text in (results._repr_html_(), ticket._repr_html_()):
        assert "<img" not in text


def test_drawings(results, tmp_path):
    drawing = results.plot("density")
    assert drawing._repr_png_().startswith(b"\x89PNG")
    assert repr(drawing) == "Drawing(name='figure-4')"  # a notebook stores it beside the picture
    drawing.save(tmp_path / "density.png")
    assert (tmp_path / "density.png").read_bytes() == drawing.png
    with pytest.raises(InputError, match="no figure 'densty'; did you mean 'density'"):
        results.plot("densty")
    with pytest.raises(InputError, match="barriers can't be drawn from these results: it needs interpolations"):
        results.plot("barriers")


def test_results_that_are_still_empty(tmp_path):
    for _ in tombola.rounds(own_trainer.make, out=tmp_path, rounds=1, trials=1, quiet=True):
        break
    empty = tombola.Results.open(tmp_path)
    assert "0 of " in empty._repr_html_()
    for call in (empty.plot, empty.verdicts):
        with pytest.raises(InputError, match="holds no results yet; run the study first"):
            call()
