"""A convolution whose cost follows its live weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.training.engines.conv_kernels import Source, convolve, sum_channels, weight_gradients
from tombola.training.engines.conv_plan import Geometry, Pass, Plan
from tombola.training.engines.example_last import CHUNK, Window, example_last, pooled, result_of, usual
from tombola.training.engines.mlp_wiring import Slots
from tombola.training.engines.sparse_layer import SparseLayer


class SparseConv2d(SparseLayer):
    """Does what a masked `nn.Conv2d` does; then a ReLU if `rectifies` is set; then max pooling if `window` is set.

    Its results have the usual shape, [examples, channels, height, width], and lie in memory with the examples last,
    which is how a following layer of this kind takes them fastest.

    Args:
        layer: the dense one, that `why_not_conv` finds nothing against.
        keep: bool in the shape of its weight, the live weights.
    """

    def __init__(self, layer: nn.Conv2d, keep: Tensor):
        super().__init__()
        self.plan = Plan(geometry_of(layer), keep.numpy())
        live, outputs = len(self.plan.positions), layer.out_channels
        self.slots = {"weight": Slots(tuple(keep.shape), self.plan.positions, np.arange(live))}
        tensors = {"weight": layer.weight}
        if layer.bias is not None:
            self.slots["bias"] = Slots((outputs,), np.arange(outputs), live + np.arange(outputs))
            tensors["bias"] = layer.bias
        self.rectifies = False
        self.window: Window | None = None  # as high and wide as its strides
        self.live = nn.Parameter(self.pack(tensors))

    def forward(self, input: Tensor) -> Tensor:
        """Return float32 [examples, outputs, height, width] of [examples, channels, height, width]."""
        if input.dim() == 3:
            return self.forward(input[None])[0]
        channels = self.plan.geometry.channels
        if input.dim() != 4 or input.shape[1] != channels:
            raise ValueError(f"expected [examples, {channels}, height, width], got {list(input.shape)}")
        # A tile's halo holds a position of all examples: with more of them it would not fit the cache.
        parts = input.split(CHUNK) if len(input) > CHUNK else (input,)
        results = [_Convolution.apply(part.float(), self.live, self) for part in parts]
        return results[0] if len(results) == 1 else torch.cat(results)

    def extra_repr(self) -> str:
        geometry = self.plan.geometry
        return f"{geometry.channels}, {geometry.outputs}, {geometry.kernel}, live={len(self.plan.positions)}"


def why_not_conv(layer: nn.Conv2d) -> str:
    """Return what a `SparseConv2d` can't do that this layer does, "" if nothing."""
    if layer.padding_mode != "zeros":
        return f"it pads with {layer.padding_mode!r}, not with zeros"
    return ""


def geometry_of(layer: nn.Conv2d) -> Geometry:
    """Return how a convolution moves."""
    (left, right), (top, bottom) = np.reshape(layer._reversed_padding_repeated_twice, (2, 2)).tolist()
    return Geometry(
        layer.in_channels,
        layer.out_channels,
        _pair(layer.kernel_size),
        _pair(layer.stride),
        _pair(layer.dilation),
        (top, left),
        (bottom, right),
        layer.groups,
    )


