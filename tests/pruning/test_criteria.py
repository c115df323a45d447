"""Criteria: each against its formula, computed on small numbers by hand or by another route."""

import pytest
import torch
from torch.nn import functional

from tombola.pruning import CRITERIA, SkipRound, Snapshots
from tombola.seeds import Seeds
from tombola.training.order import Order


def snapshots(**moments):
    names = ("init", "start", "best", "final")
    return Snapshots(**{name: {"w": torch.tensor(moments.get(name, [0.0, 0.0, 0.0]))} for name in names})


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("magnitude", [3.0, 1.0, 2.0]),
        ("initial-magnitude", [1.0, 4.0, 2.0]),
        ("magnitude-increase", [2.0, -3.0, 0.0]),
        ("movement", [4.0, 3.0, 4.0]),
        ("stability", [-1.0, -3.0, 0.0]),
    ],
)
def test_each_formula(criterion, expected):
    """Signs change between the moments, so that |a| - |b|, |a - b| and |a| + |b| all differ."""
    seen = snapshots(init=[-1.0, 4.0, 2.0], best=[4.0, -2.0, -2.0], final=[3.0, 1.0, -2.0])
    assert CRITERIA[criterion](seen)["w"].tolist() == expected


def test_stability_skips_a_round_in_which_the_last_epoch_was_the_best():
    with pytest.raises(SkipRound, match="identical"):
        CRITERIA["stability"](snapshots(best=[1.0, 2.0, 3.0], final=[1.0, 2.0, 3.0]))


def test_gradient_is_weight_times_gradient():
    seen = Snapshots({}, {}, {}, {"w": torch.tensor([2.0, -3.0])}, lambda: {"w": torch.tensor([-0.5, 0.0])})
    assert CRITERIA["gradient"](seen)["w"].tolist() == [1.0, 0.0]


def test_random_is_repeatable_and_draws_anew_for_another_generator():
    def draw(counter):
        final = {"w": torch.zeros(50)}
        return CRITERIA["random"](
            Snapshots(final, final, final, final, generator=Seeds(0, 0).generator("criterion", counter))
        )["w"]

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


@pytest.mark.parametrize("name", sorted(CRITERIA))
def test_no_criterion_changes_what_it_looks_at(name):
    seen = snapshots(init=[-1.0, 4.0, 2.0], start=[1.0, 0.0, 1.0], best=[4.0, -2.0, -2.0], final=[3.0, 1.0, -2.0])
    ones = {"w": torch.ones(3)}
    seen = Snapshots(seen.init, seen.start, seen.best, seen.final, lambda: ones, norms=lambda: ones)
    before = {moment: getattr(seen, moment)["w"].clone() for moment in ("init", "start", "best", "final")}
    scores = CRITERIA[name](seen)
    scores["w"].mul_(7)
    for moment, values in before.items():
        assert torch.equal(getattr(seen, moment)["w"], values)


def test_the_gradients_of_a_run_are_those_of_the_batch_that_would_have_come_next(tmp_path):
    """Against a loop that trains one step more and looks at what the optimiser was given."""
    from small_studies import OPTIONS, find, run_study, search_of

    from tombola.running.masks import Parent, _gradients
    from tombola.running.problem import build_of, splits_of

    plan, store = run_study(tmp_path, noise="level")
    item = find(plan, "ticket", 1)
    parent = Parent.of_result(store.load(item.id))
    splits = splits_of(item, OPTIONS)
    build = build_of(item, splits)
    found = _gradients(search_of(plan, find(plan, "ticket", 2)), parent, build, splits)

    module = build()
    module.load_state_dict(parent.final)
    order = Seeds(item.spec.seed, item.spec.trial, noise="1").generator("order", 0)
    examples = torch.randperm(len(splits.train), generator=order)[12 * 60 : 13 * 60]
    functional.cross_entropy(module(splits.train.inputs[examples]), splits.train.targets[examples]).backward()
    for name, parameter in module.named_parameters():
        assert torch.allclose(found[name], parameter.grad, atol=1e-7)
    assert any(bool((found[name][~keep] != 0).any()) for name, keep in parent.mask.items())  # of pruned weights too


def test_a_frozen_layer_has_gradients_to_be_pruned_by(tmp_path):
    from small_studies import OPTIONS, find, run_study

    from tombola.running.problem import build_of, splits_of

    changes = {"network": "small_nets:frozen", "pruning__criterion": "gradient", "pruning__rounds": 1}
    plan, store = run_study(tmp_path, arms=["one-shot"], **changes)
    dense, item = find(plan, "one-shot", 0), find(plan, "one-shot", 1)
    splits = splits_of(dense, OPTIONS)
    module = build_of(dense, splits)().requires_grad_()
    module.load_state_dict(store.load(dense.id).snapshots["final"])
    (batch,) = Order(len(splits.train), 60, dense.spec.seeds).batches(12, 1)
    functional.cross_entropy(module(splits.train.inputs[batch]), splits.train.targets[batch]).backward()
    scores = (module[1].weight.detach() * module[1].weight.grad).abs()
    keep = store.load(item.id).mask["1.weight"]
    assert float(scores[keep].min()) > float(scores[~keep].max()) > 0
