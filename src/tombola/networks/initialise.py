"""Initial weights from an explicit generator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Generator, Tensor, nn
from torch.nn.parameter import is_lazy

from tombola.errors import InputError
from tombola.formatting import first_of
from tombola.networks.axes import PLAIN, Axes

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Layers that store their weight as [outputs, inputs, window]."""
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def glorot_normal(weight: Tensor, generator: Generator) -> None:
    """Gaussian Glorot (Glorot & Bengio 2010), which the paper uses: variance 2 / (fan in + fan out)."""
    nn.init.xavier_normal_(weight, generator=generator)


def glorot_uniform(weight: Tensor, generator: Generator) -> None:
    """Uniform Glorot (Glorot & Bengio 2010), same variance."""
    nn.init.xavier_uniform_(weight, generator=generator)


def kaiming_normal(weight: Tensor, generator: Generator) -> None:
    """Gaussian Kaiming for ReLU (He et al. 2015): variance 2 / fan in."""
    nn.init.kaiming_normal_(weight, nonlinearity="relu", generator=generator)


def kaiming_uniform(weight: Tensor, generator: Generator) -> None:
    """Uniform Kaiming for ReLU (He et al. 2015), same variance."""
    nn.init.kaiming_uniform_(weight, nonlinearity="relu", generator=generator)


SCHEMES: dict[str, Callable[[Tensor, Generator], None]] = {
    "glorot-normal": glorot_normal,
    "glorot-uniform": glorot_uniform,
    "kaiming-normal": kaiming_normal,
    "kaiming-uniform": kaiming_uniform,
}
CONSTRUCTOR = 0x5DEECE66D  # keeps what a constructor draws apart from what a scheme draws with the same seed

# "pytorch" leaves the module as its constructor made it; it is not a scheme of ours.
NAMES = (*SCHEMES, "pytorch")


def layer_axes(layer: nn.Module) -> Axes | None:
    """Return the axes of the weight of a linear or convolution layer; None for all other modules.

    A scheme draws the weights of these layers. Everything else keeps what its constructor gave it.
    """
    if isinstance(layer, WEIGHTED):
        return PLAIN
    if isinstance(layer, TRANSPOSED):
        return Axes(outputs=(1,), inputs=(0,), groups=layer.groups)
    # transformers' Conv1D is a linear layer of `nf` outputs with its weight transposed.
    weight, outputs = getattr(layer, "weight", None), getattr(layer, "nf", None)
    if type(layer).__name__ == "Conv1D" and isinstance(weight, Tensor) and tuple(weight.shape[1:]) == (outputs,):
        return Axes(outputs=(1,), inputs=(0,))
    return None


def drawn_weights(module: nn.Module) -> frozenset[int]:
    """Return the ids of the parameters that a scheme draws as weights."""
    return frozenset(id(layer.weight) for layer in module.modules() if layer_axes(layer) is not None)


def draw(scheme: str, weight: Tensor, axes: Axes, generator: Generator) -> None:
    """Draw a weight by its fan in and fan out: inputs and outputs, each times the places of the window.

    Args:
        scheme: one of `SCHEMES`.
        weight: changed in place.
        axes: which axes of the weight are inputs and outputs.
        generator: draws the numbers.
    """
    if axes == PLAIN:
        SCHEMES[scheme](weight, generator)
        return
    places = axes.places(weight.shape)
    drawn = weight.new_empty(places.shape)
    SCHEMES[scheme](drawn, generator)
    flat = weight.new_empty(weight.numel())
    flat[places.flatten()] = drawn.flatten()
    weight.copy_(flat.view_as(weight))


def initialised(build: Callable[[], nn.Module], scheme: str, seed: int) -> nn.Module:
    """Return a freshly built and initialised module; the global generator is left as it was.

    Constructors draw from the global generator, so that is seeded inside a fork. A scheme draws the weights of linear
    and convolution layers (`layer_axes`) from its own generator, and sets their biases to zero. Every other parameter
    keeps what the constructor drew, prunable or not: attention, recurrent layers and bare parameters have no agreed
    fan in and fan out.

    Raises:
        InputError: a layer has no size yet, or a scheme should draw a weight that is computed from other parameters.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed if scheme == "pytorch" else seed ^ CONSTRUCTOR)
        module = build()
    require_sizes(module)
    if scheme != "pytorch":
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, layer in module.named_modules():
                axes = layer_axes(layer)
                if axes is not None:
                    if not isinstance(layer.weight, nn.Parameter):
                        raise InputError(
                            f"network.init: {scheme} can't draw the weight of layer {name!r}, which is computed from "
                            "other parameters (for example by weight norm); set network.init to pytorch"
                        )
                    draw(scheme, layer.weight, axes, generator)
                    if layer.bias is not None:
                        layer.bias.zero_()
    return module


def require_sizes(module: nn.Module) -> None:
    """Check that every parameter and buffer has a size.

    Raises:
        InputError: a lazy layer has seen no batch yet.
    """
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise InputError(
                f"the network's {name!r} has no size before the first batch; give lazy layers their sizes, or run one "
                "batch through the module in the factory"
            )


def equal_weights(make: Callable[[int], nn.Module], first: int, second: int) -> frozenset[str]:
    """Return the names of the parameters that two seeds give equal values.

    Two different seeds tell which parameters have a second initialisation; one seed given twice tells which parameters
    a factory draws from elsewhere, and so can't repeat.

    Args:
        make: returns an initialised module from a seed.
        first, second: the seeds.

    Raises:
        InputError: as `initialised`.
    """
    one, other = (dict(make(seed).named_parameters()) for seed in (first, second))
    return frozenset(
        name for name, weight in one.items() if name in other and torch.equal(weight.detach(), other[name].detach())
    )


def fixed_weights(make: Callable[[int], nn.Module], names: Iterable[str]) -> tuple[str, ...]:
    """Return which weights have no second initialisation: another seed gives the same ones.

    A factory that loads pretrained weights has such weights: `reinit` would train those of the ticket. Zeros, constants
    and identities are initialisations, which have no second one by design.

    Args:
        make: returns an initialised module from a seed.
        names: of the prunable parameters (`Coverage.sizes`).

    Raises:
        InputError: as `initialised`.
    """
    equal = equal_weights(make, 0, 1)
    if not (found := [name for name in names if name in equal]):
        return ()
    weights = dict(make(0).named_parameters())
    return tuple(name for name in found if len(weights[name].detach().unique()) > 2)  # 0 and 1 of an identity


def without_second_initialisation(names: Sequence[str], sizes: Mapping[str, int]) -> str:
    """Return the end of a refusal: the weights that `fixed_weights` gave, and the controls to use instead.

    Args:
        names: of these weights.
        sizes: of all prunable weights, by name.
    """
    share = sum(sizes[name] for name in names) / sum(sizes.values())
    return (
        f"builds equal weights from every seed ({first_of(names, 3)}: {share:.0%} of the prunable weights), "
        "so this control would keep those of the ticket; use shuffled-weights or redrawn-magnitudes"
    )
