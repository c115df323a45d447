"""Live paths against taking weights away one by one, and masks that overlap by a known amount."""

from __future__ import annotations

from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.nn import functional

import tombola
import tombola.running.devices as devices
from tombola.analysis.layers import dead_units, layer_densities
from tombola.analysis.overlap import chance, chance_of_all, mask_overlap, overlaps
from tombola.errors import InputError
from tombola.networks import examine
from tombola.pruning import Mask
from tombola.pruning.live_paths import Untraceable, live_paths
from tombola.running.results import Results


class Residual(nn.Module):
    """Convolutions with a stride, a shortcut, normalisation, and functions called as such."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 3, padding=1, stride=2)
        self.shortcut = nn.Conv2d(4, 4, 1, stride=2)
        self.output = nn.Linear(4, 3)

    def forward(self, inputs):
        hidden = torch.relu(self.norm(self.first((inputs - 0.5) / 2)))
        hidden = functional.relu(self.second(hidden)) + self.shortcut(hidden)
        return self.output(hidden.mean(dim=(2, 3)))


def random_mask(module: nn.Module, density: float, seed: int) -> Mask:
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: weight.shape for name, weight in module.named_parameters() if weight.dim() > 1}
    return Mask({name: torch.rand(shape, generator=generator) < density for name, shape in shapes.items()})


def without_each(module: nn.Module, mask: Mask, shape: tuple[int, ...], seed: int) -> dict[str, torch.Tensor]:
    """Return which weights the output of a network of random positive weights depends on, found by taking each away."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        values = torch.rand(parameter.shape, generator=generator).double() + 0.5
        parameter.data = values * mask[name] if name in mask else torch.zeros_like(values)
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.weight.data.fill_(1.0)
    module.double().eval()
    example = torch.rand(1, *shape, generator=generator).double() + 2.0
    before = module(example).sum()
    found = {}
    for name, keep in mask.items():
        found[name] = torch.zeros_like(keep)
        flat = dict(module.named_parameters())[name].data.view(-1)
        for position in range(len(flat)):
            kept, flat[position] = flat[position].item(), 0.0
            found[name].view(-1)[position] = bool((module(example).sum() - before).abs() > 1e-12)
            flat[position] = kept
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("density", [0.15, 0.4])
def test_live_weights_are_those_that_the_output_depends_on(density, seed):
    chain = nn.Sequential(
        nn.Flatten(), nn.Linear(18, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)
    )
    for module, shape in ((chain, (2, 3, 3)), (Residual(), (2, 6, 6))):
        mask = random_mask(module, density, seed)
        live = live_paths(module, mask, shape)
        expected = without_each(module, mask, shape, seed)
        for name in mask:
            assert torch.equal(live.mask[name], expected[name]), name
        if module is chain:
            assert torch.equal(live.inputs.flatten(), expected["1.weight"].any(0))


def test_dead_units_of_a_chain_by_taking_them_away_one_after_another():
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4))
    for seed in range(20):
        mask = random_mask(module, 0.12, seed)
        keeps = [keep.numpy().copy() for keep in mask.values()]
        while True:  # a unit goes when all its incoming or all its outgoing weights are gone
            before = sum(keep.sum() for keep in keeps)
            for one, next_one in pairwise(keeps):
                dead = ~one.any(1) | ~next_one.any(0)
                one[dead], next_one[:, dead] = False, False
            if before == sum(keep.sum() for keep in keeps):
                break
        live = live_paths(module, mask, (12,))
        for found, expected in zip(live.mask.values(), keeps, strict=True):
            assert np.array_equal(found.numpy(), expected)


def test_a_maximum_hides_no_path():
    module = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1, 1))
    keep = torch.zeros(1, 1, 3, 3, dtype=torch.bool)
    keep[0, 0, 0, 0] = keep[0, 0, 2, 2] = True  # each reaches into another corner of the window
    mask = Mask({"0.weight": keep, "3.weight": torch.ones(1, 1, dtype=torch.bool)})
    live = live_paths(module, mask, (1, 2, 2))
    assert torch.equal(live.mask["0.weight"], keep)
    odd = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 1))
    assert live_paths(odd, random_mask(odd, 1.0, 0), (1, 5, 5)).mask.is_full


