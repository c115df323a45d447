"""Transfer: tickets found on other data, by another recipe or from another seed, and trained here."""

import json
import shutil

import numpy as np
import pytest
import torch
from small_studies import find, run_study, small_study
from torch import nn

import tombola
from tombola.errors import InputError
from tombola.pruning import Mask
from tombola.running.initial_state import mask_with_head
from tombola.running.relative_cost import relative_costs
from tombola.running.results import Results
from tombola.studies import load_study, make_plan
from tombola.studies.loading import dump_study

SGD = {"training": {"optimizer": "sgd", "lr": 0.1}, "seed": 3}


def arm(take, source=SGD, **more):
    return {"ticket": {"name": take, "transfer": {"from": source, "take": take}} | more}


TAKES = ["mask", "mask-and-weights", "mask-and-trained"]


def images(folder, classes, name="other.npz", size=8):
    """Write images of `size` x `size` pixels, and return a data section."""
    generator = np.random.RandomState(0)
    arrays = {}
    for part, count in (("train", 300), ("test", 60)):
        arrays[f"y_{part}"] = targets = np.arange(count) % classes
        noise = generator.randint(0, 100, (count, size, size))
        arrays[f"x_{part}"] = (noise + 15 * targets[:, None, None] % 150).astype(np.uint8)
    np.savez(folder / name, **arrays)
    return {"source": "npz", "path": str(folder / name), "validation": 60}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("transfer") / "out"
    return run_study(folder, arms=["ticket", *map(arm, TAKES)])


def results_of(found, name, level=2):
    plan, store = found
    return store.load(find(plan, name, level).id)


def source_runs(plan):
    """Return the ids of the source's runs by label."""
    return {item.label.partition("trial-0.")[2]: item.id for item in plan.work.values() if "source: " in item.group}


@pytest.mark.parametrize("take", TAKES)
def test_the_mask_is_the_sources_and_the_weights_are_what_is_taken(found, take):
    plan, store = found
    mine, source = results_of(found, take), source_runs(plan)
    theirs = store.load(source["ticket.level-02"])
    own = store.load(find(plan, "ticket", 0).id).snapshots["start"]
    assert mine.mask == theirs.mask != results_of(found, "ticket").mask
    weights = {
        "mask": own,
        "mask-and-weights": theirs.snapshots["start"],
        "mask-and-trained": theirs.snapshots["final"],
    }
    for name, tensor in mine.snapshots["start"].items():
        expected = weights[take][name]
        assert torch.equal(tensor, expected.masked_fill(~mine.mask[name], 0.0) if name in mine.mask else expected)
    assert mine.facts["iterations"] == 12


def test_the_sources_runs_are_those_of_the_source_studied_alone(found):
    plan, _ = found
    alone = make_plan(small_study(training__optimizer="sgd", training__lr=0.1, seed=3))
    assert set(source_runs(plan).values()) == set(alone.work)


def test_the_cost_of_finding_a_trained_ticket_is_counted(found):
    frame = Results(*found).frame().query("level == 2").set_index("arm").iterations_before
    assert frame.to_dict() == {"ticket": 0, "mask": 0, "mask-and-weights": 0, "mask-and-trained": 12}


def test_only_what_is_needed_of_a_source_is_planned():
    plan = make_plan(small_study(arms=[{"snip": {"transfer": {"from": SGD, "take": "mask"}, "name": "snip"}}]))
    assert source_runs(plan).keys() == {"mask.snip.level-02", "mask.snip.level-01"}
    assert all(set(item.needs) <= set(plan.work) for item in plan.work.values())


@pytest.mark.parametrize("rewind", [0, 4])
def test_rewound_tickets_start_where_the_sources_do(rewind):
    plan = make_plan(small_study(arms=["ticket", *map(arm, TAKES)], rewind=rewind))
    source = source_runs(plan)
    starts = {take: find(plan, take, 2).spec.initial for take in TAKES}
    assert starts["mask"] == find(plan, "ticket", 2).spec.initial
    assert (starts["mask-and-weights"].run, starts["mask-and-weights"].iteration) == (source["dense"], rewind)
    assert (starts["mask-and-trained"].trained, starts["mask-and-trained"].iteration) == (True, 0)
    assert plan.work[source["dense"]].observe.snapshots == ((rewind,) if rewind else ())


