"""Alignment: permuted networks are put back, matching is that of a plain loop, and what is not a chain is named."""

from functools import partial
from itertools import permutations
from types import SimpleNamespace

import pytest
import small_nets
import torch
from small_studies import interpolations, run_study, small_study
from torch import nn

from tombola.analysis import barriers
from tombola.errors import InputError
from tombola.networks import initialised
from tombola.networks.conv import conv
from tombola.networks.lenet import lenet
from tombola.networks.resnet import cifar_resnet
from tombola.networks.vgg import vgg
from tombola.running.interpolations import ends_of
from tombola.running.results import Results
from tombola.studies import make_plan
from tombola.studies.connectivity import Connectivity, check_align
from tombola.training.align import aligned, chain_of
from tombola.training.interpolation import between

NETWORKS = {
    "lenet": (partial(lenet, (1, 8, 8), 10, (30, 12)), (1, 8, 8)),
    "conv": (partial(conv, (3, 8, 8), 10, (6, 8), (20, 14)), (3, 8, 8)),
    "vgg": (partial(vgg, (3, 16, 16), 10, 11, 4), (3, 16, 16)),
    "nested": (lambda: nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(9, 7), nn.Tanh()), nn.Linear(7, 3)), (9,)),
}


def trained_like(build, seed):
    """Return a network whose biases and statistics are not constants."""
    module = initialised(build, "pytorch", seed)
    generator = torch.Generator().manual_seed(seed)
    state = {
        name: tensor + 0.1 * torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for name, tensor in module.state_dict().items()
    }
    module.load_state_dict(state)
    return module.eval()


def shuffled(module, seed=0):
    """Permute the hidden units of a chain, layer by layer, by what PyTorch's layers are: no code of ours."""
    generator = torch.Generator().manual_seed(seed)
    layers = [layer for layer in module.modules() if not isinstance(layer, nn.Sequential)]
    products = [layer for layer in layers if isinstance(layer, nn.Linear | nn.Conv2d)]
    order = None
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            for tensor in (layer.weight.data, layer.bias.data, layer.running_mean, layer.running_var):
                tensor.copy_(tensor[order].clone())
        if layer not in products:
            continue
        if order is not None:
            weight = layer.weight.data
            columns = weight.view(len(weight), len(order), -1)
            weight.copy_(columns[:, order].reshape(weight.shape).clone())
        if layer is not products[-1]:
            order = torch.randperm(len(layer.weight), generator=generator)
            layer.weight.data.copy_(layer.weight.data[order].clone())
            if layer.bias is not None:
                layer.bias.data.copy_(layer.bias.data[order].clone())
    return module


@pytest.mark.parametrize("name", NETWORKS)
def test_a_permuted_network_is_put_back(name):
    build, shape = NETWORKS[name]
    x = torch.randn(5, *shape)
    original, moved = trained_like(build, 1), shuffled(trained_like(build, 1))
    assert torch.allclose(original(x), moved(x), atol=1e-5)  # it computes the same
    assert not all(
        torch.equal(a, b) for a, b in zip(original.state_dict().values(), moved.state_dict().values(), strict=True)
    )
    back = aligned(chain_of(build()), moved.state_dict(), original.state_dict())
    for key, tensor in original.state_dict().items():
        assert torch.equal(back[key], tensor), key
    for start, same in ((back, True), (moved.state_dict(), False)):  # no barrier once aligned, and one before
        middle = build().eval()
        middle.load_state_dict(between(start, original.state_dict(), 0.5))
        assert torch.allclose(middle(x), original(x), atol=1e-6) == same


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_aligned_computes_the_same_and_is_no_less_alike(name):
    build, shape = NETWORKS[name]
    one, other = trained_like(build, 1), trained_like(build, 2)
    found = aligned(chain_of(build()), one.state_dict(), other.state_dict())
    moved = build().eval()
    moved.load_state_dict(found)
    x = torch.randn(5, *shape)
    assert torch.allclose(moved(x), one(x), atol=1e-4)

    def likeness(weights):
        return sum(float((weights[key] * tensor.detach()).sum()) for key, tensor in other.named_parameters())

    assert likeness(found) > likeness(one.state_dict())


