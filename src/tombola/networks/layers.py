"""What is prunable in a module, which layer is its output, and what each layer costs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from tombola.errors import InputError, nearest
from tombola.networks.initialise import WEIGHTED

EXAMPLES = 2  # in the batch that a network is examined with


@dataclass(frozen=True)
class Layer:
    """A linear or convolution layer whose weight can be pruned.

    Args:
        name: of its weight parameter, such as "fc1.weight".
        kind: "linear" or "conv".
        shape: of its weight.
        uses: how often each weight is used for one example: 1 in a linear layer, positions in a convolution.
    """

    name: str
    kind: Literal["linear", "conv"]
    shape: tuple[int, ...]
    uses: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Anatomy:
    """The prunable layers of a network.

    Args:
        layers: in the order in which the forward pass comes to them.
        output: weight name of the output layer.
        classes: number of scores that the network returns per example.
    """

    layers: tuple[Layer, ...]
    output: str
    classes: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each prunable weight by name."""
        return {layer.name: layer.shape for layer in self.layers}

    def sizes(self) -> dict[str, int]:
        """Return the number of weights of each layer by name."""
        return {layer.name: layer.size for layer in self.layers}

    def select(self, name: str, what: str) -> str:
        """Return the weight name for a layer given as "fc1" or "fc1.weight".

        Raises:
            InputError: no prunable layer is called so; `what` says who asked.
        """
        for candidate in (name, f"{name}.weight"):
            if candidate in self.shapes():
                return candidate
        known = [layer.name.removesuffix(".weight") for layer in self.layers]
        raise InputError(f"{what}: the network has no prunable layer {name!r}{nearest(name, known)}")


def examine(module: nn.Module, input_shape: tuple[int, ...], output: str | None = None) -> Anatomy:
    """Run one made-up batch through `module` and note its linear and convolution layers.

    The output layer is the last one that the forward pass comes to, or the one named by `output`.

    Raises:
        InputError: the forward pass fails on `input_shape`, there is nothing prunable, or `output` is unknown.
    """
    # By parameter: layers that share a weight are one, and a weight that is computed from others is not prunable.
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    found: dict[str, Layer] = {}

    def note(layer: nn.Module, _inputs: object, result: object) -> None:
        assert isinstance(layer, WEIGHTED)
        assert isinstance(result, torch.Tensor)
        name = names.get(id(layer.weight))
        if name is None:
            return
        uses = result.numel() // (EXAMPLES * layer.weight.shape[0])
        if name in found:  # used again
            uses += found.pop(name).uses
        kind: Literal["linear", "conv"] = "linear" if isinstance(layer, nn.Linear) else "conv"
        found[name] = Layer(name, kind, tuple(layer.weight.shape), uses)

    handles = [layer.register_forward_hook(note) for layer in module.modules() if isinstance(layer, WEIGHTED)]
    was_training = module.training
    try:
        module.eval()
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = module(torch.zeros(EXAMPLES, *input_shape))
    except Exception as error:
        raise InputError(
            f"the network can't be run on inputs of shape {input_shape}: {type(error).__name__}: {error}"
        ) from error
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    if not isinstance(logits, torch.Tensor) or logits.dim() != 2 or len(logits) != EXAMPLES:
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise InputError(f"the network must return one row of class scores per example; for {EXAMPLES} it gave {shape}")
    if not found:
        raise InputError("the network has no linear or convolution layer: there is nothing to prune")
    anatomy = Anatomy(tuple(found.values()), next(reversed(found)), logits.shape[1])
    if output is None:
        return anatomy
    return replace(anatomy, output=anatomy.select(output, "network.output"))
