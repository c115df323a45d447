"""Rewinding: where to, and the arms that compare it with keeping the final weights."""

from itertools import pairwise

import pytest
import torch
from small_studies import find, run_one, run_study, search_of, small_study

from tombola.errors import InputError
from tombola.studies import load_study, make_plan
from tombola.studies.arms import ARMS, Arm
from tombola.studies.rewind import iterations
from tombola.work import InitialState, Item

TRAINING = {"iterations": 20, "evaluate_every": 5, "lr": 0.01, "optimizer": "sgd", "momentum": 0.9}
STEP = TRAINING | {"schedule": "step", "milestones": [12], "gamma": 0.1}


def refused(match, rewind):
    with pytest.raises(InputError, match=match) as caught:
        make_plan(small_study(rewind=rewind))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("rewind", "expected"),
    [(0, (0,)), (7, (7,)), (0.25, (25,)), ("2 epochs", (20,)), ((0, 0.5, "1 epoch"), (0, 50, 10))],
)
def test_every_way_to_say_where(rewind, expected):
    assert iterations(rewind, epoch_length=10, budget=100) == expected


@pytest.mark.parametrize(
    ("rewind", "match"),
    [
        (12, "rewind=12 must be below the budget of 12 iterations"),
        ("1 epoch", "rewind=1 epoch is iteration 20, and must be below the budget of 12"),
        ([0, 6, 0.5], "names iteration 6 twice"),
        ([], "name at least one"),
        (-1, "must be an iteration"),
        ("soon", "must be an iteration .*epochs"),
        (1.5, "must be an iteration"),
        ("inf", "must be an iteration"),
        (float("inf"), "must be an iteration"),
        (True, "rewind"),
    ],
)
def test_what_can_not_be(rewind, match):
    refused(match, rewind)


def test_the_identity_of_a_rewind_is_its_iteration():
    plans = [make_plan(small_study(rewind=rewind)) for rewind in (6, 0.5)]
    assert plans[0].work.keys() == plans[1].work.keys()


def test_a_list_gives_a_curve_each_and_shares_the_dense_run():
    plan = make_plan(small_study(rewind=[0, 4, 8], arms=["ticket", "one-shot", "late-reinit"], training=TRAINING))
    arms = list(dict.fromkeys(row.arm for row in plan.rows))
    assert arms == [f"{arm}@{k}" for arm in ("ticket", "one-shot", "late-reinit") for k in (0, 4, 8)]
    (dense,) = {row.job for row in plan.rows if row.level == 0}
    assert plan.work[dense].observe.snapshots == (4, 8)
    assert find(plan, "ticket@4", 2).spec.initial.iteration == 4
    alone = make_plan(small_study(rewind=4, training=TRAINING))
    assert find(alone, "ticket", 2).id == find(plan, "ticket@4", 2).id


def test_an_arm_to_which_rewinding_is_nothing_has_one_curve(monkeypatch):
    def fresh(trial, level, repeat):
        return InitialState(draw=1), trial.one_shot(level)

    monkeypatch.setitem(ARMS, "fresh", Arm(fresh))
    plan = make_plan(small_study(rewind=[0, 4], arms=["fresh", "ticket"]))
    assert list(dict.fromkeys(row.arm for row in plan.rows)) == ["fresh", "ticket@0", "ticket@4"]


def test_the_budget_of_an_arm_that_is_not_rewound_limits_nothing():
    """As in the docs: arms at initialisation and fresh ones start at 0 "whatever `rewind` says"."""
    short = {"training": {"iterations": 4}}
    plan = make_plan(small_study(rewind=0.5, arms=["ticket", {"snip": short}, {"of": "snip", "reinit": True, **short}]))
    assert find(plan, "ticket", 1).spec.initial.iteration == 6
    with pytest.raises(InputError, match="rewind=6 must be below the budget of 4"):
        make_plan(small_study(rewind=6, arms=["ticket", {"one-shot": short}]))
    with pytest.raises(InputError, match=r"too few for training\.batch_size=5000"):
        make_plan(small_study(arms=["ticket", {"edge-popup": {"training": {"batch_size": 5000}}}]))


@pytest.mark.parametrize("arm", ARMS)
def test_which_arms_are_not_rewound(arm):
    job = find(make_plan(small_study(rewind=6, arms=[arm])), arm, 1)
    assert (job.spec.initial.iteration == 0) == (ARMS[arm].start == "initial")


