"""Scores on activations: norms against PyTorch's unfolding, ranks by hand, and the arm that uses them."""

import pytest
import torch
from small_studies import OPTIONS, find, run_study, search_of, small_study
from torch import nn
from torch.nn import functional

from tombola.errors import InputError
from tombola.pruning import CRITERIA, Snapshots
from tombola.pruning.activations import input_norms
from tombola.studies import make_plan
from tombola.training.order import Order


def recurrent(input_shape, classes):
    """A network with an LSTM."""
    return Recurrent(classes)


class Recurrent(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.lstm, self.output = nn.LSTM(8, 5, batch_first=True), nn.Linear(5, classes)

    def forward(self, x):
        return self.output(self.lstm(x[:, 0])[0][:, -1])


def norms_of(layer, x):
    return input_norms(layer, ["weight"], lambda: layer(x))["weight"]


class Direct(nn.Module):
    """Its first matrix belongs to no layer."""

    def __init__(self, classes):
        super().__init__()
        self.first, self.output = nn.Parameter(torch.randn(64, 8)), nn.Linear(8, classes)

    def forward(self, x):
        return self.output(torch.relu(x.flatten(1) @ self.first))


def direct(classes):
    return Direct(classes)


class ByKeyword(nn.Module):
    """Calls its layers by keyword."""

    def __init__(self, conv):
        super().__init__()
        self.conv, self.linear = conv, nn.Linear(4 * 6 * 6, 3)

    def forward(self, x):
        return self.linear(input=self.conv(input=x).flatten(1))


class Renamed(nn.Linear):
    """A linear layer whose input has another name."""

    def forward(self, numbers):
        return super().forward(numbers)


def test_layers_that_are_called_by_keyword_have_the_same_norms():
    x, module = torch.randn(5, 2, 8, 8), ByKeyword(nn.Conv2d(2, 4, 3))
    names = ["conv.weight", "linear.weight"]
    found = input_norms(module, names, lambda: module(x))
    plain = nn.Sequential(module.conv, nn.Flatten(), module.linear)
    expected = input_norms(plain, ["0.weight", "2.weight"], lambda: plain(x))
    for name, other in zip(names, expected, strict=True):
        assert torch.equal(found[name], expected[other])


def test_norms_are_not_those_of_some_calls_alone():
    x, layer = torch.randn(5, 4), Renamed(4, 3)
    with pytest.raises(InputError, match=r"can't see the inputs of layer 'weight'.*; set .* or exclude the layer"):
        input_norms(layer, ["weight"], lambda: (layer(x), layer(numbers=x)))


def test_norms_of_layers_that_need_none_are_left_out_where_they_can_not_be_seen():
    module, x = recurrent((1, 8, 8), 3), torch.randn(4, 1, 8, 8)
    names = [name for name, weight in module.named_parameters() if weight.dim() > 1]
    found = input_norms(module, names, lambda: module(x), ["output.weight"])
    assert list(found) == ["output.weight"]
    assert list(input_norms(nn.ModuleList([module, nn.Linear(2, 2)]), ["1.weight"], lambda: None, [])) == []


def test_what_a_study_excludes_needs_no_norms(tmp_path):
    changes = {"network": "test_wanda:direct", "pruning__criterion": "wanda", "pruning__exclude": ["first"]}
    plan, store = run_study(tmp_path, pruning__rounds=1, **changes)
    mask = store.load(find(plan, "ticket", 1).id).mask
    assert not bool(mask["output.weight"].all())
    assert bool(mask["first"].all())


def test_norms_of_a_linear_layer_are_over_examples_and_positions():
    x = torch.randn(4, 6, 5)
    assert torch.allclose(norms_of(nn.Linear(5, 3), x), x.double().flatten(0, 1).norm(dim=0)[None])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": 1},
        {"stride": 2, "padding": 1},
        {"dilation": 2, "padding": "same"},
        {"padding": 1, "padding_mode": "circular"},
    ],
)
def test_norms_of_a_convolution_are_those_of_the_unfolded_input(options):
    x = torch.randn(3, 4, 9, 8)
    layer = nn.Conv2d(4, 6, 3, **options)
    padded = functional.pad(
        x,
        layer._reversed_padding_repeated_twice,
        mode="circular" if layer.padding_mode == "circular" else "constant",
    )
    columns = functional.unfold(padded.double(), 3, layer.dilation, 0, layer.stride)  # [N, inputs * 9, places]
    expected = columns.square().sum((0, 2)).sqrt().view(1, 4, 3, 3)
    assert torch.allclose(norms_of(layer, x), expected)


