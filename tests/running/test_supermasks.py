"""Supermasks as jobs: found, kept, shown and trained on."""

from __future__ import annotations

import pytest
import torch
from interrupting import run_interrupted
from small_runs import assert_same_outcomes
from small_studies import OPTIONS, find, run_study, small_study
from torch.nn import functional

import tombola
from tombola import data
from tombola.networks import initialised
from tombola.running.problem import build_of, splits_of
from tombola.running.results import Results
from tombola.seeds import Seeds
from tombola.training.popup import signed_constant

SGD = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9}
ARMS = [{"edge-popup": {"training": SGD}}, "edge-popup-trained"]


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("supermasks") / "out"
    settings = {"network": {"name": "lenet-300-100", "arguments": {"hidden": [100, 50]}}}
    return run_study(folder, arms=ARMS, training__iterations=250, training__evaluate_every=50, **settings)


def test_masks_alone_score_far_above_chance_with_as_many_weights_as_the_level_has(found):
    plan, store = found
    frame = Results(plan, store).frame()
    for arm in ("edge-popup", "edge-popup-trained"):
        rows = frame[(frame.arm == arm) & (frame.level > 0)]
        assert list(rows.remaining_weights) == list(plan.remaining[1:])
        assert list(rows.sparsity * plan.remaining[0]) == [plan.remaining[0] - count for count in plan.remaining[1:]]
        assert (rows.final_test_accuracy > 0.8).all()  # chance is 0.1
    assert set(frame[(frame.arm == "edge-popup") & (frame.level > 0)].engine) == {"popup"}


def test_the_weights_are_the_dense_runs_own_initialisation_of_one_size_a_layer(found):
    plan, store = found
    dense = store.load(find(plan, "edge-popup", 0).id).snapshots["start"]
    result = store.load(find(plan, "edge-popup", 2).id)
    for name, tensor in result.snapshots["start"].items():
        assert torch.equal(tensor, signed_constant(dense[name]) if name in result.mask else dense[name])
    for name, keep in result.mask.items():
        start = result.snapshots["start"][name]
        assert torch.equal(result.snapshots["final"][name], start.masked_fill(~keep, 0.0))
        best = result.snapshots["best"][name]  # under the mask of that moment
        assert torch.equal(best, start.masked_fill(best == 0, 0.0))
        assert int((best != 0).sum()) == int(keep.sum())


def test_the_ticket_is_the_mask_with_untrained_weights_and_scores_what_the_row_says(found):
    plan, store = found
    ticket = Results(plan, store).ticket(arm="edge-popup", level=1)
    assert ticket.mask == store.mask(find(plan, "edge-popup", 1).id)
    assert set(ticket.weights) == set(ticket.trained)
    assert all(torch.equal(ticket.weights[name], ticket.trained[name]) for name in ticket.weights)  # no batch norm
    row = Results(plan, store).frame().query("arm == 'edge-popup' and level == 1").iloc[0]
    job = find(plan, "edge-popup", 1)
    splits = splits_of(job, OPTIONS)
    with torch.no_grad():
        logits = ticket.build().eval()(splits.test.inputs)
    assert (logits.argmax(1) == splits.test.targets).float().mean().item() == pytest.approx(row.final_test_accuracy)
    losses = functional.cross_entropy(logits, splits.test.targets).item()
    assert store.facts(job.id)["history"]["test_loss"][-1] == pytest.approx(losses, rel=1e-5)


def test_trained_as_a_ticket_it_starts_from_those_weights_and_that_mask(found):
    plan, store = found
    for level in (1, 2):
        finder, trained = find(plan, "edge-popup", level), find(plan, "edge-popup-trained", level)
        assert trained.needs == (finder.id,)
        assert finder.needs == ()
        one, other = store.load(finder.id), store.load(trained.id)
        assert other.mask == one.mask
        for name, tensor in other.snapshots["start"].items():
            start = one.snapshots["start"][name]
            assert torch.equal(tensor, start.masked_fill(~one.mask[name], 0.0) if name in one.mask else start)
            assert not torch.equal(other.snapshots["final"][name], tensor)
        assert other.facts["remarks"] == {}


