"""Plans: which jobs a study comes to, what they wait for, and that their identities stay."""

import json
import re
from dataclasses import replace
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
from small_studies import find, search_of

from tombola import data
from tombola.errors import InputError
from tombola.pruning import CRITERIA
from tombola.studies import load_study, loading, make_plan, preset_names
from tombola.work import item_from_json

SMALL = {"trials": 1, "pruning.rounds": 3, "network": "small_nets:mlp"}


def plan_of(name="demo", **settings):
    return make_plan(load_study(name, {field.replace("__", "."): value for field, value in settings.items()}))


def small(**settings):
    return make_plan(load_study("demo", SMALL | {f.replace("__", "."): value for f, value in settings.items()}))


def refused(match, **settings):
    with pytest.raises(InputError, match=match) as caught:
        plan_of(**settings)
    assert len(str(caught.value).splitlines()) == 1


# The presets


@pytest.fixture(scope="module")
def black_images(tmp_path_factory):
    """A data folder in which cifar10_10k.npz has the real one's shapes and nothing to see."""
    folder = tmp_path_factory.mktemp("data")
    parts = {"train": 10_000, "test": 2_000}
    arrays = {f"x_{part}": np.zeros((count, 3, 32, 32), np.uint8) for part, count in parts.items()}
    labels = {f"y_{part}": np.arange(count) % 10 for part, count in parts.items()}
    np.savez_compressed(folder / "cifar10_10k.npz", **arrays, **labels)
    return folder


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_can_be_planned_without_any_published_data(name, monkeypatch, black_images):
    monkeypatch.setattr(data.published, "load", None)
    monkeypatch.setattr(data.cifar, "load", None)
    monkeypatch.setenv("TOMBOLA_DATA", str(black_images))
    plan = plan_of(name, trials=1)
    assert len(plan.remaining) == plan.study.pruning.rounds + 1
    assert plan.budget() > 0
    assert all(later < earlier for earlier, later in pairwise(plan.remaining))


def test_the_lenet_levels_are_the_papers():
    """fc 20 %, output 10 % of what remains: 51.3, 21.1, 7.0, 3.6, 1.9 % at the levels of the paper's Figure 3."""
    plan = plan_of("lenet-mnist")
    counts = np.array([784 * 300, 300 * 100, 100 * 10])
    expected = [int(counts.sum())]
    for _ in range(24):
        counts = counts - np.round(counts * [0.2, 0.2, 0.1]).astype(int)
        expected.append(int(counts.sum()))
    assert plan.remaining == tuple(expected)
    assert plan.remaining[0] == 266_200
    percent = {level: f"{100 * plan.remaining[level] / 266_200:.2f}" for level in (1, 3, 7, 12, 15, 18)}
    assert percent[1] == "80.04"
    shown = [f"{100 * plan.remaining[level] / 266_200:.1f}" for level in (3, 7, 12, 15, 18)]
    assert shown == ["51.3", "21.1", "7.0", "3.6", "1.9"]


