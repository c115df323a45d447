"""The ten faults of other implementations (shared notes, protocols.md, section 4): each is a test of ours."""

import json
from functools import partial
from pathlib import Path

import pytest
import small_nets
import torch
from plain_loop import Plain, assert_equal_states, begin, engine_at, random_mask, recipe, splits
from small_studies import find, run_one, run_study, small_study
from torch import nn
from torch.nn import functional

from tombola import data
from tombola.data.augment import Augmentation
from tombola.networks import factory, initialised
from tombola.pruning import CRITERIA, Mask, Snapshots, select, shuffled
from tombola.pruning.controls import shuffled_weights
from tombola.running import training
from tombola.running.files import unpack_tensors
from tombola.running.heartbeat import Heartbeat
from tombola.running.results import Results
from tombola.running.store import CHECKPOINT, Store
from tombola.seeds import PURPOSES, Seeds
from tombola.studies import make_plan
from tombola.training import loop
from tombola.training.engine import ReplicaState
from tombola.training.order import Order
from tombola.training.popup import initial_scores

IMAGES = (2, 6, 6)
CONV = partial(small_nets.conv_norm, IMAGES, 4)
SGD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9}
NORM = {"network": "small_nets:conv_norm"}


# 1. Gradients were masked by `w < eps` without `abs`, which froze every negative weight.


@pytest.mark.parametrize("decay", [0.0, 1e-2])
@pytest.mark.parametrize("settings", [SGD, {"optimizer": "adam", "lr": 1e-3}], ids=["sgd-momentum", "adam"])
def test_1_every_kept_weight_moves_and_every_pruned_one_stays_at_zero(settings, decay):
    start = begin(CONV, random_mask(CONV, IMAGES, 0.5), splits(IMAGES))
    for name, keep in start.mask.items():
        # Kept weights that a threshold would take for pruned ones.
        kept = start.weights[name][keep]
        kept[::3] = -1e-9
        kept[1::3] = 0.0
        start.weights[name][keep] = kept
    engine = engine_at(CONV, start, recipe(**settings, weight_decay=decay))
    engine.advance(5)
    weights = engine.weights()
    for name, keep in start.mask.items():
        moved = weights[name] != start.weights[name]
        assert bool(moved[keep].all())
        assert bool((weights[name][~keep] == 0.0).all())
        assert bool((start.weights[name][keep] < 0).any())


# 2. `param.data = saved[name]` made the network train into its own saved initial weights.


@pytest.mark.parametrize("rewind", [0, 7])
def test_2_consecutive_rewinds_give_bit_equal_weights(tmp_path, rewind):
    plan, store = run_study(tmp_path, pruning__rounds=3, rewind=rewind, **NORM)
    dense = store.load(find(plan, "ticket", 0).id)
    origin = dense.snapshots["start" if rewind == 0 else f"iteration-{rewind}"]
    for level in (1, 2, 3):
        ticket = store.load(find(plan, "ticket", level).id)
        assert not ticket.mask.is_full
        assert_equal_states(ticket.snapshots["start"], ticket.mask.apply(origin))
        assert not torch.equal(ticket.snapshots["final"]["0.weight"], ticket.snapshots["start"]["0.weight"])


# 3. Buffers (batch norm statistics), optimiser state and learning-rate schedule were not reset at a rewind.


def test_3_buffers_optimiser_and_schedule_are_fresh_at_each_level(tmp_path):
    """Level 2 must be what a plain loop gives that begins with nothing but the ticket's weights and mask."""
    training = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "warmup": 4, "schedule": "step", "milestones": [8]}
    plan, store = run_study(
        tmp_path, training={"iterations": 12, "evaluate_every": 5, "batch_size": 30, **training}, **NORM
    )
    job = find(plan, "ticket", 2)
    result = store.load(job.id)
    first = result.snapshots["start"]
    for number in (1, 6):
        assert torch.equal(first[f"{number}.running_mean"], torch.zeros_like(first[f"{number}.running_mean"]))
        assert torch.equal(first[f"{number}.running_var"], torch.ones_like(first[f"{number}.running_var"]))
        assert first[f"{number}.num_batches_tracked"] == 0
        assert result.snapshots["final"][f"{number}.num_batches_tracked"] == 12

    build = partial(small_nets.conv_norm, (1, 8, 8), 10)
    weights = initialised(build, job.spec.network.init, job.spec.seeds.value("init")).state_dict()
    digits = data.split(data.load(job.spec.data), job.spec.data.validation, job.spec.seeds)
    start = ReplicaState(result.mask.apply(weights), result.mask, job.spec.seeds, digits)
    plain = Plain(build, start, job.spec.training, lambda i: min(1, (i + 1) / 4) * 0.05 * (0.1 if i >= 8 else 1))
    for _ in range(12):
        plain.step()
    for name, tensor in plain.module.state_dict().items():
        torch.testing.assert_close(result.snapshots["final"][name], tensor, rtol=1e-4, atol=1e-5)


