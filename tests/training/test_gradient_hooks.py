"""Hooks that change gradients do so in every engine, or the engine does not take the network."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from plain_loop import CPU, begin, engine_at, random_mask, recipe, splits
from torch import nn

from tombola.training.engines.mlp import MlpEngine
from tombola.training.engines.sparse import SparseEngine
from tombola.training.engines.stacked import StackedEngine

SHAPE = (3, 6, 6)
SGD = recipe(optimizer="sgd", lr=0.05)


def plain() -> nn.Sequential:
    block = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU())
    return nn.Sequential(block, nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 4))


def before_a_block(module: nn.Sequential) -> None:
    module[0].register_full_backward_pre_hook(lambda _, slopes: (3 * slopes[0],))


def after_a_block(module: nn.Sequential) -> None:
    module[0].register_full_backward_hook(lambda _, back, __: (None if back[0] is None else 3 * back[0],))


def after_a_relu(module: nn.Sequential) -> None:
    module[0][1].register_full_backward_hook(lambda _, back, __: (3 * back[0],))


def of_the_whole(module: nn.Sequential) -> None:
    module.register_full_backward_pre_hook(lambda _, slopes: (3 * slopes[0],))


def of_a_weight(module: nn.Sequential) -> None:
    module[0][0].weight.register_hook(lambda gradient: 3 * gradient)


def of_a_bias_of_a_linear_layer(module: nn.Sequential) -> None:
    def triple(parameter: torch.Tensor) -> None:
        assert parameter.grad is not None
        parameter.grad.mul_(3)

    module[2].bias.register_post_accumulate_grad_hook(triple)


HOOKS = (before_a_block, after_a_block, after_a_relu, of_the_whole, of_a_weight, of_a_bias_of_a_linear_layer)


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")
@pytest.mark.parametrize("hook", HOOKS, ids=[hook.__name__ for hook in HOOKS])
def test_sparse_layers_leave_gradients_to_hooks_and_stacks_refuse_them(hook: Callable[[nn.Sequential], None]) -> None:
    def build() -> nn.Module:
        module = plain()
        hook(module)
        return module

    start = begin(build, random_mask(plain, SHAPE, 0.25), splits(SHAPE))
    sparse, dense = SparseEngine(build, [start], SGD, 1000, CPU), engine_at(build, start, SGD)
    assert sparse._sparse
    sparse.advance(3)
    dense.advance(3)
    expected = dense.weights()
    for name, tensor in sparse.weights().items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-5)
    assert StackedEngine.why_not_network(plain, torch.zeros(1, *SHAPE)) == ""
    assert "it has hooks on gradients" in StackedEngine.why_not_network(build, torch.zeros(1, *SHAPE))


def test_the_compiled_loop_does_not_take_parameters_with_hooks() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3))
    mask = random_mask(lambda: module, (12,), 0.2)
    assert MlpEngine.why_not(module, mask, SGD) == ""
    module[3].weight.register_hook(lambda gradient: gradient.clamp(-1, 1))
    assert MlpEngine.mlp(module, mask) is None
    assert MlpEngine.why_not(module, mask, SGD) == "3: it has hooks"