def test_the_global_levels_are_the_public_studys():
    plan = plan_of("lenet-mnist-global")
    shown = {level: f"{100 * plan.remaining[level] / 266_200:.2f}" for level in (0, 10, 15, 20)}
    assert shown == {0: "100.00", 10: "10.74", 15: "3.52", 20: "1.15"}
    assert plan.budget() == 20 * (55_000 // 64)
    assert plan.study.training.evaluate_every == 55_000 // 64  # once an epoch


def test_the_number_of_runs_of_the_papers_study():
    """Of each trial 1 dense, 24 tickets, 72 reinit, 48 random, 23 one-shot more, 69 one-shot-reinit more."""
    plan = plan_of("lenet-mnist")
    runs = [item for item in plan.work.values() if item.kind == "run"]
    assert len(runs) == 5 * (1 + 24 + 72 + 48 + 23 + 69)
    assert len(plan.work) - len(runs) == 5 * (24 + 23)  # masks: of tickets; of one-shot, which shares the first
    assert len(plan.rows) == 5 * 5 + 5 * 24 * (1 + 3 + 2 + 1 + 3)


# What is shared, and what is not


ALL_ARMS = ["ticket", {"reinit": {"per_trial": 2}}, "random-mask", "one-shot", {"one-shot-reinit": {"per_trial": 2}}]


def test_parents_come_before_children():
    plan = small(arms=ALL_ARMS, trials=2)
    seen = set()
    for job in plan.work.values():
        assert set(job.needs) <= seen
        seen.add(job.id)
    assert {row.job for row in plan.rows} <= seen


def test_level_0_is_one_job_for_all_arms_of_a_trial():
    plan = small(arms=ALL_ARMS, trials=2)
    for trial in (0, 1):
        (dense,) = {row.job for row in plan.rows if (row.level, row.trial) == (0, trial)}
        assert plan.work[dense].spec.mask is None
        assert plan.work[dense].needs == ()
    assert find(plan, "ticket", 0, trial=0).id != find(plan, "ticket", 0, trial=1).id


def test_every_row_is_there_once():
    plan = small(arms=ALL_ARMS, trials=2)
    rows = [(row.arm, row.trial, row.repeat, row.level) for row in plan.rows]
    assert len(set(rows)) == len(rows) == 2 * (5 + 3 * (1 + 2 + 1 + 1 + 2))


def test_one_shot_at_level_1_is_the_tickets_level_1():
    """Nothing is trained twice; from level 2 on they differ."""
    plan = small(arms=ALL_ARMS)
    assert find(plan, "one-shot", 1).id == find(plan, "ticket", 1).id
    assert find(plan, "one-shot", 2).id != find(plan, "ticket", 2).id
    assert find(plan, "one-shot-reinit", 1, repeat=1).id == find(plan, "reinit", 1, repeat=1).id


def test_the_ticket_chain_prunes_the_level_before_and_rewinds_to_the_dense_run():
    plan = small()
    chain = [find(plan, "ticket", level) for level in range(4)]
    for before, job in pairwise(chain):
        assert search_of(plan, job).run == before.id
        assert (search_of(plan, job).rounds, job.spec.mask.shuffle) == (1, None)
        assert (job.spec.initial.run, job.spec.initial.iteration) == (chain[0].id, 0)


def test_one_shot_prunes_the_dense_run():
    plan = small(arms=["one-shot"])
    for level in (1, 2, 3):
        prune = search_of(plan, find(plan, "one-shot", level))
        assert (prune.run, prune.rounds) == (find(plan, "one-shot", 0).id, level)
    assert len(plan.work) == 1 + 2 * 3  # dense, masks and runs: it needs no ticket chain


def test_controls_differ_from_the_ticket_in_one_thing():
    plan = small(arms=ALL_ARMS)
    for level in (1, 2, 3):
        ticket = find(plan, "ticket", level)
        reinit, again = (find(plan, "reinit", level, repeat=repeat) for repeat in (0, 1))
        random = find(plan, "random-mask", level)
        assert reinit.spec.mask == ticket.spec.mask
        assert reinit.spec.initial.run is None
        assert 0 != reinit.spec.initial.draw != again.spec.initial.draw != 0
        assert random.spec.initial == ticket.spec.initial
        assert random.spec.mask.search == ticket.spec.mask.search
        assert random.spec.mask.shuffle is not None


def test_a_study_of_controls_alone_still_plans_the_ticket_chain():
    plan = small(arms=["reinit"])
    groups = [item.group for item in plan.work.values()]
    assert sorted(groups) == ["dense", *["masks"] * 3, *["reinit"] * 3, *["ticket, for other arms' masks"] * 2]
    with_tickets = small(arms=["ticket", "reinit"])
    assert find(plan, "reinit", 3).id == find(with_tickets, "reinit", 3).id


def test_rewinding_to_an_iteration():
    """The dense run keeps it; tickets start there and train what is left; reinit starts from new weights."""
    plan = small(arms=["ticket", "reinit"], rewind=100)
    dense = find(plan, "ticket", 0)
    assert dense.observe.snapshots == (100,)
    assert dense.id == find(small(), "ticket", 0).id
    for level in (1, 2, 3):
        ticket = find(plan, "ticket", level)
        assert (ticket.spec.initial.run, ticket.spec.initial.iteration, ticket.observe.snapshots) == (dense.id, 100, ())
        assert ticket.cost.iterations == 1400
        assert find(plan, "reinit", level).cost.iterations == 1500
    assert find(plan, "ticket", 1).id != find(small(), "ticket", 1).id


def test_no_rounds_are_a_dense_study():
    plan = small(arms=["ticket", "one-shot"], pruning__rounds=0)
    assert len(plan.work) == 1
    assert plan.remaining == (plan.coverage.sizes()["1.weight"] + 12 * 8 + 80,)


def test_the_cost_falls_with_density():
    plan = small()
    costs = [plan.operations(find(plan, "ticket", level)) for level in range(4)]
    ratios = [cost / costs[0] for cost in costs]
    assert ratios == pytest.approx([count / plan.remaining[0] for count in plan.remaining])
    assert costs[0] > 2 * 3 * 1500 * 60 * plan.remaining[0]


@pytest.mark.parametrize(("criterion", "passes"), [("wanda", 1), ("gradient", 3), ("magnitude", 0)])
def test_a_criterion_of_the_next_batch_costs_a_batch(criterion, passes):
    plan = small(pruning__criterion=criterion, training__batch_size=50)
    searches = [item for item in plan.work.values() if item.kind == "mask-search"]
    assert searches
    for item in searches:
        assert item.cost.evaluated == passes * 50


# Rates


def test_the_output_layer_has_half_the_rate_unless_told_otherwise():
    def rates(**settings):
        plan = plan_of(trials=1, pruning__rounds=1, **settings)
        return search_of(plan, find(plan, "ticket", 1)).rates

    assert rates() == {"fc1.weight": 0.3, "fc2.weight": 0.3, "output.weight": 0.15}
    assert rates(pruning__output_rate=0.3)["output.weight"] == 0.3
    assert rates(pruning__output_rate=0.0)["output.weight"] == 0.0
    assert rates(pruning__rates={"output": 0.4, "fc1.weight": 0.1}) == {
        "fc1.weight": 0.1,
        "fc2.weight": 0.3,
        "output.weight": 0.4,
    }
    assert rates(pruning__exclude=["output", "fc2"]) == {"fc1.weight": 0.3}
    assert rates(pruning__exclude=["fc*"]) == {"output.weight": 0.15}
    assert rates(pruning__rates={"fc*": 0.1, "fc2": 0.2}, pruning__exclude=["o*"]) == {
        "fc1.weight": 0.1,
        "fc2.weight": 0.2,
    }
    assert set(rates(pruning__scope="global").values()) == {0.3}
    assert rates(pruning__scope="global", pruning__exclude=["output"]) == {"fc1.weight": 0.3, "fc2.weight": 0.3}


def test_a_margin_below_one_test_example_is_noted():
    (note,) = small(margin=0.002).notes
    assert "0.2 points is less than one of 359 test examples, 0.28 points" in note
    assert "margin=0.003" in note
    assert not small(margin=0.003).notes
    assert not plan_of("lenet-mnist", margin=0.0001).notes  # exactly one of 10,000


def test_output_stands_for_the_output_layer_whatever_its_name():
    plan = small(pruning__exclude=["output"], pruning__rounds=1)
    assert plan.coverage.output == "5.weight"
    assert set(search_of(plan, find(plan, "ticket", 1)).rates) == {"1.weight", "3.weight"}
    named = small(network={"name": "small_nets:mlp", "output": "3"}, pruning__exclude=["output"], pruning__rounds=1)
    assert set(search_of(named, find(named, "ticket", 1)).rates) == {"1.weight", "5.weight"}


# Identity


GOLDEN = {
    ("demo", "ticket", 0, 0, 0): "c233f7d2e2418604",
    ("demo", "ticket", 10, 0, 0): "390adafafa374962",
    ("demo", "random-mask", 2, 0, 0): "7a943807bf83a208",
    ("lenet-fashion", "ticket", 1, 0, 0): "56afe9cb0d819deb",
    ("lenet-mnist", "ticket", 0, 0, 0): "23c40b779a322171",
    ("lenet-mnist", "ticket", 1, 0, 0): "0a9b2f3e45c74c5e",
    ("lenet-mnist", "ticket", 24, 0, 0): "95d1276a8c9e6349",
    ("lenet-mnist", "reinit", 3, 1, 0): "69aaf03673e917ff",
    ("lenet-mnist", "random-mask", 2, 0, 0): "ed5fbc1f3abe6292",
    ("lenet-mnist", "one-shot", 5, 0, 0): "41ce407ecc637f40",
    ("lenet-mnist", "one-shot-reinit", 4, 2, 1): "a2be4234293d8ce2",
    ("lenet-mnist-global", "ticket", 20, 0, 0): "441c2addb5073d91",
    ("lenet-mnist-layerwise", "reinit", 3, 1, 0): "9bbf47252fb97abd",
}


def test_identities_are_frozen():
    """To change one of these means that everyone's results are trained again.

    A new setting must have a default that changes nothing, and leaves these as they are. Only where a preset's own
    numbers are meant to change, or results so far were wrong, is this table to be edited.
    """
    plans = {name: plan_of(name) for name in {key[0] for key in GOLDEN}}
    found = {}
    for key in GOLDEN:
        name, arm, level, trial, repeat = key
        found[key] = find(plans[name], arm, level, trial, repeat).id
    assert found == GOLDEN


def test_two_studies_with_different_names_share_their_jobs():
    one, other = (
        small(arms=["ticket"]),
        small(name="other", description="another", arms=["one-shot", "ticket"], trials=2),
    )
    assert set(one.work) < set(other.work)


def test_label_and_keep_are_no_part_of_the_identity():
    job = find(small(), "ticket", 2)
    observe = job.observe.model_copy(update={"snapshots": (3,)})
    assert replace(job, id="", label="something else", observe=observe, data_file="/a").id == job.id


def test_a_job_is_the_same_after_a_journey_as_json():
    """Workers get it so."""
    for job in small(arms=ALL_ARMS, rewind=7, pruning__rates={"1": 0.1}).work.values():
        again = item_from_json(json.loads(json.dumps(job.as_json())))
        assert again == job
        assert again.id == job.id == job.spec.id
        assert (again.folder, again.needs) == (job.folder, job.needs)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"trial": 1},
        {"training": {"lr": 0.01}},
        {"training": {"batch_size": 61}},
        {"training": {"evaluate_every": 26}},
        {"training": {"weight_decay": 0.1}},
        {"network": {"init": "glorot-normal"}},
        {"network": {"arguments": {"hidden": [7]}}},
        {"data": {"validation": 201}},
        {"initial": {"draw": 9}},
        {"initial": {"iteration": 5}},
        {"initial": {"trained": True}},
        {"mask": {"search": "0" * 16}},
        {"mask": {"shuffle": {"stream": "ticket"}}},
        {"noise": {"copy_number": 1}},
        {"noise": {"level": 1}},
        {"until": 5},
        {"network_code": "abc"},
        {"data_code": "abc"},
    ],
)
def test_what_decides_the_outcome_is_part_of_the_identity(change):
    run = find(small(), "ticket", 2).spec
    other = type(run).model_validate(changed(run.model_dump(), change))
    assert other != run
    assert other.id != run.id


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 2},
        {"criterion": "other"},
        {"scope": "global"},
        {"minimum": 1},
        {"rates": {"1.weight": 0.5}},
        {"run": "0" * 16},
        {"code": "abc"},
        {"level": 3},
        {"repeat": 1},
        {"examples": 3},
        {"seed": 1},
        {"network_code": "abc"},
    ],
)
def test_what_decides_a_mask_is_part_of_the_identity(change):
    plan = small()
    search = search_of(plan, find(plan, "ticket", 2))
    other = type(search).model_validate(changed(search.model_dump(), change))
    assert other != search
    assert other.id != search.id


