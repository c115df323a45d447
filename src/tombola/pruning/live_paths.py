"""Which kept weights lie on a path from an input to an output, in any network whose forward pass can be followed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tombola.networks.initialise import WEIGHTED
from tombola.pruning.mask import Mask


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What a forward pass may call. Where the weights are not negative, the pre-activations are not either, and a number is
# positive exactly where a path leads to it - as long as every call keeps that so.
AS_IS = _names(
    "linear conv1d conv2d conv3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d flatten view reshape permute transpose squeeze unsqueeze contiguous cat size dim numel "
    "__get__ __len__ mean sum clone to float double pad"
)
# Functions of each number alone, and shifts and scales of a whole unit, make no path more or less.
PASSED_OVER = _names(
    "relu relu_ relu6 leaky_relu leaky_relu_ elu elu_ selu celu gelu silu hardswish mish tanh tanh_ softplus sigmoid "
    "sigmoid_ dropout dropout1d dropout2d dropout3d alpha_dropout batch_norm"
)
ADDED = _names("add add_ __add__ __radd__ __iadd__")
SHIFTED = ADDED | _names("sub sub_ __sub__ mul mul_ __mul__ __rmul__ div div_ __truediv__")  # by a number


class Untraceable(Exception):
    """The forward pass does something through which paths can't be followed."""


@dataclass(frozen=True)
class LivePaths:
    """What is left of a network once everything is gone that no path from an input to an output leads through.

    Args:
        mask: the kept weights that lie on such a path.
        inputs: bool, of the shape of one example: the inputs that such a path begins at.
    """

    mask: Mask
    inputs: Tensor


def live_paths(module: nn.Module, mask: Mask, input_shape: Any) -> LivePaths:
    """Return the weights and inputs of a masked network that lie on a path from an input to an output.

    The network is run once with every kept weight positive, biases zero and all inputs one, and differentiated once: a
    weight lies on a path exactly where its derivative is positive. That is the same as taking away each unit whose
    incoming or outgoing weights are all gone, until no such unit remains. Weights without a mask count as kept.

    A unit that only its bias keeps from being zero counts as dead: what it adds is a constant, whatever the input.

    Raises:
        Untraceable: the network has matrices outside linear and convolution layers (attention, LSTM, bare parameters,
            transposed convolutions), whose units this does not know, or its forward pass does something through which
            paths can't be followed; the message says what.
    """
    if not (isinstance(input_shape, tuple) and all(isinstance(size, int) for size in input_shape)):
        raise Untraceable("it takes several inputs")
    parameters = dict(module.named_parameters())
    layers = {id(layer.weight) for layer in module.modules() if isinstance(layer, WEIGHTED)}
    weights = {}
    for name, parameter in parameters.items():
        if parameter.dim() > 1 and id(parameter) not in layers:  # a mask on it does not say where its units are
            raise Untraceable(f"{name} is not a weight of a linear or convolution layer")
        weights[name] = _positive(name, parameter, mask).requires_grad_()
    example = torch.ones(1, *input_shape, dtype=torch.float64, requires_grad=True)
    modes = [(each, each.training) for each in module.modules()]
    module.eval()
    try:
        with torch.enable_grad(), _OnlyKnownCalls():
            outputs = torch.func.functional_call(module, weights, (example,))
    except Untraceable:
        raise
    except Exception as error:  # such as of a network that makes float32 tensors of its own
        raise Untraceable(f"its forward pass fails in double precision: {type(error).__name__}: {error}") from error
    finally:
        for each, training in modes:
            each.training = training
    if not isinstance(outputs, Tensor):
        raise Untraceable(f"it returns a {type(outputs).__name__}, not a tensor")
    wanted = [weights[name] for name in mask]
    *gradients, of_example = torch.autograd.grad(outputs.sum(), [*wanted, example], allow_unused=True)
    live = {
        name: mask[name] & (gradient > 0) if gradient is not None else torch.zeros_like(mask[name])
        for name, gradient in zip(mask, gradients, strict=True)
    }
    inputs = of_example[0] > 0 if of_example is not None else torch.zeros(input_shape, dtype=torch.bool)
    return LivePaths(Mask(live), inputs)


def _positive(name: str, parameter: Tensor, mask: Mask) -> Tensor:
    """Return a parameter of zeros and positive numbers, small enough that the deepest network does not overflow."""
    if parameter.dim() < 2:  # a bias, or what normalisation scales by
        return torch.zeros(parameter.shape, dtype=torch.float64)
    keep = mask[name].double() if name in mask else torch.ones(parameter.shape, dtype=torch.float64)
    incoming = keep.flatten(1).sum(1).clamp(min=1)
    return keep / incoming.reshape(-1, *[1] * (keep.dim() - 1))


class _OnlyKnownCalls(TorchFunctionMode):
    """Lets a forward pass call what paths can be followed through, and nothing else."""

    def __torch_function__(
        self, called: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name, options = getattr(called, "__name__", str(called)), dict(kwargs or {})
        if name in PASSED_OVER:
            return args[0] if args else options["input"]
        if name in INSTEAD:
            return INSTEAD[name](*args, **options)
        if name in SHIFTED and len(args) == 2 and isinstance(args[1], int | float):
            return args[0]
        if name in AS_IS or (name in ADDED and all(isinstance(each, Tensor) for each in args)):
            return called(*args, **options)
        raise Untraceable(f"paths can't be followed through {name}, which its forward pass calls")


def _averaging(pool: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return the average instead of a maximum, which would hide the paths through all inputs but one."""

    def average(
        input: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        if {dilation} - {1, (1,), (1, 1), (1, 1, 1)} or return_indices:
            raise Untraceable("paths can't be followed through a maximum with dilation or indices")
        return pool(input, kernel_size, stride or None, padding, ceil_mode)

    return average


def _averaging_adaptively(pool: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def average(input: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
        if return_indices:
            raise Untraceable("paths can't be followed through a maximum with indices")
        return pool(input, output_size)

    return average


INSTEAD: dict[str, Callable[..., Tensor]] = {
    f"{kind}max_pool{dimensions}d": around(getattr(functional, f"{kind}avg_pool{dimensions}d"))
    for kind, around in (("", _averaging), ("adaptive_", _averaging_adaptively))
    for dimensions in (1, 2, 3)
}
