"""How large the inputs of each weight are, over some examples: what scores on activations need."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tombola.errors import InputError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
UNSEEN = "set pruning.criterion to magnitude, or exclude the layer in pruning.exclude"


def input_norms(
    module: nn.Module,
    names: Iterable[str],
    forward: Callable[[], object],
    needed: Container[str] | None = None,
) -> dict[str, Tensor]:
    """Return, for each weight, the L2 norm of the inputs that it is multiplied by.

    Args:
        module: that is looked at.
        names: of weights of linear layers and convolutions.
        forward: runs the module on all examples.
        needed: those of the names that must have norms; None for all. Others are left out where theirs can't be seen.

    Returns:
        Tensors that broadcast to the weights' shapes, float64: of a linear layer [1, inputs]; of a convolution
        [outputs or 1, inputs / groups, *window]. Norms are over examples and positions.

    Raises:
        InputError: a needed weight belongs to no such layer, or the forward pass does not call its layer.
    """
    squares: dict[str, Tensor] = {}
    hidden: set[str] = set()
    handles = []
    names = list(names)
    wanted = names if needed is None else [name for name in names if name in needed]
    for name in names:
        weight = module.get_parameter(name)
        owners = [layer for layer in module.modules() if any(own is weight for own in layer.parameters(recurse=False))]
        unknown = [layer for layer in owners if not isinstance(layer, (nn.Linear, *CONVOLUTIONS))]
        if unknown and name in wanted:
            raise InputError(
                f"wanda needs the inputs of layer {name.removesuffix('.weight')!r}, of type "
                f"{type(unknown[0]).__name__}; it knows linear layers and convolutions alone; {UNSEEN}"
            )
        for layer in () if unknown else owners:
            handles.append(layer.register_forward_pre_hook(_adding(squares, hidden, name), with_kwargs=True))
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    found = {name: each.sqrt() for name, each in squares.items() if name not in hidden}
    if missing := [name for name in wanted if name not in found]:
        raise InputError(
            f"wanda can't see the inputs of layer {missing[0].removesuffix('.weight')!r}, which the forward pass does "
            f"not call as a module on its `input`; {UNSEEN}"
        )
    return found


def _adding(
    squares: dict[str, Tensor], hidden: set[str], name: str
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
    """Return a hook that adds the inputs of a call; `name` goes into `hidden` where it can't find them."""

    def add(layer: nn.Module, given: tuple[Any, ...], options: dict[str, Any]) -> None:
        x = given[0] if given else options.get("input")
        if not isinstance(x, Tensor):
            hidden.add(name)
            return
        x = x.detach().double()
        if isinstance(layer, nn.Linear):
            found = x.reshape(-1, x.shape[-1]).square().sum(0)[None]
        else:
            assert isinstance(layer, CONVOLUTIONS)
            found = _of_places(layer, x)
        squares[name] = squares[name] + found if name in squares else found

    return add


def _of_places(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, x: Tensor) -> Tensor:
    """Return the sum of squares of what each place of a window is multiplied by: [outputs or 1, inputs / groups, ...].

    Args:
        layer: a convolution.
        x: its input, [N, channels, ...] or without N.
    """
    sizes = len(layer.kernel_size)
    x = x if x.dim() == sizes + 2 else x[None]
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    x = functional.pad(x, layer._reversed_padding_repeated_twice, mode=mode).square()
    found = x.new_zeros(x.shape[1], *layer.kernel_size)
    spans = [
        (size - spread * (kernel - 1) - 1) // step * step + 1
        for size, spread, kernel, step in zip(x.shape[2:], layer.dilation, layer.kernel_size, layer.stride, strict=True)
    ]
    places: Iterable[tuple[int, ...]] = product(*(range(size) for size in layer.kernel_size))
    for place in places:
        steps = zip(place, layer.dilation, spans, layer.stride, strict=True)
        seen = [slice(at * spread, at * spread + span, step) for at, spread, span, step in steps]
        here: tuple[slice | int, ...] = (slice(None), *place)
        found[here] = x[:, :, *seen].transpose(0, 1).flatten(1).sum(1)
    found = found.unflatten(0, (layer.groups, -1))
    return found if layer.groups == 1 else found.repeat_interleave(layer.out_channels // layer.groups, 0)
