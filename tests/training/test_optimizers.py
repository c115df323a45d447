"""Optimisers, schedules, clipping, precision and augmentation of a recipe, against plain PyTorch loops."""

from functools import partial

import own_training
import pytest
import small_nets
import torch
from plain_loop import CPU, assert_equal_states, begin, engine_at, random_mask, recipe, splits
from small_studies import run_study, small_study
from torch import nn
from torch.nn import functional
from torch.optim import lr_scheduler

from tombola.errors import InputError
from tombola.pruning import Mask
from tombola.studies import make_plan
from tombola.training.engine import ReplicaState
from tombola.training.engines import choose_engine, reasons_against
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.mlp import MlpEngine
from tombola.training.engines.sparse import SparseEngine
from tombola.training.engines.stacked import StackedEngine
from tombola.training.optimizers import check_optimizer, make_optimizer
from tombola.training.order import Order

SHAPE = (20,)
MLP = partial(small_nets.mlp, SHAPE, 4, (30, 12))
MUON = {"adjust_lr_fn": "match_rms_adamw"}
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="PyTorch 2.9 has it")

SETTINGS = {
    "adam-options": {"optimizer": "adam", "optimizer_options": {"betas": [0.8, 0.95], "amsgrad": True}},
    "adamw": {"optimizer": "adamw", "weight_decay": 0.1},
    "rmsprop": {"optimizer": "rmsprop", "momentum": 0.5, "weight_decay": 0.01, "optimizer_options": {"centered": True}},
    "nesterov": {"optimizer": "sgd", "momentum": 0.9, "optimizer_options": {"nesterov": True}},
    "muon": {"optimizer": "muon", "weight_decay": 0.1},
    "nadam": {"optimizer": "torch.optim:NAdam", "optimizer_options": {"momentum_decay": 0.01}},
    "lion": {"optimizer": "optimizers:Lion"},
    "shampoo": {"optimizer": "optimizers:Shampooish"},
    "counting": {"optimizer": "own_training:Counting"},
}
CASES = [pytest.param(s, id=name, marks=needs_muon if name == "muon" else ()) for name, s in SETTINGS.items()]


def start_of(density=0.3):
    return begin(MLP, random_mask(MLP, SHAPE, density), splits(SHAPE))


def torch_optimizers(name, named):
    """Return the optimisers of a plain loop, made by hand."""
    parameters = list(dict(named).values())
    if name == "adam-options":
        return [torch.optim.Adam(parameters, lr=0.01, betas=(0.8, 0.95), amsgrad=True)]
    if name == "adamw":
        return [torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1)]
    if name == "rmsprop":
        return [torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5, weight_decay=0.01, centered=True)]
    if name == "nesterov":
        return [torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True)]
    if name == "nadam":
        return [torch.optim.NAdam(parameters, lr=0.01, momentum_decay=0.01)]
    matrices, others = [p for p in parameters if p.dim() == 2], [p for p in parameters if p.dim() != 2]
    return [
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, **MUON),
        torch.optim.AdamW(others, lr=0.01, weight_decay=0.1),
    ]


def plain(start, make, steps, clip=lambda parameters: None, dtype=torch.float32, rates=()):
    """Return the weights after steps of a plain loop that masks gradients before, and weights after each step."""
    module = MLP().to(dtype)
    module.load_state_dict(start.weights)
    optimizers = make(list(module.named_parameters()))
    batches = Order(len(start.splits.train), 20, start.seeds).batches(0, steps)
    first = [group["lr"] for optimizer in optimizers for group in optimizer.param_groups]
    for number, batch in enumerate(batches):
        for group, rate in zip((group for each in optimizers for group in each.param_groups), first, strict=True):
            group["lr"] = rate * rates[number] / rates[0] if rates else rate
        train = start.splits.train
        loss = functional.cross_entropy(module(train.inputs[batch].to(dtype)), train.targets[batch])
        loss.backward()
        for name, keep in start.mask.items():
            module.get_parameter(name).grad.mul_(keep)
        clip(list(module.parameters()))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            for name, keep in start.mask.items():
                module.get_parameter(name).mul_(keep)
    return module.state_dict()


