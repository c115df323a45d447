"""The dense engine against a plain masked PyTorch loop, and what it must leave alone."""

import random
from functools import partial

import numpy as np
import pytest
import small_nets
import torch
from plain_loop import CPU, SEEDS, Plain, assert_equal_states, begin, engine_at, random_mask, recipe, splits
from torch import nn
from torch.nn import functional

from tombola.data import Part
from tombola.pruning import Mask
from tombola.seeds import Seeds, draw_states
from tombola.tasks import Classification
from tombola.training.engine import ReplicaState
from tombola.training.engines import dense
from tombola.training.engines.dense import EVALUATION_BLOCK, EVALUATION_PIECE, piece_of, score

VECTORS, IMAGES = (20,), (2, 6, 6)
MLP = partial(small_nets.mlp, VECTORS, 4, (30, 12))
CONV = partial(small_nets.conv_norm, IMAGES, 4)
DROPPING = partial(small_nets.Dropping, VECTORS, 4)
ADAM = {"optimizer": "adam", "lr": 0.003, "weight_decay": 1e-3}
SGD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
WARM_COSINE = {"schedule": "cosine", "warmup": 9}
STEPS = {"schedule": "step", "milestones": (10, 14), "gamma": 0.5}


def start_of(build, density=0.3):
    shape = IMAGES if build is CONV else VECTORS
    return begin(build, random_mask(build, shape, density), splits(shape))


def resumed(engine, build, start, settings, budget=1000):
    """Return a new engine that begins where this one is."""
    again = ReplicaState(
        engine.weights(), start.mask, start.seeds, start.splits, engine.iteration, dict(engine.optimizer_state())
    )
    return engine_at(build, again, settings, budget)


# Agreement


@pytest.mark.parametrize("density", [1.0, 0.3, 0.1])
@pytest.mark.parametrize("build", [MLP, CONV], ids=["lenet-like", "conv-batch-norm"])
@pytest.mark.parametrize("settings", [ADAM, SGD], ids=["adam", "sgd"])
def test_every_step_is_that_of_a_plain_masked_loop(settings, build, density):
    """As far from float64 as a plain float32 loop is, and no farther; pruned weights at 0.0 after each step."""
    start, settings = start_of(build, density), recipe(**settings)

    def rate(iteration):
        return settings.lr

    exact = Plain(build, start, settings, rate, torch.float64)
    rounded = Plain(build, start, settings, rate)
    engine = engine_at(build, start, settings)
    losses = []
    for _ in range(200):
        losses.append((exact.step(), rounded.step(), engine.advance(1)[0]))
        weights = engine.weights()
        for name, keep in start.mask.items():
            assert bool((weights[name][~keep] == 0.0).all())
    truth, plain, ours = np.array(losses).T
    assert ours == pytest.approx(truth, abs=2e-6 + 5 * np.abs(plain - truth).max())
    other = rounded.module.state_dict()
    for name, tensor in exact.module.state_dict().items():
        stray = (other[name] - tensor).abs().max().item()
        torch.testing.assert_close(weights[name].to(tensor), tensor, rtol=0, atol=2e-6 + 5 * stray)
    assert truth[:10].mean() > 1.1 * truth[-10:].mean()  # it learns, so the agreement is about something


@pytest.mark.parametrize("schedule", [WARM_COSINE, STEPS], ids=["warmup-cosine", "step"])
def test_the_schedule_reaches_the_optimiser(schedule):
    """The rate of iteration i, not of i + 1, and of the iteration within the budget, not of the call."""
    settings, start = recipe(**SGD, **schedule), start_of(MLP)

    def rate(i):
        if settings.warmup and i < 9:
            return 0.05 * (i + 1) / 9
        if settings.warmup:
            return 0.05 * (1 + np.cos(np.pi * (i - 9) / (40 - 9))) / 2
        return 0.05 * 0.5 ** ((i >= 10) + (i >= 14))

    plain, engine = Plain(MLP, start, settings, rate), engine_at(MLP, start, settings, budget=40)
    for _ in range(40):
        plain.step()
    engine.advance(13)
    engine.advance(27)
    for name, tensor in plain.module.state_dict().items():
        torch.testing.assert_close(engine.weights()[name], tensor, rtol=1e-4, atol=1e-5)


