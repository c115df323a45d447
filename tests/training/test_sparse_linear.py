"""Sparse linear layers against dense masked ones."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.data.parts import Part, Splits
from tombola.pruning.mask import Mask
from tombola.seeds import Seeds
from tombola.training.engine import ReplicaState, Weights
from tombola.training.engines import kernels
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.replacing import sparsify
from tombola.training.engines.sparse import SparseEngine
from tombola.training.engines.sparse_linear import SparseLinear
from tombola.training.order import Order
from tombola.training.recipe import Recipe

CPU = torch.device("cpu")
SEEDS = Seeds(5, 0)


@pytest.fixture(autouse=True)
def reproducible() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


def pair(inputs: int, outputs: int, density: float, bias: bool) -> tuple[nn.Linear, SparseLinear, Tensor]:
    dense, keep = nn.Linear(inputs, outputs, bias=bias), torch.rand(outputs, inputs) < density
    with torch.no_grad():
        dense.weight.mul_(keep)
    return dense, SparseLinear(dense.weight, dense.bias, keep), keep


@pytest.mark.parametrize(
    ("shape", "inputs", "outputs", "density", "bias"),
    [
        ((60,), 100, 30, 0.1, True),
        ((64,), 32, 16, 0.3, True),
        ((1,), 17, 1, 0.5, True),
        ((3, 50), 45, 10, 0.3, False),
        ((2, 3, 4), 7, 3, 0.6, True),  # fewer features than a line has
        ((130,), 33, 5, 0.05, True),  # lines that nothing uses, and a last line that overlaps one that is used
        ((5,), 48, 32, 0.0, True),
        ((), 20, 4, 0.5, True),
        ((0,), 20, 4, 0.5, True),
    ],
)
def test_agrees_with_autograd(shape: tuple[int, ...], inputs: int, outputs: int, density: float, bias: bool) -> None:
    dense, sparse, keep = pair(inputs, outputs, density, bias)
    one = torch.randn(*shape, inputs, requires_grad=True)
    other = one.detach().clone().requires_grad_()
    slopes = torch.randn(*shape, outputs)
    torch.testing.assert_close(sparse(other), dense(one))
    torch.testing.assert_close(sparse.weight, dense.weight)
    dense(one).backward(slopes)
    sparse(other).backward(slopes)
    assert sparse.live.grad is not None
    gradients = sparse.unpack(sparse.live.grad)
    assert dense.weight.grad is not None
    torch.testing.assert_close(other.grad, one.grad)
    torch.testing.assert_close(gradients["weight"], dense.weight.grad * keep, rtol=1e-4, atol=1e-5)
    if bias:
        assert dense.bias.grad is not None
        torch.testing.assert_close(gradients["bias"], dense.bias.grad)


def test_inputs_that_are_views_or_need_no_gradient() -> None:
    dense, sparse, _ = pair(20, 6, 0.4, True)
    inputs = torch.randn(20, 3, 9).permute(2, 1, 0)
    torch.testing.assert_close(sparse(inputs), dense(inputs))
    sparse(inputs).sum().backward()
    assert sparse.live.grad is not None
    with torch.no_grad():
        torch.testing.assert_close(sparse(inputs[:, 1]), dense(inputs[:, 1]))


@pytest.mark.parametrize("examples", [16, 60, 130])
@pytest.mark.parametrize("inputs", [16, 45])
def test_inputs_that_lie_feature_by_feature(examples: int, inputs: int) -> None:
    dense, sparse, keep = pair(inputs, 6, 0.3, True)
    one = torch.randn(inputs, examples).t().requires_grad_()
    other = one.detach().clone().requires_grad_()
    assert other.t().is_contiguous()
    torch.testing.assert_close(sparse(other), dense(one))
    slopes = torch.randn(examples, 6)
    dense(one).backward(slopes)
    sparse(other).backward(slopes)
    torch.testing.assert_close(other.grad, one.grad)
    assert sparse.live.grad is not None
    assert dense.weight.grad is not None
    torch.testing.assert_close(
        sparse.unpack(sparse.live.grad)["weight"], dense.weight.grad * keep, rtol=1e-4, atol=1e-5
    )


def test_layers_may_be_called_by_keyword() -> None:
    kinds = [nn.Linear(5, 4), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.MaxPool2d(2), nn.Dropout(0.0)]
    inputs = torch.randn(6, 4, 8, 5)

    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(copy.deepcopy(kinds))

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(input=x)
            return x

    dense, sparse = Called(), Called()
    mask = Mask({f"layers.{n}.weight": torch.ones_like(kinds[n].weight, dtype=torch.bool) for n in (0, 1)})
    assert len(sparsify(sparse, mask, {nn.Linear: 2.0, nn.Conv2d: 2.0})) == 2
    torch.testing.assert_close(sparse(inputs), dense(inputs))


def test_weight_and_bias_can_be_used_directly() -> None:
    _, sparse, _ = pair(20, 6, 0.4, True)
    inputs, slopes = torch.randn(9, 20), torch.randn(9, 6)
    (through,) = torch.autograd.grad(functional.linear(inputs, sparse.weight, sparse.bias), sparse.live, slopes)
    (own,) = torch.autograd.grad(sparse(inputs), sparse.live, slopes)
    torch.testing.assert_close(through, own)


def test_state_dict_is_that_of_the_dense_layer() -> None:
    dense, sparse, keep = pair(20, 6, 0.4, True)
    state = sparse.state_dict()
    assert list(state) == ["weight", "bias"]
    assert torch.equal(state["weight"], dense.weight)
    assert torch.equal(state["bias"], dense.bias)
    sparse.load_state_dict({"weight": torch.ones(6, 20), "bias": torch.ones(6)})
    assert torch.equal(sparse.weight, keep.float())
    assert torch.equal(state["weight"], dense.weight)  # a copy
    with pytest.raises(RuntimeError, match="Missing key"):
        sparse.load_state_dict({"weight": torch.ones(6, 20)})


def test_which_layers_become_sparse() -> None:
    class Special(nn.Linear):
        pass

    module = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("a", "hooked", "tied", "twin", "frozen", "dense")})
    module["special"] = Special(8, 8)
    module["b"] = nn.Sequential(nn.Linear(8, 8))
    module["conv"] = nn.Conv2d(8, 8, 1)
    module["hooked"].register_forward_hook(lambda *_: None)
    module["tied"].weight = module["twin"].weight
    module["frozen"].bias.requires_grad_(False)
    names = [name for name, _ in module.named_parameters(remove_duplicate=False) if name.endswith("weight")]
    keep = {name: torch.zeros(module.get_parameter(name).shape) > 0 for name in names if name != "dense.weight"}
    before = list(module.state_dict())
    layers = sparsify(module, Mask(keep | {"dense.weight": torch.ones(8, 8) > 0}))
    assert sorted(layers) == ["a", "b.0", "conv"]
    assert module["b"][0] is layers["b.0"]
    assert list(module.state_dict()) == before


class ConvNet(nn.Module):
    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.fc1, self.fc2, self.out = nn.Linear(144, 50), nn.Linear(50, 40, bias=False), nn.Linear(40, 5)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(torch.relu(self.norm(self.conv(x))), 2).flatten(1)
        return self.out(self.drop(torch.tanh(self.fc2(torch.relu(self.fc1(x))))))


def splits() -> Splits:
    targets = torch.randint(5, (700,))
    inputs = torch.randn(5, 1, 12, 12)[targets] + torch.randn(700, 1, 12, 12)
    parts = [Part(inputs[a:b], targets[a:b]) for a, b in ((0, 500), (500, 600), (600, 700))]
    return Splits(*parts, mean=(0.0,), std=(1.0,), classes=5)


def start(data: Splits) -> ReplicaState:
    """Two sparse linear layers, one dense one, and a masked convolution."""
    module = ConvNet()
    densities = {"conv.weight": 0.5, "fc1.weight": 0.05, "fc2.weight": 0.1, "out.weight": 0.6}
    parameters = dict(module.named_parameters())
    mask = Mask({name: torch.rand(parameters[name].shape) < density for name, density in densities.items()})
    return ReplicaState(mask.apply(module.state_dict()), mask, SEEDS, data)


def plain(begin: ReplicaState, recipe: Recipe, steps: int) -> tuple[list[float], Weights]:
    module = ConvNet()
    module.load_state_dict(begin.weights)
    if recipe.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            module.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
    losses, train = [], begin.splits.train
    for batch in Order(len(train), recipe.batch_size, SEEDS).batches(0, steps):
        loss = functional.cross_entropy(module(train.inputs[batch]), train.targets[batch])
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in module.named_parameters():
            if name in begin.mask and parameter.grad is not None:
                parameter.grad.mul_(begin.mask[name])
        optimizer.step()
        losses.append(loss.item())
    return losses, module.state_dict()


RECIPES = {
    "adam": Recipe(lr=1e-3, batch_size=50, iterations=200, weight_decay=1e-3),
    "sgd": Recipe(optimizer="sgd", lr=0.02, momentum=0.9, batch_size=50, iterations=200, weight_decay=1e-3),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_engine_trains_a_convolutional_network_as_the_plain_loop(recipe: Recipe) -> None:
    begin = start(splits())
    engine = SparseEngine(ConvNet, [begin], recipe, 200, CPU)
    assert SparseEngine.pays(ConvNet(), begin.mask)
    assert not SparseEngine.pays(ConvNet(), Mask({}))
    losses, weights = plain(begin, recipe, 200)
    torch.testing.assert_close(
        torch.tensor([engine.advance(1)[0] for _ in range(200)]), torch.tensor(losses), rtol=1e-3, atol=1e-4
    )
    got = engine.weights()
    assert list(got) == list(weights)
    for name, tensor in weights.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-2, atol=1e-3)
    for name, keep in begin.mask.items():
        assert bool((got[name][~keep] == 0.0).all())
    module = ConvNet().eval()
    module.load_state_dict(got)
    test = begin.splits.test
    with torch.no_grad():
        loss = functional.cross_entropy(module(test.inputs), test.targets).item()
    assert engine.evaluate("test")[0].loss == pytest.approx(loss, rel=1e-5)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_engine_goes_on_bit_equal(recipe: Recipe) -> None:
    def build() -> nn.Module:
        return ConvNet(drop=0.5)

    begin = start(splits())
    whole = SparseEngine(build, [begin], recipe, 200, CPU)
    loss = whole.advance(30)
    first = SparseEngine(build, [begin], recipe, 200, CPU)
    first.advance(13)
    state = first.optimizer_state()
    again = ReplicaState(first.weights(), begin.mask, SEEDS, begin.splits, 13, state)
    second = SparseEngine(build, [again], recipe, 200, CPU)
    assert second.advance(17) == loss
    assert all(torch.equal(tensor, second.weights()[name]) for name, tensor in whole.weights().items())
    # The state has the dense engine's form: either can go on where the other stopped.
    assert state.keys() == DenseEngine(build, [again], recipe, 200, CPU).optimizer_state().keys()


def test_what_the_engine_cannot_train() -> None:
    begin = start(splits())
    with pytest.raises(ValueError, match="one replica"):
        SparseEngine(ConvNet, [begin, begin], RECIPES["adam"], 200, CPU)
    with pytest.raises(ValueError, match="on the CPU"):
        SparseEngine(ConvNet, [begin], RECIPES["adam"], 200, torch.device("meta"))


def test_kernels_work_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    numba_njit = kernels.njit

    def njit(cache: bool = False, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return numba_njit(**options)

    monkeypatch.setattr(kernels, "njit", njit)
    assert kernels.compiled(lambda number: number + 1)(1) == 2
