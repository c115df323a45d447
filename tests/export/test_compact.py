"""Compact networks: smaller, and the same."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_tickets import scramble, ticket_of
from torch import nn

from tombola.errors import InputError
from tombola.export.check import TOLERANCE
from tombola.export.compact import compact, fold_into, reduce
from tombola.export.graph import Affine, Unsupported
from tombola.export.graph_trace import trace
from tombola.export.liveness import liveness
from tombola.export.smaller import Compact, load_compact
from tombola.pruning.live_paths import live_paths

NETWORKS = [
    ("lenet-300-100", (1, 6, 6), {"hidden": [20, 9]}),
    ("conv-2", (3, 8, 8), {}),
    ("resnet-20", (3, 8, 8), {"width": 4}),
    ("vgg-11", (3, 16, 16), {"width": 4}),
    ("made_up_modules:mixed", (3, 9, 9), {}),
    ("made_up_modules:padded_shortcut", (3, 6, 6), {}),
    ("made_up_modules:series", (2, 20), {}),
]


def numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def largest_difference(one: nn.Module, other: nn.Module, shape: tuple[int, ...], scale: float = 1.0) -> float:
    """Return the largest difference of outputs, relative to the largest output."""
    inputs = scale * torch.randn(16, *shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected, found = one.eval()(inputs), other.eval()(inputs)
    return float((expected - found).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("name", "shape", "arguments"), NETWORKS)
@pytest.mark.parametrize("density", [1.0, 0.3, 0.08])
def test_a_compact_network_gives_the_same_outputs(name, shape, arguments, density, tmp_path):
    for seed in range(1 if name == "resnet-20" else 2):
        ticket = ticket_of(name, shape, density, seed, **arguments)
        module = ticket.build(trained=True)
        if not bool(live_everywhere(module, shape)):
            assert density < 0.1
            with pytest.raises(InputError, match="no path of kept weights"):
                compact(ticket)
            continue
        network = compact(ticket)
        for scale in (1.0, 30.0):
            assert largest_difference(module, network, shape, scale) <= TOLERANCE
        path = ticket.export("compact", tmp_path / f"{seed}")
        again = load_compact(path)
        inputs = torch.randn(3, *shape)
        assert torch.equal(again(inputs), network(inputs))
        assert again.about["normalisation"] == ticket.normalisation


def live_everywhere(module: nn.Module, shape: tuple[int, ...]) -> torch.Tensor:
    graph = trace(module, shape)
    return liveness(graph).varies[graph.output].any()


@given(seed=st.integers(0, 10_000), density=st.floats(0.02, 0.5), hidden=st.lists(st.integers(1, 12), max_size=3))
@settings(max_examples=25, deadline=None)
def test_a_compact_chain_has_the_live_units_alone(seed, density, hidden):
    ticket = ticket_of("lenet-300-100", (1, 3, 3), density, seed, hidden=hidden)
    module = ticket.build(trained=True)
    live = live_paths(module, ticket.mask, (1, 3, 3)).mask
    if not live.remaining:
        with pytest.raises(InputError, match="no path of kept weights"):
            compact(ticket)
        return
    network = compact(ticket)
    assert largest_difference(module, network, (1, 3, 3)) <= TOLERANCE
    for number in range(1, len(hidden) + 1):
        weight = network.get_parameter(f"layers.fc{number}.weight")
        assert len(weight) == int(live[f"fc{number}.weight"].any(1).sum())


def test_constants_of_dead_channels_are_exact_at_the_borders():
    """A dead channel's bias through a padded convolution differs at the borders: a map of biases follows."""
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 3, padding=1), nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        module[0].weight[0] = 0.0
        module[0].bias.fill_(0.7)
    reduced = reduce(trace(module, (1, 4, 4)))
    assert len([node for node in reduced.graph if isinstance(node, Affine)]) == 1
    network = Compact(reduced.graph)
    assert network.get_parameter("layers.0.weight").shape[0] == 1
    assert network.get_parameter("layers.2.weight").shape[1] == 1
    assert largest_difference(module, network, (1, 4, 4)) < 1e-6