def assert_close(ours, theirs, tolerance=2e-5):
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=tolerance, msg=name)


# Optimisers


@pytest.mark.parametrize("name", ["adam-options", "adamw", "rmsprop", "nesterov", "nadam"])
def test_training_is_that_of_pytorchs_optimiser(name):
    start = start_of()
    engine = engine_at(MLP, start, recipe(**SETTINGS[name]))
    engine.advance(40)
    assert_close(engine.weights(), plain(start, partial(torch_optimizers, name), 40))


@pytest.mark.parametrize("options", [{}, {"dampening": 0.3}, {"nesterov": True}])
def test_sgd_takes_parameters_whose_first_gradient_comes_late(options):
    """As with stochastic depth: PyTorch's fused step fails there."""
    ours, plain = ([nn.Parameter(torch.linspace(-1, 1, 5) + place) for place in range(2)] for _ in range(2))
    settings = {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01, "optimizer_options": options}
    optimizer = make_optimizer(recipe(**settings), [(str(place), each) for place, each in enumerate(ours)])
    oracle = torch.optim.SGD(plain, lr=recipe(**settings).lr, momentum=0.9, weight_decay=0.01, **options)
    for step in range(4):
        for parameters, each in ((ours, optimizer), (plain, oracle)):
            each.zero_grad()
            for parameter in parameters[: 1 + (step > 1)]:
                (parameter**2).sum().backward()
            each.step()
    for mine, its in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("schedule", ["constant", "own_training:halving"])
def test_parameter_groups_keep_the_ratio_of_their_rates(schedule):
    start, settings = start_of(), recipe(optimizer="own_training:two_rates", lr=0.5, schedule=schedule)
    engine = engine_at(MLP, start, settings, budget=20)
    engine.advance(7)
    again = ReplicaState(engine.weights(), start.mask, start.seeds, start.splits, 7, dict(engine.optimizer_state()))
    engine = engine_at(MLP, again, settings, budget=20)
    engine.advance(13)

    def make(named):
        return [own_training.two_rates(named, 0.5)]

    rates = [settings.learning_rate(step, 20) for step in range(20)]
    assert_close(engine.weights(), plain(start, make, 20, rates=rates))
    check_optimizer(settings, MLP())


@needs_muon
def test_muon_trains_matrices_and_adamw_the_rest():
    start = start_of()
    engine = engine_at(MLP, start, recipe(**SETTINGS["muon"]))
    engine.advance(10)
    # Muon orthogonalises in bfloat16, which magnifies the last bits of the gradients.
    assert_close(engine.weights(), plain(start, partial(torch_optimizers, "muon"), 10), 1e-3)


@pytest.mark.parametrize("settings", CASES)
def test_pruned_weights_stay_exactly_zero_and_others_move(settings):
    start = start_of(0.2)
    engine = engine_at(MLP, start, recipe(**settings))
    engine.advance(15)
    for name, keep in start.mask.items():
        weights = engine.weights()[name]
        assert not weights[~keep].any(), name
        assert (weights[keep] != start.weights[name][keep]).any(), name


@pytest.mark.parametrize("settings", CASES)
def test_a_resumed_run_is_the_same_to_the_last_bit(settings):
    start, settings = start_of(), recipe(**settings)
    straight, first = engine_at(MLP, start, settings), engine_at(MLP, start, settings)
    straight.advance(12)
    first.advance(5)
    state = first.optimizer_state()
    assert state
    again = engine_at(MLP, ReplicaState(first.weights(), start.mask, start.seeds, start.splits, 5, state), settings)
    again.advance(7)
    assert_equal_states(again.weights(), straight.weights())
    assert_equal_states(again.optimizer_state(), straight.optimizer_state())


