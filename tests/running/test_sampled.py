"""Supermasks that are sampled while they are trained (Zhou et al. 2019, Section 5), as by hand and in a study."""

from dataclasses import replace
from functools import partial

import pytest
import small_nets
import torch
from interrupting import run_interrupted
from plain_loop import CPU, SEEDS, assert_equal_states, begin, recipe, splits
from small_runs import assert_same_outcomes
from small_studies import find, run_study, small_study
from torch.func import functional_call
from torch.nn import functional

from tombola.errors import InputError
from tombola.pruning import Mask
from tombola.studies import make_plan
from tombola.training.engine import ReplicaState
from tombola.training.engines.sampled import SampledEngine, likeliest
from tombola.training.order import Order
from tombola.training.popup import Popup

MLP = partial(small_nets.mlp, (20,), 4, (30, 12))
SGD = {"optimizer": "sgd", "lr": 5.0, "momentum": 0.9}


def start_of(share=0.3):
    sizes = {name: tuple(p.shape) for name, p in MLP().named_parameters() if p.dim() > 1}
    counts = {name: int(share * torch.Size(size).numel()) for name, size in sizes.items()}
    return replace(begin(MLP, Mask.full(sizes), splits((20,))), popup=Popup(counts=counts, method="sampled"))


def scores_of(engine):
    return {n.removeprefix("score/"): t for n, t in engine.optimizer_state().items() if n.startswith("score/")}


def test_every_step_is_that_of_a_straight_through_sample_in_autograd():
    start, settings = start_of(), recipe(**SGD)
    engine = SampledEngine(MLP, [start], settings, 100, CPU)
    module = MLP()
    module.load_state_dict(start.weights)
    weights = {name: w.detach() for name, w in module.named_parameters()}
    scores = {name: tensor.clone().requires_grad_() for name, tensor in scores_of(engine).items()}
    optimizer = torch.optim.SGD(scores.values(), settings.lr, settings.momentum)
    for iteration, batch in enumerate(Order(len(start.splits.train), settings.batch_size, SEEDS).batches(0, 8)):
        seen = {}
        for name, score in scores.items():
            draws = torch.rand(score.shape, generator=SEEDS.generator("scores", f"0/{name}/{iteration}"))
            soft = score.sigmoid()
            hard = (draws < soft).float()
            seen[name] = weights[name] * (hard + soft - soft.detach())
        train = start.splits.train
        loss = functional.cross_entropy(functional_call(module, seen, train.inputs[batch]), train.targets[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert engine.advance(1) == [pytest.approx(loss.item(), abs=1e-5)]
    for name, score in scores_of(engine).items():
        assert torch.allclose(score, scores[name], atol=1e-5)


def test_it_starts_at_the_density_asked_for_and_keeps_exactly_that_number():
    start = start_of(0.2)
    engine = SampledEngine(MLP, [start], recipe(**SGD), 100, CPU)
    for score in scores_of(engine).values():
        assert float(score.sigmoid().mean()) == pytest.approx(0.2, abs=0.03)
        assert score.unique().numel() > 0.9 * score.numel()  # no order by place
    for _ in range(3):
        assert engine.mask.counts() == start.popup.counts
        shown = engine.weights()
        for name, keep in engine.mask.items():
            assert torch.equal(shown[name], start.weights[name].masked_fill(~keep, 0.0))
        engine.advance(5)
    assert likeliest(torch.tensor([-3.0, 2.0, 1.0]), 2).tolist() == [False, True, True]


def test_resumed_is_bit_equal_however_training_was_cut():
    start, settings = start_of(), recipe(**SGD)
    whole = SampledEngine(MLP, [start], settings, 20, CPU)
    whole.advance(20)
    broken = SampledEngine(MLP, [start], settings, 20, CPU)
    for steps in (7, 1, 12):
        broken.advance(steps)
        broken.evaluate("validation")
        state = broken.optimizer_state()
        again = ReplicaState(broken.weights(), start.mask, SEEDS, start.splits, broken.iteration, state, start.popup)
        broken = SampledEngine(MLP, [again], settings, 20, CPU)
    assert_equal_states(broken.weights(), whole.weights())
    assert_equal_states(broken.optimizer_state(), whole.optimizer_state())


def test_it_learns_without_training_a_weight():
    engine = SampledEngine(MLP, [start_of(0.5)], recipe(**SGD), 1000, CPU)
    (before,) = engine.evaluate("test")
    engine.advance(300)
    (after,) = engine.evaluate("test")
    assert after.metric > max(0.5, before.metric + 0.2)  # chance is 0.25


def test_in_a_study_it_is_interrupted_and_resumed_bit_equal(tmp_path, monkeypatch):
    changes = {"arms": [{"supermask": {"training": SGD, "weights": "init"}}], "pruning__rounds": 1}
    plan, store = run_study(tmp_path / "one" / "out", **changes)
    facts = store.facts(find(plan, "supermask", 1).id)
    assert facts["engine"]["name"] == "sampled"
    assert sum(facts["remaining"].values()) == plan.remaining[1]
    run_interrupted(small_study(**changes), tmp_path / "two" / "out", monkeypatch)
    assert_same_outcomes(tmp_path / "one" / "out", tmp_path / "two" / "out")


def test_its_mask_is_another_work_than_that_of_edge_popup():
    plan = make_plan(small_study(arms=["edge-popup", "supermask"]))
    one, other = (find(plan, arm, 1).spec for arm in ("edge-popup", "supermask"))
    assert "method" not in one.identity()["popup"]
    assert other.identity()["popup"]["method"] == "sampled"
    with pytest.raises(InputError, match=r"\{of: supermask, reinit: true\}: the mask of supermask does"):
        make_plan(small_study(arms=[{"of": "supermask", "reinit": True}]))