def test_other_controls_of_the_mask_start_from_weights_everywhere(tmp_path, monkeypatch):
    """A shuffled supermask must not find zeros where the mask that was found had pruned."""
    (tmp_path / "my_arms.py").write_text(
        "def shuffled(trial, level, repeat):\n"
        "    from tombola.studies import ARMS\n"
        "    from tombola.work import Shuffle\n"
        "    origin, mask = ARMS['edge-popup-trained'].rule(trial, level, repeat)\n"
        "    return origin, mask.model_copy(update={'shuffle': Shuffle(stream='mine', repeat=repeat)})\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plan, store = run_study(tmp_path / "out", arms=["my_arms:shuffled"])
    result = store.load(find(plan, "my_arms:shuffled", 1).id)
    for name, keep in result.mask.items():
        assert bool((result.snapshots["start"][name][keep] != 0).all())


@pytest.mark.parametrize("network", ["small_nets:mlp", "small_nets:conv_norm", "small_nets:Tied"])
def test_interrupted_and_resumed_it_is_bit_equal(network, tmp_path, monkeypatch):
    changes = {"arms": ARMS, "network": network, "pruning__rounds": 1}
    if network == "small_nets:Tied":
        changes["network"] = {"name": network, "arguments": {"classes": 10}}
    run_study(tmp_path / "one" / "out", **changes)
    run_interrupted(small_study(**changes), tmp_path / "two" / "out", monkeypatch)
    assert_same_outcomes(tmp_path / "one" / "out", tmp_path / "two" / "out")


def test_stacks_leave_it_alone(tmp_path):
    study = small_study(arms=["ticket", *ARMS], trials=2, pruning__rounds=1)
    alone = tmp_path / "no" / "neighbour"  # whose jobs, of another test, would be taken over
    results = tombola.run(study, alone, workers=0, engine="stacked", figures=False, quiet=True)
    engines = results.frame().query("level == 1").groupby("arm").engine.unique().map(list).to_dict()
    assert engines == {"ticket": ["stacked"], "edge-popup": ["popup"], "edge-popup-trained": ["stacked"]}


def test_scores_beyond_float32_still_choose_as_many_weights(tmp_path):
    arms = [{"edge-popup": {"training": {"lr": 1e38}}}, "edge-popup-trained"]
    study = small_study(arms=arms, training__iterations=30, pruning__rounds=1)
    results = tombola.run(study, tmp_path, workers=0, figures=False, quiet=True)
    assert results.missing() == 0
    assert set(results.frame().query("level == 1").remaining_weights) == {results.plan.remaining[1]}


def test_init_leaves_the_weights_as_they_were_drawn(tmp_path):
    plan, store = run_study(tmp_path, arms=[{"edge-popup": {"weights": "init"}}], pruning__rounds=1)
    job = find(plan, "edge-popup", 1)
    splits = data.split(data.load(job.spec.data, None), job.spec.data.validation, Seeds(0, 0), torch.device("cpu"))
    build = build_of(job, splits)
    drawn = initialised(build, job.spec.network.init, Seeds(0, 0).value("init")).state_dict()
    start = store.load(job.id).snapshots["start"]
    assert all(torch.equal(start[name], tensor) for name, tensor in drawn.items())


def test_the_ticket_of_a_tied_network_is_masked_under_every_name(tmp_path):
    plan, store = run_study(tmp_path, arms=["edge-popup"], network="small_nets:TiedWithSwitch", pruning__rounds=1)
    ticket = Results(plan, store).ticket(arm="edge-popup", level=1)
    built = dict(ticket.build(trust=True).named_parameters())
    for name, keep in ticket.mask.items():
        assert torch.equal(built[name] != 0, keep)
        assert torch.equal(built[name], ticket.build(trained=True, trust=True).get_parameter(name))


def test_a_supermask_that_leads_nowhere_is_said_to_have_collapsed(tmp_path):
    """Each layer has weights, but of a few among hundreds none meet."""
    few = {"pruning__scope": "global", "pruning__rate": 0.995, "pruning__minimum": 1, "pruning__rounds": 1}
    plan, store = run_study(tmp_path, arms=["edge-popup", "edge-popup-trained"], **few)
    for arm in ("edge-popup", "edge-popup-trained"):
        assert store.facts(find(plan, arm, 1).id)["remarks"] == {"no_path": True}
    assert list(Results(plan, store).frame().query("level == 1").status) == ["collapsed", "collapsed"]