def test_the_revision_of_the_numerics_is_part_of_the_identity(monkeypatch):
    before = find(small(), "ticket", 2).id
    monkeypatch.setattr("tombola.work.spec.NUMERICS", 10**6)
    assert find(small(), "ticket", 2).id != before


def changed(settings, by):
    """Return nested settings with some replaced."""
    settings = settings or {}
    return settings | {k: changed(settings.get(k), v) if isinstance(v, dict) else v for k, v in by.items()}


def test_the_content_of_a_users_file_is_part_of_the_plan():
    def plan(name, seed):
        generator = np.random.default_rng(seed)
        arrays = {f"x_{part}": generator.random((40, 6)).astype(np.float32) for part in ("train", "test")}
        arrays |= {f"y_{part}": np.arange(40) % 3 for part in ("train", "test")}
        np.savez(name, **arrays)
        settings = {"source": "npz", "path": str(Path(name).absolute()), "validation": 5}
        return set(small(data=settings, training__batch_size=5, pruning__rounds=1).work)

    first = plan("one.npz", 1)
    assert plan("same.npz", 1) == first
    assert not plan("other.npz", 2) & first


def test_a_presets_file_is_looked_for_in_the_data_folder_and_its_place_is_no_identity(tmp_path, monkeypatch):
    """A preset names a file and can't know where it lies; that is never inside the installed package."""
    text = "# made\nextends: demo\nname: made\ndata: {source: npz, path: made.npz, validation: 5}\n"
    monkeypatch.setattr(loading, "preset_names", lambda: ["demo", "made"])
    presets = {"made": text, "demo": loading.preset_text("demo")}
    monkeypatch.setattr(loading, "preset_text", presets.__getitem__)
    monkeypatch.delenv("TOMBOLA_DATA", raising=False)
    x = np.random.default_rng(0).random((100, 1, 4, 4)).astype(np.float32)
    (tmp_path / "data").mkdir()
    np.savez(tmp_path / "data" / "made.npz", x_train=x, y_train=np.arange(100) % 3, x_test=x, y_test=np.arange(100) % 3)

    def jobs(folder, root=None):
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        study = load_study("made", {"pruning.rounds": 1, "trials": 1})
        assert study.data.path == str(folder / "made.npz")
        return set(make_plan(study, root).work)

    expected = jobs(tmp_path / "data")
    assert jobs(tmp_path / "one", tmp_path / "data") == expected
    with pytest.raises(InputError, match=r"made\.npz: this file does not exist.*--data or TOMBOLA_DATA") as caught:
        jobs(tmp_path / "two")
    assert len(str(caught.value).splitlines()) == 1
    monkeypatch.setenv("TOMBOLA_DATA", str(tmp_path / "data"))
    assert jobs(tmp_path / "two") == expected