def test_the_loss_is_that_of_the_last_batch():
    start, settings = start_of(MLP), recipe(**SGD)
    plain, engine = Plain(MLP, start, settings, lambda i: settings.lr), engine_at(MLP, start, settings)
    losses = [plain.step() for _ in range(7)]
    assert engine.advance(7) == pytest.approx([losses[-1]], rel=1e-5)
    assert engine.iteration == 7


def test_a_start_in_the_middle_goes_on_with_order_and_schedule():
    """A network rewound to iteration k sees the batches and learning rates from k on, with a fresh optimiser."""
    settings = recipe(**SGD, **STEPS)
    begun = start_of(MLP)
    start = ReplicaState(begun.weights, begun.mask, begun.seeds, begun.splits, iteration=8)
    plain = Plain(MLP, start, settings, lambda i: 0.05 * 0.5 ** ((i >= 10) + (i >= 14)))
    engine = engine_at(MLP, start, settings)
    for _ in range(12):
        plain.step()
    engine.advance(12)
    assert engine.iteration == 20
    for name, tensor in plain.module.state_dict().items():
        torch.testing.assert_close(engine.weights()[name], tensor, rtol=1e-4, atol=1e-5)


def test_a_frozen_layer_can_be_masked():
    """A user's pretrained layer: it is prunable, and it is not a parameter of the optimiser."""
    build = partial(small_nets.frozen, VECTORS, 4)
    start = begin(build, random_mask(build, VECTORS, 0.5), splits(VECTORS))
    engine = engine_at(build, start, recipe(**SGD))
    engine.advance(3)
    frozen = engine.weights()["1.weight"]
    assert torch.equal(frozen, start.weights["1.weight"])
    assert not torch.equal(engine.weights()["3.weight"], start.weights["3.weight"])


def test_two_replicas_are_refused():
    start = start_of(MLP)
    with pytest.raises(ValueError, match="one replica"):
        dense.DenseEngine(MLP, [start, start], recipe(), 100, CPU)


# Evaluation


