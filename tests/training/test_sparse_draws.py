"""Networks that draw at random between sparse convolutions draw what they draw between dense ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from plain_loop import CPU, begin, random_mask, recipe, splits
from torch import Tensor, nn
from torch.nn import functional

from tombola.training.engines import reasons_against
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.sparse import SparseEngine

SHAPE = (3, 8, 8)
SGD = recipe(optimizer="sgd", lr=0.05, momentum=0.9, weight_decay=1e-3)


class Between(nn.Module):
    """Does something between two convolutions, and something else before the output layer."""

    def __init__(self, between: nn.Module | None = None, before: nn.Module | None = None):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 3)
        self.between, self.before = between or nn.Identity(), before or nn.Identity()
        self.output = nn.Linear(4 * 6 * 6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(functional.relu(self.conv1(x)))
        return self.output(self.before(functional.relu(self.conv2(x)).flatten(1)))


class Does(nn.Module):
    """Does what a function does of a tensor, with whether it is trained."""

    def __init__(self, function: Callable[[Tensor, bool], Tensor]):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.training)


def turned(x: Tensor, training: bool) -> Tensor:
    """Drop from images of which the dense ones do not lie as usual."""
    return functional.dropout(x.permute(0, 2, 3, 1), 0.3, training).permute(0, 3, 1, 2)


def noisy(x: Tensor, training: bool) -> Tensor:
    return x + 0.5 * torch.randn_like(x) if training else x


LAYERS = {
    "a layer between convolutions": lambda: Between(nn.Dropout(0.4)),
    "in place": lambda: Between(nn.Sequential(nn.BatchNorm2d(6), nn.Dropout(0.4, inplace=True))),
    "after flattening": lambda: Between(nn.Dropout(0.2), nn.Dropout(0.5)),
    "whole channels": lambda: Between(nn.Dropout2d(0.4)),
}
FUNCTIONS = {
    "a function": lambda: Between(Does(lambda x, training: functional.dropout(x, 0.4, training))),
    "another layout": lambda: Between(Does(turned)),
    "noise": lambda: Between(Does(noisy)),
}


@pytest.mark.parametrize("name", LAYERS | FUNCTIONS)
def test_the_same_numbers_are_drawn_as_in_the_dense_engine(name: str) -> None:
    build = (LAYERS | FUNCTIONS)[name]
    start = begin(build, random_mask(build, SHAPE, 0.25), splits(SHAPE))
    sparse, dense = (engine(build, [start], SGD, 1000, CPU) for engine in (SparseEngine, DenseEngine))
    assert set(sparse._sparse) == ({"conv1", "conv2", "output"} if name in LAYERS else {"output"})
    assert sparse.advance(3) == pytest.approx(dense.advance(3), rel=1e-4)
    expected = dense.weights()
    for each, tensor in sparse.weights().items():
        torch.testing.assert_close(tensor, expected[each], rtol=1e-3, atol=1e-5)
    assert sparse.evaluate("test")[0].loss == pytest.approx(dense.evaluate("test")[0].loss, rel=1e-4)


def test_trying_a_network_leaves_the_generators_as_they_were() -> None:
    build = FUNCTIONS["noise"]
    start = begin(build, random_mask(build, SHAPE, 0.25), splits(SHAPE))
    before = torch.get_rng_state()
    SparseEngine(build, [start], SGD, 1000, CPU)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", LAYERS | FUNCTIONS)
def test_reasons_say_that_convolutions_stay_dense(name: str) -> None:
    build = (LAYERS | FUNCTIONS)[name]
    mask, batch = random_mask(build, SHAPE, 0.25), torch.randn(2, *SHAPE)
    assert ("convolutions" in reasons_against(build, mask, SGD, batch=batch)) == (name in FUNCTIONS)