def test_a_users_network_counts_with_its_code():
    assert re.fullmatch(r"[0-9a-f]{16}\.[0-9a-f]{16}", find(small(), "ticket", 0).spec.network_code)
    assert find(plan_of(), "ticket", 0).spec.network_code == ""


def test_a_folder_name_is_readable_and_safe():
    job = find(small(network={"name": "small_nets:mlp", "arguments": {"hidden": [3]}}), "ticket", 1)
    assert job.folder == f"small_nets-mlp.digits.trial-0.ticket.level-01-{job.id}"
    strange = replace(job, label="../../x y\n" + "z" * 300)
    assert strange.folder.endswith(f"-{job.id}")
    assert len(strange.folder) < 140
    assert not set(strange.folder) & set("/\\ \n")
    assert not strange.folder.startswith(".")
    assert replace(job, label="...").folder == job.id


def test_identities_do_not_depend_on_the_order_of_fields():
    job = find(small(), "ticket", 2)
    turned = json.loads(json.dumps(job.as_json()), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert item_from_json(turned).spec.id == job.id


# A user's own


def test_a_users_arm():
    plan = small(arms=["ticket", {"small_nets:late_random": {"name": "late", "per_trial": 2}}])
    job = find(plan, "late", 2, repeat=1)
    assert (job.spec.initial.draw, job.spec.mask.shuffle.repeat, search_of(plan, job).rounds) == (2, 1, 2)
    assert ".late-1.level-02" in job.label


def test_a_users_criterion_counts_with_its_code():
    own, plain = small(pruning__criterion="small_nets:flat_scores"), small()
    assert len(search_of(own, find(own, "ticket", 1)).code) == 16
    assert search_of(plain, find(plain, "ticket", 1)).code == ""
    assert "magnitude" in CRITERIA


def test_an_arm_that_returns_the_wrong_thing():
    with pytest.raises(InputError, match=r"arm 'small_nets:no_rule' must return \(InitialState, MaskUse\)"):
        small(arms=["small_nets:no_rule"])


# What can't be


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"network": "my_nets.make"}, r"unknown network 'my_nets.make'; did you mean 'my_nets:make'"),
        ({"network": "lenet-300"}, r"unknown network 'lenet-300'; did you mean 'lenet-300-100'"),
        ({"data": {"source": "mnits", "validation": 5}}, r"'mnits'; did you mean 'mnist'"),
        ({"pruning.criterion": "magnitud"}, "unknown criterion 'magnitud'; did you mean 'magnitude'"),
        ({"arms": ["tiket"]}, "unknown arm 'tiket'; did you mean 'ticket'"),
        ({"arms": ["small_nets:tiket"]}, "arm 'small_nets:tiket': 'tiket' in 'small_nets' does not exist"),
        ({"arms": ["no_such_module:arm"]}, "'no_such_module' can't be imported"),
        ({"network": {"name": "lenet-300-100", "arguments": {"width": 3}}}, "can't be built with .*width"),
        ({"network": {"name": "lenet-300-100", "output": "fc9"}}, r"network\.output: .*'fc9'; did you mean"),
        ({"rewind": 1500}, "rewind=1500 must be below the budget of 1500 iterations"),
        ({"rewind": 9999}, "rewind=9999 must be below the budget of 1500 iterations"),
        ({"data.validation": 1438}, r"data\.validation=1438 leaves 0 of 1438 training examples.*batch_size=60"),
        ({"data.validation": 1400}, r"data\.validation=1400 leaves 38 of 1438 training examples.*batch_size=60"),
        ({"data.validation": 9999}, r"data\.validation=9999 leaves 0 of 1438"),
        ({"pruning.rate": 0}, r"round 1 would prune nothing.*pruning.rounds to 0.*raise the rate"),
        ({"pruning.exclude": ["fc1", "fc2", "output"]}, r"pruning\.exclude: it excludes every prunable layer"),
        ({"pruning.exclude": ["fc3"]}, r"pruning\.exclude: .*no prunable layer 'fc3'; did you mean 'fc"),
        (
            {"pruning.exclude": ["*.shortcut"]},
            r"pruning\.exclude: no prunable layer matches '\*\.shortcut'; the layers are",
        ),
        ({"pruning.rates": {"fc3": 0.1}}, r"pruning\.rates: .*no prunable layer 'fc3'"),
        ({"pruning.rates": {"fc1": 0.1}, "pruning.exclude": ["fc1.weight"]}, "both in exclude and in rates"),
        ({"pruning.rate": 1}, r"round 1 would empty layer 'fc1'; .*pruning.rounds to 0.*pruning\.minimum"),
        ({"pruning.scope": "global", "pruning.rate": 1}, "round 1 would leave no weight"),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_said(settings, match):
    refused(match, **settings)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_too_many_rounds_are_refused_with_the_possible_number(scope):
    """And that number is possible."""
    with pytest.raises(InputError, match=r"round \d+ would prune nothing") as caught:
        plan_of(trials=1, arms=["ticket"], pruning__scope=scope, pruning__rounds=500)
    possible = int(str(caught.value).partition("pruning.rounds to ")[2].split(",")[0])
    plan = plan_of(trials=1, arms=["ticket"], pruning__scope=scope, pruning__rounds=possible)
    assert len(plan.remaining) == possible + 1
    with pytest.raises(InputError, match=f"pruning.rounds to {possible}"):
        plan_of(trials=1, arms=["ticket"], pruning__scope=scope, pruning__rounds=possible + 1)