@pytest.mark.parametrize("rewind", [0, 4])
@pytest.mark.parametrize("rule", ["reinit", "one-shot-reinit", "late-reinit"])
def test_an_arm_that_draws_its_weights_draws_them_here(rule, rewind):
    """With a mask of the source it starts as it would start under a mask of the study."""
    settings = {"from": SGD, "take": "mask"}
    plan = make_plan(small_study(arms=[rule, {rule: {"name": "from", "transfer": settings}}], rewind=rewind))
    own, other = find(plan, rule, 2).spec, find(plan, "from", 2).spec
    assert (other.initial, other.seed) == (own.initial, own.seed)
    assert other.mask.source != own.mask.source
    assert other.initial.draw == 1 or plan.work[other.initial.run].spec.initial.draw == 1
    assert all(set(item.needs) <= set(plan.work) for item in plan.work.values())


def test_the_weights_of_edge_popup_come_with_its_mask():
    transfer = {"from": SGD, "take": "mask-and-weights"}
    plan = make_plan(small_study(arms=[{"edge-popup-trained": {"name": "from", "transfer": transfer}}], rewind=4))
    spec = find(plan, "from", 1).spec
    assert spec.initial.run == spec.mask.run
    assert plan.work[spec.initial.run].kind == "supermask"
    assert spec.initial.iteration == 0


def test_controls_apply_to_what_was_transferred():
    arms = [arm("mask"), arm("mask-and-weights"), arm("mask", name="shuffled", shuffle=True)]
    plan = make_plan(small_study(arms=arms))
    one, other = find(plan, "mask", 1).spec, find(plan, "shuffled", 1).spec
    assert (one.mask.search, one.initial) == (other.mask.search, other.initial)
    assert other.mask.shuffle is not None


# Heads of other widths


def test_an_output_layer_of_another_width_is_drawn_anew_and_that_is_said(tmp_path):
    source = {"data": images(tmp_path, 4), "training": {"batch_size": 20}}
    plan, store = run_study(tmp_path / "x" / "out", arms=["ticket", *(arm(take, source) for take in TAKES)])
    assert any("output layer" in note and "own starting weights and a random mask" in note for note in plan.notes)
    theirs = store.load(source_runs(plan)["ticket.level-02"])
    own = store.load(find(plan, "ticket", 0).id).snapshots["start"]
    for take in TAKES:
        mine = store.load(find(plan, take, 2).id)
        head = find(plan, take, 2).spec.mask.head
        assert head == plan.coverage.output
        assert "own starting weights and a random mask" in mine.facts["remarks"]["head"]
        for name, keep in mine.mask.items():
            if name != head:
                assert torch.equal(keep, theirs.mask[name])
        density = theirs.mask[head].double().mean()
        assert int(mine.mask[head].sum()) == round(float(density) * mine.mask[head].numel())
        layer = head.removesuffix(".weight")
        assert torch.equal(mine.snapshots["start"][head], own[head].masked_fill(~mine.mask[head], 0.0))
        assert torch.equal(mine.snapshots["start"][f"{layer}.bias"], own[f"{layer}.bias"])
    ticket = Results(plan, store).ticket(arm="mask-and-weights", level=1)
    assert ticket.build(trust=True) is not None


def test_a_source_costs_the_multiply_adds_of_its_own_network(tmp_path):
    source = {"data": images(tmp_path, 4), "training": {"batch_size": 20}}
    plan = make_plan(small_study(arms=[arm("mask-and-weights", source)]))
    classes, inputs = plan.coverage.shapes()[plan.coverage.output]
    size = 1 - (classes - 4) * inputs / plan.coverage.multiply_adds
    unit = plan.study.training.batch_size
    cost = relative_costs(plan)[find(plan, "mask-and-weights", 1).id]
    assert cost == pytest.approx(20 / unit * size + plan.density(1))