def test_the_module_is_left_as_it_was():
    module = Residual()
    module.norm.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    modes = [each.training for each in module.modules()]
    live_paths(module, random_mask(module, 0.5, 0), (2, 6, 6))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert modes == [each.training for each in module.modules()]


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.exit = nn.MultiheadAttention(2, 1, batch_first=True), nn.Linear(2, 2)

    def forward(self, inputs):
        return self.exit(self.attention(inputs[:, None], inputs[:, None], inputs[:, None])[0][:, 0])


class Remembering(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.core, self.exit = layer(2, 2, batch_first=True), nn.Linear(2, 2)

    def forward(self, inputs):
        return self.exit(self.core(inputs[:, None])[0][:, 0])


class Bare(nn.Module):
    def __init__(self, product):
        super().__init__()
        self.matrix, self.product = nn.Parameter(torch.randn(2, 2)), product

    def forward(self, inputs):
        return self.product(inputs, self.matrix)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (Attentive(), "in_proj_weight"),
        (Remembering(nn.LSTM), "weight_ih_l0"),
        (Remembering(nn.GRU), "weight_ih_l0"),
        (Bare(torch.matmul), "matrix"),
        (Bare(nn.functional.linear), "matrix"),
        (Bare(lambda x, w: torch.einsum("ni,io->no", x, w)), "matrix"),
        (nn.Sequential(nn.Unflatten(1, (2, 1)), nn.ConvTranspose1d(2, 2, 1), nn.Flatten()), "1.weight"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), "parametrizations.weight.original0"),
    ],
)
def test_units_of_other_matrices_are_not_guessed(module, name):
    """A mask that covers them is not a reason to take their first dimension for units."""
    coverage = None if "parametrizations" in name else examine(module, (2,))
    mask = Mask({"weight": torch.ones(2, 2, dtype=torch.bool)}) if coverage is None else Mask.full(coverage.shapes())
    assert coverage is None or any(name in each for each in coverage.sizes())
    with pytest.raises(Untraceable, match=f"{name} is not a weight of a linear or convolution layer"):
        live_paths(module, mask, (2,))


def test_a_result_that_is_no_tensor_cannot_be_followed():
    class Pair(nn.Linear):
        def forward(self, inputs):
            return super().forward(inputs), inputs

    with pytest.raises(Untraceable, match="returns a tuple"):
        live_paths(Pair(2, 2), Mask({"weight": torch.ones(2, 2, dtype=torch.bool)}), (2,))


class Squares(nn.Linear):
    def forward(self, inputs):
        return super().forward(inputs) * inputs.sum()


class Table(nn.Linear):
    def __init__(self):
        super().__init__(2, 2)
        self.table = nn.Parameter(torch.ones(2, 2))

    def forward(self, inputs):
        return super().forward(inputs) + self.table


@pytest.mark.parametrize(
    ("module", "why"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), "softmax"),
        (nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), "layer_norm"),
        (Squares(2, 2), "mul"),
        (Table(), "table is not a weight"),
    ],
)
def test_what_cannot_be_followed_is_said(module, why):
    mask = Mask(
        {
            name: torch.ones(2, 2, dtype=torch.bool)
            for name, _ in module.named_parameters()
            if "weight" in name and "1." not in name
        }
    )
    with pytest.raises(Untraceable, match=why):
        live_paths(module, mask, (2,))


@pytest.mark.parametrize(("kept", "also", "size"), [(3, 4, 8), (1, 1, 5), (6, 7, 8), (8, 8, 8), (0, 3, 8), (2, 2, 2)])
def test_chance_is_the_mean_over_all_masks(kept, also, size):
    values = []
    for one in combinations(range(size), kept):
        for other in combinations(range(size), also):
            either = set(one) | set(other)
            values.append(len(set(one) & set(other)) / len(either) if either else 1.0)
    assert chance(kept, also, size) == pytest.approx(np.mean(values))


