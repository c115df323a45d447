"""A graph computes what its module does, and what it can't hold is refused by the layer's name."""

import pytest
import torch
from export_networks import Separable, Series, randomised
from torch import nn
from torch.nn import functional

from tombola.errors import InputError
from tombola.export import graph as g
from tombola.export.graph_run import run
from tombola.export.graph_trace import trace
from tombola.networks import NetworkSettings, factory


class Calls(nn.Module):
    """A forward pass given as a function of the module and the example."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv = nn.Conv2d(3, 3, 3, padding=1, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(3, 3, 2)
        self.lstm = nn.LSTM(8, 8)
        self.register_buffer("offset", torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1))

    def forward(self, x):
        return self.function(self, x)


def assert_same(module, shape):
    graph = trace(module, shape)
    examples = torch.randn(3, *shape)
    with torch.no_grad():
        torch.testing.assert_close(run(graph, examples), module.eval()(examples), rtol=1e-4, atol=1e-5)
    for node in graph:
        assert set(node.inputs) <= {other.name for other in graph.nodes[: graph.nodes.index(node)]}
    return graph


@pytest.mark.parametrize("name", ["lenet-300-100", "conv-2", "resnet-20", "vgg-11"])
def test_our_networks(name):
    graph = assert_same(factory(NetworkSettings(name=name), (3, 32, 32), 10)(), (3, 32, 32))
    module = factory(NetworkSettings(name=name), (3, 32, 32), 10)()
    names = {node.weight_name for node in graph if isinstance(node, g.Linear | g.Conv)}
    assert names == {name for name, parameter in module.named_parameters() if parameter.dim() > 1}


@pytest.mark.parametrize(("network", "shape"), [(Separable, (3, 21, 18)), (Series, (4, 40))])
def test_networks_that_no_example_uses(network, shape):
    assert_same(randomised(network(), 0.6), shape)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: (x - m.offset) / 2 + 1 - x.mul(3),
        lambda m, x: 2 - functional.pad(x, (1, 2, 0, 1), value=0.5),
        lambda m, x: functional.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        lambda m, x: functional.max_pool2d(x, (2, 3), stride=1, dilation=2),
        lambda m, x: functional.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        lambda m, x: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False, divisor_override=5),
        lambda m, x: functional.adaptive_max_pool2d(x, (3, 5)).flatten(1),
        lambda m, x: torch.cat(x.split([1, 2], 1)[::-1], 1)[:, :, 1::2],
        lambda m, x: x.permute(0, 2, 3, 1).clamp(-0.5, 0.5) @ torch.eye(3),
        lambda m, x: functional.log_softmax(x.flatten(1), -1),
        lambda m, x: functional.gelu(x, approximate="tanh").mean(-1),
        lambda m, x: functional.hardsigmoid(functional.elu(x, 0.3)).unsqueeze(1).squeeze(1),
    ],
)
def test_operators(function):
    assert_same(Calls(function), (3, 8, 9))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda m, x: m.conv(x), "layer 'conv' uses the operator 'pad' of mode 'reflect'"),
        (lambda m, x: m.up(x), "layer 'up' uses the operator 'conv_transpose2d'"),
        (lambda m, x: m.lstm(x[:, 0])[0], "uses"),
        (lambda m, x: x.view(1, -1), "'view' across examples"),
        (lambda m, x: x - x.mean(0), "across examples"),
        (lambda m, x: x.flip(0), "'flip'"),
        (lambda m, x: x + torch.rand(1), "computes different outputs in two calls"),
        (lambda m, x: x / len(x), "depends on the number of examples"),
        (lambda m, x: x.view(2, -1).view(x.shape) if len(x) == 2 else x.view(7, -1), "fails on a batch of 1"),
        (lambda m, x: {"scores": x}, "must return one tensor that depends on its input, not a dict"),
        (lambda m, x: x if x.sum() > 0 else -x, "can't be traced"),
        (lambda m, x: (x, x), "must return one tensor"),
        (lambda m, x: torch.ones(2, 3), "must return one tensor"),
        (lambda m, x: x * float("inf"), "not finite"),
        (lambda m, x: functional.max_pool2d(x.mean(1), 2), "'max_pool2d' on examples without an axis of channels: add"),
        (lambda m, x: functional.avg_pool2d(x.mean(1), 2), "'avg_pool2d' on examples without an axis of channels"),
        (lambda m, x: functional.adaptive_avg_pool2d(x.mean(1), 2), "'adaptive_avg_pool2d' on examples without"),
        (lambda m, x: functional.adaptive_max_pool2d(x.mean(1), 2), "'adaptive_max_pool2d' on examples without"),
        (lambda m, x: functional.max_pool1d(x.mean((1, 2)), 2), "'max_pool1d' on examples without an axis"),
    ],
)
def test_what_is_refused(function, words):
    with pytest.raises(InputError, match=words):
        trace(Calls(function), (3, 8, 8))


def test_a_refusal_names_layer_operator_and_remedy():
    with pytest.raises(g.Unsupported) as caught:
        trace(nn.Sequential(nn.Linear(4, 4), nn.Softplus()), (4,))
    assert (caught.value.layer, caught.value.operator) == ("1", "the operator 'softplus'")
    assert "onnx" in str(caught.value)


def in_place(m, x):
    y = x * 2
    y += 1
    functional.relu_(y)
    return y.flatten(1)


def through_a_view(m, x):
    y = x * 2
    functional.relu_(y.view(x.shape[0], -1))
    return y


def test_changes_in_place():
    assert_same(Calls(in_place), (3, 4, 4))
    with pytest.raises(g.Unsupported, match="changed in place through a view"):
        trace(Calls(through_a_view), (3, 4, 4))


def test_tracing_leaves_the_module_as_it_was(capfd):
    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten()).train()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = torch.get_rng_state()
    trace(module, (3, 5, 5))
    assert all(each.training for each in module.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())
    assert torch.equal(state, torch.get_rng_state())
    assert capfd.readouterr() == ("", "")


class Picky(nn.Module):
    """It refuses batches of one, with an exception of a given type."""

    def __init__(self, error):
        super().__init__()
        self.linear = nn.Linear(4, 3)
        self.error = error

    def forward(self, x):
        if len(x) == 1:
            raise self.error
        return self.linear(x)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("give more than one"), "give more than one"),
        (KeyError("a\nb"), "a.*b"),
        (IndexError(), "IndexError"),
    ],
)
def test_a_forward_pass_that_fails_on_one_example_is_refused_in_one_sentence(error, said):
    with pytest.raises(InputError, match=rf"fails on a batch of 1 \(.*{said}.*\); let it take batches") as caught:
        trace(Picky(error), (4,))
    assert len(str(caught.value).splitlines()) == 1


def test_a_forward_pass_may_refuse_an_input_in_its_own_words():
    with pytest.raises(InputError, match=r"^give two$"):
        trace(Picky(InputError("give two")), (4,))