@pytest.mark.parametrize("block", [1, 7, 50, 1000])
def test_a_score_is_over_the_true_number_of_examples(block, monkeypatch):
    """A last block that is not full must weigh by its examples. Against numpy in float64."""
    monkeypatch.setattr(Classification, "block", block)
    start = start_of(MLP)
    engine = engine_at(MLP, start, recipe(**ADAM))
    engine.advance(20)
    weights = {name: tensor.double().numpy() for name, tensor in engine.weights().items()}
    for part in ("train", "validation", "test"):
        examples = getattr(start.splits, part)
        values = examples.inputs.double().numpy()
        for layer in (1, 3):
            values = np.maximum(values @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"], 0)
        logits = values @ weights["5.weight"].T + weights["5.bias"]
        targets = examples.targets.numpy()
        log_likelihood = logits[np.arange(len(targets)), targets] - np.log(np.exp(logits).sum(1))
        (score,) = engine.evaluate(part)
        assert score.loss == pytest.approx(-log_likelihood.mean(), rel=1e-5)
        assert score.metric == (logits.argmax(1) == targets).mean()


def test_more_examples_than_one_block():
    data = splits(VECTORS, test=Classification.block + 3)
    start = begin(MLP, random_mask(MLP, VECTORS, 0.5), data)
    engine = engine_at(MLP, start, recipe())
    module = MLP()
    module.load_state_dict(start.weights)
    with torch.no_grad():
        logits = module(data.test.inputs)
    (score,) = engine.evaluate("test")
    assert score.loss == pytest.approx(functional.cross_entropy(logits, data.test.targets).item(), rel=1e-5)
    assert score.metric == (logits.argmax(1) == data.test.targets).float().mean(dtype=torch.float64).item()


@pytest.mark.parametrize("build", [CONV, DROPPING], ids=["batch-norm", "dropout"])
def test_evaluating_does_not_change_training(build):
    """Batch norm's statistics must not learn from validation, nor may dropout draw on or stay switched off."""
    start, settings = start_of(build), recipe(**SGD)
    looking, blind = engine_at(build, start, settings), engine_at(build, start, settings)
    for _ in range(6):
        before = looking.weights()
        first = [looking.evaluate(part) for part in ("validation", "test", "train")]
        assert first == [looking.evaluate(part) for part in ("validation", "test", "train")]
        assert_equal_states(looking.weights(), before)
        looking.advance(3)
        blind.advance(3)
    assert_equal_states(looking.weights(), blind.weights())
    assert_equal_states(looking.optimizer_state(), blind.optimizer_state())


def test_an_evaluation_can_be_stopped_and_leaves_no_trace(monkeypatch):
    monkeypatch.setattr(Classification, "block", 10)
    start, settings = start_of(CONV), recipe(**SGD)
    stopped, whole = engine_at(CONV, start, settings), engine_at(CONV, start, settings)
    stopped.advance(5)
    whole.advance(5)
    calls = iter([None, None, KeyboardInterrupt()])

    def check():
        if (call := next(calls)) is not None:
            raise call

    with pytest.raises(KeyboardInterrupt):
        stopped.evaluate("test", check)
    assert stopped.evaluate("test") == whole.evaluate("test")
    stopped.advance(5)
    whole.advance(5)
    assert_equal_states(stopped.weights(), whole.weights())


# Randomness


def test_dropout_follows_the_seeds_and_nothing_else():
    """Whatever the global generator holds, the same seeds drop the same; other seeds drop other units."""
    start, settings = start_of(DROPPING), recipe(**SGD)
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        engine = engine_at(DROPPING, start, settings)
        for _ in range(5):
            engine.advance(2)
            torch.rand(3)  # somebody else draws meanwhile
        runs.append(engine.weights())
    assert_equal_states(*runs)

    class OtherDropout(Seeds):
        def value(self, purpose, counter=0):
            return super().value(purpose, counter) + (purpose == "dropout")

    other = ReplicaState(start.weights, start.mask, OtherDropout(SEEDS.study, SEEDS.trial), start.splits)
    engine = engine_at(DROPPING, other, settings)
    engine.advance(10)
    assert not torch.equal(engine.weights()["fc1.weight"], runs[0]["fc1.weight"])


def test_dropout_drops_other_units_at_each_step():
    """Seeding at every step must not give every step the same draw."""
    seen = []

    class Noting(small_nets.Dropping):
        def forward(self, x):
            if self.training:
                seen.append(functional.dropout(torch.ones(50)))
            return super().forward(x)

    build = partial(Noting, VECTORS, 4)
    engine_at(build, start_of(DROPPING), recipe()).advance(4)
    assert len({tuple(draw.tolist()) for draw in seen}) == 4


@pytest.mark.parametrize("build", [MLP, DROPPING], ids=["plain", "dropout"])
def test_the_global_generator_is_left_alone(build):
    start = start_of(build)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    engine = engine_at(build, start, recipe())
    engine.advance(3)
    engine.evaluate("test")
    engine.weights()
    assert torch.equal(torch.get_rng_state(), before)


class Skipping(small_nets.Dropping):
    """Stochastic depth, by the generator of Python or NumPy."""

    def __init__(self, draw):
        super().__init__(VECTORS, 4)
        self.draw, self.middle = draw, nn.Linear(12, 12)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        if self.draw() < 0.5:  # in evaluation, too
            x = x + torch.relu(self.middle(x))
        return self.fc2(x)


@pytest.mark.parametrize("draw", [random.random, np.random.random], ids=["python", "numpy"])
def test_draws_outside_torch_follow_the_seeds_too(draw):
    build, found = partial(Skipping, draw), []
    start = begin(build, Mask.full({"fc1.weight": (12, 20)}), splits(VECTORS))
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        before = draw_states()
        engine = engine_at(build, start, recipe(**ADAM))
        for count in (4, 12) if seed == 1 else (9, 7):
            engine.advance(count)
        if seed == 2:
            engine = resumed(engine, build, start, recipe(**ADAM))
        engine.advance(8)
        found.append((engine.evaluate("test"), engine.weights()))
        assert draw_states() == before
    assert found[0][0] == found[1][0]
    assert_equal_states(found[0][1], found[1][1])
    middle = start.weights["middle.weight"]
    assert not torch.equal(found[0][1]["middle.weight"], middle)  # some steps took the layer


def test_what_a_constructor_draws_beside_the_weights_is_the_same_in_each_engine():
    build = partial(small_nets.projected, VECTORS, 4)
    start, scores = begin(build, Mask.full({"1.weight": (12, 20)}), splits(VECTORS)), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scores.append(engine_at(build, start, recipe()).evaluate("test"))
    assert scores[0] == scores[1]


def test_a_network_that_draws_only_now_and_then_is_reproducible():
    """Stochastic depth that sets in after a few batches: that the first step drew nothing proves nothing."""

    class LateNoise(small_nets.Dropping):
        batches = 0

        def forward(self, x):
            self.batches += self.training
            if self.training and self.batches > 3:
                x = functional.dropout(x, 0.5)
            return self.fc2(torch.relu(self.fc1(x)))

    build = partial(LateNoise, VECTORS, 4)
    runs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        engine = engine_at(build, start_of(DROPPING), recipe(**SGD))
        for _ in range(4):
            engine.advance(2)
        runs.append(engine.weights())
    assert_equal_states(*runs)


def test_dropout_that_is_never_switched_off_draws_from_the_seeds_too():
    """Monte Carlo dropout: evaluation draws as well, and must neither depend on the global generator nor move it."""

    class AlwaysDropping(small_nets.Dropping):
        def forward(self, x):
            return self.fc2(functional.dropout(torch.relu(self.fc1(x)), 0.5, training=True))

    build, start, scores = partial(AlwaysDropping, VECTORS, 4), start_of(DROPPING), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        scores.append(engine_at(build, start, recipe()).evaluate("test"))
        assert torch.equal(torch.get_rng_state(), before)
    assert scores[0] == scores[1]


# Resuming


@pytest.mark.parametrize("stop", [0, 1, 5, 9, 10, 11, 14, 25, 29])
@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (MLP, ADAM),
        (MLP, SGD | WARM_COSINE),
        (CONV, SGD | STEPS),
        (CONV, ADAM | WARM_COSINE),
        (DROPPING, SGD | STEPS),
        (DROPPING, {"optimizer": "sgd", "lr": 0.1}),
    ],
    ids=["adam", "sgd-warmup", "norm-sgd-step", "norm-adam-warmup", "dropout-sgd-step", "dropout-plain-sgd"],
)
def test_stopped_anywhere_it_goes_on_to_the_last_bit(build, settings, stop):
    """11 iterations are an epoch here: stops before, at and after its end, in and after warmup, at a milestone."""
    start, settings = start_of(build), recipe(**settings)
    whole = engine_at(build, start, settings, budget=30)
    last_loss = whole.advance(30)
    first = engine_at(build, start, settings, budget=30)
    if stop:
        first.advance(stop)
    second = resumed(first, build, start, settings, budget=30)
    assert second.iteration == stop
    assert second.advance(30 - stop) == last_loss
    assert_equal_states(second.weights(), whole.weights())
    assert_equal_states(second.optimizer_state(), whole.optimizer_state())
    assert second.evaluate("validation") == whole.evaluate("validation")


