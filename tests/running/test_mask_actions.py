"""Mask-1 and mask-0 actions (Zhou et al. 2019): what runs start from, what stays frozen, and what is refused."""

import pytest
import torch
from interrupting import run_interrupted
from plain_loop import Plain, assert_equal_states, begin, engine_at, random_mask, recipe, splits
from small_runs import assert_same_outcomes
from small_studies import find, run_study, run_with_needs, search_of, small_study

import tombola
from tombola.errors import InputError
from tombola.networks import initialised
from tombola.running.problem import build_of, splits_of
from tombola.running.results import Results
from tombola.seeds import Seeds
from tombola.studies import make_plan
from tombola.training.engine import ReplicaState

KEPT = [
    {"of": "ticket", "kept": kept, "signs": signs} for kept in ("reinit", "reshuffle", "constant") for signs in (0, 1)
]
SIGNS = [{"of": "ticket", "kept": "random-signs"}, {"of": "lr-rewind", "kept": "reinit", "signs": True}]
KEPT = [arm | {"signs": bool(arm["signs"])} for arm in KEPT]
PRUNED = [{"of": "one-shot", "pruned": pruned} for pruned in ("freeze", "freeze-moved")]
BOTH = {"of": "ticket", "kept": "constant", "signs": True, "pruned": "freeze", "name": "both"}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    arms = ["ticket", "reinit", "lr-rewind", *KEPT, *SIGNS, *PRUNED, BOTH]
    return run_study(tmp_path_factory.mktemp("actions") / "out", arms=arms, training__weight_decay=0.1)


def start_of(found, arm, level=2):
    plan, store = found
    return store.load(find(plan, arm, level).id)


def drawn(found, number):
    from small_studies import OPTIONS

    item = find(found[0], "ticket", 1)
    build = build_of(item, splits_of(item, OPTIONS))
    return initialised(build, item.spec.network.init, Seeds(0, 0).value("init", number)).state_dict()


def kept_of(found, arm, level=2):
    """Yield (what the ticket starts from, what the arm starts from, the other tensors agree) of each layer's kept."""
    ticket, mine = start_of(found, "ticket", level), start_of(found, arm, level)
    assert mine.mask == ticket.mask
    for name, keep in ticket.mask.items():
        yield name, keep, ticket.snapshots["start"][name][keep], mine.snapshots["start"][name][keep]


def test_reinit_is_the_arm_of_that_name(found):
    plan, _ = found
    assert [find(plan, "ticket-reinit", n).id for n in (1, 2)] == [find(plan, "reinit", n).id for n in (1, 2)]


def test_reinit_with_signs_has_the_magnitudes_of_another_initialisation(found):
    fresh = drawn(found, 1)
    for name, keep, ticket, mine in kept_of(found, "ticket-reinit-signs"):
        assert torch.equal(mine.abs(), fresh[name][keep].abs())
        assert torch.equal(mine.sign(), ticket.sign())


def test_random_signs_leave_magnitudes(found):
    for _, _, ticket, mine in kept_of(found, "ticket-random-signs"):
        assert torch.equal(mine.abs(), ticket.abs())
        assert not torch.equal(mine, ticket)
        assert not torch.equal(mine, -ticket)


def test_learned_signs_have_fresh_magnitudes(found):
    fresh, mine, trained = drawn(found, 1), start_of(found, "lr-rewind-reinit-signs"), start_of(found, "lr-rewind")
    for name, keep in trained.mask.items():
        learned, start = trained.snapshots["start"][name][keep], mine.snapshots["start"][name][keep]
        assert torch.equal(start.abs(), fresh[name][keep].abs())
        assert torch.equal(start.sign(), learned.sign())


def test_reshuffles_permute_the_kept_weights_or_their_magnitudes(found):
    for arm, signs in (("ticket-reshuffle", False), ("ticket-reshuffle-signs", True)):
        for _, _, ticket, mine in kept_of(found, arm):
            if signs:
                assert torch.equal(mine.sign(), ticket.sign())
                ticket, mine = ticket.abs(), mine.abs()
            assert torch.equal(mine.sort().values, ticket.sort().values)
            assert not torch.equal(mine, ticket)