def test_a_minimum_makes_rate_1_possible():
    plan = plan_of(
        trials=1, arms=["ticket"], pruning__rate=1, pruning__output_rate=1, pruning__minimum=5, pruning__rounds=1
    )
    assert plan.remaining == (11_900, 15)


def test_a_fresh_control_of_a_partly_pretrained_network_is_refused():
    """Its pretrained layer would keep the ticket's weights."""
    network = "small_nets:pretrained_backbone"
    with pytest.raises(InputError, match=r"'reinit' needs a second .* every seed \(1\.weight: \d\d% of the prunable"):
        small(network=network, arms=["ticket", "reinit"])
    assert small(network=network, arms=["ticket", "shuffled-weights"]).work
    assert small(network={"name": network, "init": "kaiming-normal"}, arms=["ticket", "reinit"]).work


def test_a_network_whose_state_dict_lacks_something_is_refused():
    refused("network 'small_nets:projected' computes with 'kept', which", **SMALL | {"network": "small_nets:projected"})


def test_a_network_with_too_few_outputs_is_refused():
    """Else the first batch that holds a digit above 2 ends every job with PyTorch's own error."""
    with pytest.raises(InputError, match="10"):
        small(network="small_nets:three_classes", pruning__rounds=1)


def test_a_network_that_does_not_take_the_data_is_refused():
    with pytest.raises(InputError, match=r"can't be run on inputs of shape \(1, 8, 8\)"):
        small(network="small_nets:Backwards")


