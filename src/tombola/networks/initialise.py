"""Initial weights from an explicit generator."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn.parameter import is_lazy

from tombola.errors import InputError

# Layers whose weights a scheme draws; everything else keeps what the module's own constructor gave it.
WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


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

# "pytorch" leaves the module as its constructor made it; it is no scheme of ours.
NAMES = (*SCHEMES, "pytorch")


def initialised(build: Callable[[], nn.Module], scheme: str, seed: int) -> nn.Module:
    """Return a freshly built and initialised module; the global generator is left as it was.

    Constructors draw from the global generator, so that is seeded inside a fork: parameters that a scheme does not
    cover (embeddings, a user's own) are reproducible too. A scheme draws the weights of linear and convolution layers
    from its own generator, and sets their biases to zero.

    Raises:
        InputError: a layer does not know its own size yet.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed if scheme == "pytorch" else seed ^ CONSTRUCTOR)
        module = build()
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if is_lazy(tensor):
            raise InputError(
                f"the network's {name!r} has no size before the first batch; give lazy layers their sizes, or run a "
                "batch through the module in the factory"
            )
    if scheme != "pytorch":
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for layer in module.modules():
                if isinstance(layer, WEIGHTED):
                    SCHEMES[scheme](layer.weight, generator)
                    if layer.bias is not None:
                        layer.bias.zero_()
    return module