def test_constants_are_the_standard_deviation_of_the_layers_initialisation(found):
    whole = drawn(found, 0)
    for arm, signs in (("ticket-constant", False), ("ticket-constant-signs", True)):
        for name, _, ticket, mine in kept_of(found, arm):
            numbers = whole[name].flatten().double().tolist()
            mean = sum(numbers) / len(numbers)
            size = (sum((each - mean) ** 2 for each in numbers) / len(numbers)) ** 0.5
            assert mine.abs().tolist() == pytest.approx([size] * len(mine), rel=1e-5)
            assert torch.equal(mine.sign(), ticket.sign()) is signs
            assert len(mine.sign().unique()) == 2


def test_random_signs_are_drawn_for_each_level_and_repeat():
    plan = make_plan(small_study(arms=[{"of": "ticket", "kept": "constant", "per_trial": 2}]))
    jobs = {find(plan, "ticket-constant", level, repeat=repeat).id for level in (1, 2) for repeat in (0, 1)}
    assert len(jobs) == 4
    draws = {find(plan, "ticket-constant", n, repeat=r).spec.initial.model_dump_json() for n in (1, 2) for r in (0, 1)}
    assert len(draws) == 4


@pytest.mark.parametrize("action", ["frozen", "frozen-moved"])
def test_frozen_weights_keep_their_values_through_training_and_others_do_not(found, action):
    plan, store = found
    result = start_of(found, f"one-shot-{action}")
    dense = store.load(find(plan, "one-shot-frozen", 0).id).snapshots
    some = 0
    for name, keep in result.mask.items():
        before, after = dense["start"][name], dense["final"][name]
        rows = zip(before.flatten().tolist(), after.flatten().tolist(), strict=True)
        stays = [action == "frozen" or abs(w) > abs(w0) for w0, w in rows]
        expected = torch.where(torch.tensor(stays).view(keep.shape), before, 0.0)[~keep]
        for moment in ("start", "best", "final"):
            assert torch.equal(result.snapshots[moment][name][~keep], expected)
        assert torch.equal(result.snapshots["start"][name][keep], before[keep])
        assert bool((result.snapshots["final"][name][keep] != before[keep]).any())
        some += int((expected == 0).sum())
    assert (some > 0) is (action == "frozen-moved")


def test_both_actions_together(found):
    whole = drawn(found, 0)
    result, constant = start_of(found, "both"), start_of(found, "ticket-constant-signs")
    for name, keep in result.mask.items():
        start = result.snapshots["start"][name]
        assert torch.equal(start[keep], constant.snapshots["start"][name][keep])
        assert torch.equal(start[~keep], whole[name][~keep])


def test_what_is_frozen_is_counted_as_no_zero_and_is_no_ticket(found):
    plan, store = found
    results = Results(plan, store)
    frame = results.frame().query("level == 2").set_index("arm")
    assert frame.sparsity["one-shot-frozen"] == 0.0
    assert frame.sparsity["both"] < 0.01
    assert frame.density["one-shot-frozen"] == frame.density["ticket"]
    with pytest.raises(InputError, match="its pruned weights are frozen at values other than 0"):
        results.ticket(arm="one-shot-frozen", level=1)
    cost = {arm: find(plan, arm, 2).cost.density for arm in ("ticket", "one-shot-frozen")}
    assert cost["one-shot-frozen"] == 1.0 > cost["ticket"]


