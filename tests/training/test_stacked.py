"""Jobs stacked along one more dimension against the same jobs trained one by one."""

import random
import warnings
from functools import partial

import pytest
import small_nets
import torch
from plain_loop import CPU, assert_equal_states, engine_at, random_mask, recipe, splits
from torch import nn

from tombola.networks import initialised
from tombola.seeds import Seeds
from tombola.training.engine import ReplicaState
from tombola.training.engines.stacked import StackedEngine

VECTORS, IMAGES = (20,), (2, 6, 6)
MLP = partial(small_nets.mlp, VECTORS, 4, (30, 12))
CONV = partial(small_nets.conv_norm, IMAGES, 4)
DROPPING = partial(small_nets.Dropping, VECTORS, 4)
CONV_DROPPING = partial(small_nets.conv_norm_dropout, IMAGES, 4)
ADAM = {"optimizer": "adam", "lr": 0.003}
SGD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3, "warmup": 9}
DENSITIES = (1.0, 0.2, 0.036, 0.012)


def starts_of(build, shape, densities=DENSITIES):
    """Jobs of two trials, in turn: each trial has its own data; each job its own weights, mask and order."""
    data = [splits(shape), splits(shape, classes=4, train=230)]
    found = []
    for number, density in enumerate(densities):
        mask = random_mask(build, shape, density, seed=number)
        weights = mask.apply(initialised(build, "glorot-normal", number).state_dict())
        found.append(ReplicaState(weights, mask, Seeds(5, number % 2), data[number % 2]))
    return found


def stack(build, starts, settings, budget=1000):
    return StackedEngine(build, starts, settings, budget, CPU)


# Not batch norm under Adam: the gradient of a bias before it is rounding alone, which Adam makes steps of.
@pytest.mark.parametrize(
    ("build", "shape", "settings"),
    [(MLP, VECTORS, ADAM), (MLP, VECTORS, SGD), (CONV, IMAGES, SGD)],
    ids=["mlp-adam", "mlp-sgd", "conv-batch-norm-sgd"],
)
def test_each_replica_trains_as_it_would_alone(build, shape, settings):
    starts, settings = starts_of(build, shape), recipe(**settings)
    together = stack(build, starts, settings)
    alone = [engine_at(build, start, settings) for start in starts]
    for _ in range(20):
        losses = together.advance(10)
        assert losses == pytest.approx([engine.advance(10)[0] for engine in alone], rel=2e-3, abs=1e-5)
    for part in ("train", "validation", "test"):
        scores = together.evaluate(part)
        for score, engine in zip(scores, alone, strict=True):
            (expected,) = engine.evaluate(part)
            assert score.loss == pytest.approx(expected.loss, rel=5e-3, abs=1e-5)
            assert score.metric == pytest.approx(expected.metric, abs=0.021)  # one example of 50 on the border


def test_the_first_steps_agree_to_the_last_digits():
    """Before rounding has had time to grow: the weights themselves, of each replica and not of its neighbour."""
    starts, settings = starts_of(MLP, VECTORS), recipe(**SGD)
    together = stack(MLP, starts, settings)
    together.advance(5)
    for replica, start in enumerate(starts):
        engine = engine_at(MLP, start, settings)
        engine.advance(5)
        for name, tensor in engine.weights().items():
            torch.testing.assert_close(together.weights(replica)[name], tensor, rtol=1e-5, atol=1e-6)


def test_pruned_weights_stay_at_zero():
    starts = starts_of(CONV, IMAGES)
    together = stack(CONV, starts, recipe(**SGD))
    together.advance(20)
    for replica, start in enumerate(starts):
        weights = together.weights(replica)
        for name, keep in start.mask.items():
            assert bool((weights[name][~keep] == 0.0).all())
            assert keep.sum() == 0 or bool((weights[name][keep] != start.weights[name][keep]).any())


