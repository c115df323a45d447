"""Sparse convolutions, and the layers between them, against dense masked ones."""

from __future__ import annotations

import random
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain_loop import CPU, SEEDS, Plain, assert_equal_states, begin, random_mask, recipe, splits
from torch import Tensor, nn
from torch.nn import functional

from tombola.networks import NETWORKS
from tombola.networks.resnet import ResNet
from tombola.pruning.mask import Mask
from tombola.training.engine import ReplicaState
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.example_last import (
    CHUNK,
    ExampleLastBatchNorm2d,
    ExampleLastMaxPool2d,
    example_last,
    usual,
)
from tombola.training.engines.replacing import sparsify, why_dense
from tombola.training.engines.sparse import SparseEngine
from tombola.training.engines.sparse_conv import SparseConv2d

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Conv2d, Tensor, Tensor]:
    """A masked convolution, its mask and images that it takes."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    axis = partial(st.integers, 1)
    pair = st.tuples(axis(3), axis(3))
    kernel, stride, dilation = draw(pair), draw(pair), draw(st.tuples(axis(2), axis(2)))
    padding = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
    torch.manual_seed(draw(st.integers(0, 10_000)))
    layer = nn.Conv2d(
        groups * draw(axis(3)),
        groups * draw(axis(3)),
        kernel,
        stride=stride,
        padding="same" if stride == (1, 1) and draw(st.booleans()) else padding,
        dilation=dilation,
        groups=groups,
        bias=draw(st.booleans()),
    )
    keep = torch.rand(layer.weight.shape) < draw(st.sampled_from([0.0, 0.2, 0.6, 1.0]))
    with torch.no_grad():
        layer.weight.mul_(keep)
    height, width = draw(st.integers(5, 11)), draw(st.integers(5, 11))
    return layer, keep, torch.randn(draw(st.sampled_from([1, 3, 16, 37])), layer.in_channels, height, width)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@settings(max_examples=60, deadline=None)
@given(convolutions(), st.booleans())
def test_agrees_with_autograd(made: tuple[nn.Conv2d, Tensor, Tensor], rectifies: bool) -> None:
    dense, keep, images = made
    sparse = SparseConv2d(dense, keep)
    sparse.rectifies = rectifies
    one, other = images.clone().requires_grad_(), images.clone().requires_grad_()
    expected = torch.relu(dense(one)) if rectifies else dense(one)
    result = sparse(other)
    torch.testing.assert_close(result, expected, **CLOSE)
    slopes = torch.randn_like(expected)
    expected.backward(slopes)
    result.backward(slopes)
    torch.testing.assert_close(other.grad, one.grad, **CLOSE)
    assert sparse.live.grad is not None
    assert dense.weight.grad is not None
    gradients = sparse.unpack(sparse.live.grad)
    torch.testing.assert_close(gradients["weight"], dense.weight.grad * keep, **CLOSE)
    if dense.bias is not None:
        torch.testing.assert_close(gradients["bias"], dense.bias.grad, **CLOSE)


@pytest.mark.parametrize("window", [(2, 2), (3, 3), (2, 1)])
@pytest.mark.parametrize("rectifies", [False, True])
@pytest.mark.parametrize("shape", [(20, 3, 8, 8), (61, 2, 7, 9), (2, 1, 3, 5)])
def test_a_relu_and_a_pooling_within(shape: tuple[int, ...], rectifies: bool, window: tuple[int, int]) -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(shape[1], 5, 3, padding=1)
    keep = torch.rand(dense.weight.shape) < 0.5
    with torch.no_grad():
        dense.weight.mul_(keep)
    sparse = SparseConv2d(dense, keep)
    sparse.rectifies, sparse.window = rectifies, (*window, *window)
    one = torch.randn(shape, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    expected = functional.max_pool2d(torch.relu(dense(one)) if rectifies else dense(one), window)
    torch.testing.assert_close(sparse(other), expected, **CLOSE)
    slopes = torch.randn_like(expected)
    expected.backward(slopes)
    sparse(other).backward(slopes)
    torch.testing.assert_close(other.grad, one.grad, **CLOSE)
    assert sparse.live.grad is not None
    assert dense.weight.grad is not None
    assert dense.bias is not None
    gradients = sparse.unpack(sparse.live.grad)
    torch.testing.assert_close(gradients["weight"], dense.weight.grad * keep, **CLOSE)
    torch.testing.assert_close(gradients["bias"], dense.bias.grad, **CLOSE)


def test_many_examples_none_and_a_single_image() -> None:
    dense = nn.Conv2d(2, 3, 3, padding=1)
    sparse = SparseConv2d(dense, torch.ones(3, 2, 3, 3) > 0)
    many = torch.randn(2 * CHUNK + 5, 2, 4, 4)
    torch.testing.assert_close(sparse(many), dense(many), **CLOSE)
    torch.testing.assert_close(sparse(many[0]), dense(many[0]), **CLOSE)
    assert sparse(many[:0]).shape == (0, 3, 4, 4)
    with pytest.raises(ValueError, match="expected \\[examples, 2, height, width\\], got \\[1, 3, 4, 4\\]"):
        sparse(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="too small"):
        SparseConv2d(nn.Conv2d(2, 3, 3), torch.ones(3, 2, 3, 3) > 0)(torch.zeros(1, 2, 2, 5))


def test_what_is_not_a_number_is_seen() -> None:
    sparse = SparseConv2d(nn.Conv2d(1, 1, 1), torch.ones(1, 1, 1, 1) > 0)
    sparse.rectifies, sparse.window = True, (2, 2, 2, 2)
    assert bool(sparse(torch.full((3, 1, 4, 4), float("nan"))).isnan().all())


@pytest.mark.parametrize("rectifies", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"momentum": None}, {"affine": False}, {"track_running_stats": False}], ids=str
)
def test_batch_norm_with_the_examples_last(options: dict[str, object], rectifies: bool) -> None:
    torch.manual_seed(0)
    dense = nn.BatchNorm2d(5, **options)  # type: ignore[arg-type]
    ours = ExampleLastBatchNorm2d(5, **options)  # type: ignore[arg-type]
    ours.rectifies = rectifies
    for training in (True, True, False):
        dense.train(training)
        ours.train(training)
        one = (3 * torch.randn(7, 5, 6, 4) + 2).requires_grad_()
        other = usual(example_last(one.detach())).requires_grad_()
        expected = torch.relu(dense(one)) if rectifies else dense(one)
        torch.testing.assert_close(ours(one.detach().clone()) if not training else expected, expected, **CLOSE)
        result = ours(other)
        torch.testing.assert_close(result, expected, **CLOSE)
        slopes = torch.randn_like(expected)
        expected.backward(slopes)
        result.backward(slopes)
        torch.testing.assert_close(other.grad, one.grad, **CLOSE)
        for name, parameter in dense.named_parameters():
            torch.testing.assert_close(ours.get_parameter(name).grad, parameter.grad, **CLOSE)
        for name, buffer in dense.named_buffers():
            torch.testing.assert_close(ours.get_buffer(name), buffer)


def test_pooling_with_the_examples_last() -> None:
    images = torch.randn(9, 4, 11, 10)
    for size, stride in ((2, 2), (3, 2), ((2, 3), (1, 2))):
        ours = ExampleLastMaxPool2d(size, stride)
        one, other = images.clone().requires_grad_(), usual(example_last(images)).requires_grad_()
        expected, result = functional.max_pool2d(one, size, stride), ours(other)
        assert torch.equal(result, expected)
        slopes = torch.randn_like(expected)
        expected.backward(slopes)
        result.backward(slopes)
        torch.testing.assert_close(other.grad, one.grad)


class Functional(nn.Module):
    """As most people write one: functions in the forward pass, and a view."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.fc, self.output = nn.Linear(8 * 2 * 2, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.relu(self.norm(self.conv2(x)))
        x = x.view(x.size(0), -1)
        return self.output(functional.relu(self.fc(x)))