@pytest.mark.parametrize(
    "settings",
    [{"weight_decay": 1e-2}, {"optimizer": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 1e-2}],
    ids=["adam", "sgd"],
)
def test_every_step_is_that_of_a_plain_loop_that_puts_the_values_back(settings):
    from functools import partial

    import small_nets

    build, chosen = partial(small_nets.mlp, (20,), 4, (30, 12)), recipe(**settings)
    mask = random_mask(build, (20,), 0.3)
    start = begin(build, mask, splits((20,)))
    whole = initialised(build, "glorot-normal", 3).state_dict()
    start = ReplicaState(whole, mask, start.seeds, start.splits, frozen=True)
    engine, plain = engine_at(build, start, chosen), Plain(build, start, chosen, lambda iteration: chosen.lr)
    plain.start = ReplicaState(whole, {}, start.seeds, start.splits)  # so that it does not mask
    for _ in range(15):
        engine.advance(1)
        plain.step()
        with torch.no_grad():
            for name, keep in mask.items():
                weight = plain.module.get_parameter(name)
                weight[~keep] = whole[name][~keep]
    for name, tensor in engine.weights().items():
        assert torch.allclose(tensor, plain.module.state_dict()[name], atol=1e-5), name
        if name in mask:
            assert torch.equal(tensor[~mask[name]], whole[name][~mask[name]])
    broken = engine_at(build, start, chosen)
    broken.advance(6)
    again = ReplicaState(
        broken.weights(), mask, start.seeds, start.splits, 6, dict(broken.optimizer_state()), frozen=True
    )
    broken = engine_at(build, again, chosen)
    broken.advance(9)
    assert_equal_states(broken.weights(), engine.weights())


def test_interrupted_and_resumed_it_is_bit_equal(tmp_path, monkeypatch):
    changes = {"arms": [PRUNED[1], BOTH], "pruning__rounds": 1}
    run_study(tmp_path / "one" / "out", **changes)
    run_interrupted(small_study(**changes), tmp_path / "two" / "out", monkeypatch)
    assert_same_outcomes(tmp_path / "one" / "out", tmp_path / "two" / "out")


def test_stacks_leave_frozen_weights_to_the_dense_engine(tmp_path):
    study = small_study(arms=["ticket", BOTH], trials=2, pruning__rounds=1)
    results = tombola.run(study, tmp_path / "alone" / "out", workers=0, engine="stacked", figures=False, quiet=True)
    engines = results.frame().query("level == 1").groupby("arm").engine.unique().map(list).to_dict()
    assert engines == {"ticket": ["stacked"], "both": ["dense"]}


@pytest.mark.parametrize("engine", ["sparse", "mlp"])
def test_a_sparse_engine_is_refused_before_anything_is_written(engine, tmp_path):
    pytest.importorskip("numba")
    study = small_study(arms=[BOTH])
    with pytest.raises(InputError, match=f"arm 'both': pruned=freeze .* engine '{engine}' can't; take engine auto or"):
        tombola.run(study, tmp_path / "out", workers=0, engine=engine, figures=False, quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arm", "match"),
    [
        ({"of": "ticket", "kept": "keep"}, r"arms\.0\.kept='keep': must be"),
        ({"of": "ticket", "pruned": "one"}, r"arms\.0\.pruned='one': must be"),
        ({"of": "ticket", "signs": True}, "a control of ticket must change something"),
        ({"ticket": {"signs": True}}, "signs: true belongs to kept: reinit, reshuffle or constant"),
        ({"of": "ticket", "kept": "random-signs", "signs": True}, "not to kept: random-signs"),
        ({"of": "ticket", "kept": "constant", "reinit": True}, "reinit: true and kept: constant both say"),
        ({"of": "fine-tune", "pruned": "freeze"}, "pruned=freeze freezes starting values, and fine-tune starts from"),
        ({"of": "redrawn-magnitudes", "kept": "constant"}, "has kept weights of its own choice already"),
        ({"of": "edge-popup", "kept": "constant"}, "kept: constant}: the mask of edge-popup .*edge-popup-trained"),
        ({"of": "edge-popup", "pruned": "freeze"}, "pruned: freeze}: the mask of edge-popup .*edge-popup-trained"),
        (
            {"of": "ticket", "kept": "constant", "signs": True, "per_trial": 2},
            "all its repeats would be the same run; remove per_trial",
        ),
    ],
)
def test_actions_that_can_not_be(arm, match):
    with pytest.raises(InputError, match=match) as caught:
        make_plan(small_study(arms=[arm]))
    assert len(str(caught.value).splitlines()) == 1