@pytest.mark.parametrize("settings", [ADAM, SGD], ids=["adam", "sgd"])
def test_a_stack_goes_on_as_if_never_interrupted(settings):
    settings = recipe(**settings)
    starts = starts_of(CONV, IMAGES)
    whole, first = stack(CONV, starts, settings), stack(CONV, starts, settings)
    whole.advance(17)
    first.advance(6)
    again = [
        ReplicaState(first.weights(replica), start.mask, start.seeds, start.splits, 6, first.optimizer_state(replica))
        for replica, start in enumerate(starts)
    ]
    second = stack(CONV, again, settings)
    second.advance(11)
    for replica in range(len(starts)):
        assert_equal_states(second.weights(replica), whole.weights(replica))
        assert_equal_states(second.optimizer_state(replica), whole.optimizer_state(replica))


def test_a_job_of_a_stack_can_go_on_alone():
    """Its checkpoint is the dense engine's: another number of replicas may be there next time, or another machine."""
    settings = recipe(**ADAM)
    starts = starts_of(MLP, VECTORS)
    together = stack(MLP, starts, settings)
    together.advance(10)
    start = starts[2]
    alone = engine_at(
        MLP,
        ReplicaState(together.weights(2), start.mask, start.seeds, start.splits, 10, together.optimizer_state(2)),
        settings,
    )
    together.advance(5)
    alone.advance(5)
    for name, tensor in alone.weights().items():
        torch.testing.assert_close(together.weights(2)[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_replica_that_diverges_does_not_touch_the_others():
    starts = starts_of(MLP, VECTORS, (1.0, 1.0, 1.0))
    next(iter(starts[1].weights.values())).fill_(float("inf"))
    together = stack(MLP, starts, recipe(**ADAM))
    losses = together.advance(10)
    alone = engine_at(MLP, starts[2], recipe(**ADAM))
    assert losses[1] != losses[1]
    assert losses[2] == pytest.approx(alone.advance(10)[0], rel=1e-4)


def test_what_cannot_be_stacked_is_refused():
    start = starts_of(MLP, VECTORS, (1.0,))[0]
    later = ReplicaState(start.weights, start.mask, start.seeds, start.splits, 3)
    with pytest.raises(ValueError, match="same iteration"):
        stack(MLP, [start, later], recipe(**ADAM))
    dropping = starts_of(DROPPING, VECTORS, (1.0,))
    with pytest.raises(ValueError, match="draws at random"):
        stack(DROPPING, dropping, recipe(**ADAM))


def test_checking_whether_a_network_stacks_changes_nothing():
    before = torch.get_rng_state()
    assert StackedEngine.why_not_network(CONV, torch.zeros(1, *IMAGES)) == ""
    assert StackedEngine.why_not_network(DROPPING, torch.zeros(1, *VECTORS))
    assert StackedEngine.why_not_network(CONV_DROPPING, torch.zeros(1, *IMAGES)) == ""
    assert torch.equal(torch.get_rng_state(), before)


def test_a_trial_says_nothing_of_operations_that_vmap_only_emulates():
    """Weight norm has no batching rule: PyTorch warns of it each time, and warnings are errors here."""

    class Warns(nn.Linear):
        def forward(self, x):
            warnings.warn("something else", UserWarning, stacklevel=1)
            return super().forward(x)

    normed = lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))  # noqa: E731
    assert StackedEngine.why_not_network(normed, torch.zeros(1, 4)) == ""
    with pytest.warns(UserWarning, match="something else"):
        assert StackedEngine.why_not_network(lambda: Warns(4, 3), torch.zeros(1, 4)) == ""


class Reads(nn.Module):
    """Scales by a value that it reads."""

    def forward(self, x):
        return x / float(x.abs().max() + 1)


class Skips(nn.Module):
    """Stochastic depth by Python's random numbers."""

    def forward(self, x):
        return x if random.random() < 0.5 else 2 * x


