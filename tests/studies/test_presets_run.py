"""Every preset runs: its network, recipe, criterion and arms on made data of the right shape, for two tiny levels."""

import math

import numpy as np
import pytest

import tombola
from tombola.data import describe
from tombola.studies import load_study, preset_names

EXAMPLES, HELD_OUT = 140, 8  # just more than the largest batch


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Archives of random images by shape."""
    folder, generator = tmp_path_factory.mktemp("made"), np.random.default_rng(0)

    def archive(shape):
        path = folder / ("x".join(map(str, shape)) + ".npz")
        if not path.exists():
            arrays = {}
            for part, examples in (("train", EXAMPLES), ("test", 20)):
                arrays[f"x_{part}"] = generator.integers(0, 256, (examples, *shape), dtype=np.uint8)
                arrays[f"y_{part}"] = np.arange(examples) % 10
            np.savez(path, **arrays)
        return {"source": "npz", "path": str(path), "validation": HELD_OUT}

    return archive


QUICK = (
    "demo",
    "lenet-mnist",
    "lenet-mnist-global",
    "lenet-mnist-rewind",
    "lenet-mnist-supermask",
    "lenet-fashion",
    "conv2-cifar10-at-init-10k",
    "conv4-cifar10-stability-10k",
)
"""The presets that `make test` runs; `make test-all` runs every one."""


MOVING = ("gradual", "set", "rigl", "ac-dc")  # their masks move for several iterations


def on_made_data(arm, data):
    """Return the settings of an arm whose source, where it has one, has made data too."""
    settings = arm.model_dump(mode="json", exclude_defaults=True, by_alias=True)
    if arm.transfer:
        settings["transfer"]["from"]["data"] = data | {"validation": HELD_OUT}
        settings["transfer"]["from"].pop("training", None)
    return {"rule": arm.rule} | settings


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in preset_names()]
)
def test_a_preset_runs_for_two_tiny_levels(name, made, tmp_path):
    preset = load_study(name)
    shape = (3, 32, 32) if preset.data.source == "npz" else describe(preset.data).input_shape
    changes = {
        "data": made(shape),
        "training": {"iterations": 2, "warmup": min(1, preset.training.warmup)},
        "pruning": {"rounds": 2},
        "trials": 1,
    }
    several = isinstance(preset.rewind, tuple)
    if several:
        changes["rewind"] = [0, 1]
    if preset.connectivity:  # its levels and iterations are beyond these
        levels = [1, 2] if "levels" in (preset.connectivity.between or ()) else [2]
        changes |= {"rewind": 1, "connectivity": {"levels": levels, "points": 3}}
    if preset.retraining:
        changes["retraining"] = {"iterations": 1}
    if shape == (3, 32, 32):  # millions of weights: an arm is enough, and little is stored of what is sparse
        changes |= {"arms": ["ticket"], "pruning": {"rounds": 2, "rate": 0.8}}
    elif preset.pruning.target:  # in two rounds nothing might be left of a layer
        changes["pruning"]["rate"] = 0.4
    if preset.pruning.densities:
        changes["pruning"] = {"densities": preset.pruning.densities[:2]}
    if any(arm.rule in MOVING for arm in preset.arms):
        changes["training"]["iterations"] = 20
    if any(arm.transfer for arm in preset.arms):
        changes["arms"] = [on_made_data(arm, made(shape)) for arm in preset.arms]
    study = tombola.Study.load(name, **changes)
    for field in ("optimizer", "lr", "momentum", "weight_decay", "batch_size", "schedule", "milestones", "augment"):
        assert getattr(study.training, field) == getattr(preset.training, field)
    results = tombola.run(study, tmp_path, workers=0, figures=False, quiet=True)
    frame = results.frame()
    assert set(frame.status) <= {"ok", "collapsed"}  # two steps and so high a rate may empty a layer
    labels = list(dict.fromkeys(row.arm for row in results.plan.rows))
    assert sorted(set(frame.arm)) == sorted(labels)
    assert sorted(set(frame.level)) == [0, 1, 2]
    assert all(math.isfinite(loss) for loss in frame.final_val_loss)
    if study.pruning.criterion != "stability":  # which skips a round whose last evaluation was the best
        assert frame[frame.arm == labels[0]].remaining_weights.is_monotonic_decreasing
        assert frame[frame.arm == labels[0]].remaining_weights.is_unique
    points = results.connectivity()
    assert set(points["line"]) == {item.id for item in results.plan.work.values() if item.kind == "interpolation"}
    assert points["test_error"].between(0, 1).all()
