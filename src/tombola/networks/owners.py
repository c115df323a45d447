"""The layers that hold each parameter: what kind of weight it is, and whether its layer multiplies by it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils.parametrize import ParametrizationList

from tombola.networks.products import Use, is_vector

Kind = Literal["conv", "linear", "recurrent", "attention", "embedding", "parameter"]
KINDS: tuple[Kind, ...] = ("conv", "linear", "recurrent", "attention", "embedding", "parameter")
Place = tuple[nn.Module, str]  # a layer, and its own name for the parameter

LINEAR, RECURRENT = (nn.Linear, nn.Bilinear), (nn.RNNBase, nn.RNNCellBase)
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
MULTIPLYING = (*LINEAR, *RECURRENT, _ConvNd, nn.MultiheadAttention)


def places_of(module: nn.Module) -> dict[int, list[Place]]:
    """Return where each parameter stands, by the parameter's id; a parametrised weight stands in its layer."""
    places: dict[int, list[Place]] = {}
    for name, owner in module.named_modules():
        layer = owner
        if isinstance(owner, ParametrizationList):
            layer = module.get_submodule(f".{name}".partition(".parametrizations.")[0][1:])
        for local, parameter in owner._parameters.items():
            if parameter is not None:
                places.setdefault(id(parameter), []).append((layer, local))
    return places


def kind_of(use: Use, places: Sequence[Place]) -> Kind:
    """Return the kind of a parameter that a product takes, or whose rows are looked up."""
    owners = [layer for layer, _ in places]
    if use.looked_up or any(isinstance(owner, EMBEDDINGS) for owner in owners):
        return "embedding"
    if use.convolved:
        return "conv"
    if any(isinstance(owner, nn.MultiheadAttention) for owner in owners):
        return "attention"
    if any(isinstance(owner, RECURRENT) for owner in owners):
        return "recurrent"
    if any(isinstance(owner, LINEAR) or _is_conv1d(owner) for owner in owners):
        return "linear"
    return "parameter"


def layer_weights(
    parameters: Mapping[str, Tensor],
    places: Mapping[int, Sequence[Place]],
    multiplied: Collection[str],
    missed: Collection[str],
    embeddings: bool,
) -> set[str]:
    """Return the names of the parameters that their layers multiply by, whether a forward pass reaches them or not.

    They are the weights of PyTorch's layers, and those missed ones of a user's class where a product takes the same
    parameter of another layer of that class.

    Args:
        parameters: of the network, by name.
        places: as `places_of`.
        multiplied: names of the parameters that products take.
        missed: names of those that no example reached.
        embeddings: whether tables count, too.
    """
    known = (*MULTIPLYING, *EMBEDDINGS) if embeddings else MULTIPLYING
    own = {
        (type(layer), local)
        for name in multiplied
        for layer, local in places[id(parameters[name])]
        if not type(layer).__module__.startswith("torch.nn.")  # an nn.ParameterList says nothing of what it holds
    }

    def is_weight(name: str, layer: nn.Module, local: str) -> bool:
        if is_vector(parameters[name]) and (local.endswith("_g") or not local.startswith("weight")):
            return False  # the lengths of weight norm, and the biases of attention
        return isinstance(layer, known) or _is_conv1d(layer) or (name in missed and (type(layer), local) in own)

    return {
        name
        for name, parameter in parameters.items()
        if parameter.dim() > 1 and any(is_weight(name, *place) for place in places[id(parameter)])
    }


def _is_conv1d(layer: nn.Module) -> bool:
    """Is it transformers' Conv1D, a linear layer with its weight transposed?"""
    return type(layer).__name__ == "Conv1D"