def test_the_head_keeps_its_density_in_random_places():
    mask = Mask({"a": torch.ones(3, 2, dtype=torch.bool), "b": torch.tensor([[True, False, False, False]] * 2)})
    full = Mask({"a": torch.ones(3, 2, dtype=torch.bool), "b": torch.ones(5, 4, dtype=torch.bool)})
    one, other = (mask_with_head(mask, "b", full, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    assert one.counts() == {"a": 6, "b": 5}
    assert one != other


# What can't be


@pytest.mark.parametrize(
    ("transfer", "match"),
    [
        ({"from": {}}, r"transfer\.from=\{\}: "),
        ({"from": {"pruning": {}}}, r"transfer\.from: a source has no 'pruning' of its own; it may have data, task"),
        ({"from": {"dat": "digits"}}, "a source has no 'dat' of its own"),
        ({"from": SGD, "take": "weights"}, "take='weights': must be 'mask', 'mask-and-weights' or 'mask-and-trained'"),
        ({"take": "mask"}, r"arms\.0\.transfer\.from is missing"),
        ({"from": "no-such-study"}, "unknown study 'no-such-study'"),
        ({"from": {"training": {"lr": -1}}}, r"ticket-transferred\.transfer\.from\.training\.lr: "),
        ({"from": {"data": "no-such-data"}}, "unknown source 'no-such-data'"),
        ({"from": {"network": {"name": "lenet-300-100"}}}, "transfer can't carry layer .*whose shape is .* here"),
    ],
)
def test_a_transfer_that_can_not_be(transfer, match):
    with pytest.raises(InputError, match=match) as caught:
        make_plan(small_study(arms=[{"ticket": {"transfer": transfer}}]))
    assert len(str(caught.value).splitlines()) == 1


def headed(input_shape, classes, norm=True):
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 6, bias=False), nn.BatchNorm1d(6) if norm else nn.Identity())
    return nn.Sequential(body, nn.ReLU(), nn.Linear(6, classes, bias=norm))  # without norm, only matrices


@pytest.mark.parametrize("take", ["mask", "mask-and-weights", "mask-and-trained"])
def test_weights_of_a_network_with_other_tensors_are_refused_while_planning(take):
    network = {"name": "test_transfer:headed", "arguments": {"norm": False}}
    study = {"network": "test_transfer:headed", "arms": [arm(take, {"network": network})]}
    if take == "mask":
        make_plan(small_study(**study))
        return
    missing = r"the tensor '0\.2\.bias', whose shape is missing in the source and \(6,\) here; set transfer.take: mask"
    with pytest.raises(InputError, match=missing):
        make_plan(small_study(**study))


def test_images_of_another_size_are_refused_by_layer_and_shapes(tmp_path):
    source = {"data": images(tmp_path, 10, size=6), "training": {"batch_size": 20}}
    with pytest.raises(InputError, match=r"can't carry layer '1', whose shape is \(\d+, 36\) .* \(\d+, 64\) here"):
        make_plan(small_study(arms=[arm("mask", source)]))


@pytest.mark.parametrize("rule", ["fine-tune", "edge-popup"])
def test_arms_that_can_not_be_transferred(rule):
    with pytest.raises(InputError, match="can't be transferred; take ticket, one-shot"):
        make_plan(small_study(arms=[{rule: {"transfer": {"from": SGD}}}]))


@pytest.mark.parametrize(
    ("arm", "match"),
    [
        ({"reinit": {"transfer": {"from": SGD}}}, "'mask-and-weights' would take no weights of the source; set take"),
        ({"late-reinit": {"transfer": {"from": SGD}}}, "it draws new weights here"),
        (
            {"of": "ticket", "reinit": True, "transfer": {"from": SGD, "take": "mask-and-trained"}},
            "take='mask-and-trained' would take no weights",
        ),
        (
            {"edge-popup-trained": {"transfer": {"from": SGD, "take": "mask"}}},
            "scores were trained for, so its mask can't be taken alone; set transfer.take: mask-and-weights",
        ),
    ],
)
def test_weights_that_can_not_be_taken(arm, match):
    with pytest.raises(InputError, match=match) as caught:
        make_plan(small_study(arms=[arm]))
    assert len(str(caught.value).splitlines()) == 1


