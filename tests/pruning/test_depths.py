"""The masks of all levels at once are those that selection gives one by one."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tombola.pruning import Mask, select
from tombola.pruning.depths import depths


@given(st.integers(0, 2**32 - 1), st.sampled_from(["layer", "global"]), st.integers(0, 6), st.integers(1, 5))
def test_depths_are_the_levels_that_selection_keeps(seed, scope, minimum, count):
    """Ties, negative scores, layers that are left alone or smaller than the minimum."""
    generator = np.random.default_rng(seed)
    shapes = {"a": (4, 5), "b": (3, 1), "c": (2, 2, 2)}
    scores = {
        name: torch.from_numpy(generator.integers(-3, 4, shape).astype(np.float32)) for name, shape in shapes.items()
    }
    named = [name for name in shapes if generator.random() < 0.8]
    same = generator.random(count).round(1)
    rounds = [{name: float(rate if scope == "global" else generator.random()) for name in named} for rate in same]
    found = depths(scores, rounds, scope, minimum)
    for level in range(count):
        mask = select(scores, Mask.full(shapes), rounds[: level + 1], scope, minimum)
        assert Mask({name: depth > level for name, depth in found.items()}) == mask


def test_scores_are_left_alone():
    scores = {"a": torch.tensor([[3.0, 1.0, 2.0]]), "b": torch.tensor([[5.0, 4.0]])}
    copies = {name: tensor.clone() for name, tensor in scores.items()}
    found = depths(scores, [{"a": 0.5, "b": 0.5}], "global", minimum=1)
    assert all(torch.equal(scores[name], copies[name]) for name in scores)
    assert found["a"].tolist() == [[1, 0, 0]]
    assert found["b"].tolist() == [[1, 1]]


def test_no_rounds():
    assert depths({"a": torch.ones(2, 2)}, [])["a"].tolist() == [[0, 0], [0, 0]]