def test_a_lazy_network_is_planned_or_refused_but_never_half():
    """What can be planned must be trainable."""
    from tombola.networks import factory, initialised

    try:
        plan = small(network="small_nets:lazy")
    except InputError:
        return
    build = factory(plan.study.network, plan.data.input_shape, plan.data.classes)
    module = initialised(build, plan.study.network.init, 1)
    assert prod(module[1].weight.shape) == 8 * 64


@pytest.mark.parametrize("rule", ["ticket", "one-shot"])
def test_repeats_that_would_be_one_job_are_refused(rule):
    """One run must not be shown as three."""
    with pytest.raises(InputError, match="all its repeats would be the same run"):
        make_plan(load_study("demo", {"arms": [{rule: {"per_trial": 3}}]}))


def test_naming_the_output_that_is_found_anyway_changes_no_job():
    found, named = load_study("demo"), load_study("demo", {"network.output": "output"})
    assert make_plan(found).work.keys() == make_plan(named).work.keys()


@pytest.mark.parametrize(
    ("criterion", "match"),
    [
        ("no_answer", "gave a NoneType; it must return a dict of layer name -> tensor"),
        ("arrays", "gave a dict of ndarray; it must return"),
        ("takes_two", "failed: TypeError: takes_two\\(\\) missing 1 required"),
        ("one_layer", "no scores for 'fc2.weight'"),
    ],
)
def test_a_criterion_that_can_not_work_is_found_before_anything_is_trained(criterion, match):
    refused(match, pruning__criterion=f"small_nets:{criterion}")


