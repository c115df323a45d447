"""The criteria of Zhou et al. 2019, each against plain loops over the weights of a tiny network."""

import numpy as np
import pytest
import torch
from small_studies import small_study

from tombola.pruning import CRITERIA, Mask, Snapshots, select
from tombola.pruning.criteria import SYNONYMS

NAMES = [
    "large-final",
    "small-final",
    "large-init",
    "small-init",
    "large-init-large-final",
    "small-init-small-final",
    "magnitude-increase",
    "movement",
]


def criterion(name):
    return CRITERIA[SYNONYMS.get(name, name)]


def snapshots(shape=(6, 7), seed=0, kept=None):
    generator = torch.Generator().manual_seed(seed)
    init = {"a": torch.randn(shape, generator=generator), "b": 3 * torch.randn(5, 4, generator=generator)}
    final = {name: weight + torch.randn(weight.shape, generator=generator) for name, weight in init.items()}
    return Snapshots(init, init, final, final, kept=kept or {})


FORMULAS = {
    "small-final": lambda i, f: -abs(f),
    "small-init": lambda i, f: -abs(i),
    "large-final": lambda i, f: abs(f),
    "large-init": lambda i, f: abs(i),
    "magnitude-increase": lambda i, f: abs(f) - abs(i),
    "movement": lambda i, f: abs(f - i),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_each_formula(name):
    seen = snapshots()
    scores = criterion(name)(seen)
    for layer, score in scores.items():
        pairs = zip(seen.init[layer].flatten().tolist(), seen.final[layer].flatten().tolist(), strict=True)
        assert score.flatten().tolist() == pytest.approx([FORMULAS[name](i, f) for i, f in pairs], rel=1e-6)


@pytest.mark.parametrize(("name", "sign"), [("large-init-large-final", 1), ("small-init-small-final", -1)])
@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_both_halves_remove_the_same_share(name, sign, rate):
    """As the paper defines alpha: what is kept lies above one and the same percentile of either ranking."""
    seen = snapshots((9, 11))
    size = seen.final["a"].numel()
    found = select(criterion(name)(seen), Mask.full({"a": (9, 11), "b": (5, 4)}), {"a": rate})["a"].flatten().numpy()
    ranks = [np.argsort(np.argsort(sign * np.abs(w["a"].flatten().numpy()))) for w in (seen.init, seen.final)]
    wanted = size - round(rate * size)
    # The lowest number that, removed by each half alone, leaves no more than is wanted.
    removed = next(n for n in range(size + 1) if sum((ranks[0] >= n) & (ranks[1] >= n)) <= wanted)
    surely = (ranks[0] >= removed) & (ranks[1] >= removed)
    perhaps = (ranks[0] >= removed - 1) & (ranks[1] >= removed - 1)
    assert int(found.sum()) == wanted
    assert (found >= surely).all()
    assert (found <= perhaps).all()


def test_weights_that_are_gone_count_in_no_ranking():
    """Dropping the pruned columns beforehand gives the same order as naming them in `kept`."""
    whole = snapshots()
    kept = torch.ones(6, 7, dtype=torch.bool)
    kept[:, 2:5] = False
    few = [0, 1, 5, 6]
    small = Snapshots({"a": whole.init["a"][:, few]}, {}, {}, {"a": whole.final["a"][:, few]})
    seen = Snapshots(whole.init, {}, {}, {"a": whole.final["a"]}, kept={"a": kept})
    name = "large-init-large-final"
    assert torch.equal(criterion(name)(seen)["a"][:, few], criterion(name)(small)["a"])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["same-sign", "diff-sign"])
def test_weights_of_the_other_sign_go_first_and_each_group_in_its_order(name, form):
    seen = snapshots()
    plain, conditioned = criterion(name)(seen), criterion(f"{name}-{form}")(seen)
    wanted = {n: (seen.init[n] * seen.final[n] > 0) == (form == "same-sign") for n in plain}
    first = torch.cat([conditioned[n][~wanted[n]] for n in plain])
    last = torch.cat([conditioned[n][wanted[n]] for n in plain])
    assert len(first)
    assert len(last)
    assert first.max() < last.min()
    for n, score in plain.items():
        for group in (wanted[n], ~wanted[n]):
            assert torch.equal(score[group].argsort(stable=True), conditioned[n][group].argsort(stable=True))


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_large_final_same_sign_keeps_what_the_papers_formula_keeps(scope):
    """max(0, w_init w_final / |w_init|), Section 5; at a density below the share of weights that kept their sign."""
    seen = snapshots()
    formula = {n: (seen.init[n] * w / seen.init[n].abs()).clamp(min=0) for n, w in seen.final.items()}
    mask, rates = Mask.full({"a": (6, 7), "b": (5, 4)}), {"a": 0.7, "b": 0.7}
    found = select(criterion("large-final-same-sign")(seen), mask, rates, scope)
    assert found == select(formula, mask, rates, scope)


def test_a_synonym_is_the_same_work():
    for name, ours in SYNONYMS.items():
        assert small_study(pruning__criterion=name) == small_study(pruning__criterion=ours)
    assert {name for name in NAMES if name not in CRITERIA} == set(SYNONYMS)