def test_how_the_iterations_are_cut_makes_no_difference():
    """The loop cuts them by the clock."""
    start, settings = start_of(DROPPING), recipe(**ADAM)
    whole, cut = engine_at(DROPPING, start, settings), engine_at(DROPPING, start, settings)
    whole.advance(30)
    for iterations in (1, 2, 7, 1, 13, 6):
        cut.advance(iterations)
    assert_equal_states(whole.weights(), cut.weights())


# Aliases


@pytest.mark.parametrize("settings", [ADAM, SGD], ids=["adam", "sgd"])
def test_returned_tensors_are_copies(settings):
    """What was handed out must neither change with training nor change it (fault 2 of other implementations)."""
    start, settings = start_of(CONV), recipe(**settings)
    given = {name: tensor.clone() for name, tensor in start.weights.items()}
    engine, witness = engine_at(CONV, start, settings), engine_at(CONV, start, settings)
    engine.advance(3)
    weights, state = engine.weights(), engine.optimizer_state()
    copies = [{name: tensor.clone() for name, tensor in tensors.items()} for tensors in (weights, state)]
    engine.advance(3)
    assert_equal_states(weights, copies[0])
    assert_equal_states(state, copies[1])
    assert_equal_states(start.weights, given)
    for tensors in (engine.weights(), engine.optimizer_state()):
        for tensor in tensors.values():
            tensor.fill_(7)
    engine.advance(3)
    witness.advance(9)
    assert_equal_states(engine.weights(), witness.weights())


