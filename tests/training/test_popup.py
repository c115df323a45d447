"""Edge-popup: scores are trained as by hand and as by autograd, and nothing else moves."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import small_nets
import torch
from plain_loop import CPU, SEEDS, assert_equal_states, begin, recipe, splits
from torch.func import functional_call
from torch.nn import functional

from tombola.pruning import Mask
from tombola.training.engine import ReplicaState
from tombola.training.engines.popup import PopupEngine
from tombola.training.order import Order
from tombola.training.popup import Popup, counts_of, seen, signed_constant

VECTORS, IMAGES = (20,), (2, 6, 6)
LINE = partial(small_nets.mlp, (3,), 2, ())
MLP = partial(small_nets.mlp, VECTORS, 4, (30, 12))
CONV = partial(small_nets.conv_norm, IMAGES, 4)
DROPPING = partial(small_nets.Dropping, VECTORS, 4)
SHAPES = {LINE: (3,), MLP: VECTORS, CONV: IMAGES, DROPPING: VECTORS}
SGD = {"optimizer": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}
ADAM = {"lr": 0.01}


def start_of(build, share=0.3, leave=()):
    shape = SHAPES[build]
    sizes = {name: p.shape for name, p in build().named_parameters() if p.dim() > 1}
    start = begin(
        build, Mask.full({name: tuple(size) for name, size in sizes.items()}), splits(shape, 2 if build is LINE else 4)
    )
    counts = {name: max(1, int(share * size.numel())) for name, size in sizes.items() if name not in leave}
    return replace(start, popup=Popup(counts=counts))


def engine_of(build, start, settings, budget=1000):
    return PopupEngine(build, [start], settings, budget, CPU)


def scores_of(engine):
    return {n.removeprefix("score/"): t for n, t in engine.optimizer_state().items() if n.startswith("score/")}


def test_the_gradient_of_a_score_by_hand():
    """dL/ds = dL/dw * w * sign(s), dL/dw = (softmax - one-hot)^T x / n, of weights that are not seen as well."""
    start, settings = start_of(LINE, share=0.5), recipe(optimizer="sgd", lr=0.7)
    engine = engine_of(LINE, start, settings)
    (name,) = start.popup.counts
    before, weight = scores_of(engine)[name].double().numpy(), start.weights[name].double().numpy()
    largest = np.argsort(-np.abs(before).ravel())[:3]
    keep = np.isin(np.arange(6), largest).reshape(2, 3)
    assert np.array_equal(engine.mask[name].numpy(), keep)

    (batch,) = Order(len(start.splits.train), settings.batch_size, SEEDS).batches(0, 1)
    x, y = start.splits.train.inputs[batch].double().numpy(), start.splits.train.targets[batch].numpy()
    logits = x @ (weight * keep).T + start.weights["1.bias"].double().numpy()
    softmax = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    by_weight = (softmax - np.eye(2)[y]).T @ x / len(x)
    engine.advance(1)
    expected = before - 0.7 * by_weight * weight * np.sign(before)
    assert np.allclose(scores_of(engine)[name].numpy(), expected, atol=1e-6)
    assert (np.abs(expected - before) > 1e-4)[~keep].any()


@pytest.mark.parametrize("build", [MLP, CONV], ids=["lenet-like", "conv-batch-norm"])
@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
def test_every_step_is_that_of_the_straight_through_estimator_in_autograd(build, settings):
    start, settings = start_of(build), recipe(**settings)
    engine = engine_of(build, start, settings)
    module = build()
    module.load_state_dict(start.weights)
    frozen = {name: tensor.clone() for name, tensor in module.named_parameters()}
    scores = {name: tensor.clone().requires_grad_() for name, tensor in scores_of(engine).items()}
    optimizer = (
        torch.optim.Adam(scores.values(), lr=settings.lr)
        if settings.optimizer == "adam"
        else torch.optim.SGD(scores.values(), settings.lr, settings.momentum, weight_decay=settings.weight_decay)
    )
    batches = Order(len(start.splits.train), settings.batch_size, SEEDS).batches(0, 12)
    for batch in batches:
        seen_weights = {}
        for name, score in scores.items():
            order = score.detach().abs().flatten().argsort(descending=True)[: start.popup.counts[name]]
            hard = torch.zeros(score.numel()).index_fill(0, order, 1.0).view(score.shape)
            soft = score.abs()
            seen_weights[name] = frozen[name].detach() * (hard + soft - soft.detach())
        optimizer.zero_grad()
        train = start.splits.train
        loss = functional.cross_entropy(
            functional_call(module, seen_weights, train.inputs[batch]), train.targets[batch]
        )
        loss.backward()
        optimizer.step()
        assert engine.advance(1) == [pytest.approx(loss.item(), abs=1e-5)]
    for name, score in scores_of(engine).items():
        assert torch.allclose(score, scores[name], atol=1e-5), name


@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
def test_weights_biases_and_affine_parameters_never_change(settings):
    first = next(iter(start_of(CONV).popup.counts))
    start = start_of(CONV, leave=(first,))
    engine = engine_of(CONV, start, recipe(**settings))
    begun = engine.mask
    engine.advance(60)
    weights, mask = engine.weights(), engine.mask
    assert mask != begun
    assert mask.counts() == start.popup.counts | {first: start.weights[first].numel()}
    for name, tensor in weights.items():
        if name in start.popup.counts:
            assert torch.equal(tensor, start.weights[name].masked_fill(~mask[name], 0.0))
            assert bool((tensor != 0).any())
        elif "running" in name or "batches" in name:
            assert not torch.equal(tensor, start.weights[name])  # batch norm's statistics follow what is seen
        else:
            assert torch.equal(tensor, start.weights[name]), name
    assert not any(name.startswith("exp_avg/1.") for name in engine.optimizer_state())


@pytest.mark.parametrize("build", [MLP, CONV, DROPPING], ids=["lenet-like", "conv-batch-norm", "dropout"])
@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
def test_resumed_is_bit_equal(build, settings):
    start, settings = start_of(build), recipe(**settings, schedule="cosine", warmup=5)
    whole = engine_of(build, start, settings, 20)
    whole.advance(20)
    broken = engine_of(build, start, settings, 20)
    for steps in (7, 1, 12):
        broken.advance(steps)
        broken.evaluate("validation")
        again = ReplicaState(
            broken.weights(), start.mask, SEEDS, start.splits, broken.iteration, broken.optimizer_state(), start.popup
        )
        broken = engine_of(build, again, settings, 20)
    assert_equal_states(broken.weights(), whole.weights())
    assert_equal_states(broken.optimizer_state(), whole.optimizer_state())
    assert broken.evaluate("test") == whole.evaluate("test")
    assert broken.mask == whole.mask


def test_scores_are_the_trials_own_and_each_draw_is_another():
    start = start_of(MLP)
    first = scores_of(engine_of(MLP, start, recipe()))
    assert_equal_states(scores_of(engine_of(MLP, start, recipe())), first)
    other = start.popup.model_copy(update={"draw": 1})
    name = next(iter(first))
    assert not torch.equal(scores_of(engine_of(MLP, replace(start, popup=other), recipe()))[name], first[name])
    bound = 1 / 20**0.5
    assert float(first[name].abs().max()) == pytest.approx(bound, rel=0.05)
    assert float(first[name].abs().max()) <= bound


def test_it_learns_without_training_a_weight():
    engine = engine_of(MLP, start_of(MLP, share=0.5), recipe(**SGD))
    (before,) = engine.evaluate("test")
    engine.advance(300)
    (after,) = engine.evaluate("test")
    assert after.metric > max(0.5, before.metric + 0.2)  # chance is 0.25


@pytest.mark.parametrize("count", [1, 7, 23, 24])
@pytest.mark.parametrize(
    "values", [torch.zeros(4, 6), torch.full((4, 6), torch.nan), torch.arange(24.0).view(4, 6) % 3]
)
def test_exactly_as_many_are_seen_as_asked_whatever_the_scores(values, count):
    assert int(seen(values, count).sum()) == count


def test_the_largest_absolute_scores_are_seen():
    scores = torch.tensor([[-5.0, 1.0], [2.0, -3.0]])
    assert seen(scores, 2).tolist() == [[True, False], [False, True]]


def test_signed_constant_keeps_sign_and_size():
    weight = torch.randn(300, 100, generator=torch.Generator().manual_seed(0)) * 0.05
    constant = signed_constant(weight)
    assert torch.equal(constant.sign(), weight.sign())
    assert constant.abs().unique().numel() == 1
    assert float(constant.abs().max()) == pytest.approx(float(weight.std()), rel=1e-2)


@pytest.mark.parametrize(
    ("sizes", "total", "minimum", "expected"),
    [
        ({"a": 100, "b": 10}, 55, 0, {"a": 50, "b": 5}),
        ({"a": 10, "b": 10, "c": 10}, 10, 0, {"a": 4, "b": 3, "c": 3}),
        ({"a": 100, "b": 10}, 11, 5, {"a": 6, "b": 5}),
        ({"a": 100, "b": 2}, 51, 5, {"a": 49, "b": 2}),
        ({"a": 100, "b": 10}, 110, 0, {"a": 100, "b": 10}),
        ({"a": 1000, "b": 1}, 100, 0, {"a": 100, "b": 0}),
    ],
)
def test_the_same_share_of_every_layer_adds_up(sizes, total, minimum, expected):
    assert counts_of(sizes, total, minimum) == expected
    assert sum(expected.values()) == total