def test_chance_over_several_layers_against_random_masks():
    kept, also, sizes = np.array([20, 40]), np.array([30, 10]), np.array([100, 50])
    rng = np.random.default_rng(0)
    values = []
    for _ in range(4000):
        both = sum(
            len(set(rng.choice(size, k, replace=False)) & set(rng.choice(size, a, replace=False)))
            for k, a, size in zip(kept, also, sizes, strict=True)
        )
        values.append(both / (100 - both))
    error = np.std(values) / len(values) ** 0.5
    assert abs(chance_of_all(kept, also, sizes) - np.mean(values)) < 4 * error
    large = np.array([2000, 30]), np.array([2500, 40]), np.array([235200, 1000])
    one_layer = chance_of_all(*(each[:1] for each in large))
    assert one_layer == pytest.approx(chance(2000, 2500, 235200), rel=1e-3)
    assert chance_of_all(*(np.zeros(2, int), np.zeros(2, int), sizes)) == 1.0


def test_overlaps_of_given_masks():
    def mask(*positions: int) -> Mask:
        keep = torch.zeros(8, dtype=torch.bool)
        keep[list(positions)] = True
        return Mask({"a": keep.reshape(2, 4), "b": torch.ones(1, 2, dtype=torch.bool)})

    rows = {row["layer"]: row for row in overlaps([mask(0, 1), mask(1, 2), mask(0, 1)])}
    assert rows["a"]["jaccard"] == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert (rows["a"]["low"], rows["a"]["high"], rows["a"]["pairs"]) == (pytest.approx(1 / 3), 1.0, 3)
    assert rows["b"]["jaccard"] == rows["b"]["chance"] == 1.0
    assert rows["all"]["jaccard"] == pytest.approx((3 / 5 + 1 + 3 / 5) / 3)
    assert rows["all"]["density"] == pytest.approx(0.4)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A tiny study of two trials, trained for a moment."""
    folder: Path = tmp_path_factory.mktemp("masks") / "demo"
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "cores", lambda: 1)
        changes = {"trials": 2, "training.iterations": 20, "training.evaluate_every": 20, "pruning.rounds": 2}
        study = tombola.Study.load("demo", arms=["ticket", "reinit"], **{"pruning.rate": 0.9}, **changes)
        found = tombola.run(study, folder, workers=0, figures=False, quiet=True)
    torch.set_num_threads(threads)
    return found


def test_tables_of_a_study_agree_with_its_masks(results):
    densities, units, overlap = layer_densities(results), dead_units(results, trial=None), mask_overlap(results)
    assert units.attrs["untraced"] == ""
    frame = results.frame()
    assert len(densities) == 3 * len(frame)
    assert len(units) == 5 * len(frame)
    totals = densities.groupby(["arm", "trial", "level"])["remaining"].sum()
    for row in frame.to_dict("records"):
        place = (row["arm"], row["trial"], row["level"])
        mask = results.ticket(row["trial"], row["level"], row["arm"]).mask
        assert totals[place] == row["remaining_weights"]
        rows = units[(units[["arm", "trial", "level"]] == list(place)).all(axis=1)].set_index("layer")
        assert list(rows.index) == ["input", *mask, "all"]
        assert rows["remaining"].drop(["input", "all"]).to_dict() == mask.counts()
        assert rows.loc["all", "density"] == pytest.approx(row["density"])
        assert (rows["live"] <= rows["remaining"]).all()
        assert rows.loc["input", "units"] == 64
        first = next(iter(mask.values()))
        assert rows.loc["input", "dead"] >= int((~first.any(0)).sum())
        assert rows["units"].drop(["input", "all"]).sum() == rows.loc["all", "units"] == 160
    sparse = units[(units.level == 2) & (units.layer == "all")]
    assert (sparse["dead"] > 0).all()
    assert (sparse["effective_density"] < sparse["density"]).all()
    dense = units[(units.level == 0) & (units.layer == "all")]
    assert (dense["dead"] == 0).all()

    assert set(overlap["level"]) == {1, 2}
    one, other = (results.ticket(trial, 1).mask for trial in (0, 1))
    row = overlap.query("arm == 'ticket' and level == 1 and layer == 'all'").iloc[0]
    assert row["jaccard"] == pytest.approx(one.overlap(other))
    pd.testing.assert_frame_equal(
        dead_units(results, 1, ["reinit"]), units[(units.trial == 1) & (units.arm == "reinit")].reset_index(drop=True)
    )


def test_unknown_arm_and_trial(results):
    with pytest.raises(InputError, match="no arm 'tickets'; did you mean 'ticket'"):
        dead_units(results, arms=["tickets"])
    with pytest.raises(InputError, match="no trial 7: it has trials 0 to 1"):
        dead_units(results, trial=7)