def test_the_layer_that_keeps_a_network_from_stacks_is_named():
    def why(*layers):
        return StackedEngine.why_not_network(lambda: nn.Sequential(nn.Flatten(), *layers), torch.zeros(1, 4))

    assert why(nn.Linear(4, 3)) == ""
    assert why(nn.Linear(4, 3), nn.Sequential(Reads())) == "2.0: it reads the values of tensors"
    assert why(nn.RReLU(), nn.Linear(4, 3)).startswith("1: torch.func.vmap can't batch it: ")
    draws = "it draws at random, and is not an nn.Dropout layer"
    assert StackedEngine.why_not_network(DROPPING, torch.zeros(1, *VECTORS)) == f"its forward pass: {draws}"
    assert why(Skips(), nn.Linear(4, 3)).endswith("it draws random numbers outside PyTorch, which a stack would share")
    same = nn.Dropout()
    assert why(same, nn.Linear(4, 3), same) == "1: a dropout layer must be called exactly once in a forward pass"
    tied = nn.Linear(4, 4)
    assert why(tied, nn.ReLU(), tied) == "3: it shares a parameter with another layer"


def test_dropout_in_a_stack_draws_what_each_replica_draws_alone():
    starts, settings = starts_of(CONV_DROPPING, IMAGES), recipe(**SGD)
    together = stack(CONV_DROPPING, starts, settings)
    alone = [engine_at(CONV_DROPPING, start, settings) for start in starts]
    before = torch.get_rng_state()
    assert together.advance(3) == pytest.approx([engine.advance(3)[0] for engine in alone], rel=1e-4)
    assert torch.equal(torch.get_rng_state(), before)
    for replica, engine in enumerate(alone):
        for name, tensor in engine.weights().items():
            torch.testing.assert_close(together.weights(replica)[name], tensor, rtol=1e-4, atol=1e-5)
        assert together.evaluate("test")[replica].loss == pytest.approx(engine.evaluate("test")[0].loss, rel=1e-4)


def between_convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Dropout(0.4), nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(96, 4)
    )


class ByKeyword(small_nets.Dropping):
    """Calls its dropout layer by keyword."""

    def forward(self, x):
        return self.fc2(self.drop(input=torch.relu(self.fc1(x.flatten(1)))))


def test_dropout_may_be_called_by_keyword():
    assert not StackedEngine.why_not_network(partial(ByKeyword, VECTORS, 4), torch.zeros(1, *VECTORS))


def test_bfloat16_convolutions_lie_in_a_stack_as_they_do_alone():
    """With the channels last: so does the batched result, and dropout between convolutions drops the same numbers."""
    starts, settings = starts_of(between_convolutions, IMAGES), recipe(**SGD, precision="bfloat16")
    together = stack(between_convolutions, starts, settings)
    strides = []
    together._module[3].register_forward_hook(
        lambda *taken: strides.append(torch._C._functorch.get_unwrapped(taken[2]).stride())
    )
    alone = [engine_at(between_convolutions, start, settings) for start in starts]
    assert together.advance(2) == pytest.approx([engine.advance(2)[0] for engine in alone], rel=5e-3)
    channels = 6 * len(starts)
    assert set(strides) == {(6, 16 * channels, 1, 4 * channels, channels)}  # of [replicas, batch, 6, 4, 4]
    for weight in together._parameters.values():
        if weight.dim() == 5:
            state = together._optimizer.state[weight]["momentum_buffer"]
            assert weight.stride() == state.stride() != weight.contiguous().stride()


def test_a_bfloat16_stack_goes_on_as_if_never_interrupted():
    starts, settings = starts_of(between_convolutions, IMAGES), recipe(**SGD, precision="bfloat16")
    whole, first = stack(between_convolutions, starts, settings), stack(between_convolutions, starts, settings)
    whole.advance(9)
    first.advance(4)
    again = [
        ReplicaState(first.weights(replica), start.mask, start.seeds, start.splits, 4, first.optimizer_state(replica))
        for replica, start in enumerate(starts)
    ]
    second = stack(between_convolutions, again, settings)
    second.advance(5)
    for replica, start in enumerate(starts):
        weights = second.weights(replica)
        assert_equal_states(weights, whole.weights(replica))
        assert_equal_states(second.optimizer_state(replica), whole.optimizer_state(replica))
        assert all(bool((weights[name][~keep] == 0.0).all()) for name, keep in start.mask.items())
