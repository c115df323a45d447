"""The engine for modules with sparse linear layers or convolutions that are not plain multilayer perceptrons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.networks import initialised
from tombola.pruning.mask import Mask
from tombola.seeds import draw_states, own_draws, seed_draws
from tombola.training.engine import NetworkFactory, ReplicaState
from tombola.training.engines.dense import DenseEngine, sees_the_batch
from tombola.training.engines.replacing import PAYS_BELOW, sparsify, why_dense
from tombola.training.engines.sparse_conv import SparseConv2d
from tombola.training.engines.sparse_layer import SparseLayer
from tombola.training.recipe import Recipe

CONVOLUTIONS_PIECE = 64
"""Examples that are evaluated at a time where a convolution is sparse: few, so that what it reads fits the cache."""


class SparseEngine(DenseEngine):
    """Trains one replica by autograd on the CPU, with sparse layers instead of sparse linear layers and convolutions.

    All other layers are dense and masked. Its optimiser state has the form of the dense engine's.

    Raises:
        ValueError: more than one replica, or another device.
    """

    name = "sparse"

    def __init__(
        self,
        build: NetworkFactory,
        starts: Sequence[ReplicaState],
        recipe: Recipe,
        budget: int,
        device: torch.device,
    ):
        if len(starts) != 1:
            raise ValueError(f"the sparse engine trains one replica, not {len(starts)}")
        if device.type != "cpu":
            raise ValueError(f"the sparse engine runs on the CPU, not on {device}")
        (start,) = starts
        module, self._sparse = _made_sparse(build, start, recipe.batch_size)
        convolves = any(isinstance(layer, SparseConv2d) for layer in self._sparse.values())
        if convolves and not sees_the_batch(module):
            self._piece = CONVOLUTIONS_PIECE
        elsewhere = Mask({name: start.mask[name] for name in start.mask if _layer(name) not in self._sparse})
        inner = replace(start, mask=elsewhere, optimizer=_packed(self._sparse, start.optimizer))
        super().__init__(lambda: module, [inner], recipe, budget, device)

    @staticmethod
    def pays(module: nn.Module, mask: Mask) -> bool:
        """Return whether some layer of `module` is sparse enough for this engine to pay; it serves any module."""
        return any(not reason for reason in why_dense(module, mask).values())

    @staticmethod
    def why_not(module: nn.Module, mask: Mask, recipe: Recipe) -> str:
        """Return why no layer of this module can ever be sparse, naming each layer; "" if one can."""
        if recipe.precision != "float32":
            return f"precision: {recipe.precision}; sparse layers compute in float32"
        if not recipe.each_alone:
            return f"optimizer: {recipe.optimizer}; it may need whole matrices, but sparse layers keep live ones only"
        reasons = why_dense(module, mask, dict.fromkeys(PAYS_BELOW, math.inf))
        if any(not reason for reason in reasons.values()):
            return ""
        return "; ".join(f"{layer}: {reason}" for layer, reason in reasons.items()) or "it has no prunable layer"

    def optimizer_state(self, replica: int = 0) -> dict[str, Tensor]:
        """Return a copy of the optimiser's tensors as "slot/parameter", such as "exp_avg/fc1.weight"."""
        return _unpacked(self._sparse, super().optimizer_state(replica))


def _made_sparse(build: NetworkFactory, start: ReplicaState, examples: int) -> tuple[nn.Module, dict[str, SparseLayer]]:
    """Return the module and its sparse layers; `examples` are those of a batch."""
    below = PAYS_BELOW
    if not may_convolve_sparsely(build, start.mask, start.splits.train.select(slice(examples)).inputs):
        below = {**PAYS_BELOW, nn.Conv2d: 0.0}
    module = initialised(build, "pytorch", 0)
    with torch.no_grad():
        sparse = sparsify(module, start.mask, below)
    return module.train(), sparse


@torch.no_grad()
def may_convolve_sparsely(build: NetworkFactory, mask: Mask, batch: Tensor) -> bool:
    """Return whether a module's output stays the same where its convolutions are sparse.

    A module may rely on how dense convolutions lay out their results: by `view`, or because numbers drawn at random
    fill a tensor in the order of its memory.

    Args:
        build: makes the module.
        mask: which of its weights live.
        batch: inputs, of two examples or more.
    """
    with own_draws():
        seed_draws(0)  # so that a run that continues finds what it found before
        module = build()
        if not any(isinstance(layer, SparseConv2d) for layer in sparsify(module, mask).values()):
            return True
        try:
            module.eval()(batch)
            output, draws = _training_output(module, batch)
        except RuntimeError:
            return False
        if not draws:
            return True
        plain = build()
        plain.load_state_dict(module.state_dict())
        expected, _ = _training_output(plain, batch)
        return torch.allclose(output, expected, rtol=0.01, atol=0.01 * float(expected.abs().max()), equal_nan=True)


def _training_output(module: nn.Module, batch: Tensor) -> tuple[Tensor, bool]:
    """Return what a module makes of a batch in training, and whether it draws at random.

    Batch norm uses its running statistics: over few examples it would enlarge rounding.
    """
    for layer in module.train().modules():
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None:
            layer.eval()
    seed_draws(0)
    before = draw_states()
    output: Tensor = module(batch)
    return output, draw_states() != before


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _unpacked(layers: dict[str, SparseLayer], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return an optimiser's state with the tensors of weights and biases for those of live numbers."""
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        slot, _, name = key.partition("/")
        layer = layers.get(_layer(name))
        if layer is None:
            result[key] = tensor
        elif tensor.dim() == 0:  # the number of steps
            result |= {f"{slot}/{_layer(name)}.{each}": tensor.clone() for each in layer.slots}
        else:
            result |= {f"{slot}/{_layer(name)}.{each}": part for each, part in layer.unpack(tensor).items()}
    return result


def _packed(layers: dict[str, SparseLayer], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Do the opposite of `_unpacked`."""
    result = {key: tensor for key, tensor in state.items() if _layer(key.partition("/")[2]) not in layers}
    slots = {key.partition("/")[0] for key in state}
    for name, layer in layers.items():
        for slot in slots:
            parts = {each: state[f"{slot}/{name}.{each}"] for each in layer.slots}
            scalar = parts["weight"].dim() == 0
            result[f"{slot}/{name}.live"] = parts["weight"] if scalar else layer.pack(parts)
    return result
