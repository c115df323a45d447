"""Patterns in whole studies."""

from __future__ import annotations

from pathlib import Path

import pytest

import tombola
from tombola.errors import InputError
from tombola.pruning.patterns import Pattern
from tombola.studies import make_plan
from tombola.work import MaskSearch

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
            # The ten rows of the output layer are no whole number of blocks.
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
