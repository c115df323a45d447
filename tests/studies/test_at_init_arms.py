"""Arms that prune at initialisation, and controls of any arm: what is planned, shared and refused."""

import pytest
from small_studies import find, search_of, small_study

from tombola.errors import InputError
from tombola.studies import make_plan
from tombola.work import InitialState

METHODS = ["snip", "gradient-at-init", "grasp", "synflow", "magnitude-at-init", "random", "random-erk"]
DRAWN = ["snip", "gradient-at-init", "grasp", "random", "random-erk"]


def plan(**changes):
    return make_plan(small_study(**changes))


def refused(match, **changes):
    with pytest.raises(InputError, match=match) as caught:
        plan(**changes)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pruning__scope": "global"},
        {"pruning__rate": [0.5, 0.9], "pruning__output_rate": [0.3, 0.0]},
        {"pruning__output_rate": 0.0, "pruning__rates": {"1": 0.6}},
        {"pruning__exclude": ["output"], "pruning__target": 0.1},
        {"pruning__minimum": 9, "pruning__rate": 0.9},
        {"rewind": 3},
        {"rewind": [0, 3]},
        {"pruning__back_off": {"margin": 0.01}},
    ],
)
def test_each_level_prunes_the_untrained_network_once_to_the_levels_number_of_weights(changes):
    found = plan(arms=METHODS, **changes)
    sizes = found.coverage.sizes()
    for arm in METHODS:
        for level in (1, 2):
            job = find(found, arm, level)
            prune = search_of(found, job)
            assert (prune.run, prune.scope, prune.schedule) == (None, "global", [prune.rates])
            assert (prune.needs, job.needs) == ((), (job.spec.mask.search,))  # it waits for no training
            assert job.spec.initial == InitialState()
            (rate,) = set(prune.rates.values())
            pool = sum(sizes[name] for name in prune.rates)
            whole = sum(sizes.values()) - pool
            assert pool - round(rate * pool) + whole == found.remaining[level]
    assert set(search_of(found, find(found, "snip", 1)).rates) == {
        name for name in sizes if any(rates.get(name) for rates in found.study.pruning.resolve(found.coverage))
    }


def test_repeats_draw_anew_where_there_is_something_to_draw():
    found = plan(arms=[{arm: {"per_trial": 2}} for arm in DRAWN])
    for arm in DRAWN:
        jobs = [find(found, arm, level, repeat=repeat) for repeat in (0, 1) for level in (1, 2)]
        assert len({job.id for job in jobs}) == 4
        draws = [(search_of(found, job).level, search_of(found, job).repeat) for job in jobs]
        assert len(set(draws)) == 4
    for arm in ("synflow", "magnitude-at-init"):
        refused("all its repeats would be the same run; remove per_trial", arms=[{arm: {"per_trial": 2}}])


def test_the_number_of_examples_is_part_of_what_looks_at_them_and_of_nothing_else():
    few, many = (plan(arms=["ticket", *METHODS], pruning__init_examples=number) for number in (10, 11))
    for arm in METHODS:
        same = find(few, arm, 1).id == find(many, arm, 1).id
        assert same is (arm not in ("snip", "gradient-at-init", "grasp"))
    assert find(few, "ticket", 2).id == find(many, "ticket", 2).id
    assert "examples" not in search_of(few, find(few, "synflow", 1)).identity()


def test_a_method_of_ones_own_counts_with_its_code():
    found = plan(arms=["small_nets:own_at_init"])
    job = find(found, "small_nets:own_at_init", 1)
    assert len(search_of(found, job).code) == 16
    assert search_of(found, job).examples == 10


@pytest.mark.parametrize("rule", [*METHODS, "reinit", "one-shot-reinit", "edge-popup", "edge-popup-trained", "control"])
def test_the_budget_of_an_arm_that_does_not_rewind_is_none_that_others_rewind_in(rule):
    arm = {"of": "ticket", "reinit": True} if rule == "control" else {"rule": rule}
    found = plan(arms=["ticket", arm | {"name": "brief", "training": {"iterations": 4}}], rewind=[0.5, 5])
    assert {find(found, f"ticket@{k}", 2).spec.initial.iteration for k in (6, 5)} == {6, 5}
    brief = [find(found, row.arm, row.level) for row in found.rows if row.arm.startswith("brief") and row.level]
    assert {job.spec.initial.iteration for job in brief} == {0}
    refused("rewind=5 must be below the budget of 4", arms=[{"early-bird": {"training": {"iterations": 4}}}], rewind=5)


# Controls


def test_controls_of_the_ticket_are_the_papers_jobs():
    """Nothing is trained twice."""
    found = plan(
        arms=[
            {"random-mask": {"per_trial": 2}},
            {"reinit": {"per_trial": 2}},
            {"of": "ticket", "shuffle": True, "per_trial": 2},
            {"of": "ticket", "reinit": True, "per_trial": 2},
        ]
    )
    for level in (1, 2):
        for repeat in (0, 1):
            for control, arm in (("ticket-shuffled", "random-mask"), ("ticket-reinit", "reinit")):
                assert find(found, control, level, repeat=repeat).id == find(found, arm, level, repeat=repeat).id