# Supermasks, early-bird masks and recipes of an arm's own


def test_a_supermask_has_the_levels_weights_layer_by_layer():
    plan = small(arms=["ticket", "edge-popup"], pruning__minimum=30, pruning__rounds=6)
    counts = dict(plan.coverage.sizes())
    for level in range(1, 7):
        rates = search_of(plan, find(plan, "ticket", level)).rates
        for name in counts:
            counts[name] -= min(round(rates[name] * counts[name]), counts[name] - min(30, counts[name]))
        job = find(plan, "edge-popup", level)
        assert job.spec.popup.counts == counts
        assert sum(counts.values()) == plan.remaining[level]
        assert (job.kind, job.needs, job.spec.initial.run) == ("supermask", (), None)
    assert min(counts.values()) == 30


def test_a_supermask_has_the_same_share_of_each_pruned_layer_under_global():
    plan = small(arms=["edge-popup"], pruning__scope="global", pruning__exclude=["output"])
    sizes = plan.coverage.sizes()
    for level in (1, 2, 3):
        counts = find(plan, "edge-popup", level).spec.popup.counts
        assert set(counts) == {"1.weight", "3.weight"}
        assert sum(counts.values()) + sizes["5.weight"] == plan.remaining[level]
        for name, count in counts.items():
            assert count == pytest.approx(0.7**level * sizes[name], abs=1.5)


def test_a_supermask_that_is_trained_is_the_one_that_the_other_arm_finds():
    scores = {"optimizer": "sgd", "lr": 0.5, "momentum": 0.9}
    both = small(arms=[{"edge-popup": {"training": scores, "per_trial": 2}}, {"edge-popup-trained": {"per_trial": 2}}])
    assert len(both.work) == 1 + 2 * 2 * 3
    for level in (1, 2, 3):
        for repeat in (0, 1):
            finder, trained = (find(both, arm, level, repeat=repeat) for arm in ("edge-popup", "edge-popup-trained"))
            assert trained.spec.initial.run == trained.spec.mask.run == finder.id
            assert trained.spec.training == both.study.training.deciding
            assert (finder.spec.training.optimizer, finder.spec.training.lr, finder.spec.popup.draw) == (
                "sgd",
                0.5,
                repeat,
            )
    alone = small(arms=["edge-popup-trained"])
    assert find(alone, "edge-popup-trained", 1).spec.mask.run == find(small(arms=["edge-popup"]), "edge-popup", 1).id
    hidden = [item for item in alone.work.values() if item.kind == "supermask"]
    assert [item.cost.density for item in hidden] == [1.0] * 3  # scores are trained for all weights


def test_supermasks_do_not_depend_on_where_tickets_rewind_to():
    plan = small(arms=["edge-popup", "edge-popup-trained"], rewind=[0, 50])
    assert {row.arm for row in plan.rows} == {"edge-popup", "edge-popup-trained"}
    brief = {"edge-popup": {"training": {"iterations": 20}}}  # too short a budget to rewind in
    assert small(arms=["ticket", brief], rewind=50)
    with pytest.raises(InputError, match="rewind=50 must be below the budget of 20 iterations"):
        small(arms=[{"ticket": {"training": {"iterations": 20}}}], rewind=50)


@pytest.mark.parametrize(
    "change", [{"weights": "init"}, {"draw": 1}, {"counts": {"1.weight": 5}}], ids=["weights", "draw", "counts"]
)
def test_what_decides_a_supermask_is_part_of_the_identity(change):
    job = find(small(arms=["edge-popup"]), "edge-popup", 1)
    other = type(job.spec).model_validate(changed(job.spec.model_dump(), {"popup": change}))
    assert other.id != job.id


def test_an_arm_has_a_recipe_of_its_own_at_the_levels_that_are_its_own():
    slow = {"ticket": {"name": "slow", "training": {"lr": 1e-4}}}
    plan = small(
        arms=["ticket", slow, {"reinit": {"training": {"epochs": 2}}}, {"fine-tune": {"training": {"lr": 0.5}}}]
    )
    plain = small()
    for level in (1, 2, 3):
        assert find(plan, "ticket", level).id == find(plain, "ticket", level).id
        mine = find(plan, "slow", level)
        assert mine.spec.training.lr == 1e-4
        assert search_of(plan, mine).run == find(plan, "slow", level - 1).id  # its masks are its own
        reinit = find(plan, "reinit", level)
        assert (reinit.spec.training.iterations, reinit.spec.training.epochs) == (None, 2)
        assert reinit.spec.mask == find(plan, "ticket", level).spec.mask  # and a control's the ticket's
        assert find(plan, "fine-tune", level).spec.training.lr == 0.5
    assert find(plan, "slow", 0).id == find(plan, "ticket", 0).id


