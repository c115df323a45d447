"""Which ATen operator becomes which node of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from tombola.export import graph as g
from tombola.export import graph_shape_operators as s
from tombola.export.graph_step import Step, rank

_AS_IS = "dropout feature_dropout alpha_dropout contiguous clone alias detach identity _assert_tensor_metadata"
AS_IS = frozenset(_AS_IS.split())
"""Operators that do nothing in evaluation."""


def _linear(step: Step) -> g.Node:
    given = step.arguments()
    weight, bias = step.constant(given["weight"]), step.constant(given["bias"])
    if given["input"] not in step.names:
        raise step.refuse("of a constant")
    names = step.name_of(given["weight"]), step.name_of(given["bias"])
    return g.Linear(*step.base(given["input"]), weight, bias, *names)


def _product(step: Step) -> g.Node:
    """x @ constant, as matrix products without a layer are written."""
    given = step.arguments()
    x, matrix = given["self"], given.get("other", given.get("mat2"))
    if x not in step.names or not isinstance(matrix, fx.Node):
        raise step.refuse()
    weight = step.constant(matrix)
    if weight.dim() != 2:
        raise step.refuse("with other than a matrix")
    return g.Linear(*step.base(x), weight.t().contiguous(), None, "", "")


def _addmm(step: Step) -> g.Node:
    given = step.arguments()
    if given["mat1"] not in step.names or given["beta"] != 1 or given["alpha"] != 1:
        raise step.refuse()
    weight, bias = step.constant(given["mat2"]), step.constant(given["self"])
    if bias.shape != (weight.shape[1],):
        raise step.refuse("with a bias that is not a vector")
    return g.Linear(*step.base(given["mat1"]), weight.t().contiguous(), bias, "", step.name_of(given["self"]))


def _conv(step: Step) -> g.Node:
    given = step.arguments()
    if given["input"] not in step.names:
        raise step.refuse("of a constant")
    weight, bias = step.constant(given["weight"]), step.constant(given["bias"])
    axes = weight.dim() - 2
    stride, dilation = _each(given["stride"], axes), _each(given["dilation"], axes)
    if isinstance(given["padding"], str):
        padding = tuple(_same(given["padding"], k, d) for k, d in zip(weight.shape[2:], dilation, strict=True))
    else:
        padding = tuple((side, side) for side in _each(given["padding"], axes))
    names = step.name_of(given["weight"]), step.name_of(given["bias"])
    return g.Conv(*step.base(given["input"]), weight, bias, *names, stride, padding, dilation, int(given["groups"]))


def _same(padding: str, kernel: int, dilation: int) -> tuple[int, int]:
    total = dilation * (kernel - 1) if padding == "same" else 0
    return total // 2, total - total // 2


def _each(value: Any, axes: int) -> tuple[int, ...]:
    """Return one number for each spatial axis."""
    values = [value] if isinstance(value, int) else list(value)
    return tuple(int(each) for each in (values * axes if len(values) == 1 else values))


def _batch_norm(step: Step) -> g.Node:
    given = step.arguments()
    statistics = [step.constant(given[name]) for name in ("running_mean", "running_var")]
    if given["training"] or any(each is None for each in statistics):
        raise step.refuse("with the batch's own statistics")
    mean, variance = (each.double() for each in statistics)
    weight, bias = step.constant(given["weight"]), step.constant(given["bias"])
    scale = 1 / torch.sqrt(variance + given["eps"])
    scale = scale if weight is None else scale * weight.double()
    shift = -mean * scale if bias is None else bias.double() - mean * scale
    fields = ("weight", "bias", "running_mean", "running_var")
    names = {field: name for field in fields if (name := step.name_of(given[field]))}
    return g.Norm(*step.base(given["input"]), scale, shift, names)


def _activation(kind: g.ActivationKind, *parameters: str) -> Callable[[Step], g.Node]:
    def make(step: Step) -> g.Node:
        given = step.arguments()
        return g.Activation(*step.base(), kind, tuple(float(given[name]) for name in parameters))

    return make


def _gelu(step: Step) -> g.Node:
    return g.Activation(*step.base(), "gelu_tanh" if step.arguments()["approximate"] == "tanh" else "gelu")


def _elu(step: Step) -> g.Node:
    given = step.arguments()
    if given["scale"] != 1 or given["input_scale"] != 1:
        raise step.refuse("with a scale")
    return g.Activation(*step.base(), "elu", (float(given["alpha"]),))


def _clamp(step: Step) -> g.Node:
    given = step.arguments()
    low, high = given["min"], given["max"]
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        raise step.refuse("with bounds that are tensors")
    low, high = (float("-inf") if low is None else low), (float("inf") if high is None else high)
    return g.Activation(*step.base(), "hardtanh", (float(low), float(high)))


def _pool(axes: int, make: Callable[[Step], g.Node]) -> Callable[[Step], g.Node]:
    """Return what makes a pool's node, and refuses one whose examples have no channels.

    PyTorch takes a batch of such examples for one example, and its examples for channels.
    """

    def checked(step: Step) -> g.Node:
        if rank(step.source()) != axes + 2:
            raise step.refuse("on examples without an axis of channels", "add one, as with x.unsqueeze(1)")
        return make(step)

    return checked


def _max_pool(step: Step) -> g.Node:
    given = step.arguments()
    axes = rank(step.source()) - 2
    kernel = _each(given["kernel_size"], axes)
    stride = _each(given["stride"], axes) if given["stride"] else kernel
    padding, dilation = _each(given["padding"], axes), _each(given["dilation"], axes)
    return g.Pool(*step.base(), "max", kernel, stride, padding, dilation)


def _avg_pool(step: Step) -> g.Node:
    given = step.arguments()
    axes = rank(step.source()) - 2
    kernel = _each(given["kernel_size"], axes)
    stride = _each(given["stride"], axes) if given["stride"] else kernel
    counts: Any = given.get("divisor_override") or ("padded" if given["count_include_pad"] else "input")
    return g.Pool(*step.base(), "average", kernel, stride, _each(given["padding"], axes), (1,) * axes, counts)


def _adaptive(kind: str) -> Callable[[Step], g.Node]:
    def make(step: Step) -> g.Node:
        if kind == "average":
            return g.AdaptivePool(*step.base(), "average")
        name, layer, inputs, _ = step.base()
        return g.AdaptivePool(name, layer, inputs, tuple(map(int, step.node.meta["val"][0].shape[1:])), "max")

    return make


def _mean(step: Step) -> g.Node:
    given = step.arguments()
    if given.get("dtype") is not None or not given.get("dim"):
        raise step.refuse("across examples" if not given.get("dim") else "in another type")
    axes = [given["dim"]] if isinstance(given["dim"], int) else given["dim"]
    return g.Mean(*step.base(), tuple(sorted(step.axis(axis) for axis in axes)))


def _binary(kind: Any) -> Callable[[Step], g.Node]:
    def make(step: Step) -> g.Node:
        given = step.arguments()
        one, other = given["self"], given["other"]
        if given.get("alpha", 1) != 1 or given.get("rounding_mode") is not None:
            raise step.refuse("with alpha or rounding")
        if one in step.names and other in step.names:
            if kind not in ("add", "sub", "mul"):
                raise step.refuse("of two tensors")
            return g.Binary(*step.base(one, other), kind)
        if kind == "div" and other in step.names:
            raise step.refuse("by a tensor that depends on the example")
        first = one in step.names
        constant = torch.as_tensor(step.constant(other if first else one)).double()
        if constant.dim() == len(step.shape) + 1:
            if constant.shape[0] != 1:
                raise step.refuse("with a constant for each example")
            constant = constant[0]
        if constant.dim() > len(step.shape):
            raise step.refuse("with a constant of more axes")
        if torch.broadcast_shapes(constant.shape, step.shape) != step.shape or _example_shape(step) != step.shape:
            raise step.refuse("that makes the example larger")
        return g.Affine(*step.base(), *_shifted(kind, constant, first))

    return make


def _example_shape(step: Step) -> tuple[int, ...]:
    return tuple(step.source().meta["val"].shape[1:])


def _shifted(kind: str, constant: Tensor, first: bool) -> tuple[Tensor, Tensor]:
    """Return scale and shift; `first` says that the example stands before the operator."""
    one, zero = torch.ones(()).double(), torch.zeros(()).double()
    if kind == "mul":
        return constant, zero
    if kind == "div":
        return 1 / constant, zero
    if kind == "add":
        return one, constant
    reverse = first if kind == "rsub" else not first  # rsub(x, c) is c - x
    return (-one, constant) if reverse else (one, -constant)


def _negative(step: Step) -> g.Node:
    return g.Affine(*step.base(), -torch.ones(()).double(), torch.zeros(()).double())


def _softmax(log: bool) -> Callable[[Step], g.Node]:
    def make(step: Step) -> g.Node:
        given = step.arguments()
        if given.get("dtype") is not None:
            raise step.refuse("in another type")
        return g.Softmax(*step.base(), step.axis(given["dim"]), log)

    return make


def _to(step: Step) -> g.Node:
    if step.node.meta["val"].dtype != torch.float32:
        raise step.refuse("to another type")
    return g.Reshape(*step.base())


RESHAPES = "view reshape flatten unflatten squeeze unsqueeze _unsafe_view view_as reshape_as"

HANDLERS: dict[str, Callable[[Step], g.Node | None]] = {
    "linear": _linear,
    "matmul": _product,
    "mm": _product,
    "addmm": _addmm,
    "conv1d": _conv,
    "conv2d": _conv,
    "conv3d": _conv,
    "batch_norm": _batch_norm,
    "relu": _activation("relu"),
    "relu6": _activation("relu6"),
    "leaky_relu": _activation("leaky_relu", "negative_slope"),
    "elu": _elu,
    "gelu": _gelu,
    "sigmoid": _activation("sigmoid"),
    "hardsigmoid": _activation("hardsigmoid"),
    "tanh": _activation("tanh"),
    "silu": _activation("silu"),
    "hardswish": _activation("hardswish"),
    "hardtanh": _activation("hardtanh", "min_val", "max_val"),
    "clamp": _clamp,
    **{f"max_pool{axes}d": _pool(axes, _max_pool) for axes in (1, 2, 3)},
    **{f"avg_pool{axes}d": _pool(axes, _avg_pool) for axes in (1, 2, 3)},
    **{f"adaptive_avg_pool{axes}d": _pool(axes, _adaptive("average")) for axes in (1, 2, 3)},
    **{f"adaptive_max_pool{axes}d": _pool(axes, _adaptive("max")) for axes in (1, 2, 3)},
    "mean": _mean,
    **dict.fromkeys(RESHAPES.split(), s.reshape),
    "permute": s.permute,
    "transpose": s.transpose,
    "slice": s.part,
    "chunk": s.split,
    "split": s.split,
    "split_with_sizes": s.split,
    "getitem": s.item,
    "pad": s.pad,
    "constant_pad_nd": s.pad,
    "cat": s.cat,
    "concat": s.cat,
    "add": _binary("add"),
    "sub": _binary("sub"),
    "rsub": _binary("rsub"),
    "mul": _binary("mul"),
    "div": _binary("div"),
    "neg": _negative,
    "softmax": _softmax(log=False),
    "log_softmax": _softmax(log=True),
    "to": _to,
    "_to_copy": _to,
}
"""Name of the ATen operator -> what makes its node; None where its results are read one by one."""