def test_a_control_that_is_trained_otherwise_keeps_the_mask_of_the_studys_arm():
    fields = {"lr": 0.5}
    found = plan(arms=["random-mask", {"of": "ticket", "shuffle": True, "training": fields}])
    for level in (1, 2):
        control, arm = find(found, "ticket-shuffled", level), find(found, "random-mask", level)
        assert control.spec.mask == arm.spec.mask
        assert (control.spec.training.lr, arm.spec.training.lr) == (0.5, found.study.training.lr)


@pytest.mark.parametrize("rewind", [0, 3])
@pytest.mark.parametrize("of", ["snip", "random-mask", "fine-tune", "small_nets:own_at_init"])
def test_a_control_has_the_mask_of_its_arm(of, rewind):
    options = [{"shuffle": True}, {"reinit": True}, {"shuffle": True, "reinit": True}]
    arms = [of, *({"of": of, **each, "per_trial": 2} for each in options)]
    found = plan(arms=arms, rewind=rewind)
    base = find(found, of, 2)
    for options_, name in zip(options, ("shuffled", "reinit", "shuffled-reinit"), strict=True):
        for repeat in (0, 1):
            job = find(found, f"{of}-{name}", 2, repeat=repeat)
            assert search_of(found, job) == search_of(found, base)
            if options_.get("shuffle"):
                assert (job.spec.mask.shuffle.stream, job.spec.mask.shuffle.repeat) == (of, repeat)
            else:
                assert job.spec.mask.shuffle == base.spec.mask.shuffle
            if options_.get("reinit"):
                assert (job.spec.initial.run, job.spec.initial.draw) == (None, repeat + 1)
                assert job.spec.training == found.study.recipe(2).deciding
            else:
                assert (job.spec.initial, job.spec.training) == (base.spec.initial, base.spec.training)


def test_a_control_needs_no_run_of_its_arm():
    assert len(plan(arms=[{"of": "snip", "shuffle": True}]).work) == 1 + 2 * 2  # dense; two masks and two runs


def test_ways_to_write_a_control():
    arms = small_study(
        arms=[
            {"of": "snip", "shuffle": True},
            {"snip": {"shuffle": True, "reinit": True}},
            {"of": "grasp", "reinit": True, "name": "fresh"},
            {"rule": "synflow", "reinit": True, "per_trial": 1},
        ]
    ).arms
    assert [arm.label for arm in arms] == ["snip-shuffled", "snip-shuffled-reinit", "fresh", "synflow-reinit"]
    assert [(arm.rule, arm.shuffle, arm.reinit) for arm in arms][2] == ("grasp", False, True)
    assert small_study(arms=[arm.model_dump() for arm in arms]).arms == arms


@pytest.mark.parametrize(
    ("arm", "match"),
    [
        ({"of": "snpi", "shuffle": True}, "unknown arm 'snpi'; did you mean 'snip'"),
        ({"of": "snip"}, "a control of snip must change something: give it shuffle: true"),
        ({"of": "snip", "rule": "snip", "shuffle": True}, "either `rule`, or `of`"),
        ({"of": "snip", "shuffel": True, "reinit": True}, "unknown field 'arms.0.shuffel'; did you mean 'shuffle'"),
        ({"of": "snip", "shuffle": "twice"}, "arms.0.shuffle='twice': must be "),
        (
            {"of": "snip", "shuffle": "no", "reinit": "off"},
            "a control of snip must change something: give it shuffle: true",
        ),
        ({"of": "edge-popup", "shuffle": True}, "shuffle: true}: the mask of edge-popup .*edge-popup-trained"),
        ({"of": "edge-popup", "reinit": True}, "reinit: true}: the mask of edge-popup .*edge-popup-trained"),
        ({"of": "small_nets:no_such", "reinit": True}, "'no_such' in 'small_nets' does not exist"),
        ({"of": "small_nets:no_rule", "reinit": True}, r"must return \(InitialState, MaskUse\)"),
    ],
)
def test_a_control_that_can_not_be(arm, match):
    refused(match, arms=[arm])


# What can't be


def test_more_layers_than_weights():
    """Global rounds may go so far; at initialisation that would be no network."""
    settings = {"pruning__scope": "global", "pruning__rate": 0.95}
    assert plan(**settings).remaining == (944, 47, 2)
    refused(r"pruning\.rounds: level 2 leaves 2 weights for 3 layers, .*pruning.rounds to 1", arms=["snip"], **settings)


def test_no_examples_at_all():
    refused(r"pruning\.init_examples=0: must be greater than or equal to 1", pruning__init_examples=0)