def test_without_padding_the_constant_goes_into_the_bias():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 3), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        module[0].weight[0] = 0.0
    reduced = reduce(trace(module, (1, 4, 4)))
    assert not [node for node in reduced.graph if isinstance(node, Affine)]
    assert largest_difference(module, Compact(reduced.graph), (1, 4, 4)) < 1e-6


def test_channels_that_meet_in_a_sum_stay_together():
    ticket = ticket_of("resnet-20", (3, 8, 8), 0.05, width=4)
    reduced = reduce(trace(ticket.build(trained=True), (3, 8, 8)))
    shapes = {node.name: node.shape for node in reduced.graph}
    for node in reduced.graph:
        if type(node).__name__ == "Binary":
            assert shapes[node.inputs[0]] == shapes[node.inputs[1]] == node.shape


def test_a_dead_branch_of_a_sum_becomes_constants():
    ticket = ticket_of("resnet-20", (3, 8, 8), 1.0, width=4)
    module = ticket.build(trained=True)
    with torch.no_grad():
        module.get_parameter("stage1.0.conv2.weight").zero_()
    graph = reduce(trace(module, (3, 8, 8))).graph
    layers = {node.layer for node in graph}
    assert "stage1.0.conv1" not in layers
    assert "stage1.1.conv1" in layers
    assert largest_difference(module, Compact(graph), (3, 8, 8)) <= TOLERANCE


def test_a_layer_that_can_not_be_held_is_refused_by_name():
    with pytest.raises(Unsupported, match="layer 'memory' uses"):
        compact(ticket_of("made_up_modules:recurrent", (5, 3), 0.9))


@pytest.mark.parametrize(("name", "shape", "arguments"), NETWORKS[:3])
def test_folding_in_place_changes_no_output_and_leaves_live_weights_alone(name, shape, arguments):
    for seed in range(2):
        ticket = ticket_of(name, shape, 0.15, seed, **arguments)
        module, folded = ticket.build(trained=True), ticket.build(trained=True)
        mask = fold_into(folded, ticket.mask, shape)
        assert mask <= ticket.mask
        assert largest_difference(module, folded, shape) <= TOLERANCE
        for layer, keep in mask.items():
            assert not bool(folded.get_parameter(layer)[~keep].any())


def test_a_compact_network_can_be_trained_on():
    network = compact(ticket_of("conv-2", (3, 8, 8), 0.3))
    network.train()
    network(torch.randn(4, 3, 8, 8)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("place", [0, 60, 400, -5])
def test_a_damaged_file_is_refused(place, tmp_path):
    path = ticket_of(hidden=[9], density=0.5).export("compact", tmp_path / "x")
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(InputError):
        load_compact(path)


def test_other_files_are_refused(tmp_path):
    ticket = ticket_of(hidden=[9], density=0.5)
    ticket.save(tmp_path / "ticket")
    with pytest.raises(InputError, match="is not a compact network"):
        load_compact(tmp_path / "ticket")
    with pytest.raises(InputError, match="is not a file"):
        load_compact(tmp_path / "nothing")


def test_liveness_knows_what_a_product_with_a_constant_zero_hides():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.gate = nn.Linear(3, 4), nn.Linear(3, 4)
            self.output = nn.Linear(4, 2)

        def forward(self, x):
            return self.output(self.one(x) * self.gate(x))

    module = Gated()
    scramble(module)
    with torch.no_grad():
        module.gate.weight[0], module.gate.bias[0] = 0.0, 0.0
        module.gate.weight[1], module.gate.bias[1] = 0.0, 2.0
    graph = trace(module, (3,))
    live = liveness(graph)
    product = next(node for node in graph if type(node).__name__ == "Binary")
    assert live.varies[product.name].tolist() == [False, True, True, True]
    one = next(node for node in graph if node.layer == "one")
    assert live.needed[one.name].tolist() == [False, True, True, True]
    assert largest_difference(module, Compact(reduce(graph).graph), (3,)) < 1e-6
