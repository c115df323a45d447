"""When a mask counts as settled."""

import pytest
import torch
from pydantic import ValidationError

from tombola.training.tracking import EarlyBird, MaskTracker, TrackedMasks


@pytest.mark.parametrize(
    ("threshold", "window", "curve", "settled_at"),
    [
        (0.1, 3, [0.5, 0.3, 0.1, 0.1, 0.09, 0.2], 4),  # at the threshold is enough
        (0.1, 3, [0.05, 0.05, 0.2, 0.05, 0.05, 0.05], 5),  # one that is above starts the count again
        (0.1, 3, [0.05, 0.05], None),  # too few
        (0.1, 1, [0.3, 0.1], 1),
        (0.0, 2, [0.0, 0.0], 1),
        (0.1, 2, [0.11] * 9, None),
    ],
)
def test_the_rule(threshold, window, curve, settled_at):
    rule = EarlyBird(threshold=threshold, window=window)
    found = [place for place in range(len(curve)) if rule.settled(curve[: place + 1])]
    assert (found[0] if found else None) == settled_at


def test_each_level_settles_by_itself_and_only_once():
    watch = TrackedMasks(rates=({"w": 0.5}, {"w": 0.5}), scope="layer", early_bird=EarlyBird(threshold=0.25, window=1))
    watcher = MaskTracker(watch, ["w"])
    steps = ([4.0, 3.0, 2.0, 1.0], [1.0, 2.0, 4.0, 3.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])
    for iteration, weights in enumerate(steps):
        watcher.note(10 * iteration, {"w": torch.tensor([weights])})
    # Level 1 keeps {0, 1}, {2, 3}, {2, 3}, {2, 3}; level 2 keeps {0}, {2}, {3}, {3}.
    assert watcher.facts == {
        "iteration": [10, 20, 30],
        "distance": [[1.0, 0.0, 0.0], [0.5, 0.5, 0.0]],
        "settled": [20, 30],
    }


@pytest.mark.parametrize("settings", [{"threshold": 1.1}, {"threshold": -0.1}, {"window": 0}])
def test_settings_that_can_not_be(settings):
    with pytest.raises(ValidationError):
        EarlyBird(**settings)
