"""The engine for modules with sparse linear layers that are not plain multilayer perceptrons, such as conv nets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tombola.pruning.mask import Mask
from tombola.training.engine import NetworkFactory, Start
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.sparse_linear import SparseLinear, sparse_layers, sparsify
from tombola.training.recipe import Recipe

PAYS_BELOW = 0.3
"""Density of a layer below which `SparseLinear` pays.

Measured on one thread of an AVX-512 processor, forward, backward and Adam against a masked `nn.Linear`, layers from
784x300 to 16384x256, 60 to 2048 examples: 0.9 to 1.25 times as fast at a density of 0.5, 1.7 to 2.5 times at 0.25, 3.5
to 5 times at 0.1, 5 to 11 times at 0.036. Very small layers (300x100) gain less: 1.2 times at 0.25, 1.5 at 0.036.
"""


class SparseEngine(DenseEngine):
    """Trains one lane by autograd on the CPU, with a `SparseLinear` in place of each sparse `nn.Linear`.

    All other layers are dense and masked. Its optimiser state has the form of the dense engine's.

    Raises:
        ValueError: more than one lane, or another device.
    """

    name = "sparse"

    def __init__(
        self,
        build: NetworkFactory,
        starts: Sequence[Start],
        recipe: Recipe,
        budget: int,
        device: torch.device,
    ):
        if len(starts) != 1:
            raise ValueError(f"the sparse engine trains one lane, not {len(starts)}")
        if device.type != "cpu":
            raise ValueError(f"the sparse engine runs on the CPU, not on {device}")
        (start,) = starts
        with torch.random.fork_rng(devices=[]):
            module = build()
        self._sparse = sparsify(module, start.mask, PAYS_BELOW)
        elsewhere = Mask({name: start.mask[name] for name in start.mask if _layer(name) not in self._sparse})
        inner = replace(start, mask=elsewhere, optimizer=_packed(self._sparse, start.optimizer))
        super().__init__(lambda: module, [inner], recipe, budget, device)

    @staticmethod
    def pays(module: nn.Module, mask: Mask) -> bool:
        """Return whether some layer of `module` is sparse enough for this engine to pay; it serves any module."""
        return bool(sparse_layers(module, mask, PAYS_BELOW))

    def optimizer_state(self, lane: int = 0) -> dict[str, Tensor]:
        """Return a copy of the optimiser's tensors as "slot/parameter", such as "exp_avg/fc1.weight"."""
        return _unpacked(self._sparse, super().optimizer_state(lane))


def _layer(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _unpacked(layers: dict[str, SparseLinear], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return an optimiser's state with the tensors of weights and biases for those of live numbers."""
    result: dict[str, Tensor] = {}
    for key, tensor in state.items():
        slot, _, name = key.partition("/")
        layer = layers.get(_layer(name))
        if layer is None:
            result[key] = tensor
        elif tensor.dim() == 0:  # the number of steps
            result |= {f"{slot}/{_layer(name)}.{each}": tensor.clone() for each in layer.layout.slots}
        else:
            result |= {f"{slot}/{_layer(name)}.{each}": part for each, part in layer.unpack(tensor).items()}
    return result


def _packed(layers: dict[str, SparseLinear], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Do the opposite of `_unpacked`."""
    result = {key: tensor for key, tensor in state.items() if _layer(key.partition("/")[2]) not in layers}
    slots = {key.partition("/")[0] for key in state}
    for name, layer in layers.items():
        for slot in slots:
            parts = {each: state[f"{slot}/{name}.{each}"] for each in layer.layout.slots}
            scalar = parts["weight"].dim() == 0
            result[f"{slot}/{name}.live"] = parts["weight"] if scalar else layer.pack(parts)
    return result