def test_a_rewound_control_freezes_what_it_rewinds_to(tmp_path):
    arm = {"of": "ticket", "pruned": "freeze"}
    plan, store = make_plan(small_study(arms=[arm], rewind=4, pruning__rounds=1)), None
    from tombola.running.store import Store

    store = Store(tmp_path)
    store.create()
    item = find(plan, "ticket-frozen", 1)
    run_with_needs(plan, item, tmp_path)
    early = store.load(plan.work[item.spec.initial.run].id).snapshots["iteration-4"]
    result = store.load(item.id)
    for name in result.mask:
        assert torch.equal(result.snapshots["start"][name], early[name])
    assert search_of(plan, item).run == item.spec.initial.run


def test_a_control_takes_the_masks_and_weights_of_its_arm_with_the_arms_own_recipe():
    arms = [{"fine-tune": {"training": {"lr": 0.004}}}, {"of": "fine-tune", "kept": "random-signs"}]
    plan = make_plan(small_study(arms=arms))
    arm, control = (find(plan, name, 2) for name in ("fine-tune", "fine-tune-random-signs"))
    assert control.spec.mask == arm.spec.mask
    assert control.spec.initial.run == arm.spec.initial.run == find(plan, "fine-tune", 1).id
    assert arm.spec.training.lr == 0.004 != control.spec.training.lr  # the control keeps the study's recipe
    own = arms[1] | {"training": {"lr": 0.004}}
    same = find(make_plan(small_study(arms=[arms[0], own])), "fine-tune-random-signs", 2)
    assert same.spec.training == arm.spec.training


def test_at_a_schedule_that_ends_at_zero_the_chain_behind_a_control_trains_at_the_arms_rate():
    tuned = {"training": {"lr": 0.004}}
    arms = [{"fine-tune": tuned}, {"of": "fine-tune", "kept": "random-signs"} | tuned]
    plan = make_plan(small_study(arms=arms, training__schedule="cosine"))
    behind = plan.work[find(plan, "fine-tune-random-signs", 2).spec.initial.run]
    assert behind.spec.training.lr == 0.004


def test_a_control_of_one_shot_has_its_arms_criterion():
    plan = make_plan(small_study(arms=[{"one-shot": {"criterion": "random"}}, {"of": "one-shot", "shuffle": True}]))
    mask = find(plan, "one-shot-shuffled", 2).spec.mask
    assert mask.search == find(plan, "one-shot-random", 2).spec.mask.search
    both = ["one-shot", {"one-shot": {"criterion": "random"}}, {"of": "one-shot", "shuffle": True}]
    plan = make_plan(small_study(arms=both))
    assert find(plan, "one-shot-shuffled", 2).spec.mask.search == find(plan, "one-shot", 2).spec.mask.search


def test_a_control_of_several_arms_is_refused():
    slow, fast = ({"fine-tune": {"name": name, "training": {"lr": lr}}} for name, lr in (("slow", 1e-4), ("fast", 0.1)))
    control = {"of": "fine-tune", "kept": "random-signs"}
    with pytest.raises(InputError, match="'slow', 'fast' have different ones; keep one of them, or add the plain arm"):
        make_plan(small_study(arms=[slow, fast, control]))
    make_plan(small_study(arms=["fine-tune", slow, fast, control]))


@pytest.mark.parametrize(
    "arm",
    [{"of": "reinit"}, {"of": "late-reinit"}, {"of": "ticket", "kept": "reinit"}, {"of": "edge-popup-trained"}],
    ids=str,
)
def test_movement_is_asked_only_of_the_weights_that_are_frozen(arm):
    with pytest.raises(InputError, match="starts from another initialisation; take pruned: freeze"):
        make_plan(small_study(arms=[arm | {"pruned": "freeze-moved"}], rewind=4))


def test_of_a_transferred_ticket_movement_is_that_of_its_source():
    arm = {"of": "ticket", "pruned": "freeze-moved", "name": "far", "transfer": {"from": {"seed": 1}}}
    plan = make_plan(small_study(arms=["ticket", arm]))
    spec = find(plan, "far", 1).spec
    assert plan.work[spec.mask.frozen.moved_in].spec.seed == 1
    assert spec.initial.run == spec.mask.frozen.moved_in