# 4. `score > threshold` pruned more than asked on ties.


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_4_ties_do_not_change_the_number_pruned(scope):
    mask = Mask.full({"a": (7, 9), "b": (5,)})
    scores = {"a": torch.zeros(7, 9), "b": torch.zeros(5)}
    first = select(scores, mask, {"a": 0.5, "b": 0.5}, scope)
    assert first.remaining == 68 - (round(31.5) + round(2.5) if scope == "layer" else 34)
    for _ in range(3):
        assert select(scores, mask, {"a": 0.5, "b": 0.5}, scope) == first


# 5. The initialisation was never seeded; order, augmentation and initialisation shared one generator.


class Changed(Seeds):
    """Seeds of which one purpose differs."""

    purpose = ""

    def value(self, purpose, counter=0):
        return super().value(purpose, counter) + (purpose == self.purpose)


def draws(seeds):
    """Return what a trial draws, by purpose; each depends on nothing but its own purpose's seed if all is well."""
    build = partial(small_nets.mlp, (1, 8, 8), 10)
    dataset = data.load(small_study().data)
    parts = data.split(dataset, 200, seeds)
    seen = []

    class Probe(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 10)

        def forward(self, x):
            seen.append(functional.dropout(torch.ones(200)))
            return self.fc(x.flatten(1))

    probe = begin(Probe, Mask.full({"fc.weight": (10, 64)}), parts, seeds)
    engine_at(Probe, probe, recipe()).advance(2)
    weights = {"w": torch.zeros(20)}
    snapshots = Snapshots(weights, weights, weights, weights, generator=seeds.generator("criterion"))
    half = Mask({"w": torch.arange(200) % 2 == 0})
    return {
        "init": initialised(build, "glorot-normal", seeds.value("init")).state_dict()["1.weight"],
        "split": parts.validation.inputs,
        "order": Order(500, 10, seeds).batches(0, 120),
        "mask": shuffled(half, seeds.generator("mask"))["w"],
        "redraw": shuffled_weights({"w": torch.arange(200.0)}, half, seeds.generator("redraw"))["w"],
        "dropout": torch.stack(seen),
        "criterion": CRITERIA["random"](snapshots)["w"],
        "examples": data.balanced(torch.arange(300) % 10, 3, seeds.generator("examples")),
        "scores": initial_scores((20, 4), seeds.generator("scores")),
        "augment": Augmentation(("flip", "crop"), 10, seeds, parts).draws(0, 2),
    }


@pytest.mark.parametrize("purpose", PURPOSES)
def test_5_each_seed_changes_only_its_own_thing(purpose):
    before = draws(Seeds(1, 2))
    changed = Changed(1, 2)
    object.__setattr__(changed, "purpose", purpose)
    after = draws(changed)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {purpose}


def test_5_a_whole_run_is_the_same_whatever_the_global_generator_holds(tmp_path):
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        plan, store = run_study(tmp_path / str(seed), network="small_nets:Dropping", pruning__rounds=1)
        results.append([store.load(item.id) for item in plan.work.values() if item.kind == "run"])
    for one, other in zip(*results, strict=True):
        assert_equal_states(one.snapshots["final"], other.snapshots["final"])
        assert one.history == other.history


# 6. Resuming restarted the round, forgot the generators, or could not load its own checkpoint.


