"""One permutation of the hidden units of a network, so that they stand where another network's do.

Hidden units have no order of their own: a network whose units are permuted computes the same. Git Re-Basin (Ainsworth,
Hayase, Srinivasa 2023) finds the order in which the weights of two networks are most alike; what is left of the error
barrier between them is not a matter of order.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tombola.errors import InputError
from tombola.training.engine import Weights

PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
POOLS = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool2d),
)
# These act on each unit alone, so they commute with a permutation; pools do so after a convolution only.
BETWEEN = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity, nn.Dropout, nn.Dropout2d),
    *(*POOLS, nn.Flatten),
)
MOST_SWEEPS = 100
EXAMPLES = 2
TOLERANCE = 1e-4
"""Largest difference between the outputs of a network and of its permutation, relative to the largest output."""


@dataclass(frozen=True)
class Part:
    """A tensor whose axes belong to groups of units; a group is the output of one layer of a chain.

    Args:
        name: in the state_dict.
        outputs: the group along its first axis; None for the network's outputs.
        inputs: the group along its second axis; None for the network's inputs, and for a vector.
        counts: whether it is compared; running statistics are permuted alone.
    """

    name: str
    outputs: int | None
    inputs: int | None = None
    counts: bool = True


@dataclass(frozen=True)
class Chain:
    """A network of layers one after another.

    Args:
        parts: its tensors.
        sizes: number of units of each group.
    """

    parts: tuple[Part, ...]
    sizes: tuple[int, ...]


def chain_of(module: nn.Module) -> Chain:
    """Return a network as a chain: an `nn.Sequential` of linear layers, convolutions and what acts on single units.

    Raises:
        InputError: it can't be read as one; the message names the layer.
    """
    layers = list(_layers(module, ""))
    if len({id(layer) for _, layer in layers}) < len(layers):
        raise InputError("connectivity.align can't align a network that uses a layer twice; leave align out")
    last = max((place for place, (_, layer) in enumerate(layers) if isinstance(layer, PRODUCTS)), default=-1)
    parts: list[Part] = []
    sizes: list[int] = []
    group: int | None = None
    flat, before_it = True, nn.Module()
    for place, (name, layer) in enumerate(layers):
        flat = flat or isinstance(layer, nn.Flatten)
        if isinstance(layer, PRODUCTS):
            if group is not None and (
                layer.weight.shape[1] % sizes[group] or (isinstance(layer, nn.Linear) and not flat)
            ):
                raise _refused(name, layer, "whose inputs are not the outputs of the layer before it, ")
            flat, before_it = isinstance(layer, nn.Linear), layer
            before, group = group, None if place == last else len(sizes)
            if group is not None:
                sizes.append(len(layer.weight))
            parts.append(Part(f"{name}.weight", group, before))
            parts += [Part(f"{name}.bias", group)] if layer.bias is not None else []
        else:
            if isinstance(layer, POOLS) and isinstance(before_it, nn.Linear):
                raise _refused(name, layer, "which mixes the units of the linear layer before it, ")
            vectors = {key: each for key, each in layer.state_dict().items() if each.dim()}
            if group is not None and any(len(each) != sizes[group] for each in vectors.values()):
                raise _refused(name, layer, "which has another number of units than the layer before it, ")
            parameters = dict(layer.named_parameters())
            parts += [Part(f"{name}.{key}", group, counts=key in parameters) for key in vectors]
    return Chain(tuple(parts), tuple(sizes))


def _is_chain(module: nn.Module) -> bool:
    """Return whether a module is an nn.Sequential, or of a subclass with the same forward pass."""
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _layers(module: nn.Module, prefix: str) -> list[tuple[str, nn.Module]]:
    if not _is_chain(module):
        raise _refused(prefix, module)
    found = []
    for name, layer in module._modules.items():  # `named_children` gives a layer once, however often it is used
        assert layer is not None
        path = f"{prefix}.{name}" if prefix else name
        if _is_chain(layer):
            found += _layers(layer, path)
        elif isinstance(layer, (*PRODUCTS, _BatchNorm, *BETWEEN)) and getattr(layer, "groups", 1) == 1:
            found.append((path, layer))
        else:
            raise _refused(path, layer)
    return found


def check_orders(chain: Chain, module: nn.Module, input_shape: Sequence[int]) -> None:
    """Refuse a network that computes something else when the units of a layer are permuted, on random examples.

    What its layers are does not tell: `nn.Flatten` after a linear layer keeps units apart for flat inputs alone.

    Args:
        chain: what `chain_of` gives for it.
        module: with the weights to check; it stays as it is.
        input_shape: of one example.

    Raises:
        InputError: it does; the message names the layer.
    """
    module = copy.deepcopy(module).cpu().double().eval()
    weights = module.state_dict()
    generator = torch.Generator().manual_seed(0)
    examples = torch.randn(EXAMPLES, *input_shape, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        expected = module(examples)
        if not expected.isfinite().all():
            return  # such a run has diverged, and has no function to keep
        for group, size in enumerate(chain.sizes):
            orders = [torch.arange(each) for each in chain.sizes]
            orders[group] = torch.randperm(size, generator=generator)
            found = torch.func.functional_call(module, {**weights, **_permuted(chain, weights, orders)}, (examples,))
            if float((found - expected).abs().max()) > TOLERANCE * float(expected.abs().max()):
                name = next(part.name for part in chain.parts if part.outputs == group).rpartition(".")[0]
                raise _refused(name, module.get_submodule(name), "whose units can't be permuted on such inputs, ")


def _refused(name: str, layer: nn.Module, why: str = "") -> InputError:
    what = f"layer {name!r}, {why}of type {type(layer).__name__}" if name else f"a {type(layer).__name__}"
    if not name:  # name what makes it more than a chain
        others = (f"{each} ({type(inner).__name__})" for each, inner in layer.named_children())
        what += f", whose own forward pass joins {', '.join(list(others)[:3])}"
    return InputError(
        f"connectivity.align can't align {what}; it aligns an nn.Sequential of linear layers, convolutions without "
        "groups, batch norm, activations, dropout and pooling; leave align out"
    )


def aligned(chain: Chain, one: Weights, other: Weights) -> Weights:
    """Return `one` with its hidden units in the order in which its weights are most like those of `other`.

    Weight matching (Ainsworth et al. 2023, Algorithm 1): the permutation of one layer after another that makes the
    inner product of the two networks largest, until none changes. It finds a local optimum, so it starts twice: from
    the order as it is, and from layers matched one by one from the input on, which undoes any mere permutation. The
    better of the two is returned, and the order as it is where neither is better.

    Args:
        chain: what the weights are of.
        one, other: state_dicts.
    """
    mine, theirs = ({part.name: weights[part.name].double() for part in chain.parts} for weights in (one, other))
    start = [torch.arange(size) for size in chain.sizes]
    swept = [_swept(chain, mine, theirs, orders) for orders in (start, _forward(chain, mine, theirs))]
    best = max((start, *swept), key=lambda orders: _likeness(chain, mine, theirs, orders))
    return {**one, **_permuted(chain, one, best)}


def _swept(chain: Chain, one: Weights, other: Weights, orders: Sequence[Tensor]) -> list[Tensor]:
    """Return the orders when matching one layer, the others being as they are, changes none any more."""
    orders = list(orders)
    for _ in range(MOST_SWEEPS):
        before = list(orders)
        for group in range(len(orders)):
            orders[group] = _matched(chain, one, other, orders, group, chain.parts)
        if all(torch.equal(old, new) for old, new in zip(before, orders, strict=True)):
            break
    return orders


def _forward(chain: Chain, one: Weights, other: Weights) -> list[Tensor]:
    """Return the orders that match each layer by what leads into it alone."""
    orders = [torch.arange(size) for size in chain.sizes]
    for group in range(len(orders)):
        leading = [part for part in chain.parts if part.outputs == group]
        orders[group] = _matched(chain, one, other, orders, group, leading)
    return orders


def _matched(
    chain: Chain, one: Weights, other: Weights, orders: Sequence[Tensor], group: int, parts: Sequence[Part]
) -> Tensor:
    """Return the best order of one group's units by some of the parts."""
    from scipy.optimize import linear_sum_assignment

    free = [torch.arange(size) if place == group else orders[place] for place, size in enumerate(chain.sizes)]
    size = chain.sizes[group]
    likeness = torch.zeros(size, size, dtype=torch.float64)
    for part in parts:
        if part.counts and group in (part.outputs, part.inputs):
            mine = _rows(_reordered(chain, part, one[part.name], free), part, group, size)
            likeness += _rows(other[part.name], part, group, size) @ mine.T
    return torch.as_tensor(linear_sum_assignment(likeness.numpy(), maximize=True)[1])


