"""Results are of the results that they were made from: a run that is trained again may have come out otherwise."""

import own_trainer
import pytest

import tombola
from tombola.running.results import Results
from tombola.running.store import Store


def by_loop(out, trainer, rewind):
    options = {"rounds": 1, "rate": 0.5, "trials": 1, "arms": ["ticket"], "figures": False, "quiet": True}
    for run in tombola.rounds(own_trainer.make, out=out, rewind=rewind, **options):
        getattr(own_trainer, trainer)(run)
    return Results.open(out)


def by_study(out, trainer, rewind):
    fields = {
        "name": "mine",
        "network": "own_trainer:make",
        "trainer": f"own_trainer:{trainer}",
        "pruning": {"rate": 0.5, "rounds": 1},
        "arms": ["ticket"],
        "trials": 1,
        "rewind": rewind,
    }
    return tombola.run(tombola.Study.model_validate(fields), out, workers=0, figures=False, quiet=True)


@pytest.fixture(autouse=True)
def no_calls():
    own_trainer.CALLS.clear()


def levels():
    """Return the levels of the runs that were trained since the last look."""
    found = [level for *_, level in own_trainer.CALLS]
    own_trainer.CALLS.clear()
    return found


def assert_masks_are_of_the_dense_run(results):
    jobs = {(row.arm, row.level): row.job for row in results.plan.rows}
    dense = results.store.load(next(job for (_, level), job in jobs.items() if not level)).snapshots["final"]
    for (_, level), job in jobs.items():
        found = results.store.load(job)
        for name, keep in found.mask.items() if level else ():
            kept = dense[name].abs().flatten().topk(int(keep.sum())).indices
            assert set(kept.tolist()) == set(keep.flatten().nonzero().flatten().tolist()), (job, name)
            assert not bool(found.snapshots["final"][name][~keep].any())


@pytest.mark.parametrize("go", [by_loop, by_study])
def test_masks_follow_a_run_that_came_out_otherwise(tmp_path, go):
    assert_masks_are_of_the_dense_run(go(tmp_path / "out", "restless", 0))
    assert levels() == [0, 1]
    assert_masks_are_of_the_dense_run(
        go(tmp_path / "out", "restless", [0, "step-5"])
    )  # dense once more, for the snapshot
    assert levels() == [0, 1, 1]
    go(tmp_path / "out", "restless", [0, "step-5"])
    assert levels() == []


@pytest.mark.parametrize("go", [by_loop, by_study])
def test_results_of_a_run_that_came_out_the_same_stay(tmp_path, go):
    before = go(tmp_path / "out", "wanted", 0)
    assert levels() == [0, 1]
    after = go(tmp_path / "out", "wanted", [0, "step-5"])
    assert levels() == [0, 1]  # for the snapshot, and from it
    assert_masks_are_of_the_dense_run(after)
    assert set(before.frame().job) < set(after.frame().job)
    assert after.missing() == 0


def test_results_without_a_digest_stay(tmp_path, monkeypatch):
    """Those of tombola before it noted one."""
    monkeypatch.setattr(Store, "_digest", lambda self, work_id: None)
    by_study(tmp_path / "out", "restless", 0)
    monkeypatch.undo()
    results = by_study(tmp_path / "out", "restless", 0)
    assert levels() == [0, 1]
    assert results.missing() == 0