def interrupted_run(monkeypatch, folder, plan, job, moments):
    """Run a job that is stopped at the given numbers of looks at the stop file, one after the other."""
    for moment in moments:
        looks = iter(range(10**6))

        class Stopping(Heartbeat):
            def __call__(self, looks=looks, moment=moment):
                super().__call__()
                if next(looks) == moment:
                    raise loop.Interrupted

        monkeypatch.setattr(training, "Heartbeat", Stopping)
        yield run_one(job, folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"network": "small_nets:Dropping", "training.optimizer": "sgd", "training.momentum": 0.9},
        {"network": "small_nets:conv_norm", "training.schedule": "cosine", "training.warmup": 5},
        {
            "network": "small_nets:conv_norm_dropout",
            "training.augment": ["flip", "crop"],
            "training.precision": "bfloat16",
        },
    ],
    ids=["dropout-sgd", "batch-norm-adam-warmup", "batch-norm-dropout-augmented-bfloat16"],
)
def test_6_interrupted_anywhere_and_resumed_the_result_is_bit_equal(tmp_path, monkeypatch, settings):
    """Stopped again and again: before the first step, in the middle of evaluations, between steps, in another epoch."""
    settings = settings | {"rewind": 6, "training.batch_size": 100, "training.iterations": 40}
    monkeypatch.setattr(loop, "SLICE", 0.0)  # a look at the stop file after every step
    plan, store = run_study(tmp_path / "whole", **settings)
    other = Store(tmp_path / "stopped")
    other.create()
    for job in plan.work.values():
        if job.kind != "run":  # a mask search is too short to be stopped
            assert run_one(job, other.root) == "done"
            continue
        outcomes = list(interrupted_run(monkeypatch, other.root, plan, job, (0, 1, 4, 6, 1, 2, 0, 3, 10, 10**6)))
        assert outcomes == ["stopped"] * 9 + ["done"]
        whole, resumed = store.load(job.id), other.load(job.id)
        assert resumed.history == whole.history
        assert resumed.facts["train"] == whole.facts["train"]
        assert resumed.mask == whole.mask
        assert resumed.snapshots.keys() == whole.snapshots.keys()
        for moment, weights in whole.snapshots.items():
            assert_equal_states(resumed.snapshots[moment], weights)


def test_6_a_checkpoint_is_no_pickle_and_holds_the_place(tmp_path, monkeypatch):
    """A newer PyTorch refuses to unpickle; safetensors files are loaded by all."""
    monkeypatch.setattr(loop, "SLICE", 0.0)
    plan, store = make_plan(small_study()), Store(tmp_path)
    store.create()
    job = find(plan, "ticket", 0)
    assert list(interrupted_run(monkeypatch, tmp_path, plan, job, (9,))) == ["stopped"]
    tensors, about = unpack_tensors(store.part(job.id) / CHECKPOINT)
    assert 0 < about["engine"]["iteration"] < 12
    assert any(name.startswith("optimizer/exp_avg/") for name in tensors)
    assert not list(tmp_path.rglob("*.p*t*h")) + list(tmp_path.rglob("*.pkl"))


# 7. The best test epoch was reported.


def test_7_selection_looks_at_validation_only(tmp_path):
    """The test accuracy at early stop is the one at the lowest validation loss, however much better others are."""
    plan = make_plan(small_study(arms=["ticket"], pruning__rounds=0))
    store, (job,) = Store(tmp_path), plan.work.values()
    store.create()
    weights = initialised(factory(job.spec.network, (1, 8, 8), 10), "pytorch", 0).state_dict()
    history = {
        "iteration": [0, 5, 10, 12],
        "val_loss": [2.3, 0.4, 0.6, 0.4],
        "val_accuracy": [0.1, 0.8, 0.99, 0.9],
        "test_loss": [2.3, 0.9, 0.1, 0.2],
        "test_accuracy": [0.1, 0.7, 0.95, 0.9],
    }
    snapshots = {name: {k: t.clone() for k, t in weights.items()} for name in ("start", "best", "final")}
    record = loop.Record(history, snapshots, train=(0.0, 1.0))
    store.save_training(job, Mask.full(plan.coverage.shapes()), record, {"iterations": 12, "engine": {"name": "dense"}})
    (row,) = Results(plan, store).frame().to_dict("records")
    assert row["early_stop_iteration"] == 5
    assert row["early_stop_test_accuracy"] == 0.7
    assert row["final_test_accuracy"] == 0.9