def test_watching_is_no_part_of_the_identity():
    plain, watched = small(), small(arms=["early-bird"])
    dense = find(watched, "early-bird", 0)
    assert dense.id == find(plain, "ticket", 0).id
    assert find(plain, "ticket", 0).observe.masks == ()
    (watch,) = dense.observe.masks
    assert (watch.early_bird.threshold, watch.early_bird.window) == (0.1, 5)
    assert len(watch.rates) == 3
    again = item_from_json(json.loads(json.dumps(dense.as_json())))
    assert again == dense
    for level in (1, 2, 3):
        job = find(watched, "early-bird", level)
        assert search_of(watched, job).needs == (dense.id,)
        assert job.spec.initial == find(plain, "ticket", level).spec.initial
        assert job.id != find(small(arms=["one-shot"]), "one-shot", level).id
    curves_alone = small(pruning__early_bird={"threshold": 0.05})
    assert find(curves_alone, "ticket", 0).observe.masks[0].early_bird.threshold == 0.05


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (
            {"arms": ["edge-popup"], "pruning.scope": "global", "pruning.rate": 0.98, "pruning.rounds": 2},
            "a supermask at level 2 would leave layer 'output' no weight; lower pruning.rounds to 1, set",
        ),
        ({"arms": [{"edge-popup": {"training": {"lrr": 1}}}]}, "training of 'edge-popup': unknown field 'lrr'"),
        ({"arms": [{"ticket": {"training": {"lr": -1}}}]}, r"arms: training of 'ticket'\.lr: .*greater than 0"),
        ({"arms": [{"ticket": {"weights": "init"}}]}, "only the arms edge-popup and supermask take weights"),
        ({"arms": [{"edge-popup": {"weights": "signed"}}]}, "signed-constant"),
        (
            {"arms": ["edge-popup", {"edge-popup": {"name": "b"}}, "edge-popup-trained"]},
            "edge-popup-trained: the study has several arms with masks for it: .*edge-popup, b",
        ),
        ({"pruning.early_bird": {"threshold": 2}}, r"pruning\.early_bird\.threshold=2"),
        ({"pruning.early_bird": {"windw": 2}}, "unknown field 'pruning.early_bird.windw'; did you mean 'window'"),
        (
            {
                "arms": [{"fine-tune": {"training": {"gamma": 0.5}}}, {"lr-rewind": {"training": {"warmup": 9}}}],
                "training.warmup": 1501,
            },
            "warmup=1501 is longer than the budget",
        ),
        (
            {"arms": [{"fine-tune": {"training": {"milestones": [9]}}}], "training.schedule": "step",
             "training.milestones": [5]},
            "arm 'fine-tune': its training is invalid: milestones and schedule: step need each other",
        ),
    ],
)  # fmt: skip
def test_what_an_arm_can_not_do_is_said(settings, match):
    refused(match, **settings)


# What a scheme leaves as its constructor made it


def test_the_plan_names_the_layers_that_a_scheme_does_not_draw():
    network = {"name": "layout_nets:turned"}
    (line,) = small(network=network | {"init": "kaiming-normal"}).notes
    assert line.startswith("note: network.init: kaiming-normal draws linear and convolution layers; ")
    assert line.endswith(" keep their constructor's weights: matrix")  # the Conv1D and the transposed one are drawn
    assert small(network=network).notes == ()
    assert small(network={"name": "small_nets:mlp", "init": "kaiming-normal"}).notes == ()


# Some trials of a study


def test_the_later_trials_alone_are_those_of_the_whole_study():
    arms = ["ticket", "reinit"]
    whole, part = small(trials=4, arms=arms), small(trials=2, first_trial=2, arms=arms)
    assert [row for row in whole.rows if row.trial >= 2] == list(part.rows)
    assert {row.trial for row in part.rows} == {2, 3}


def test_the_later_trials_alone_with_connectivity():
    whole, part = (small(trials=3 - first, first_trial=first, connectivity={"levels": [0, 1]}) for first in (0, 1))
    assert [pair for pair in whole.pairs if pair.trial >= 1] == list(part.pairs)
    assert part.pairs


def test_the_first_trial_is_a_number():
    for wrong in (-1, "x", 1.5):
        refused("first_trial", first_trial=wrong)
