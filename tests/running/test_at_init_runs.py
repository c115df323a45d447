"""Arms at initialisation as they run: weights, counts, examples, controls, and collapse that is said."""

import io

import numpy as np
import pytest
import torch
from rich.console import Console
from small_studies import find, run_study, small_study

import tombola
from tombola import data
from tombola.errors import InputError
from tombola.networks import factory, initialised
from tombola.running.collapse import collapse
from tombola.running.progress import Display
from tombola.running.results import Results
from tombola.seeds import Seeds
from tombola.studies import make_plan

METHODS = ["snip", "grasp", "synflow", "magnitude-at-init", "random", "random-erk"]
CONTROLS = [
    {"of": "snip", "shuffle": True, "per_trial": 2},
    {"of": "snip", "reinit": True},
    {"of": "snip", "shuffle": True, "reinit": True},
]


@pytest.mark.parametrize(
    "changes",
    [
        {"pruning__rate": 0.6, "pruning__output_rate": 0.2},
        {"network": "small_nets:conv_norm_dropout", "pruning__scope": "global", "pruning__exclude": ["output"]},
        {"network": "small_nets:Dropping", "rewind": 3, "pruning__rate": [0.4, 0.7], "pruning__minimum": 20},
        {"network": "small_nets:TiedWithSwitch", "pruning__rate": 0.6},
        {"network": "small_nets:frozen", "network__init": "pytorch"},
    ],
)
def test_weights_are_the_original_initialisation_and_counts_are_exact(tmp_path, changes):
    plan, store = run_study(tmp_path, arms=METHODS, **changes)
    dense = store.load(find(plan, "snip", 0).id)
    for arm in METHODS:
        for level in (1, 2):
            result = store.load(find(plan, arm, level).id)
            assert result.mask.remaining == plan.remaining[level]
            if "pruning__exclude" in changes:
                assert bool(result.mask[plan.coverage.output].all())
            for name, tensor in result.snapshots["start"].items():
                expected = dense.snapshots["start"][name]
                keep = result.mask.get(name, result.mask.get("a.weight") if name == "b.weight" else None)
                assert torch.equal(tensor, expected if keep is None else expected * keep)
    frame = Results(plan, store).frame()
    assert set(frame[frame.level == 0].status) == {"ok"}


def test_a_residual_network_is_pruned_at_initialisation(tmp_path):
    """Images with channels, batch norm, shortcuts: a ResNet of 8 layers, which is the one of 20 cut short."""
    generator = np.random.default_rng(0)
    arrays = {}
    for part, examples in (("train", 120), ("test", 10)):
        arrays[f"x_{part}"] = generator.integers(0, 256, (examples, 3, 8, 8), dtype=np.uint8)
        arrays[f"y_{part}"] = np.arange(examples) % 4
    np.savez(tmp_path / "images.npz", **arrays)
    plan, store = run_study(
        tmp_path / "out",
        arms=METHODS,
        network={"name": "resnet-20", "arguments": {"depth": 8, "width": 4}},
        data={"source": "npz", "path": str(tmp_path / "images.npz"), "validation": 20},
        training={"iterations": 2, "batch_size": 50},
        pruning={"scope": "global", "exclude": ["output", "*shortcut*"], "rate": 0.7, "rounds": 2},
    )
    for arm in METHODS:
        result = store.load(find(plan, arm, 2).id)
        assert result.mask.remaining == plan.remaining[2]
        left_alone = [name for name in result.mask if "shortcut" in name or name == plan.coverage.output]
        assert len(left_alone) > 1
        assert all(bool(result.mask[name].all()) for name in left_alone)
    assert "collapsed" not in store.facts(find(plan, "synflow", 2).id)["remarks"]


def test_the_examples_are_recorded_balanced_and_of_the_training_split(tmp_path):
    plan, store = run_study(tmp_path, arms=[{"snip": {"per_trial": 2}}, "grasp", "synflow"], pruning__init_examples=3)

    def examples(arm, level, repeat=0):
        return store.facts(find(plan, arm, level, repeat=repeat).id)["remarks"].get("examples")

    first = examples("snip", 1)
    assert examples("snip", 2) == examples("grasp", 1) == first
    assert examples("snip", 1, repeat=1) != first
    assert examples("synflow", 1) is None
    job = find(plan, "snip", 1)
    splits = data.split(data.load(job.spec.data), job.spec.data.validation, Seeds(job.spec.seed, job.spec.trial))
    assert splits.train.targets[first].bincount().tolist() == [3] * 10


def test_a_method_of_ones_own_is_given_examples_too(tmp_path):
    plan, store = run_study(tmp_path, arms=[{"small_nets:own_at_init": {"name": "own"}}])
    result = store.load(find(plan, "own", 2).id)
    assert result.mask.remaining == plan.remaining[2]
    assert len(result.facts["remarks"]["examples"]) == 100


