"""Convolutional networks with batch norm, dropout and augmentation: what must hold beside the numbers of an MLP."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import small_nets
import torch
from plain_loop import CPU, SEEDS, assert_equal_states, begin, engine_at, random_mask, recipe, splits
from small_studies import find, run_study
from torch import nn
from torch.nn import functional

from tombola import data
from tombola.data.augment import Augmentation, augment
from tombola.errors import InputError
from tombola.networks import NETWORKS, NetworkSettings, factory, initialised
from tombola.seeds import Seeds
from tombola.studies import load_study, make_plan
from tombola.training.engine import ReplicaState
from tombola.training.engines import choose_engine
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.mlp import MlpEngine
from tombola.training.engines.sparse import SparseEngine
from tombola.training.engines.stacked import StackedEngine
from tombola.training.order import Order

IMAGES = (3, 8, 8)
RESNET = partial(NETWORKS["resnet-20"], IMAGES, 4, depth=8, width=4)
EVERYTHING = partial(small_nets.conv_norm_dropout, IMAGES, 4)
CONV_2 = partial(NETWORKS["conv-2"], IMAGES, 4)
SGD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
ADAM = {"optimizer": "adam", "lr": 0.003, "weight_decay": 1e-3}
BOTH = ("flip", "crop")
NORMS = ("running_mean", "running_var", "num_batches_tracked")


def start_of(build, density=0.3, number=0, seeds=SEEDS):
    mask = random_mask(build, IMAGES, density, seed=number)
    weights = mask.apply(initialised(build, "glorot-normal", number).state_dict())
    return ReplicaState(weights, mask, seeds, splits(IMAGES))


def again(engine, start, replica=0):
    """Return a start from where an engine is."""
    return ReplicaState(
        engine.weights(replica),
        start.mask,
        start.seeds,
        start.splits,
        engine.iteration,
        engine.optimizer_state(replica),
    )


def stack(build, starts, settings):
    return StackedEngine(build, starts, settings, 1000, CPU)


def statistics(weights):
    return {name: tensor for name, tensor in weights.items() if name.endswith(NORMS)}


# Masks and batch norm


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
def test_pruned_convolutions_stay_at_zero_and_batch_norm_trains(settings, precision):
    start = start_of(RESNET, 0.6)  # so dense that no channel is dead, whose batch norm would have nothing to learn
    assert not any("norm" in name for name in start.mask)
    engine = engine_at(RESNET, start, recipe(**settings, precision=precision, augment=BOTH))
    for _ in range(6):
        engine.advance(2)
        weights = engine.weights()
        for name, keep in start.mask.items():
            assert bool((weights[name][~keep] == 0.0).all())
    for name, tensor in weights.items():
        changed = tensor != start.weights[name]
        assert bool(changed.any()), name
        if "norm" in name:
            assert bool(changed.all()), name


@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
def test_bfloat16_takes_the_steps_of_a_plain_loop(settings):
    """Contiguous, not fused, one gradient at a time: weights that were mixed up by their layout would show."""
    start, chosen = start_of(RESNET, 1.0), recipe(**settings, precision="bfloat16")
    module = RESNET()
    module.load_state_dict(start.weights)
    make = torch.optim.Adam if settings is ADAM else partial(torch.optim.SGD, momentum=0.9)
    optimizer = make(module.parameters(), lr=chosen.lr, weight_decay=1e-3, foreach=False)
    for batch in Order(230, 20, SEEDS).batches(0, 2):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            logits = module(start.splits.train.inputs[batch])
        functional.cross_entropy(logits.float(), start.splits.train.targets[batch]).backward()
        optimizer.step()
    engine = engine_at(RESNET, start, chosen)
    engine.advance(2)
    for name, tensor in engine.weights().items():
        if name in start.mask:
            ours, theirs = tensor - start.weights[name], module.state_dict()[name] - start.weights[name]
            assert functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0) > 0.97, name


@pytest.mark.parametrize("stacked", [False, True])
def test_bfloat16_trains_convolutions_of_volumes_beside_those_of_images(stacked):
    def build():
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.Unflatten(1, (1, 4)), nn.Conv3d(1, 2, 3), nn.Flatten(), nn.Linear(144, 4)
        )

    start, settings = start_of(build), recipe(**SGD, precision="bfloat16")
    engine = stack(build, [start, start], settings) if stacked else engine_at(build, start, settings)
    engine.advance(3)
    for name, keep in start.mask.items():
        assert bool((engine.weights()[name][keep] != start.weights[name][keep]).any())
    layers = DenseEngine(build, [start], settings, 10, CPU)._module
    assert layers[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert layers[2].weight.is_contiguous()


def test_a_level_begins_with_the_initial_network_times_the_mask(tmp_path):
    """Statistics of batch norm included: they are those of a network that has seen nothing."""
    arguments = {"depth": 8, "width": 2}
    settings = {"network": "resnet-20", "network__arguments": arguments, "pruning__scope": "global"}
    plan, store = run_study(tmp_path, pruning__exclude=["output", "*.shortcut"], **settings)
    build = factory(NetworkSettings(name="resnet-20", arguments=arguments), (1, 8, 8), 10)
    dense = find(plan, "ticket", 0)
    spec = dense.spec
    initial = initialised(build, "glorot-normal", spec.seeds.value("init"))
    assert_equal_states(store.load(dense.id).snapshots["start"], dict(initial.state_dict()))
    digits = data.split(data.load(spec.data), spec.data.validation, spec.seeds)
    for level in (1, 2):
        result = store.load(find(plan, "ticket", level).id)
        module = build()
        module.load_state_dict(initial.state_dict())
        with torch.no_grad():
            for name, keep in result.mask.items():
                module.get_parameter(name).mul_(keep)
        assert_equal_states(result.snapshots["start"], dict(module.state_dict()))
        with torch.no_grad():
            logits = module.eval()(digits.validation.inputs)
        loss = functional.cross_entropy(logits, digits.validation.targets).item()
        assert result.history["val_loss"][0] == pytest.approx(loss, rel=1e-5)
        counts = result.mask.counts()
        assert counts["output.weight"] == 80
        assert counts["stage2.0.shortcut.weight"] == 8
        assert result.mask.remaining == plan.remaining[level]
        for name, tensor in statistics(result.snapshots["start"]).items():
            assert bool((tensor == (1 if name.endswith("var") else 0)).all())
            assert not torch.equal(tensor, result.snapshots["final"][name])


def test_the_first_step_is_that_of_the_initial_network_times_the_mask():
    start = start_of(RESNET)
    engine = engine_at(RESNET, start, recipe(**SGD))
    module = RESNET().train()
    module.load_state_dict(initialised(RESNET, "glorot-normal", 0).state_dict())
    with torch.no_grad():
        for name, keep in start.mask.items():
            module.get_parameter(name).mul_(keep)
        (batch,) = Order(230, 20, SEEDS).batches(0, 1)
        loss = functional.cross_entropy(module(start.splits.train.inputs[batch]), start.splits.train.targets[batch])
    assert engine.advance(1) == pytest.approx([loss.item()], rel=1e-5)
    for name, tensor in statistics(engine.weights()).items():
        torch.testing.assert_close(tensor, module.state_dict()[name])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stacked", [False, True], ids=["dense", "stacked"])
def test_evaluating_leaves_the_statistics_alone(stacked, precision):
    start, settings = start_of(RESNET), recipe(**SGD, precision=precision, augment=BOTH)
    engine = stack(RESNET, [start, start], settings) if stacked else engine_at(RESNET, start, settings)
    engine.advance(3)
    before = engine.weights()
    first = engine.evaluate("test")
    assert engine.evaluate("test") == first  # and nothing is augmented
    engine.evaluate("train")
    assert_equal_states(engine.weights(), before)


# Dropout


def test_dropout_is_a_function_of_seeds_and_iteration():
    build = partial(CONV_2, dropout=0.5)
    start, settings = start_of(build), recipe(**SGD)
    losses = []
    for iteration in (0, 5, 5):
        torch.manual_seed(len(losses))
        begun = ReplicaState(start.weights, start.mask, start.seeds, start.splits, iteration)
        # The same batch each time, so that a loss depends on the iteration through dropout alone.
        engine = engine_at(build, begun, settings)
        engine._batches = (begun.splits.train.select(torch.arange(20)) for _ in range(9))
        losses.append(engine.advance(1)[0])
    assert losses[1] == losses[2] != losses[0]


def test_dropout_is_off_in_evaluation():
    dropping, whole = partial(CONV_2, dropout=0.5), CONV_2
    start = start_of(dropping)
    engine = engine_at(dropping, start, recipe(**SGD))
    engine.advance(5)
    same = engine_at(whole, ReplicaState(engine.weights(), start.mask, SEEDS, start.splits), recipe(**SGD))
    for part in ("train", "validation", "test"):
        assert engine.evaluate(part) == same.evaluate(part)
    engine.advance(1)
    same.advance(1)
    assert engine.evaluate("test") != same.evaluate("test")


# Augmentation


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_sees_the_augmented_batches_and_evaluation_the_images(precision):
    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(192, 4)

        def forward(self, x):
            seen.append((self.training, x.float().clone()))
            return self.fc(x.flatten(1))

    start = start_of(Watching, 1.0)
    engine = engine_at(Watching, start, recipe(**SGD, precision=precision, augment=BOTH))
    seen.clear()
    engine.advance(2)
    engine.advance(3)
    images = start.splits.train.inputs
    drawing = Augmentation(BOTH, 20, SEEDS, start.splits)
    batches = Order(230, 20, SEEDS).batches(0, 5)
    for (training, inputs), batch, drawn in zip(seen, batches, drawing.draws(0, 5), strict=True):
        assert training
        assert torch.equal(inputs, augment(images[batch], drawn, drawing.black))
        assert not torch.equal(inputs, images[batch])
    seen.clear()
    engine.evaluate("train")
    assert torch.equal(torch.cat([inputs for _, inputs in seen]), images)


def test_the_sparse_engine_augments_as_the_dense_one_does():
    start, settings = start_of(CONV_2, 0.1), recipe(**SGD, augment=BOTH)
    sparse, dense = SparseEngine(CONV_2, [start], settings, 1000, CPU), engine_at(CONV_2, start, settings)
    assert sparse._sparse
    assert sparse.advance(5) == pytest.approx(dense.advance(5), rel=1e-4)
    plain = engine_at(CONV_2, start, recipe(**SGD))
    assert plain.advance(5) != pytest.approx(dense.advance(5), rel=1e-3)


def test_the_mlp_engine_does_not_augment_and_is_not_chosen():
    build, example = partial(NETWORKS["lenet-300-100"], (1, 8, 8), 10), torch.zeros(1, 1, 8, 8)
    mask = random_mask(build, (1, 8, 8), 0.05)
    plain, augmented = recipe(), recipe(augment=("flip",))
    assert choose_engine("auto", build, mask, plain, example) is MlpEngine
    assert choose_engine("auto", build, mask, augmented, example) is SparseEngine
    assert choose_engine("sparse", build, mask, augmented, example) is SparseEngine
    assert choose_engine("dense", build, mask, augmented, example) is DenseEngine
    with pytest.raises(ValueError, match="does not augment"):
        MlpEngine(build, [begin(build, mask, splits((1, 8, 8)))], augmented, 10, CPU)


def test_what_is_no_image_cannot_be_augmented(tmp_path):
    x, y = np.random.default_rng(0).random((40, 6), np.float32), np.arange(40) % 3
    np.savez(tmp_path / "vectors.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    settings = {"source": "npz", "path": str(tmp_path / "vectors.npz"), "validation": 5}
    changes = {"data": settings, "training.batch_size": 5, "pruning.rounds": 1}
    make_plan(load_study("demo", changes))
    with pytest.raises(InputError, match=r"training\.augment needs images .* has shape \(6,\)"):
        make_plan(load_study("demo", changes | {"training.augment": ["flip"]}))
    with pytest.raises(InputError, match=r"training\.augment needs images"):
        make_plan(load_study("demo", changes | {"retraining.augment": ["flip"]}))


# Resuming


@pytest.mark.parametrize("stop", [1, 5, 11, 17])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
def test_with_all_of_it_together_resuming_is_bit_equal(settings, precision, stop):
    start, settings = start_of(EVERYTHING), recipe(**settings, precision=precision, augment=BOTH)
    whole, first = engine_at(EVERYTHING, start, settings), engine_at(EVERYTHING, start, settings)
    loss = whole.advance(20)
    first.advance(stop)
    second = engine_at(EVERYTHING, again(first, start), settings)
    assert second.advance(20 - stop) == loss
    assert_equal_states(second.weights(), whole.weights())
    assert_equal_states(second.optimizer_state(), whole.optimizer_state())
    assert second.evaluate("validation") == whole.evaluate("validation")


# Stacked


def several(build):
    """Jobs of two trials, in turn; what is black differs from trial to trial."""
    seeds = [Seeds(5, trial) for trial in (0, 1)]
    means = ((0.0, 0.0, 0.0), (0.5, 0.4, 0.3))
    data_of = [replace(splits(IMAGES), mean=mean, std=(0.2, 0.25, 0.3)) for mean in means]
    starts = []
    for number, density in enumerate((1.0, 0.3, 0.1)):
        start = start_of(build, density, number, seeds[number % 2])
        starts.append(ReplicaState(start.weights, start.mask, start.seeds, data_of[number % 2]))
    return starts


@pytest.mark.parametrize("kinds", [(), BOTH], ids=["plain", "augmented"])
def test_a_stack_of_resnets_trains_as_its_replicas_would_alone(kinds):
    """Running statistics are each replica's own, and so are flips and crops."""
    assert not StackedEngine.why_not_network(RESNET, torch.zeros(1, *IMAGES))
    starts, settings = several(RESNET), recipe(**SGD, augment=kinds)
    together, alone = stack(RESNET, starts, settings), [engine_at(RESNET, start, settings) for start in starts]
    assert together.advance(5) == pytest.approx([engine.advance(5)[0] for engine in alone], rel=1e-4)
    for replica, (engine, start) in enumerate(zip(alone, starts, strict=True)):
        weights = together.weights(replica)
        for name, tensor in engine.weights().items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-3, atol=1e-5)
        assert all(bool((weights[name][~keep] == 0.0).all()) for name, keep in start.mask.items())
        assert all(tensor == 5 for name, tensor in statistics(weights).items() if name.endswith("tracked"))
    means = [together.weights(replica)["norm.running_mean"] for replica in range(3)]
    assert not torch.allclose(means[0], means[2], rtol=1e-2)
    for score, engine in zip(together.evaluate("validation"), alone, strict=True):
        assert score.loss == pytest.approx(engine.evaluate("validation")[0].loss, rel=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_augmented_stack_goes_on_as_if_never_interrupted(precision):
    starts, settings = several(RESNET), recipe(**SGD, augment=BOTH, precision=precision)
    whole, first = stack(RESNET, starts, settings), stack(RESNET, starts, settings)
    whole.advance(9)
    first.advance(4)
    second = stack(RESNET, [again(first, start, replica) for replica, start in enumerate(starts)], settings)
    second.advance(5)
    for replica in range(3):
        assert_equal_states(second.weights(replica), whole.weights(replica))