def test_of_one_hidden_layer_it_finds_the_best_of_all_orders():
    build = partial(lenet, (5,), 3, (5,))
    one, other = (trained_like(build, seed).state_dict() for seed in (3, 4))

    def likeness(order):
        order = list(order)
        return (
            (one["fc1.weight"][order] * other["fc1.weight"]).sum()
            + (one["fc1.bias"][order] * other["fc1.bias"]).sum()
            + (one["output.weight"][:, order] * other["output.weight"]).sum()
        )

    best = max(permutations(range(5)), key=likeness)
    found = aligned(chain_of(build()), one, other)
    assert torch.equal(found["fc1.weight"], one["fc1.weight"][list(best)])


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (
            partial(cifar_resnet, (3, 8, 8), 10, 8, 4),
            r"can't align a ResNet, whose own forward pass joins first \(Conv2d\)",
        ),
        (
            lambda: nn.Sequential(nn.Linear(4, 4), nn.LSTM(4, 4)),
            "layer '1', of type LSTM; it aligns an nn.Sequential of",
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)),
            "layer '0', of type Conv2d; .* convolutions without groups",
        ),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(8, 3)), "layer '1', whose inputs are not the outputs"),
        (lambda: nn.Sequential(*[nn.Linear(4, 4)] * 2), "a network that uses a layer twice"),
        (
            lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.BatchNorm1d(16), nn.Linear(16, 2)),
            "layer '2', which has another number of units",
        ),
    ],
)
def test_what_is_no_chain_is_refused_by_its_layer(module, match):
    with pytest.raises(InputError, match=match) as caught:
        chain_of(module())
    assert len(str(caught.value).splitlines()) == 1


def test_a_study_aligns_its_interpolations(tmp_path):
    settings = {"levels": [0, 1], "points": 3, "between": ["copies"]}
    plain, store = run_study(tmp_path / "a" / "plain", connectivity=settings, pruning__rounds=1)
    plan, store = run_study(tmp_path / "b" / "out", connectivity=settings | {"align": True}, pruning__rounds=1)
    assert {item.id for item in interpolations(plan)}.isdisjoint(item.id for item in interpolations(plain))
    (item,) = [item for item in interpolations(plan) if "level-00" in item.label]
    one, other = (store.load(run).snapshots["final"] for run in (item.spec.one, item.spec.other))
    ends = aligned(chain_of(small_nets.mlp((64,), 10)), one, other)
    points = Results(plan, store).connectivity().query("level == 0")
    middle = {key: (ends[key] + other[key]) / 2 for key in other}
    from small_studies import OPTIONS

    from tombola.running.problem import build_of, splits_of

    splits = splits_of(item, OPTIONS)
    module = build_of(item, splits)().eval()
    module.load_state_dict(middle)
    wrong = (module(splits.test.inputs).argmax(1) != splits.test.targets).double().mean()
    assert points.query("position == 0.5")["test_error"].item() == pytest.approx(float(wrong))
    assert len(barriers(points)) == 1


def test_networks_that_can_not_be_aligned_are_refused_when_planned():
    study = small_study(network="small_nets:Dropping", connectivity={"levels": [0], "align": True})
    with pytest.raises(InputError, match=r"connectivity\.align can't align"):
        make_plan(study)


def two_layers(*between, inputs=4, hidden=8):
    return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), *between, nn.Linear(inputs, 3))


@pytest.mark.parametrize(
    ("module", "shape", "match"),
    [
        (lambda: two_layers(nn.Flatten(), inputs=24), (3, 4), r"layer '0', whose units can't be permuted on such"),
        (lambda: two_layers(nn.AvgPool1d(3, 1, 1), inputs=8), (4,), "layer '2', which mixes the units of the linear"),
        (lambda: two_layers(nn.Flatten(), inputs=8), (4,), None),  # the same layers, and flat inputs
        (lambda: NETWORKS["conv"][0](), NETWORKS["conv"][1], None),
    ],
)
def test_a_permutation_that_changes_the_function_is_refused_by_layer(module, shape, match):
    settings = Connectivity(levels=[0], align=True)
    if match is None:
        check_align(settings, module(), shape)
        return
    with pytest.raises(InputError, match=match) as caught:
        check_align(settings, module(), shape)
    assert len(str(caught.value).splitlines()) == 1


def test_ends_are_refused_where_their_permutation_computes_something_else():
    build = partial(two_layers, nn.Flatten(), inputs=24)
    run = SimpleNamespace(snapshots={"final": build().state_dict()})
    other = SimpleNamespace(snapshots={"final": build().state_dict()})
    with pytest.raises(InputError, match="layer '0', whose units can't be permuted"):
        ends_of(SimpleNamespace(align=True), run, other, build, (3, 4))
    assert ends_of(SimpleNamespace(align=False), run, other, build, (3, 4))[0] is run.snapshots["final"]
