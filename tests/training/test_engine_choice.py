"""Which engine serves what."""

from functools import partial

import pytest
import small_nets
import torch
from plain_loop import begin, engine_at, random_mask, recipe, splits

from tombola.errors import InputError
from tombola.networks import NETWORKS
from tombola.pruning import Mask
from tombola.training.engines import choose_engine, reasons_against
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.mlp import MlpEngine
from tombola.training.engines.sparse import SparseEngine
from tombola.training.engines.stacked import StackedEngine

LENET = partial(NETWORKS["lenet-300-100"], (1, 28, 28), 10)
CONV_2 = partial(NETWORKS["conv-2"], (3, 8, 8), 10)
PLAIN = recipe()
HALF = recipe(precision="bfloat16")
SHAPES = {LENET: (1, 28, 28), CONV_2: (3, 8, 8)}


@pytest.mark.parametrize(
    ("asked", "build", "density", "settings", "many", "expected"),
    [
        ("auto", LENET, 1.0, PLAIN, False, DenseEngine),
        ("auto", LENET, 0.1, PLAIN, False, MlpEngine),
        ("auto", LENET, 0.1, PLAIN, True, MlpEngine),  # stacks are for GPUs
        ("auto", LENET, 0.1, HALF, False, DenseEngine),
        ("auto", CONV_2, 1.0, PLAIN, False, DenseEngine),
        ("auto", CONV_2, 0.1, PLAIN, False, SparseEngine),
        ("dense", LENET, 0.1, PLAIN, False, DenseEngine),
        ("sparse", LENET, 1.0, PLAIN, False, MlpEngine),
        ("sparse", CONV_2, 1.0, PLAIN, False, SparseEngine),
        ("stacked", CONV_2, 0.1, PLAIN, True, StackedEngine),
    ],
)
def test_the_choice(asked, build, density, settings, many, expected):
    mask, example = random_mask(build, SHAPES[build], density), torch.zeros(1, *SHAPES[build])
    assert choose_engine(asked, build, mask, settings, example, many) is expected


def test_what_does_not_stack_is_trained_densely():
    build = partial(small_nets.Dropping, (20,), 4)
    mask = random_mask(build, (20,), 1.0)
    assert choose_engine("stacked", build, mask, PLAIN, torch.zeros(1, 20), True) is DenseEngine


def test_an_unknown_engine_is_refused():
    with pytest.raises(InputError, match="unknown engine 'spares'; did you mean 'sparse'"):
        choose_engine("spares", LENET, Mask({}), PLAIN, torch.zeros(1, 1, 28, 28))


def test_a_network_without_a_layer_that_can_be_sparse_is_named():
    build = lambda: torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"))  # noqa: E731
    mask, example = Mask({"0.weight": torch.zeros(4, 3, 3, 3) > 0}), torch.zeros(1, 3, 8, 8)
    with pytest.raises(InputError, match=r"'sparse' can't train this network \(0: it pads with 'reflect'"):
        choose_engine("sparse", build, mask, PLAIN, example)
    assert choose_engine("auto", build, mask, PLAIN, example) is DenseEngine


def test_reasons_against_the_sparse_engines():
    mask = random_mask(CONV_2, (3, 8, 8), 0.5)
    assert reasons_against(LENET, random_mask(LENET, (1, 28, 28), 0.1), PLAIN) == {}
    against = reasons_against(CONV_2, mask, PLAIN)
    assert against["mlp"] == "conv1: a multilayer perceptron has no Conv2d"
    assert against["fc1"].endswith("of its weights remain; a sparse layer is faster only below 30%")
    assert "conv2" not in against
    assert reasons_against(LENET, mask, HALF)["sparse"] == "precision: bfloat16; sparse layers compute in float32"
    assert "augment" in reasons_against(CONV_2, mask, recipe(augment=("flip",)))["mlp"]
    tanh = partial(small_nets.conv_norm, (3, 8, 8), 4)
    assert reasons_against(tanh, random_mask(tanh, (3, 8, 8), 0.1), PLAIN)["mlp"].startswith("0: ")


def test_a_layer_that_keeps_a_multilayer_perceptron_from_the_compiled_loop_is_named():
    def why(change):
        module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Linear(4, 4))
        change(module)
        return MlpEngine.why_not(module, Mask({}), PLAIN)

    assert why(lambda module: None) == ""
    assert why(lambda module: module[2].register_forward_hook(print)) == "2: it has hooks"
    assert why(lambda module: module[2].bias.requires_grad_(False)) == "2: a parameter of it is frozen"
    assert why(lambda module: setattr(module[2], "weight", module[0].weight)).startswith("0: it shares a parameter")


def test_bfloat16_learns_the_same_to_its_precision():
    """Other rounding, hence other numbers; but weights, optimiser and files stay float32, and it learns as well."""
    shape = (3, 8, 8)
    build, data = partial(NETWORKS["conv-2"], shape, 4), splits(shape)
    start = begin(build, random_mask(build, shape, 0.3), data)
    full, half = (
        engine_at(build, start, recipe(lr=1e-3)),
        engine_at(build, start, recipe(lr=1e-3, precision="bfloat16")),
    )
    first = full.advance(1)[0], half.advance(1)[0]
    assert first[0] != first[1]
    assert first[0] == pytest.approx(first[1], rel=0.02)
    full.advance(99)
    half.advance(99)
    (exact,), (rounded,) = full.evaluate("train"), half.evaluate("train")
    assert rounded.metric > 0.9
    assert rounded.metric == pytest.approx(exact.metric, abs=0.05)
    for name, tensor in half.weights().items():
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()
        if name in start.mask:
            assert bool((tensor[~start.mask[name]] == 0.0).all())