def test_norms_of_a_grouped_convolution_are_those_of_each_output_of_its_own():
    x = torch.randn(3, 4, 7)
    found = norms_of(nn.Conv1d(4, 6, 2, groups=2), x)
    columns = x.double().unfold(2, 2, 1).square().sum((0, 2)).sqrt()  # [channels, window]
    assert found.shape == (6, 2, 2)
    for output in range(6):
        group = output // 3
        assert torch.allclose(found[output], columns[2 * group : 2 * group + 2])


def test_scores_are_ranks_of_weight_times_norm_within_each_output():
    """Output 0: products 6, 1, 2; output 1: 0.2, 0.5 and a pruned weight. Shares of three, and of two."""
    weights = {"w": torch.tensor([[3.0, -1.0, 0.5], [0.1, 0.5, 0.0]])}
    kept = {"w": torch.tensor([[True, True, True], [True, True, False]])}
    norms = {"w": torch.tensor([[2.0, 1.0, 4.0]])}
    seen = Snapshots(weights, weights, weights, weights, kept=kept, norms=lambda: norms)
    scores = CRITERIA["wanda"](seen)["w"]
    assert scores[0].tolist() == pytest.approx([1.0, 1 / 3, 2 / 3])
    assert scores[1, :2].tolist() == [0.5, 1.0]
    assert scores[1, 2] > 1


def test_an_arm_prunes_the_dense_run_by_it_beside_tickets_of_another_criterion(tmp_path):
    arms = ["ticket", "one-shot", {"one-shot": {"criterion": "wanda"}}]
    plan, store = run_study(tmp_path, arms=arms, pruning__output_rate=0.2)
    item = find(plan, "one-shot-wanda", 2)
    assert (search_of(plan, item).criterion, search_of(plan, find(plan, "one-shot", 2)).criterion) == (
        "wanda",
        "magnitude",
    )
    dense = store.load(find(plan, "ticket", 0).id)
    mask = store.load(item.id).mask

    from tombola.running.problem import build_of, splits_of

    splits = splits_of(plan.work[dense.job], OPTIONS)
    module = build_of(plan.work[dense.job], splits)().eval()
    module.load_state_dict(dense.snapshots["final"])
    (batch,) = Order(len(splits.train), 60, plan.work[dense.job].spec.seeds).batches(12, 1)
    x = splits.train.select(batch).inputs
    for layer in module:
        if isinstance(layer, nn.Linear):
            (name,) = [name for name, weight in module.named_parameters() if weight is layer.weight]
            products = layer.weight.detach().abs().double() * x.double().norm(dim=0)
            for output, keep in zip(products, mask[name], strict=True):
                count = int(keep.sum())
                assert abs(count - mask[name].double().mean() * keep.numel()) < 1.01  # an equal share of each output
                assert torch.equal(
                    keep, torch.zeros_like(keep).scatter(0, output.argsort()[len(output) - count :], True)
                )
        x = layer(x).detach()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"network": "test_wanda:recurrent", "pruning__criterion": "wanda"},
            "wanda needs the inputs of layer 'lstm.weight_ih_l0', of type LSTM; it knows linear layers.*; "
            "set pruning.criterion to magnitude, or exclude the layer in pruning.exclude",
        ),
        ({"arms": [{"ticket": {"criterion": "wanda"}}]}, "criterion belongs to the arms one-shot and one-shot-reinit"),
        ({"arms": [{"one-shot": {"criterion": "wnada"}}]}, "unknown criterion 'wnada'"),
        (
            {"arms": [{"one-shot": {"criterion": "wanda", "transfer": {"from": {"seed": 1}}}}]},
            "criterion can't stand beside transfer",
        ),
    ],
)
def test_what_can_not_be_scored(changes, match):
    with pytest.raises(InputError, match=match) as caught:
        make_plan(small_study(**changes))
    assert len(str(caught.value).splitlines()) == 1