class InPlace(nn.Module):
    """Changes the results of convolutions and batch norms, and so the memory that they lie in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.norm = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.relu, self.output = nn.ReLU(inplace=True), nn.Linear(6 * 6 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        around = self.relu(self.conv2(x))
        x = self.norm(self.conv1(x))
        x += around
        x = self.relu(x) * 1.5
        return self.output(x.flatten(1))


def resnet() -> nn.Module:
    return ResNet(3, 4, [1, 1], [6, 10])


SHAPE = (3, 8, 8)
BUILDS = {
    "conv-2": partial(NETWORKS["conv-2"], SHAPE, 4),
    "resnet": resnet,
    "vgg": partial(NETWORKS["vgg-11"], (3, 32, 32), 4, width=4),
    "functional": Functional,
    "in place": InPlace,
}
RECIPES = {
    "adam": recipe(lr=1e-3, weight_decay=1e-3),
    "sgd": recipe(optimizer="sgd", lr=0.02, momentum=0.9, weight_decay=1e-3),
}


@pytest.mark.parametrize("settings", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("name", BUILDS)
def test_trains_as_the_plain_loop(name: str, settings: object) -> None:
    build, shape = BUILDS[name], (3, 32, 32) if name == "vgg" else SHAPE
    start = begin(build, random_mask(build, shape, 0.3), splits(shape))
    engine = SparseEngine(build, [start], settings, 1000, CPU)
    assert any(isinstance(layer, SparseConv2d) for layer in engine._sparse.values())
    plain = Plain(build, start, settings, lambda _: settings.lr)
    steps = 6 if name == "vgg" else 15
    losses = [plain.step() for _ in range(steps)]
    assert [engine.advance(1)[0] for _ in range(steps)] == pytest.approx(losses, rel=2e-3, abs=2e-4)
    weights, expected = engine.weights(), plain.module.state_dict()
    assert list(weights) == list(expected)
    for each, tensor in expected.items():
        torch.testing.assert_close(weights[each], tensor, rtol=1e-2, atol=2e-3)
    for each, keep in start.mask.items():
        assert bool((weights[each][~keep] == 0.0).all())
    module = build().eval()
    module.load_state_dict(weights)
    test = start.splits.test
    with torch.no_grad():
        loss = functional.cross_entropy(module(test.inputs), test.targets).item()
    assert engine.evaluate("test")[0].loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize("name", ["conv-2", "resnet"])
def test_augments_and_resumes_bit_equal(name: str) -> None:
    build, settings = BUILDS[name], recipe(optimizer="sgd", lr=0.02, momentum=0.9, augment=("flip", "crop"))
    start = begin(build, random_mask(build, SHAPE, 0.3), splits(SHAPE))
    whole = SparseEngine(build, [start], settings, 1000, CPU)
    loss = whole.advance(14)
    first = SparseEngine(build, [start], settings, 1000, CPU)
    first.advance(5)
    state = first.optimizer_state()
    again = ReplicaState(first.weights(), start.mask, SEEDS, start.splits, 5, state)
    second = SparseEngine(build, [again], settings, 1000, CPU)
    assert second.advance(9) == loss
    assert_equal_states(second.weights(), whole.weights())
    assert_equal_states(second.optimizer_state(), whole.optimizer_state())
    # The dense engine goes on from the same state, to rounding.
    dense = DenseEngine(build, [again], settings, 1000, CPU)
    assert state.keys() == dense.optimizer_state().keys()
    assert dense.advance(9) == pytest.approx(loss, rel=1e-2)


def test_what_follows_a_convolution_becomes_part_of_it() -> None:
    module = Functional()
    mask = Mask(
        {name: torch.rand(tensor.shape) < 0.2 for name, tensor in module.named_parameters() if tensor.dim() > 1}
    )
    names = list(module.state_dict())
    layers = sparsify(module, mask)
    assert list(module.state_dict()) == names
    one, two = layers["conv1"], layers["conv2"]
    assert isinstance(one, SparseConv2d)
    assert isinstance(two, SparseConv2d)
    assert (one.rectifies, one.window) == (True, (2, 2, 2, 2))
    assert (two.rectifies, two.window) == (False, None)
    assert isinstance(module.norm, ExampleLastBatchNorm2d)
    assert module.norm.rectifies


def test_a_result_that_its_gradient_needs_must_not_be_changed() -> None:
    sparse = SparseConv2d(nn.Conv2d(1, 2, 1), torch.ones(2, 1, 1, 1) > 0)
    sparse.rectifies = True
    result = sparse(torch.randn(3, 1, 4, 4))
    result.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


class Twice(nn.Module):
    """A convolution that is used twice, once without a ReLU; and a way that differs in training."""

    def __init__(self, wavers: bool = False) -> None:
        super().__init__()
        self.conv, self.output, self.wavers = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(192, 4), wavers

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(torch.relu(self.conv(x)))
        return self.output((torch.relu(x) if self.wavers and self.training else x).flatten(1))


@pytest.mark.parametrize("wavers", [False, True])
def test_what_must_not_become_part_of_a_convolution(wavers: bool) -> None:
    build = partial(Twice, wavers)
    start = begin(build, random_mask(build, SHAPE, 0.4), splits(SHAPE))
    engine = SparseEngine(build, [start], RECIPES["sgd"], 1000, CPU)
    plain = Plain(build, start, RECIPES["sgd"], lambda _: 0.02)
    losses = [plain.step() for _ in range(5)]
    assert [engine.advance(1)[0] for _ in range(5)] == pytest.approx(losses, rel=1e-3)


class Skipping(nn.Module):
    """Stochastic depth: whether a convolution is skipped in training is drawn, counted or held in a tensor."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.calls = way, 0
        self.conv1, self.conv2, self.output = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(256, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        if self.way == "drawn":
            skips = torch.rand(()).item() < 1e-6
        elif self.way == "python":
            skips = random.random() < 1e-6
        else:
            self.calls += 1
            skips = self.calls > 10**6
        return self.output((x if skips else torch.relu(self.conv2(x))).flatten(1))


@pytest.mark.parametrize("way", ["drawn", "python", "counted"])
def test_a_forward_pass_that_may_differ_each_time_is_not_frozen(way: str) -> None:
    module = Skipping(way)
    layers = sparsify(module, random_mask(partial(Skipping, way), SHAPE, 0.3))
    conv = layers["conv1"]
    assert isinstance(conv, SparseConv2d)
    assert not conv.rectifies
    assert "forward" not in vars(module)


class Laid(nn.Module):
    """Relies on how a dense convolution lays out its result in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.output = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(256, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.output(x.view(len(x) * 4, 64).view(-1, 256))


def test_a_network_that_needs_the_dense_layout_keeps_its_convolutions_dense() -> None:
    start = begin(Laid, random_mask(Laid, SHAPE, 0.2), splits(SHAPE))
    engine = SparseEngine(Laid, [start], RECIPES["sgd"], 1000, CPU)
    assert list(engine._sparse) == ["output"]
    assert engine.advance(3) == pytest.approx(
        DenseEngine(Laid, [start], RECIPES["sgd"], 1000, CPU).advance(3), rel=1e-3
    )


def test_why_layers_stay_dense() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(256, 4)
    )
    mask = Mask({"0.weight": torch.zeros(4, 3, 3, 3) > 0, "1.weight": torch.ones(4, 4, 1, 1) > 0})
    reasons = why_dense(module, mask)
    assert reasons["0"] == "it pads with 'reflect', not with zeros"
    assert reasons["1"] == "100% of its weights remain; a sparse layer is faster only below 75%"
    assert reasons["3"] == "100% of its weights remain; a sparse layer is faster only below 30%"
    assert not SparseEngine.pays(module, mask)
    assert SparseEngine.why_not(module, mask, recipe()) == ""  # it could, at another density
    padded = Mask({"0.weight": mask["0.weight"]})
    assert SparseEngine.why_not(module[:1], padded, recipe()) == "0: it pads with 'reflect', not with zeros"
    assert "bfloat16" in SparseEngine.why_not(module, mask, recipe(precision="bfloat16"))