def test_an_arm_of_its_own_pattern_has_no_source():
    own = {"rule": "ticket", "pattern": {"n": 2, "m": 4}, "transfer": {"from": SGD}}
    with pytest.raises(InputError, match=r"pattern can't stand beside transfer; set pruning\.pattern"):
        make_plan(small_study(arms=[own]))


def test_a_source_that_ends_before_the_rewind_iteration():
    short = {"training": {"iterations": 3}}
    with pytest.raises(InputError, match="arm 'mask': the source must train beyond iteration 4"):
        make_plan(small_study(arms=[arm("mask", short)], rewind=4))


# Files


def test_a_study_by_name_stands_for_its_data_and_recipe():
    study = load_study("lenet-mnist", {"arms": [arm("mask", "lenet-fashion")]})
    source = study.arms[0].transfer.source
    assert source["data"]["source"] == "fashion-mnist"
    assert "pruning" not in source


def test_a_source_that_is_not_finished_is_finished_by_the_plan(tmp_path):
    """A folder may stand for a study: what lies there is used where it is done, and trained where it is not."""
    out = tmp_path / "a" / "source"
    results = tombola.run(small_study(training__lr=0.02), out, workers=0, figures=False, quiet=True)
    lost = results.frame().query("level == 1").job.item()
    (folder,) = (out / "jobs").glob(f"*{lost}")
    shutil.rmtree(folder)
    study = small_study(arms=[arm("mask-and-trained", str(out))])
    here = tombola.run(study, tmp_path / "a" / "here", workers=0, figures=False, quiet=True)
    assert here.missing() == 0
    assert here.store.has(here.plan.work[lost])


def test_a_study_with_transfer_is_read_back_the_same(tmp_path):
    study = small_study(arms=["ticket", *map(arm, TAKES), arm("mask", {"data": images(tmp_path, 4)}, name="own")])
    (tmp_path / "study.yaml").write_text(dump_study(study))
    assert load_study(str(tmp_path / "study.yaml")) == study
    assert str(tmp_path) not in dump_study(study.without_folder())


def test_a_run_through_the_front_door_is_opened_again(tmp_path):
    study = small_study(arms=["ticket", arm("mask")], pruning__rounds=1)
    results = tombola.run(study, tmp_path / "a" / "out", workers=0, figures=False, quiet=True)
    again = Results.open(tmp_path / "a" / "out")
    assert again.frame().equals(results.frame())
    assert again.missing() == 0


def test_repeats_of_trained_weights_are_refused(tmp_path):
    arm = {"random": {"per_trial": 2, "transfer": {"from": {"seed": 1}, "take": "mask-and-trained"}}}
    with pytest.raises(InputError, match="per_trial=2 with take: mask-and-trained"):
        make_plan(small_study(arms=["ticket", arm]))


def test_paths_of_a_source_are_relative_to_the_study_file(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir()
    study = small_study(seed=3)
    (folder / "source.yaml").write_text(dump_study(study))
    section = images(folder, 10)
    arms = [{"ticket": {"name": "a", "transfer": {"from": "source.yaml"}}}]
    arms += [{"rule": "ticket", "name": "b", "transfer": {"from": {"data": section | {"path": "other.npz"}}}}]
    (folder / "target.yaml").write_text(json.dumps(json.loads(small_study().model_dump_json()) | {"arms": arms}))
    monkeypatch.chdir(tmp_path)
    loaded = load_study("mine/target.yaml")
    assert loaded.arms[0].transfer.source["seed"] == 3
    assert loaded.arms[1].transfer.source["data"]["path"] == str(folder / "other.npz")
