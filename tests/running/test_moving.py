"""Masks that move within a run: each method against its paper's formulas and a plain loop, and in studies."""

import math
from dataclasses import replace
from functools import partial

import pytest
import small_nets
import torch
from interrupting import run_interrupted
from plain_loop import CPU, SEEDS, assert_equal_states, begin, recipe, splits
from small_runs import assert_same_outcomes
from small_studies import find, run_study, small_study
from torch.nn import functional

from tombola.analysis import sign_flips
from tombola.errors import InputError
from tombola.pruning import Mask
from tombola.running.results import Results
from tombola.studies import make_plan
from tombola.training.engine import ReplicaState
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.moving import MovingEngine
from tombola.training.moving import Moving
from tombola.training.order import Order

MLP = partial(small_nets.mlp, (20,), 4, (30, 12))
METHODS = ["gradual", "set", "rigl", "ac-dc"]
SGD = {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
ADAM = {"lr": 0.01, "weight_decay": 1e-3}


def moving(method, **settings):
    sizes = {name: p.numel() for name, p in MLP().named_parameters() if p.dim() > 1}
    counts = {name: size // 5 for name, size in sizes.items()}
    return Moving(**{"method": method, "counts": counts, "begin": 2, "end": 14, "every": 4} | settings)


def start_of(rule):
    full = Mask.full({name: tuple(p.shape) for name, p in MLP().named_parameters() if p.dim() > 1})
    plain = begin(MLP, full, splits((20,)))
    return ReplicaState(plain.weights, full, SEEDS, plain.splits, moving=rule)


# Schedules


def test_the_cubic_schedule_of_gradual_pruning():
    """Zhu & Gupta 2017, Equation 1: s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3, s_i = 0, s_f = 0.9."""
    rule = moving("gradual", begin=100, end=500, every=100)
    moves = [t for t in range(601) if rule.moves_at(t)]
    assert moves == [100, 200, 300, 400, 500]
    sparsity = [1 - rule.gradual_count(100_000, 10_000, t) / 100_000 for t in moves]
    assert sparsity == pytest.approx([0.0, 0.5203125, 0.7875, 0.8859375, 0.9], abs=1e-5)  # whole weights
    for t, found in zip(moves, sparsity, strict=True):
        assert found == pytest.approx(0.9 + (0 - 0.9) * (1 - (t - 100) / 400) ** 3, abs=1e-5)


def test_the_update_schedule_of_rigl():
    """Evci et al. 2020, Algorithm 1 and Section 3: t mod dT = 0, t < T_end; a / 2 (1 + cos(pi t / T_end))."""
    rule = moving("rigl", begin=0, end=750, every=100, fraction=0.3)
    moves = [t for t in range(1000) if rule.moves_at(t)]
    assert moves == [100, 200, 300, 400, 500, 600, 700]
    shares = [rule.moved_share(t) for t in moves]
    assert shares == pytest.approx([0.15 * (1 + math.cos(math.pi * t / 750)) for t in moves])
    assert [round(share, 4) for share in shares] == [0.287, 0.2504, 0.1964, 0.1343, 0.075, 0.0286, 0.0033]
    assert {moving("set").moved_share(t) for t in (1, 5, 13)} == {0.3}


def test_the_phases_of_ac_dc():
    """Peste et al. 2021: of 100 epochs, 10 of warm-up, phases of 5, a last dense one of 10, and 15 sparse ones."""
    rule = moving("ac-dc", begin=10, end=85, every=5)
    dense = "".join("d" if rule.is_dense(t) else "c" for t in range(2, 100, 5))
    assert dense == "dd" + "cd" * 6 + "c" + "dd" + "ccc"
    assert [t for t in range(100) if rule.moves_at(t)] == [*range(10, 80, 5), 85]


@pytest.mark.parametrize("end", [30, 35, 40, 48, 50, 52, 60])
def test_the_last_dense_phase_of_ac_dc_lasts_until_the_end(end):
    rule = moving("ac-dc", begin=10, end=end, every=10)
    moves = [t for t in range(100) if rule.moves_at(t)]
    dense = [rule.is_dense(t) for t in range(100)]
    changes = [t for t in range(1, 100) if dense[t] != dense[t - 1]]
    assert moves == changes  # every move begins another phase
    assert not any(dense[end:])
    assert dense[end - 1]
    assert end - moves[-2] >= 10  # no dense phase is shorter than `every`


def test_the_mean_share_of_weights_that_are_trained():
    sizes = {"w": 1000}
    rules = {m: moving(m, counts={"w": 100}, begin=10, end=60, every=10) for m in METHODS}
    assert rules["set"].kept_share(sizes, 100) == 0.1
    moves = [10, 20, 30, 40, 50]  # Evci et al. 2020, Appendix H: 2 f_S + f_D instead of 3 f_S
    assert rules["rigl"].kept_share(sizes, 100) == pytest.approx((95 * 0.1 * 3 + len(moves) * (0.2 + 1)) / 300)
    assert rules["ac-dc"].kept_share(sizes, 100) == pytest.approx(0.4 * 1.0 + 0.6 * 0.1)
    steps = [1000 - round(900 * (1 - (1 - x) ** 3)) for x in (0, 0.2, 0.4, 0.6, 0.8)]
    assert rules["gradual"].kept_share(sizes, 100) == pytest.approx(
        (1000 * 10 + sum(10 * s for s in steps) + 4000) / 1e5
    )


# Steps


def largest(values, among, count):
    places = sorted((p for p in range(values.numel()) if among[p]), key=lambda p: values[p].item())[
        -count or len(among) :
    ]
    found = torch.zeros(values.numel(), dtype=torch.bool)
    found[places[len(places) - count :]] = True
    return found


class Plain:
    """The four methods in a plain loop: no shared state with the engine but its first random mask."""

    def __init__(self, start, settings, first):
        self.rule, self.start, self.keep = start.moving, start, {name: keep.clone() for name, keep in first.items()}
        self.module = MLP()
        self.module.load_state_dict(start.weights)
        made = torch.optim.SGD if settings.optimizer == "sgd" else torch.optim.Adam
        more = {"momentum": settings.momentum} if settings.optimizer == "sgd" else {}
        self.optimizer = made(self.module.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, **more)
        self.order, self.t = Order(len(start.splits.train), settings.batch_size, SEEDS), 0
        self.hold()

    def hold(self):
        with torch.no_grad():
            for name, keep in self.keep.items():
                weight = self.module.get_parameter(name)
                weight.mul_(keep)
                for slot in self.optimizer.state.get(weight, {}).values():
                    if isinstance(slot, torch.Tensor) and slot.shape == weight.shape:
                        slot.mul_(keep)

    def step(self):
        (batch,) = self.order.batches(self.t, 1)
        train = self.start.splits.train
        self.optimizer.zero_grad()
        functional.cross_entropy(self.module(train.inputs[batch]), train.targets[batch]).backward()
        t, rule = self.t, self.rule
        self.t += 1
        if rule.method in ("set", "rigl"):
            moves = 0 < t < rule.end and t % rule.every == 0 and t >= rule.begin
        else:
            moves = t == rule.end or (rule.begin <= t < rule.end and (t - rule.begin) % rule.every == 0)
        if rule.method == "ac-dc":
            moves = t in (2, 6, 14)  # begins a compressed phase, the one dense phase, the last compressed one
        if moves:
            self.keep = {name: self.moved(name, t).view(keep.shape) for name, keep in self.keep.items()}
            self.hold()
            if rule.method == "rigl":
                return
        for name, keep in self.keep.items():
            self.module.get_parameter(name).grad.mul_(keep)
        self.optimizer.step()
        self.hold()

    def moved(self, name, t):
        weight, keep = self.module.get_parameter(name), self.keep[name].flatten()
        sizes, rule, final = weight.detach().abs().flatten(), self.rule, self.rule.counts[name]
        if rule.method == "gradual":
            done = (t - rule.begin) / (rule.end - rule.begin)
            return largest(sizes, keep, len(keep) - round((len(keep) - final) * (1 - (1 - done) ** 3)))
        if rule.method == "ac-dc":
            dense = t == 6
            if dense:
                del self.optimizer.state[weight]  # as if the optimiser saw the layer for the first time
            return torch.ones_like(keep) if dense else largest(sizes, keep, final)
        share = 0.3 if rule.method == "set" else 0.15 * (1 + math.cos(math.pi * t / rule.end))
        count = round(share * final)
        stays = largest(sizes, keep, final - count)
        grows = weight.grad.detach().abs().flatten()
        if rule.method == "set":
            grows = torch.rand(weight.shape, generator=SEEDS.generator("mask", f"set/0/{name}/{t}")).flatten()
        return stays | largest(grows, ~stays, count)


@pytest.mark.parametrize("settings", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("method", METHODS)
def test_every_step_is_that_of_a_plain_loop(method, settings):
    start, settings = start_of(moving(method)), recipe(**settings)
    engine = MovingEngine(MLP, [start], settings, 100, CPU)
    plain = Plain(start, settings, engine.mask)
    seen = set()
    for _ in range(20):
        engine.advance(1)
        plain.step()
        assert engine.mask == Mask(plain.keep), engine.iteration
        weights = engine.weights()
        for name, tensor in plain.module.state_dict().items():
            assert torch.allclose(weights[name], tensor, atol=1e-5), (engine.iteration, name)
        for name, keep in engine.mask.items():
            assert bool((weights[name][~keep] == 0).all())
        seen.add(tuple(engine.mask.counts().values()))
    assert engine.mask.counts() == start.moving.counts
    assert len(seen) == {"gradual": 4, "set": 1, "rigl": 1, "ac-dc": 2}[method]


FRESH = {
    "nadam": {"optimizer": "torch.optim:NAdam"},
    "asgd": {"optimizer": "torch.optim:ASGD", "lr": 0.1},
    "rprop": {"optimizer": "torch.optim:Rprop"},
    "adagrad": {"optimizer": "torch.optim:Adagrad", "optimizer_options": {"initial_accumulator_value": 0.1}},
    "fused": {"optimizer": "torch.optim:SGD", "optimizer_options": {"momentum": 0.9, "fused": True}},
    "dampened": SGD | {"optimizer_options": {"dampening": 0.5}},
    "adam": ADAM,
}


@pytest.mark.parametrize("settings", FRESH.values(), ids=FRESH)
def test_a_dense_phase_of_ac_dc_begins_as_a_new_optimiser_does(settings):
    start, settings = start_of(moving("ac-dc")), recipe(**settings)
    engine = MovingEngine(MLP, [start], settings, 100, CPU)
    engine.advance(6)
    before = engine.weights()
    engine.advance(1)
    full = {"weights": before, "iteration": 6, "moving": None}
    plain = DenseEngine(MLP, [replace(start, **full)], settings, 100, CPU)
    plain.advance(1)
    expected, state, ours = plain.weights(), plain.optimizer_state(), engine.optimizer_state()
    close = partial(torch.allclose, rtol=1e-6, atol=1e-7)  # a late momentum rounds once more than a first one
    for name in start.moving.counts:
        assert close(engine.weights()[name], expected[name])
        slots = {key: value for key, value in state.items() if key.endswith(f"/{name}")}
        assert all(close(ours[key], value) for key, value in slots.items())
        assert {key for key in ours if key.endswith(f"/{name}")} == {*slots, f"keep/{name}"}


def hooking(named, lr):
    """An optimiser that halves gradients by hooks in the parameters."""
    for _, parameter in named:
        parameter.register_hook(lambda gradient: gradient * 0.5)
    return torch.optim.Adam([parameter for _, parameter in named], lr=lr)


HOOKING = {"optimizer": "test_moving:hooking"}


@pytest.mark.parametrize(
    "settings", [SGD, ADAM, FRESH["nadam"], FRESH["fused"], HOOKING], ids=["sgd", "adam", "nadam", "fused", "hooking"]
)
@pytest.mark.parametrize("method", METHODS)
def test_resumed_is_bit_equal(method, settings):
    start, settings = start_of(moving(method)), recipe(**settings, schedule="cosine")
    whole = MovingEngine(MLP, [start], settings, 20, CPU)
    whole.advance(20)
    broken = MovingEngine(MLP, [start], settings, 20, CPU)
    for steps in (2, 1, 4, 6, 7):
        broken.advance(steps)
        state = dict(broken.optimizer_state())
        again = ReplicaState(
            broken.weights(), start.mask, SEEDS, start.splits, broken.iteration, state, moving=start.moving
        )
        broken = MovingEngine(MLP, [again], settings, 20, CPU)
    assert_equal_states(broken.weights(), whole.weights())
    assert_equal_states(broken.optimizer_state(), whole.optimizer_state())
    assert broken.mask == whole.mask


# Studies

ARMS = [{method: {"moves": {"begin": 1, "end": 8, "every": 3}}} for method in METHODS]


def test_in_a_study_each_ends_with_the_levels_number_of_weights_and_its_early_stop_lies_behind_its_moves(tmp_path):
    plan, store = run_study(tmp_path, arms=["ticket", *ARMS], training__evaluate_every=2)
    frame = Results(plan, store).frame().query("level > 0")
    for method in METHODS:
        rows = frame[frame.arm == method]
        assert list(rows.remaining_weights) == list(plan.remaining[1:])
        assert (rows.early_stop_iteration > 8).all()
        assert set(rows.engine) == {"moving"}
        item = find(plan, method, 2)
        history = store.facts(item.id)["history"]
        late = [loss for t, loss in zip(history["iteration"], history["val_loss"], strict=True) if t > 8]
        row = rows[rows.level == 2].iloc[0]
        assert history["val_loss"][history["iteration"].index(row.early_stop_iteration)] == min(late)
        ticket = Results(plan, store).ticket(arm=method, level=2)
        trained = dict(ticket.build(trained=True, trust=True).named_parameters())
        assert all(bool((trained[name][~keep] == 0).all()) for name, keep in ticket.mask.items())
        first = Results(plan, store).ticket(level=0).weights  # grown weights start at their initial values too
        assert all(torch.equal(ticket.weights[name], first[name] * keep) for name, keep in ticket.mask.items())
    cost = {method: find(plan, method, 2).cost.density for method in METHODS}
    assert cost["set"] < cost["rigl"] < cost["gradual"] < 1
    assert cost["rigl"] < cost["ac-dc"] < 1


@pytest.mark.parametrize("method", ["gradual", "ac-dc"])
def test_a_run_that_diverges_before_its_mask_has_moved_has_the_density_of_its_level(tmp_path, method):
    moves = {"begin": 1, "end": 8, "every": 3}
    arms = [{method: {"moves": moves, "training": {"lr": 1e30}}}]
    plan, store = run_study(tmp_path, arms=arms, pruning__rounds=1)
    row = Results(plan, store).frame().query("level == 1").iloc[0]
    assert row.status == "diverged"
    assert row.remaining_weights == plan.remaining[1]
    assert row.density == plan.density(1)


@pytest.mark.parametrize("arm", ["set", "rigl"])
def test_grown_weights_have_no_sign_to_flip(tmp_path, arm):
    plan, store = run_study(tmp_path, arms=["ticket", arm], pruning__rounds=1)
    results = Results(plan, store)
    assert set(sign_flips(results).arm) == {"ticket"}
    with pytest.raises(InputError, match=f"arm '{arm}': most of its weights grow from 0.0"):
        sign_flips(results, [arm])


def test_interrupted_and_resumed_it_is_bit_equal(tmp_path, monkeypatch):
    changes = {"arms": ARMS, "pruning__rounds": 1}
    run_study(tmp_path / "one" / "out", **changes)
    run_interrupted(small_study(**changes), tmp_path / "two" / "out", monkeypatch)
    assert_same_outcomes(tmp_path / "one" / "out", tmp_path / "two" / "out")


def test_defaults_follow_the_budget():
    plan = make_plan(small_study(arms=METHODS, training__iterations=2000, pruning__rounds=1))
    found = {method: find(plan, method, 1).spec.moving for method in METHODS}
    assert [(found[m].begin, found[m].end, found[m].every) for m in ("gradual", "set", "rigl")] == [(0, 1500, 100)] * 3
    assert (found["ac-dc"].begin, found["ac-dc"].end, found["ac-dc"].every) == (200, 1700, 100)


@pytest.mark.parametrize(
    ("arm", "match"),
    [
        (
            {"rigl": {"moves": {"end": 12}}},
            "arm 'rigl': .*moves.end=12; begin .* end below the budget of 12",
        ),
        ({"rigl": {"moves": {"begin": 0.9, "end": 0.5}}}, "begin must lie below end"),
        ({"rigl": {"moves": {"end": 1.0}}}, r"moves\.end=1\.0: must be an iteration, such as 500, or a share"),
        ({"rigl": {"moves": {"begin": -1}}}, r"moves\.begin=-1: must be an iteration"),
        ({"rigl": {"moves": {"every": 10}}}, r"moves.every=10 is longer than the 9 iterations .* give at most 9"),
        ({"ac-dc": {"moves": {"every": 5}}}, r"moves.every=5 leaves no dense phase in the 9 .* give at most 4"),
        ({"rigl": {"moves": {"begin": 1, "end": 4, "every": 4}}}, "longer than the 3"),
        ({"rigl": {"moves": {"begin": 0, "end": 4, "every": 4}}}, "its mask never moves: moves.every=4 .* lower moves"),
        ({"gradual": {"moves": {"fraction": 0.3}}}, r"moves.fraction=0.3 belongs to set and rigl, not to gradual"),
        ({"ticket": {"moves": {"every": 2}}}, "moves belongs to the arms gradual, set, rigl, ac-dc, not to 'ticket'"),
        ({"rigl": {"moves": {"fraction": 0}}}, r"moves\.fraction=0: "),
        ({"rigl": {"training": {"patience": 3}}}, "training.patience=3 could end a run before its mask has moved"),
        ({"of": "rigl", "reinit": True}, r"\{of: rigl, reinit: true\}: the mask of rigl does"),
        ({"rigl": {"transfer": {"from": {"seed": 1}}}}, "rigl finds its mask by training and can't be transferred"),
    ],
)
def test_a_baseline_that_can_not_be(arm, match):
    with pytest.raises(InputError, match=match) as caught:
        make_plan(small_study(arms=[arm]))
    assert len(str(caught.value).splitlines()) == 1