@pytest.mark.parametrize("settings", [ADAM, SGD], ids=["adam", "sgd"])
def test_a_start_is_not_trained_into(settings):
    """Two engines may begin from the same start, optimiser included."""
    start, settings = start_of(CONV), recipe(**settings)
    first = engine_at(CONV, start, settings)
    first.advance(4)
    middle = ReplicaState(first.weights(), start.mask, SEEDS, start.splits, 4, first.optimizer_state())
    given = [{name: t.clone() for name, t in tensors.items()} for tensors in (middle.weights, middle.optimizer)]
    engine_at(CONV, middle, settings).advance(4)
    assert_equal_states(middle.weights, given[0])
    assert_equal_states(middle.optimizer, given[1])


def test_a_mask_that_is_full_leaves_a_layer_alone():
    """Nothing is multiplied where nothing is pruned: a weight that happens to be 0.0 must be free to move."""
    mask = Mask.full({"1.weight": (30, 20), "3.weight": (12, 30), "5.weight": (4, 12)})
    start = begin(MLP, mask, splits(VECTORS))
    start.weights["5.weight"][0, :] = 0.0
    engine = engine_at(MLP, start, recipe(**SGD))
    engine.advance(2)
    assert bool((engine.weights()["5.weight"][0] != 0).any())


@pytest.mark.parametrize("track", [True, False])
def test_a_score_does_not_depend_on_how_many_examples_go_through_at_a_time(track):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=track), nn.Flatten()).eval()
    examples = Part(torch.randn(1130, 2, 5, 5), torch.randint(27, (1130,)))
    logits = [module(block).detach() for block in examples.inputs.split(EVALUATION_BLOCK)]
    targets = examples.targets.split(EVALUATION_BLOCK)
    losses = [functional.cross_entropy(a, b, reduction="sum").item() for a, b in zip(logits, targets, strict=True)]
    right = sum(int((a.argmax(1) == b).sum()) for a, b in zip(logits, targets, strict=True))
    found = score(module, examples, False, lambda: None)
    assert found[:2] == (pytest.approx(sum(losses) / 1130, rel=1e-6), right / 1130)
    assert piece_of(module) == (EVALUATION_PIECE if track else EVALUATION_BLOCK)