def test_7_the_best_snapshot_is_chosen_by_validation_loss(tmp_path):
    plan, store = run_study(tmp_path, pruning__rounds=0)
    (job,) = plan.work.values()
    result = store.load(job.id)
    row = result.history["val_loss"].index(min(result.history["val_loss"]))
    module = small_nets.mlp((1, 8, 8), 10)
    module.load_state_dict(result.snapshots["best"])
    digits = data.split(data.load(job.spec.data), 200, job.spec.seeds)
    with torch.no_grad():
        loss = functional.cross_entropy(module(digits.validation.inputs), digits.validation.targets).item()
    assert loss == pytest.approx(result.history["val_loss"][row], rel=1e-5)


def test_7_accuracy_is_over_the_true_number_of_examples(tmp_path):
    """359 test examples: neither a last batch that weighs too much nor one that is left out."""
    plan, store = run_study(tmp_path, pruning__rounds=0)
    (job,) = plan.work.values()
    result = store.load(job.id)
    module = small_nets.mlp((1, 8, 8), 10)
    module.load_state_dict(result.snapshots["final"])
    digits = data.split(data.load(job.spec.data), 200, job.spec.seeds)
    right = int((module(digits.test.inputs).argmax(1) == digits.test.targets).sum())
    assert len(digits.test) == 359
    assert result.history["test_accuracy"][-1] == right / 359


# 8. "Random reinit" was repeated in every pruning round, which is another experiment.


def test_8_reinit_trains_the_mask_that_the_ticket_found(tmp_path):
    plan, store = run_study(tmp_path, arms=["ticket", {"reinit": {"per_trial": 2}}], pruning__rounds=3)
    fresh = {}
    for level in (1, 2, 3):
        ticket = store.load(find(plan, "ticket", level).id)
        for repeat in (0, 1):
            control = store.load(find(plan, "reinit", level, repeat=repeat).id)
            assert control.mask == ticket.mask
            start = control.snapshots["start"]
            assert not torch.equal(start["1.weight"], ticket.snapshots["start"]["1.weight"])
            # One fresh initialisation a repeat, and the same one at every level.
            whole = fresh.setdefault(repeat, start)
            assert_equal_states(start, ticket.mask.apply(whole))
    assert not torch.equal(fresh[0]["1.weight"], fresh[1]["1.weight"])


# 9. `rate` meant the fraction kept in one place and the fraction removed in another.


def test_9_a_rate_is_removed_and_a_density_is_kept(tmp_path):
    """0.1, so that taking one for the other can't go unnoticed."""
    plan, store = run_study(tmp_path, pruning__rate=0.1, pruning__output_rate=0.1, pruning__rounds=2)
    sizes = {"1.weight": 64 * 12, "3.weight": 12 * 8, "5.weight": 8 * 10}
    counts = dict(sizes)
    frame = Results(plan, store).frame().set_index("level")
    for level in (1, 2):
        counts = {name: count - round(0.1 * count) for name, count in counts.items()}
        mask = store.load(find(plan, "ticket", level).id).mask
        assert mask.counts() == counts
        assert mask.density == pytest.approx(0.9**level, abs=0.01)
        assert plan.remaining[level] == sum(counts.values()) == frame.remaining_weights[level]
        assert frame.density[level] == mask.density
    assert select({"w": torch.rand(100)}, Mask.full({"w": (100,)}), {"w": 0.1}).density == 0.9


# 10. Results were found under a hash alone.


def test_10_a_folder_says_what_it_is_before_the_hash(tmp_path):
    plan, store = run_study(tmp_path, arms=["ticket", "reinit"], pruning__rounds=1)
    names = {path.name for path in Path(store.jobs).iterdir() if not path.name.startswith(".")}
    ids = {(arm, level): find(plan, arm, level).id for arm, level in (("ticket", 0), ("ticket", 1), ("reinit", 1))}
    mask = find(plan, "ticket", 1).spec.mask.search
    assert names == {
        f"small_nets-mlp.digits.trial-0.mask.ticket.level-01-{mask}",
        f"small_nets-mlp.digits.trial-0.dense-{ids['ticket', 0]}",
        f"small_nets-mlp.digits.trial-0.ticket.level-01-{ids['ticket', 1]}",
        f"small_nets-mlp.digits.trial-0.reinit.level-01-{ids['reinit', 1]}",
    }
    for name in names - {f"small_nets-mlp.digits.trial-0.mask.ticket.level-01-{mask}"}:
        facts = json.loads((store.jobs / name / "result.json").read_text())
        assert facts["spec"]["training"]["iterations"] == 12  # and the whole spec stands inside