def test_adam_and_sgd_keep_the_state_that_checkpoints_have_always_had():
    names = [name for name, _ in MLP().named_parameters()]
    for settings, slots in [({}, {"step", "exp_avg", "exp_avg_sq"}), ({"optimizer": "sgd"}, set())]:
        engine = engine_at(MLP, start_of(), recipe(**settings))
        engine.advance(1)
        assert engine.optimizer_state().keys() == {f"{slot}/{name}" for slot in slots for name in names}


class Exploding(nn.Module):
    """Its loss has an infinite gradient in pruned weights: the root of 0."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(20, 4)

    def forward(self, inputs):
        return inputs @ self.fc.weight.T + self.fc.weight.abs().sqrt().sum()


@pytest.mark.parametrize("extra", [{}, {"clip_norm": 1.0}, {"optimizer": "adamw"}])
def test_infinite_gradients_of_pruned_weights_do_not_reach_them(extra):
    mask = Mask({"fc.weight": torch.rand(4, 20, generator=torch.Generator().manual_seed(0)) < 0.5})
    start = begin(Exploding, mask, splits(SHAPE))
    engine = engine_at(Exploding, start, recipe(lr=1e-4, **extra))
    engine.advance(3)
    weights = engine.weights()["fc.weight"]
    assert not weights[~mask["fc.weight"]].any()
    assert weights.isfinite().all()


# Clipping


@pytest.mark.parametrize(
    ("settings", "clip"),
    [
        ({"clip_norm": 0.05}, lambda parameters: nn.utils.clip_grad_norm_(parameters, 0.05)),
        ({"clip_value": 0.002}, lambda parameters: nn.utils.clip_grad_value_(parameters, 0.002)),
    ],
)
def test_gradients_are_clipped(settings, clip):
    start = start_of()
    engine = engine_at(MLP, start, recipe(optimizer="sgd", lr=0.5, **settings))
    engine.advance(20)
    expected = plain(start, lambda named: [torch.optim.SGD(list(dict(named).values()), lr=0.5)], 20, clip)
    assert_close(engine.weights(), expected)
    free = engine_at(MLP, start, recipe(optimizer="sgd", lr=0.5))
    free.advance(20)
    assert not torch.allclose(free.weights()["1.weight"], expected["1.weight"], atol=1e-3)


# Precision


def test_float64_computes_everything_in_it():
    start = start_of()
    engine = engine_at(MLP, start, recipe(optimizer="sgd", lr=0.1, precision="float64"))
    engine.advance(30)
    expected = plain(
        start, lambda named: [torch.optim.SGD(list(dict(named).values()), lr=0.1)], 30, dtype=torch.float64
    )
    for name, tensor in engine.weights().items():
        assert tensor.dtype == torch.float64
        torch.testing.assert_close(tensor, expected[name], rtol=1e-12, atol=1e-13)
    assert engine.evaluate("test")[0].loss > 0


def test_a_study_in_float64_runs_whole(tmp_path):
    plan, store = run_study(tmp_path, training__precision="float64", connectivity={"levels": [0], "points": 3})
    found = store.load(plan.rows[1].job)
    assert found.snapshots["final"]["1.weight"].dtype == torch.float64


# Schedules


def test_linear_and_onecycle_agree_with_pytorch():
    for name, make in {
        "linear": lambda o: lr_scheduler.LinearLR(o, 1.0, 0.0, 40),
        "onecycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=40, cycle_momentum=False),
    }.items():
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
        scheduler, settings = make(optimizer), recipe(lr=0.1, schedule=name)
        for iteration in range(40):
            rate = optimizer.param_groups[0]["lr"]
            assert settings.learning_rate(iteration, 40) == pytest.approx(rate, rel=1e-9, abs=1e-15)
            optimizer.step()
            scheduler.step()


@pytest.mark.parametrize("budget", [1, 2, 3, 4, 5, 10])
def test_onecycle_is_defined_for_short_budgets(budget):
    settings = recipe(lr=1.0, schedule="onecycle")
    assert all(0 < settings.learning_rate(iteration, budget) <= 1 for iteration in range(budget))


def test_a_schedule_of_ones_own():
    settings = recipe(lr=0.2, schedule="own_training:halving", warmup=2)
    assert [settings.learning_rate(i, 8) for i in range(8)] == pytest.approx([0.1, 0.2, *[0.2] * 2, *[0.1] * 4])


# Augmentation


def test_an_augmentation_of_ones_own_is_seeded_and_leaves_the_data_alone():
    start, settings = start_of(), recipe(augment=["own_training:noise"])
    before = start.splits.train.inputs.clone()
    straight, again = engine_at(MLP, start, settings), engine_at(MLP, start, settings)
    straight.advance(6)
    again.advance(2)
    state = again.optimizer_state()
    again = engine_at(MLP, ReplicaState(again.weights(), start.mask, start.seeds, start.splits, 2, state), settings)
    again.advance(4)
    assert_equal_states(straight.weights(), again.weights())
    assert torch.equal(start.splits.train.inputs, before)
    plain_engine = engine_at(MLP, start, recipe())
    plain_engine.advance(6)
    assert not torch.equal(plain_engine.weights()["1.weight"], straight.weights()["1.weight"])


# Engines


@pytest.mark.parametrize(
    ("settings", "classes"),
    [
        ({}, {MlpEngine}),
        ({"schedule": "own_training:halving"}, {MlpEngine}),
        ({"schedule": "onecycle"}, {MlpEngine}),
        ({"optimizer": "adamw"}, {SparseEngine}),
        ({"optimizer_options": {"eps": 1e-6}}, {SparseEngine}),
        ({"clip_norm": 1.0}, {SparseEngine}),
        ({"clip_value": 1.0}, {SparseEngine}),
        ({"optimizer": "optimizers:Lion"}, {DenseEngine}),
        ({"optimizer": "muon"}, {DenseEngine}),
        ({"precision": "float64"}, {DenseEngine}),
        ({"augment": ["own_training:noise"]}, {SparseEngine}),
    ],
)
def test_compiled_engines_are_chosen_for_what_they_can_do(settings, classes):
    build = partial(small_nets.mlp, (784,), 10, (300, 100))
    mask = random_mask(build, (784,), 0.03)
    settings, example = recipe(**settings), torch.zeros(1, 784)
    assert {choose_engine("auto", build, mask, settings, example)} == classes
    if classes == {MlpEngine}:
        return
    reasons = reasons_against(build, mask, settings)
    assert reasons["mlp"]
    if classes == {DenseEngine}:
        assert reasons["sparse"]
        with pytest.raises(InputError, match="engine 'sparse' can't train this"):
            choose_engine("sparse", build, mask, settings, example)


@pytest.mark.parametrize("settings", [{"optimizer": "adamw"}, {"optimizer": "rmsprop"}, {"clip_value": 0.002}])
def test_engines_agree(settings):
    start, settings = start_of(0.1), recipe(**settings)
    dense = engine_at(MLP, start, settings)
    dense.advance(25)
    for other in (StackedEngine, SparseEngine):
        engine = other(MLP, [start], settings, 1000, CPU)
        engine.advance(10)
        resumed = ReplicaState(
            engine.weights(), start.mask, start.seeds, start.splits, 10, dict(engine.optimizer_state())
        )
        engine = other(MLP, [resumed], settings, 1000, CPU)
        engine.advance(15)
        assert_close(engine.weights(), dense.weights(), 1e-4)


@pytest.mark.parametrize("settings", [{"clip_norm": 1.0}, {"optimizer": "muon"}, {"augment": ["own_training:noise"]}])
def test_replicas_are_not_stacked_where_they_would_mix(settings):
    assert choose_engine("stacked", MLP, Mask({}), recipe(**settings), torch.zeros(1, 20)) is DenseEngine


# Bad input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "torch.optim:LBFGS"}, "closure"),
        ({"optimizer": "optimizers:SAM"}, "SAM|named_parameters"),
        ({"optimizer": "own_training:no_optimizer"}, "returned a str"),
        ({"optimizer": "own_training:missing"}, "missing"),
        ({"optimizer": "own_training:Forgetful"}, "can't be resumed"),
        ({"optimizer": "own_training:Hoarding"}, "keeps 'history'"),
        ({"optimizer": "torch.optim:NAdam", "optimizer_options": {"unknown": 1}}, "unknown"),
        ({"schedule": "own_training:negative"}, "gave -1.0"),
        ({"schedule": "own_training:failing"}, "no schedule today"),
        ({"augment": ["own_training:cut"]}, "must keep shape and type"),
        ({"augment": ["own_training:unseeded"]}, "two results from equal generators"),
        ({"iterations": None, "epochs": 1.0, "warmup": 10_000}, "warmup=10000 is longer than the budget of 1 epochs"),
    ],
)
def test_what_fails_is_named_before_anything_is_trained(settings, message):
    with pytest.raises(InputError, match=message):
        make_plan(small_study(**{f"training__{name}": value for name, value in settings.items()}))


@pytest.mark.parametrize("build", [MLP, lambda: nn.Linear(1025, 1024)], ids=["small", "large"])
@pytest.mark.parametrize("k", [2, 3, 5, 6, 10])
def test_an_optimiser_that_does_something_now_and_then_is_seen_to_resume(build, k):
    with pytest.raises(InputError, match=r"Lookahead' can't be resumed: .*, also that of 'slow', and draw nothing"):
        check_optimizer(recipe(optimizer="own_training:Lookahead", optimizer_options={"k": k}), build())
    check_optimizer(recipe(optimizer="own_training:Periodic", optimizer_options={"k": k}), MLP())


@pytest.mark.parametrize("optimizer", ["optimizers:Lion", "own_training:Counting", "torch.optim:NAdam"])
def test_good_optimisers_pass(optimizer):
    check_optimizer(recipe(optimizer=optimizer), MLP())


@pytest.mark.parametrize("schedule", ["cosine", "linear", "onecycle", "own_training:vanishing"])
def test_fine_tuning_at_rate_0_is_refused(schedule):
    with pytest.raises(InputError, match="which ends at 0"):
        make_plan(small_study(arms=["ticket", "fine-tune"], training__schedule=schedule))
    arms = ["ticket", {"rule": "fine-tune", "training": {"lr": 1e-3}}]
    plan = make_plan(small_study(arms=arms, training__schedule=schedule))
    assert plan.work[plan.rows[-1].job].spec.training.lr == 1e-3


def test_milestones_beyond_the_budget_are_reported():
    plan = make_plan(small_study(training__schedule="step", training__milestones=[4, 12, 90]))
    assert plan.notes == (
        "note: training ends at iteration 12, so milestones 12, 90 have no effect; lower training.milestones, or "
        "raise the budget",
    )
    assert not make_plan(small_study(training__schedule="step", training__milestones=[4, 11])).notes


# Identity


def test_what_a_user_names_counts_by_its_code():
    plan = make_plan(small_study(training__schedule="own_training:halving", training__optimizer="optimizers:Lion"))
    codes = plan.work[plan.rows[0].job].spec.recipe_code
    assert codes.keys() == {"own_training:halving", "optimizers:Lion"}
    assert all(codes.values())
    ours = make_plan(small_study())
    assert all("recipe_code" not in item.spec.settings() for item in ours.work.values())


def test_options_that_are_the_default_do_not_count():
    assert recipe(optimizer_options={"betas": [0.9, 0.999]}).identity() == recipe().identity()
    assert recipe(optimizer_options={"eps": 1e-6}).identity() != recipe().identity()


def test_a_study_with_functions_of_ones_own_runs(tmp_path):
    settings = {
        "optimizer": "own_training:Counting",
        "schedule": "own_training:halving",
        "augment": ["own_training:noise"],
        "iterations": 12,
        "lr": 0.1,
    }
    _, store = run_study(tmp_path, **{f"training__{name}": value for name, value in settings.items()})
    assert own_training.halving(0, 2) == 1.0
    assert len(store.finished()) > 2
