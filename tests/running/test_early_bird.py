"""Early-bird tickets: distances, when a mask settles, and what the arm does with it."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from interrupting import run_interrupted
from small_runs import assert_same_outcomes, outcomes
from small_studies import find, run_one, run_study, run_with_needs, small_study

import tombola
from tombola.pruning import Mask, magnitude, select
from tombola.pruning.criteria import Snapshots
from tombola.running.results import Results
from tombola.running.store import Store
from tombola.studies import make_plan

WATCHED = {"arms": ["early-bird"], "rewind": [0, 5, 10]}  # evaluations are at 0, 5, 10 and 12
SCOPES = [{}, {"pruning__scope": "global", "pruning__minimum": 30}]


def pruned(weights, mask, rounds, pruning):
    layers = {name: weights[name] for name in mask}
    full = Mask.full({name: tuple(tensor.shape) for name, tensor in layers.items()})
    return select(magnitude(Snapshots(layers, layers, layers, layers)), full, rounds, pruning.scope, pruning.minimum)


def moments(result):
    names = {0: "start", 5: "iteration-5", 10: "iteration-10", 12: "final"}
    return {iteration: result.snapshots[name] for iteration, name in names.items()}


@pytest.mark.parametrize("scope", SCOPES, ids=["layer", "global"])
def test_distances_are_those_of_masks_pruned_from_snapshots(scope, tmp_path):
    plan, store = run_study(tmp_path, **WATCHED, **scope)
    dense = plan.work[plan.rows[0].job]
    result, (watch,) = store.load(dense.id), dense.observe.masks
    frame = Results(plan, store).settling()
    assert list(frame.columns) == ["study", "trial", "level", "density", "iteration", "distance", "settled"]
    assert len(frame) == 2 * 3
    for level in (1, 2):
        masks = {
            iteration: pruned(weights, result.mask, watch.rates[:level], plan.study.pruning)
            for iteration, weights in moments(result).items()
        }
        rows = frame[frame.level == level].set_index("iteration")
        for before, now in ((0, 5), (5, 10), (10, 12)):
            differing = sum(int((masks[before][name] != masks[now][name]).sum()) for name in result.mask)
            assert rows.distance[now] == differing / result.mask.total
        assert set(rows.density) == {masks[12].density}
    assert frame.distance.max() > 0


@pytest.mark.parametrize("scope", SCOPES, ids=["layer", "global"])
def test_the_mask_is_that_of_the_iteration_at_which_it_settled(scope, tmp_path):
    plan, store = run_study(tmp_path, **WATCHED, **scope, pruning__early_bird={"threshold": 1.0, "window": 2})
    dense = plan.work[plan.rows[0].job]
    snapshots = moments(store.load(dense.id))
    settled = Results(plan, store).settling().query("settled").groupby("level").iteration.min()
    assert dict(settled) == {1: 10, 2: 10}
    for level in (1, 2):
        job = find(plan, "early-bird@5", level)
        result = store.load(job.id)
        expected = pruned(snapshots[10], result.mask, dense.observe.masks[0].rates[:level], plan.study.pruning)
        assert result.mask == expected
        assert result.mask != pruned(
            snapshots[12], result.mask, dense.observe.masks[0].rates[:level], plan.study.pruning
        )
        assert result.facts["remarks"] == {"settled_at": 10}
        assert job.spec.initial.iteration == 5  # rewound as the ticket is
        for name, keep in result.mask.items():
            assert torch.equal(result.snapshots["start"][name], snapshots[5][name].masked_fill(~keep, 0.0))


def test_a_mask_that_never_settles_is_the_final_one_and_says_so(tmp_path):
    plan, store = run_study(tmp_path, **WATCHED, pruning__early_bird={"threshold": 0.0, "window": 3})
    dense = plan.work[plan.rows[0].job]
    final = moments(store.load(dense.id))[12]
    assert not Results(plan, store).settling().settled.any()
    for level in (1, 2):
        result = store.load(find(plan, "early-bird@0", level).id)
        assert result.mask == pruned(final, result.mask, dense.observe.masks[0].rates[:level], plan.study.pruning)
        assert result.facts["remarks"]["settled_at"] is None
        assert "final weights" in result.facts["remarks"]["never_settled"]


def test_watching_changes_nothing_but_what_it_writes_down(tmp_path):
    run_study(tmp_path / "one" / "out", pruning__rounds=2, arms=["ticket"])
    run_study(tmp_path / "two" / "out", pruning__rounds=2, arms=["ticket"], pruning__early_bird={})
    mine, other = outcomes(tmp_path / "one" / "out"), outcomes(tmp_path / "two" / "out")
    assert mine.keys() == other.keys()
    for job, result in mine.items():
        differing = {key for key in other[job] if other[job][key] != result.get(key)}
        if ".dense-" in job:
            assert differing >= {"observed", "settling"}
            assert all(key in ("observed", "settling") or key.startswith("settled-") for key in differing)
        else:
            assert not differing


def test_interrupted_and_resumed_it_is_bit_equal(tmp_path, monkeypatch):
    changes = WATCHED | {"pruning__early_bird": {"threshold": 1.0, "window": 2}}
    run_study(tmp_path / "one" / "out", **changes)
    run_interrupted(small_study(**changes), tmp_path / "two" / "out", monkeypatch)
    assert_same_outcomes(tmp_path / "one" / "out", tmp_path / "two" / "out")


def test_an_older_result_is_completed_and_keeps_what_it_had(tmp_path):
    """Without curves it counts as not there, and is done again with both; then it serves either study."""
    plain, store = run_study(tmp_path, rewind=5)
    dense = find(plain, "ticket", 0)
    watched = make_plan(small_study(arms=["early-bird"]))
    strict = make_plan(small_study(arms=["early-bird"], pruning__early_bird={"threshold": 0.0, "window": 1}))
    jobs = [find(plan, "early-bird", 0) for plan in (watched, strict)]
    assert {job.id for job in jobs} == {dense.id}
    assert store.has(dense)
    for done, job in enumerate(jobs):
        assert not store.has(job)
        assert Results(watched, store).settling().empty == (done == 0)
        assert run_one(job, tmp_path) == "done"
        assert all(Store(tmp_path).has(each) for each in (dense, *jobs[: done + 1]))
    assert len(store.facts(dense.id)["settling"]) == 2
    for plan, settled in ((watched, False), (strict, False)):
        for level in (1, 2):
            assert run_with_needs(plan, find(plan, "early-bird", level), tmp_path) == "done"
        assert bool(Results(plan, store).settling().settled.any()) is settled
    assert find(watched, "early-bird", 1).id != find(strict, "early-bird", 1).id


def test_a_checkpoint_of_another_watch_is_not_taken_up(tmp_path, monkeypatch):
    from dataclasses import replace

    from small_studies import OPTIONS

    from tombola.running.execute import execute
    from tombola.running.heartbeat import Heartbeat
    from tombola.training.loop import Interrupted

    def stop(_):
        raise Interrupted

    plain, watched = make_plan(small_study()), make_plan(small_study(arms=["early-bird"]))
    job = find(plain, "ticket", 0)
    store = Store(tmp_path)
    store.create()
    with monkeypatch.context() as patch:
        patch.setattr(Heartbeat, "__call__", stop)
        assert execute([job.as_json()], str(tmp_path), replace(OPTIONS, checkpoint_every=0)) == ["stopped"]
    assert store.load_checkpoint(job.id) is not None
    assert run_one(find(watched, "early-bird", 0), tmp_path) == "done"
    assert list(Results(watched, store).settling().iteration.unique()) == [5, 10, 12]


def test_results_write_the_curves_where_there_are_any(tmp_path):
    study = small_study(arms=["early-bird"])
    results = tombola.run(study, tmp_path / "a" / "out", workers=0, quiet=True)
    written = pd.read_csv(tmp_path / "a" / "out" / "mask_distance.csv")
    pd.testing.assert_frame_equal(written, results.settling())
    assert (tmp_path / "a" / "out" / "figures" / "mask-distance.png").is_file()
    tombola.run(small_study(), tmp_path / "b" / "out", workers=0, quiet=True)
    assert not (tmp_path / "b" / "out" / "mask_distance.csv").exists()


def test_a_diverged_dense_run_ends_it(tmp_path):
    study = small_study(arms=["early-bird"], training__lr=1e30, training__iterations=20)
    results = tombola.run(study, tmp_path, workers=0, quiet=True, figures=False)
    assert list(results.frame().status) == ["diverged"]
    assert results.missing() == 0


def test_too_few_evaluations_for_a_mask_to_settle_are_said(tmp_path, capsys):
    study = small_study(**WATCHED)
    tombola.run(study, tmp_path / "a", workers=0, figures=False, quiet=True)
    said = " ".join(capsys.readouterr().err.split())
    assert "pruning.early_bird.window=5, but the dense run is evaluated 3 times after its start" in said
    assert "its mask never settled; the mask comes from the final weights" in said
    tombola.run(small_study(**WATCHED, pruning__early_bird={"window": 3}), tmp_path / "b", workers=0, quiet=True)
    assert "is evaluated 3 times" not in capsys.readouterr().err
