"""Which modules are multilayer perceptrons."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from tombola.pruning.mask import Mask
from tombola.training.engines.mlp import MlpEngine
from tombola.training.engines.mlp_trace import LinearLayer, mlp_of

Forward = Callable[["Net", Tensor], Tensor]
LAYERS = (LinearLayer("fc1.weight", "fc1.bias", 12, 6), LinearLayer("fc2.weight", None, 6, 3))


class Net(nn.Module):
    """Two layers, and the forward pass that a test gives."""

    def __init__(self, forward: Forward):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(12, 6), nn.Linear(6, 3, bias=False)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.0)
        self.dropping = nn.Dropout(0.5)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


MLPS: dict[str, Forward] = {
    "flatten": lambda net, x: net.fc2(net.act(net.fc1(x.flatten(1)))),
    "named flatten": lambda net, x: net.fc2(net.act(net.fc1(x.flatten(start_dim=1)))),
    "torch.flatten": lambda net, x: net.fc2(torch.relu(net.fc1(torch.flatten(x, 1)))),
    "torch.flatten to the end": lambda net, x: net.fc2(torch.relu(net.fc1(torch.flatten(x, 1, -1)))),
    "view of size": lambda net, x: net.fc2(functional.relu(net.fc1(x.view(x.size(0), -1)))),
    "view of shape": lambda net, x: net.fc2(functional.relu(net.fc1(x.view(x.shape[0], -1)))),
    "view of all sizes": lambda net, x: net.fc2(functional.relu(net.fc1(x.view(x.size()[0], 12)))),
    "view of features": lambda net, x: net.fc2(functional.relu(net.fc1(x.view(-1, 12)))),
    "reshape to a tuple": lambda net, x: net.fc2(net.fc1(x.reshape((x.shape[0], -1))).relu()),
    "torch.reshape": lambda net, x: net.fc2(net.fc1(torch.reshape(x, (-1, 12))).relu_()),
    "dropout of nothing": lambda net, x: net.fc2(net.drop(functional.relu(net.fc1(x.flatten(1)), inplace=True))),
}

OTHERS: dict[str, Forward] = {
    "dropout": lambda net, x: net.fc2(net.dropping(net.act(net.fc1(x.flatten(1))))),
    "dropout in training": lambda net, x: net.fc2(functional.dropout(net.act(net.fc1(x)), 0.5, net.training)),
    "another activation": lambda net, x: net.fc2(torch.tanh(net.fc1(x.flatten(1)))),
    "no activation": lambda net, x: net.fc2(net.fc1(x.flatten(1))),
    "activation first": lambda net, x: net.fc2(net.act(net.fc1(net.act(x.flatten(1))))),
    "activation last": lambda net, x: net.act(net.fc2(net.act(net.fc1(x.flatten(1))))),
    "a residual": lambda net, x: net.fc2(net.act(net.fc1(x)) + x[:, :6]),
    "scaled": lambda net, x: net.fc2(net.act(net.fc1(x / 255))),
    "a layer used twice": lambda net, x: net.fc2(net.act(net.fc1(x)) + net.act(net.fc1(x))),
    "a layer not used": lambda net, x: net.fc1(x.flatten(1)),
    "control flow": lambda net, x: net.fc2(net.act(net.fc1(x if x.sum() > 0 else -x))),
    "other in training": lambda net, x: net.fc2(net.act(net.fc1(2 * x if net.training else x))),
    "other in evaluation": lambda net, x: net.fc2(net.act(net.fc1(x if net.training else 2 * x))),
    "two results": lambda net, x: (net.fc2(net.act(net.fc1(x))), x),  # type: ignore[dict-item, return-value]
    "an inner result": lambda net, x: (net.fc2(net.act(net.fc1(x))), net.fc1(x))[1],
    "flattened wrongly": lambda net, x: net.fc2(net.act(net.fc1(x.flatten()))),
    "viewed wrongly": lambda net, x: net.fc2(net.act(net.fc1(x.view(-1, 6)))),
    "viewed by another dimension": lambda net, x: net.fc2(net.act(net.fc1(x.view(x.size(1), -1)))),
}


@pytest.mark.parametrize("name", MLPS)
def test_mlps(name: str) -> None:
    net = Net(MLPS[name])
    net.drop.eval()
    found = mlp_of(net)
    assert found is not None
    assert found.layers == LAYERS
    assert found.flattens
    assert net.training
    assert not net.drop.training  # modes are left as they were


@pytest.mark.parametrize("name", OTHERS)
def test_others(name: str) -> None:
    assert mlp_of(Net(OTHERS[name])) is None


def test_without_flatten() -> None:
    found = mlp_of(Net(lambda net, x: net.fc2(net.act(net.fc1(x)))))
    assert found is not None
    assert not found.flattens


def test_sequential_and_nested() -> None:
    net = nn.Sequential(
        OrderedDict(body=nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Identity()), head=nn.Linear(6, 3))
    )
    found = mlp_of(net)
    assert found is not None
    assert [layer.weight for layer in found.layers] == ["body.1.weight", "head.weight"]
    assert mlp_of(nn.Linear(12, 3)) == mlp_of(nn.Sequential(nn.Linear(12, 3)).get_submodule("0"))


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(6), nn.LayerNorm(6), nn.Sigmoid(), nn.Flatten(0), nn.Softmax(1)])
def test_other_layers(layer: nn.Module) -> None:
    assert mlp_of(nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), layer, nn.Linear(6, 3))) is None


def test_what_may_change_a_layer() -> None:
    def net() -> Net:
        return Net(MLPS["flatten"])

    hooked, frozen, double, buffered, normed = net(), net(), net(), net(), net()
    hooked.fc1.register_forward_hook(lambda *_: None)
    frozen.fc1.weight.requires_grad_(False)
    double.double()
    buffered.register_buffer("mean", torch.zeros(12))
    parametrizations.weight_norm(normed.fc1)
    shared = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6))
    assert mlp_of(shared) is not None
    shared[2].weight = shared[0].weight
    for module in (hooked, frozen, double, buffered, normed, shared):
        assert mlp_of(module) is None


def test_a_mask_of_biases_is_not_served() -> None:
    net = Net(MLPS["flatten"])
    assert MlpEngine.mlp(net, Mask({"fc1.weight": torch.ones(6, 12) > 0})) is not None
    assert MlpEngine.mlp(net, Mask({"fc1.bias": torch.ones(6) > 0})) is None