def test_keeping_the_final_weights(tmp_path):
    """Each level starts from the end of its own level before, masked, and trains as long as a rewound ticket."""
    arms = ["ticket", "fine-tune", "lr-rewind"]
    plan, store = run_study(tmp_path, rewind=4, arms=arms, training=STEP)
    for arm in ("fine-tune", "lr-rewind"):
        for level in (1, 2):
            before, result = (store.load(find(plan, arm, each).id) for each in (level - 1, level))
            assert result.mask <= before.mask
            for name, weight in before.snapshots["final"].items():
                expected = weight * result.mask[name] if name in result.mask else weight
                assert torch.equal(result.snapshots["start"][name], expected)
            assert result.history["iteration"] == [4, 5, 10, 15, 20]
            assert result.facts["iterations"] == 16
    tuned, replayed = (find(plan, arm, 1).spec.training for arm in ("fine-tune", "lr-rewind"))
    assert [tuned.learning_rate(i, 20) for i in range(4, 20)] == pytest.approx([0.001] * 16)
    assert [replayed.learning_rate(i, 20) for i in (4, 11, 12)] == pytest.approx([0.01, 0.01, 0.001])
    first = [find(plan, arm, 1) for arm in arms]
    assert len({job.spec.mask.search for job in first}) == 1  # the dense run pruned once, whatever follows
    assert len({search_of(plan, find(plan, arm, 2)).run for arm in arms}) == 3


def test_late_reinit_is_another_run_at_the_same_iteration(tmp_path):
    plan, store = run_study(tmp_path, rewind=4, arms=["ticket", {"late-reinit": {"per_trial": 2}}], training=STEP)
    for level in (1, 2):
        ticket = store.load(find(plan, "ticket", level).id)
        starts = []
        for repeat in (0, 1):
            job = find(plan, "late-reinit", level, repeat=repeat)
            result, other = store.load(job.id), store.load(job.spec.initial.run)
            assert result.mask == ticket.mask
            assert other.history["iteration"] == [0, 4]
            assert plan.work[job.spec.initial.run].cost.iterations == 4
            for name, weight in other.snapshots["iteration-4"].items():
                expected = weight * result.mask[name] if name in result.mask else weight
                assert torch.equal(result.snapshots["start"][name], expected)
            starts.append(job.spec.initial.run)
            assert result.history["iteration"][0] == 4
        assert len(set(starts)) == 2
    others = [job for job in plan.work.values() if getattr(job.spec, "until", None) is not None]
    assert len(others) == 2  # one a repeat, for all levels


def test_a_run_that_ends_early_follows_the_schedule_of_the_whole_budget(tmp_path):
    """Its first iterations are bit by bit those of a run that goes on."""
    training = TRAINING | {"schedule": "cosine"}
    plan, store = run_study(tmp_path, rewind=5, arms=["late-reinit"], training=training, pruning__rounds=1)
    (short,) = [job for job in plan.work.values() if getattr(job.spec, "until", None) is not None]
    spec = type(short.spec).model_validate(short.spec.model_dump() | {"until": None})
    whole = Item(spec, "whole", observe=short.observe)
    assert whole.id != short.id
    assert run_one(whole, tmp_path) == "done"
    pair = [store.load(job.id).snapshots["iteration-5"] for job in (short, whole)]
    assert all(torch.equal(pair[0][name], pair[1][name]) for name in pair[0])


def test_late_reinit_at_the_initialisation_is_reinit():
    plan = make_plan(small_study(arms=["reinit", "late-reinit"]))
    for level in (1, 2):
        assert find(plan, "reinit", level).id == find(plan, "late-reinit", level).id


def test_a_rewind_survives_its_file(tmp_path):
    for rewind in (500, 0.1, "2 epochs", [0, "1 epoch", 0.2]):
        from tombola.studies import dump_study

        study = load_study("lenet-mnist", {"rewind": rewind})
        (tmp_path / "a.yaml").write_text(dump_study(study))
        assert load_study(str(tmp_path / "a.yaml")) == study


def test_the_chain_of_masks_is_there_for_arms_of_ones_own():
    plan = make_plan(small_study(arms=["lr-rewind"], pruning__rounds=4))
    chain = [find(plan, "lr-rewind", level) for level in range(5)]
    for before, job in pairwise(chain):
        assert search_of(plan, job).run == job.spec.initial.run == before.id
    assert len(plan.work) == 1 + 2 * 4