def test_the_mask_is_that_of_the_formula_on_those_examples(tmp_path):
    """SNIP computed again from what is recorded, by a network that is built and initialised here."""
    plan, store = run_study(tmp_path, arms=["snip"])
    job = find(plan, "snip", 2)
    result = store.load(job.id)
    seeds = Seeds(job.spec.seed, job.spec.trial)
    splits = data.split(data.load(job.spec.data), job.spec.data.validation, seeds)
    module = initialised(
        factory(job.spec.network, splits.input_shape, splits.classes), job.spec.network.init, seeds.value("init")
    )
    chosen = result.facts["remarks"]["examples"]
    loss = torch.nn.functional.cross_entropy(module(splits.train.inputs[chosen]), splits.train.targets[chosen])
    loss.backward()
    scores = {name: (each * each.grad).abs() for name, each in module.named_parameters() if name in result.mask}
    kept = torch.cat([scores[name][keep] for name, keep in result.mask.items()])
    gone = torch.cat([scores[name][~keep] for name, keep in result.mask.items()])
    assert len(kept) == plan.remaining[2]
    assert float(kept.min().detach()) >= float(gone.max().detach()) * (1 - 1e-5)


def test_controls_shuffle_within_layers_and_draw_weights_anew(tmp_path):
    plan, store = run_study(tmp_path, arms=["snip", "reinit", *CONTROLS])
    for level in (1, 2):
        mask = store.load(find(plan, "snip", level).id).mask
        shuffled = [store.load(find(plan, "snip-shuffled", level, repeat=repeat).id) for repeat in (0, 1)]
        for each in shuffled:
            assert each.mask.counts() == mask.counts()
            assert each.mask != mask
        assert shuffled[0].mask != shuffled[1].mask
        both = store.load(find(plan, "snip-shuffled-reinit", level).id)
        assert both.mask == shuffled[0].mask
        fresh = store.load(find(plan, "snip-reinit", level).id)
        assert fresh.mask == mask
        other = initialised(
            factory(plan.study.network, plan.data.input_shape, plan.data.classes),
            plan.study.network.init,
            Seeds(plan.study.seed, 0).value("init", 1),
        ).state_dict()
        for name, keep in mask.items():
            assert torch.equal(fresh.snapshots["start"][name], other[name] * keep)
            assert torch.equal(both.snapshots["start"][name], other[name] * both.mask[name])


def test_random_masks_of_levels_are_independent_and_repeats_too(tmp_path):
    plan, store = run_study(tmp_path, arms=[{"random": {"per_trial": 2}}], pruning__rate=0.5, network="lenet-300-100")
    masks = [store.load(find(plan, "random", level, repeat=r).id).mask for level, r in ((1, 0), (2, 0), (1, 1))]
    for other in masks[1:]:
        both = (masks[0] & other).remaining
        assert both == pytest.approx(masks[0].remaining * other.density, rel=0.1)


# Collapse


def test_a_layer_that_is_emptied_is_named_everywhere(tmp_path):
    """By a criterion that likes one layer alone, over all layers together: then no path is left either."""
    plan, store = run_study(
        tmp_path, pruning__scope="global", pruning__rate=0.05, pruning__criterion="small_nets:last_layers_first"
    )
    job = find(plan, "ticket", 2)
    assert store.facts(find(plan, "ticket", 1).id)["remarks"] == {}
    assert store.facts(job.id)["remarks"] == {"collapsed": ["5.weight"], "no_path": True}
    assert list(Results(plan, store).frame().status) == ["ok", "ok", "collapsed"]
    text = io.StringIO()
    display = Display(plan, store, 1, Console(file=text, width=500), quiet=True)
    display.finished(job, "done")
    assert text.getvalue() == (
        f"collapsed {job.label}: the mask empties layer 5, and no path leads from an input to the output; lower "
        "pruning.rounds, set pruning.minimum, or choose another arm\n"
    )
    from tombola.html.reproducibility import sheet

    results = Results(plan, store)
    (runs,) = [dict(group.facts) for group in sheet(results, results.frame()).groups if group.title == "Runs"]
    assert runs["collapsed"].startswith("1 run; ticket at level 2: the mask empties layer 5, and no path")
    assert "diverged" not in runs


def test_layers_that_are_all_there_may_still_lead_nowhere(tmp_path):
    from small_nets import mlp

    module = mlp((4,), 3, hidden=(5, 5))
    keep = {
        name: torch.zeros_like(each, dtype=torch.bool) for name, each in module.named_parameters() if each.dim() > 1
    }
    for each in keep.values():
        each[0, 0] = True
    assert collapse(module, tombola.Mask(keep), (4,)) == {}
    keep["3.weight"] = keep["3.weight"].roll(1, 1)
    assert collapse(module, tombola.Mask(keep), (4,)) == {"no_path": True}


def test_of_a_network_that_can_not_be_followed_only_layers_are_told():
    class Single(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.only = torch.nn.Linear(2, 2)

        def forward(self, values):
            return self.only(values) @ torch.ones(2, 2)

    empty = tombola.Mask({"only.weight": torch.zeros(2, 2, dtype=torch.bool)})
    assert collapse(Single(), empty, (2,)) == {"collapsed": ["only.weight"]}


# What can't be


def test_too_few_examples_of_a_class_are_told_before_anything_is_trained(tmp_path):
    study = small_study(arms=["snip"], pruning__init_examples=500)
    with pytest.raises(InputError, match=r"pruning\.init_examples=500: class 0 has 1\d\d training examples"):
        tombola.run(study, tmp_path / "out", workers=0, quiet=True, figures=False)
    assert not (tmp_path / "out").exists()


def test_scores_that_are_no_numbers():
    with pytest.raises(
        InputError, match=r"grasp: scores of '1\.weight' are not numbers: .*another network\.init, or an"
    ):
        make_plan(small_study(network="small_nets:bent", arms=["grasp"]))
    assert len(make_plan(small_study(network="small_nets:bent", arms=["snip", "synflow"])).work) == 1 + 2 * 4
