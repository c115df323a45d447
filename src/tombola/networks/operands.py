"""What PyTorch's matrix products and convolutions multiply, and which dimensions of each factor they sum over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

OUTPUT, INPUT, WINDOW = "oiw"  # a dimension that stays in the result, one that is summed over, one of a kernel


class Operand(NamedTuple):
    """What a product multiplies.

    Args:
        tensor: a factor.
        multiply_adds: that it takes part in.
        roles: of each of its dimensions: `OUTPUT`, `INPUT` or `WINDOW`; "" where they are not known.
        groups: of a transposed convolution.
    """

    tensor: Tensor
    multiply_adds: int
    roles: str = ""
    groups: int = 1


Operands = list[Operand]


def _pair(first: int, second: int, batch: str = OUTPUT) -> Callable[[Sequence[Any]], tuple[Operands, int]]:
    """Return the operands of a matrix product, whose last dimension of the second is that of the result.

    Args:
        first, second: places of the factors among the arguments.
        batch: role of the dimension that counts matrices.
    """

    def operands(args: Sequence[Any]) -> tuple[Operands, int]:
        a, b = args[first], args[second]
        count = a.numel() * (b.shape[-1] if b.dim() > 1 else 1)
        rows, columns = (batch + OUTPUT + INPUT)[-a.dim() :], INPUT + OUTPUT
        columns = batch + columns if b.dim() > 2 else columns[: b.dim()]
        return [Operand(a, count, rows), Operand(b, count, columns)], count

    return operands


def _linear(args: Sequence[Any]) -> tuple[Operands, int]:
    x, weight = args[:2]
    count = x.numel() * weight.shape[0]
    return [Operand(x, count, OUTPUT * (x.dim() - 1) + INPUT), Operand(weight, count, OUTPUT + INPUT)], count


def _convolution(args: Sequence[Any]) -> tuple[Operands, int]:
    """`convolution(x, weight, bias, stride, padding, dilation, transposed, output_padding, groups)`."""
    x, weight, _, stride, padding, dilation, transposed, _, groups = args[:9]
    places = x.shape[0]
    for size, kernel, step, pad, spread in zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True):
        places *= size if transposed else (size + 2 * pad - spread * (kernel - 1) - 1) // step + 1
    count = places * weight.numel()
    roles = (INPUT + OUTPUT if transposed else OUTPUT + INPUT) + WINDOW * (weight.dim() - 2)
    return [Operand(x, count), Operand(weight, count, roles, groups if transposed else 1)], count


def _bilinear(args: Sequence[Any]) -> tuple[Operands, int]:
    """`_trilinear(x, weight, y, expand, expand, expand, summed)`, as `nn.Bilinear` calls it."""
    x, weight, y = args[:3]
    count = x.numel() // x.shape[-1] * weight.numel() if x.dim() else 0
    plain = list(args[4]) == [0] and list(args[6]) == [2, 3]  # the weight is [outputs, inputs, inputs]
    return [Operand(x, count), Operand(weight, count, OUTPUT + 2 * INPUT if plain else ""), Operand(y, count)], count


def _recurrent(x: Tensor, weights: Sequence[Tensor], state: Any) -> tuple[Operands, int]:
    steps, batch = x.numel() // x.shape[-1], x.shape[1] if x.dim() == 3 else 1
    products = [Operand(weight, steps * weight.numel(), OUTPUT + INPUT) for weight in weights]
    count = sum(each.multiply_adds for each in products)
    states = [Operand(state, batch * weights[1].numel())] if isinstance(state, Tensor) else []
    return [Operand(x, steps * weights[0].numel()), *products, *states], count


def _recurrent_layer(args: Sequence[Any]) -> tuple[Operands, int]:
    """`mkldnn_rnn_layer(x, weight_ih, weight_hh, bias, bias, state, ...)`: x is [time, batch, features]."""
    return _recurrent(args[0], args[1:3], args[5])


def _recurrent_layers(args: Sequence[Any]) -> tuple[Operands, int]:
    """`_cudnn_rnn(x, weights, stride, buffer, state, ...)` and its like: all layers and directions at once."""
    return _recurrent(args[0], [weight for weight in args[1] if weight.dim() > 1], args[4])


PRODUCTS: dict[str, Callable[[Sequence[Any]], tuple[Operands, int]]] = {
    **{f"aten::{name}": _pair(0, 1) for name in ("mm", "bmm", "mv", "dot", "vdot", "_scaled_mm", "_grouped_mm")},
    **{
        f"aten::{name}": _pair(1, 2)
        for name in ("addmm", "addmm_", "_addmm_activation", "baddbmm", "baddbmm_", "addmv", "_sparse_addmm")
    },
    "aten::addbmm": _pair(1, 2, batch=INPUT),
    "aten::linear": _linear,
    "aten::convolution": _convolution,
    "aten::_trilinear": _bilinear,
    "aten::mkldnn_rnn_layer": _recurrent_layer,
    "aten::_cudnn_rnn": _recurrent_layers,
    "aten::miopen_rnn": _recurrent_layers,
}
CONVOLUTION = "aten::convolution"