def _pair(numbers: tuple[int, ...]) -> tuple[int, int]:
    return numbers[0], numbers[1]


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, live: Tensor, layer: SparseConv2d) -> Tensor:
        plan, geometry = layer.plan, layer.plan.geometry
        ctx.layer, ctx.size = layer, tuple(inputs.shape[2:])
        ctx.out_size = geometry.out_size(ctx.size)
        source = _phases(example_last(inputs), plan)
        bias = live[len(plan.positions) :] if "bias" in layer.slots else torch.zeros(geometry.outputs)
        result = _convolved(plan.forward, live, bias, _source(source), _size(source), ctx.out_size, layer.rectifies)
        winners = None
        if layer.window is not None:
            result, winners = pooled(result, layer.window, layer.rectifies)
        result = result_of(result)
        ctx.save_for_backward(inputs, live, result if layer.rectifies and winners is None else None, winners)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor, None]:
        inputs, live, result, winners = ctx.saved_tensors
        plan = ctx.layer.plan
        ends = _source(example_last(slopes), result, winners, ctx.layer.window)
        source = _phases(example_last(inputs), plan)
        gradients = torch.empty_like(live)
        weights = len(plan.positions)
        gradients[:weights] = _weight_gradients(plan.forward, _source(source), ends, _size(source), ctx.out_size)
        if "bias" in ctx.layer.slots:
            sum_channels(ends, gradients[weights:].numpy())
        back = None
        if ctx.needs_input_grad[0]:
            nothing = torch.zeros(len(source))
            back = _convolved(plan.backward, live, nothing, ends, ctx.out_size, _size(source), False)
            back = usual(_joined(back, plan, ctx.size))
        return back, gradients, None


def _source(
    values: Tensor, results: Tensor | None = None, winners: Tensor | None = None, window: Window | None = None
) -> Source:
    """Return [channels, height, width, examples] as kernels read it; `results` have the usual shape."""
    return Source(
        _flat(values),
        np.empty(0, np.float32) if results is None else _flat(example_last(results)),
        np.empty(0, np.uint8) if winners is None else _flat(winners),
        (1, 1) if window is None else window[:2],
        values.shape[1],
        values.shape[2] * values.shape[3],
        values.shape[3],
    )


def _flat(tensor: Tensor) -> np.ndarray:
    return tensor.detach().view(-1).numpy()


def _convolved(
    direction: Pass,
    live: Tensor,
    bias: Tensor,
    source: Source,
    size: tuple[int, int],
    out_size: tuple[int, int],
    rectify: bool,
) -> Tensor:
    """Return [outputs, height, width, examples]; `size` is that of the source's images."""
    order, taps, tile = direction.taps(size, out_size, source.examples)
    result = torch.empty(direction.outputs, *out_size, source.examples)
    convolve(taps, tile, live.numpy()[order], bias.numpy(), rectify, source, _flat(result))
    return result


def _weight_gradients(
    direction: Pass, source: Source, slopes: Source, size: tuple[int, int], out_size: tuple[int, int]
) -> Tensor:
    """Return the gradient of each live weight."""
    order, taps, tile = direction.taps(size, out_size, source.examples)
    found = np.zeros(len(order), np.float32)
    weight_gradients(taps, tile, source, slopes, found)
    gradients = np.empty_like(found)
    gradients[order] = found
    return torch.from_numpy(gradients)


def _size(rows: Tensor) -> tuple[int, int]:
    return rows.shape[1], rows.shape[2]


def _phases(rows: Tensor, plan: Plan) -> Tensor:
    """Return [phases * channels, height, width, examples]: for each phase every stride-th row and column."""
    down, across = plan.geometry.stride
    if (down, across) == (1, 1):
        return rows
    height, width = plan.phase_size(_size(rows))
    result = torch.zeros(len(plan.phases), rows.shape[0], height, width, rows.shape[3])
    for number, (y, x) in enumerate(plan.phases):
        phase = rows[:, y::down, x::across]
        result[number, :, : phase.shape[1], : phase.shape[2]] = phase
    return result.flatten(0, 1)


def _joined(phases: Tensor, plan: Plan, size: tuple[int, int]) -> Tensor:
    """Do the opposite of `_phases`; positions in no phase are 0.0."""
    down, across = plan.geometry.stride
    if (down, across) == (1, 1):
        return phases
    split = phases.unflatten(0, (len(plan.phases), -1))
    result = torch.zeros(split.shape[1], *size, phases.shape[3])
    for number, (y, x) in enumerate(plan.phases):
        target = result[:, y::down, x::across]
        target.copy_(split[number, :, : target.shape[1], : target.shape[2]])
    return result