def _rows(tensor: Tensor, part: Part, group: int, size: int) -> Tensor:
    """Return a tensor as [units of the group, everything else]."""
    if part.outputs == group:
        return tensor.reshape(size, -1)
    return tensor.reshape(len(tensor), size, -1).movedim(1, 0).reshape(size, -1)


def _reordered(chain: Chain, part: Part, tensor: Tensor, orders: Sequence[Tensor]) -> Tensor:
    """Return a tensor with the units of its axes in another order; a flattened picture moves as a whole."""
    if part.outputs is not None:
        tensor = tensor[orders[part.outputs]]
    if part.inputs is None:
        return tensor
    units = chain.sizes[part.inputs]
    return tensor.reshape(len(tensor), units, -1)[:, orders[part.inputs]].reshape(tensor.shape)


def _permuted(chain: Chain, weights: Mapping[str, Tensor], orders: Sequence[Tensor]) -> Weights:
    return {part.name: _reordered(chain, part, weights[part.name], orders) for part in chain.parts}


def _likeness(chain: Chain, one: Weights, other: Weights, orders: Sequence[Tensor]) -> float:
    """Return the inner product of two networks, of their compared tensors, with the units of one in some order."""
    moved = _permuted(chain, one, orders)
    return math.fsum(float((moved[part.name] * other[part.name]).sum()) for part in chain.parts if part.counts)
