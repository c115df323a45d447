"""The share of flipped signs: counted by hand, in a study, as a figure and in the report."""

import pytest
import torch
from page_tables import tables_of
from small_studies import find, run_study

from tombola.analysis import sign_flips
from tombola.analysis.signs import flips
from tombola.errors import InputError
from tombola.figures import draw, gather
from tombola.figures.style import LOOKS
from tombola.html.series import SHAPES
from tombola.html.write import write_report
from tombola.pruning import Mask
from tombola.running.results import Results

ARMS = ["ticket", "lr-rewind", "redrawn-magnitudes", {"of": "ticket", "kept": "constant"}]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("signs") / "out"
    return Results(*run_study(folder, arms=ARMS, trials=2, rewind=4, training__lr=0.05))


def test_kept_weights_that_change_their_sign_are_counted():
    before = {"a": torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]]), "b": torch.tensor([[1.0]])}
    after = {"a": torch.tensor([[-1.0, 2.0, 0.1], [4.0, 0.0, -9.0]]), "b": torch.tensor([[-1.0]])}
    mask = Mask({"a": torch.tensor([[True, False, True], [True, True, True]]), "b": torch.tensor([[False]])})
    rows = {row["layer"]: (row["weights"], row["flipped"]) for row in flips(before, after, mask)}
    assert rows == {"a": (4, 2), "b": (0, 0), "all": (4, 2)}  # 1 to -1, and 3 to 0; what began at 0 has no sign


@pytest.mark.parametrize("arm", ["ticket", "lr-rewind"])
def test_signs_are_compared_with_the_initialisation_behind_all_levels(results, arm):
    first = results.store.load(find(results.plan, "ticket", 0, trial=1).id).snapshots["start"]
    table = sign_flips(results, [arm], trial=1)
    for level in (0, 1, 2):
        run = results.store.load(find(results.plan, arm, level, trial=1).id)
        rows = table[table["level"] == level].set_index("layer")
        total = 0
        for name, keep in run.mask.items():
            by_hand = int(((first[name] * run.snapshots["final"][name] < 0) & keep).sum())
            assert (rows.loc[name, "weights"], rows.loc[name, "flipped"]) == (int(keep.sum()), by_hand)
            total += by_hand
        assert rows.loc["all", "flipped"] == total > 0
        assert rows.loc["all", "share"] == total / sum(run.mask.counts().values())


@pytest.mark.parametrize("arm", ["redrawn-magnitudes", "ticket-constant"])
def test_changed_starting_weights_are_what_signs_are_compared_with(results, arm):
    run = results.store.load(find(results.plan, arm, 2).id)
    by_hand = sum(int((run.snapshots["start"][name] * run.snapshots["final"][name] < 0).sum()) for name in run.mask)
    table = sign_flips(results, [arm], trial=0).query("level == 2 and layer == 'all'")
    assert table["flipped"].item() == by_hand


def test_each_initialisation_is_loaded_once(results, monkeypatch):
    load, loaded = type(results.store).load, []
    monkeypatch.setattr(type(results.store), "load", lambda store, job: loaded.append(job) or load(store, job))
    table = sign_flips(results, ["ticket", "lr-rewind"])
    dense = [find(results.plan, "ticket", 0, trial=trial).id for trial in (0, 1)]
    assert {job: loaded.count(job) for job in dense} == dict.fromkeys(
        dense, 2
    )  # as a run, and as what others start from
    assert len(loaded) == len(set(loaded)) + 2
    assert len(table) == 2 * 2 * 3 * (1 + len(results.plan.coverage.layers))


def test_the_figure_is_drawn_on_request(results, tmp_path):
    levels, curves, settings = gather([results])
    files = draw(levels, curves, tmp_path, ["sign-flips"], settings=settings, formats=["svg"])
    assert [file.name for file in files] == ["sign-flips.svg"]
    assert "sign-flips" not in {
        file.stem for file in draw(levels, curves, tmp_path, settings=settings, formats=["svg"])
    }
    with pytest.raises(InputError, match="sign-flips can't be drawn from these results: it needs trained weights"):
        draw(levels, curves, tmp_path, ["sign-flips"])


def test_the_report_has_the_shares(results, tmp_path):
    page = write_report(results, tmp_path / "page.html").read_text()
    assert "Signs that training flips" in page
    found = tables_of(page)["sign_flips"]["rows"]
    assert len(found) == 3 * (1 + len(results.plan.coverage.layers))


def test_every_arm_has_a_shape_in_the_report():
    assert {style.marker for style in LOOKS.values()} <= SHAPES.keys()
