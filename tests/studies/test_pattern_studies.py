"""Patterns in whole studies."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import tombola
from tombola.errors import InputError
from tombola.networks.axes import Axes
from tombola.pruning.patterns import Pattern
from tombola.running.files import read_json_checked, write_json_checked
from tombola.running.kept_plan import PLAN_FILE, keep_plan, kept_plan
from tombola.studies import make_plan
from tombola.work import MaskSearch, OwnRun

SMALL = {"training.iterations": 30, "training.evaluate_every": 30, "trials": 1}


@pytest.mark.parametrize("pattern", [{"n": 2, "m": 4}, {"block": [4, 1]}, "channel"])
def test_every_arm_of_a_study_obeys_its_pattern(pattern: object, tmp_path: Path) -> None:
    study = tombola.Study.load(
        "demo",
        **SMALL,
        **{"pruning.pattern": pattern, "pruning.rate": 0.25, "pruning.output_rate": 0.25, "pruning.rounds": 2},
        arms=["ticket", "random-mask", "one-shot", {"of": "snip", "shuffle": True}, "magnitude-at-init"],
    )
    results = tombola.run(study, tmp_path, workers=0, quiet=True, figures=False)
    made = Pattern.model_validate(pattern)
    frame = results.frame()
    for row in frame[frame["level"] > 0].itertuples():
        mask = results.ticket(row.trial, row.level, row.arm, row.repeat).mask
        assert mask.remaining < mask.total
        for name, keep in mask.items():
            groups = made.groups(keep.shape).flatten()
            kept, sizes = groups[keep.flatten()].bincount(minlength=int(groups.max()) + 1), groups.bincount()
            if made.n is not None:
                assert bool((kept >= sizes.clamp(max=made.n)).all())
            else:
                assert bool(((kept == 0) | (kept == sizes)).all()), (row.arm, name)
        if pattern == "channel":
            assert bool(mask["output.weight"].all())
        if row.arm in ("ticket", "random-mask") and row.level == 2 and made.n is None:
            # The ten rows of the output layer are not a whole number of blocks.
            assert 0 <= row.remaining_weights - results.plan.remaining[2] <= 4 * row.level


@pytest.mark.parametrize("arm", ["random-erk", "edge-popup", "early-bird"])
def test_arms_that_choose_their_own_masks_are_refused(arm: str, tmp_path: Path) -> None:
    study = tombola.Study.load("demo", **SMALL, **{"pruning.pattern": "channel"}, arms=[arm])
    with pytest.raises(InputError, match="can't follow a pattern"):
        tombola.run(study, tmp_path, workers=0, quiet=True)


def test_no_pattern_leaves_identities_alone() -> None:
    plan = make_plan(tombola.Study.load("demo", **SMALL, arms=["ticket"]))
    search = next(item.spec for item in plan.work.values() if isinstance(item.spec, MaskSearch))
    assert "pattern" not in search.settings()
    patterned = search.model_copy(update={"pattern": Pattern(n=2, m=4)})
    assert patterned.settings()["pattern"] == {"n": 2, "m": 4}
    assert patterned.id != search.id  # which the plan had asked for before the copy was made


TURNED = {
    "up.weight": Axes(outputs=(1,), inputs=(0,), groups=2),
    "hidden.weight": Axes(outputs=(1,), inputs=(0,)),
    "matrix": Axes(outputs=(1,), inputs=(0,)),
}


@pytest.mark.parametrize("pattern", [{"n": 1, "m": 2}, {"block": [2, 1]}, "channel"])
def test_patterns_follow_weights_that_are_stored_the_other_way_round(pattern: object, tmp_path: Path) -> None:
    study = tombola.Study.load(
        "demo",
        **SMALL,
        **{"pruning.pattern": pattern, "pruning.rate": 0.4, "pruning.rounds": 1, "pruning.output_rate": 0.0},
        network={"name": "layout_nets:turned", "init": "kaiming-normal"},
        arms=["ticket", "random-mask", "magnitude-at-init"],
    )
    results = tombola.run(study, tmp_path, workers=0, quiet=True, figures=False)
    made = Pattern.model_validate(pattern)
    for arm in ("ticket", "random-mask", "magnitude-at-init"):
        mask = results.ticket(0, 1, arm).mask
        for name, axes in TURNED.items():
            keep = axes.arranged(mask[name])
            assert not keep.all() or arm == "magnitude-at-init"  # which compares all layers: some stay, some go
            if pattern == "channel":
                assert torch.equal(keep.any(2).any(1), keep.all(2).all(1)), (arm, name)
                if arm != "magnitude-at-init" and name != "up.weight":
                    assert mask[name].any(1).all()  # no input goes
            elif made.n is not None:
                assert bool((keep.unflatten(1, (-1, 2)).sum(2) >= 1).all()), (arm, name)
            else:
                blocks = keep.flatten(1).unflatten(0, (-1, 2))
                assert torch.equal(blocks.any(1), blocks.all(1)), (arm, name)
        if arm == "ticket":
            assert mask.remaining == results.plan.remaining[1]


def test_a_layer_without_known_axes_is_refused_unless_it_is_excluded() -> None:
    network = {"name": "layout_nets:mixing"}
    study = tombola.Study.load("demo", **SMALL, **{"pruning.pattern": {"n": 2, "m": 4}}, network=network)
    with pytest.raises(InputError, match=r"pruning\.pattern: .*'mix', of shape 64x64, .*pruning\.exclude: \[mix\]"):
        make_plan(study)
    excluded = {"pruning.exclude": ["mix"], "pruning.rounds": 1, "pruning.pattern": {"n": 2, "m": 4}}
    assert make_plan(tombola.Study.load("demo", **SMALL, **excluded, network=network)).work


def test_the_layout_is_part_of_the_identity_where_it_decides_the_mask() -> None:
    def searches(**changes: object) -> list[MaskSearch]:
        plan = make_plan(
            tombola.Study.load(
                "demo", **SMALL, **{"pruning.rounds": 1}, **changes, network={"name": "layout_nets:turned"}
            )
        )
        return [item.spec for item in plan.work.values() if isinstance(item.spec, MaskSearch)]

    for search in searches(**{"pruning.pattern": "channel"}):
        assert search.axes == TURNED
        assert search.model_copy(update={"axes": {}}).id != search.id
    assert all("axes" not in search.settings() for search in searches())
    own = searches(arms=["ticket", {"rule": "ticket", "pattern": "channel"}])
    assert [search.axes for search in own if search.pattern] == [TURNED]  # an arm's own pattern


def test_a_trainers_masks_follow_the_layout_too() -> None:
    trainer = {"name": "own_trainer:fit", "metric": "accuracy", "better": "higher", "inputs": (1, 8, 8)}
    study = tombola.Study.model_validate(
        {
            "name": "own",
            "network": {"name": "layout_nets:turned", "arguments": {"input_shape": [1, 8, 8], "classes": 3}},
            "trainer": trainer,
            "trials": 1,
            "arms": ["ticket", "random-mask"],
            "pruning": {"rate": 0.4, "rounds": 1, "pattern": "channel"},
        }
    )
    specs = [item.spec for item in make_plan(study).work.values()]
    (search,) = (spec for spec in specs if isinstance(spec, MaskSearch))
    (shuffle,) = (spec.mask.shuffle for spec in specs if isinstance(spec, OwnRun) and spec.mask and spec.mask.shuffle)
    assert search.axes == shuffle.axes == TURNED


def test_plans_that_recorded_no_axes_still_open(tmp_path: Path) -> None:
    study = tombola.Study.load("demo", **SMALL, **{"pruning.pattern": "channel", "pruning.rounds": 1})
    plan = make_plan(study)
    keep_plan(tmp_path, plan)
    content = read_json_checked(tmp_path / PLAN_FILE)
    for layer in content["coverage"]["layers"]:
        del layer["axes"]
    write_json_checked(tmp_path / PLAN_FILE, content)
    assert kept_plan(tmp_path) == plan
