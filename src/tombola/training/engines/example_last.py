"""Images with the examples last in memory, and layers that keep them so."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tombola.training.engines.conv_kernels import pool, unpool
from tombola.training.engines.norm_kernels import normalise, normalise_backward, statistics

CHUNK = 128
"""Examples that one call of a kernel takes at most."""

Window = tuple[int, int, int, int]
"""(height, width, vertical stride, horizontal stride) of a pooling."""


def example_last(images: Tensor) -> Tensor:
    """Return [examples, channels, height, width] as contiguous [channels, height, width, examples]."""
    return images.permute(1, 2, 3, 0).contiguous()


def usual(images: Tensor) -> Tensor:
    """Return [channels, height, width, examples] in the usual shape, [examples, channels, height, width]: a view."""
    return images.permute(3, 0, 1, 2)


def result_of(images: Tensor) -> Tensor:
    """Return what `usual` does as a tensor of its own in the same memory: autograd lets no one change a view of it."""
    shape = usual(images)
    return torch.empty(0).set_(images.untyped_storage(), images.storage_offset(), shape.shape, shape.stride())


def is_example_last(images: Tensor) -> bool:
    """Return whether images lie in memory with the examples last and more than one of them."""
    return images.dim() == 4 and len(images) > 1 and images.permute(1, 2, 3, 0).is_contiguous()


class ExampleLastMaxPool2d(nn.MaxPool2d):
    """Max pooling that leaves the examples last where they are; anything else is pooled as usual."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what `nn.MaxPool2d` does."""
        if not is_example_last(input) or input.dtype != torch.float32:
            return super().forward(input)
        result: Tensor = _MaxPool.apply(input, window_of(self))
        return result


def window_of(layer: nn.MaxPool2d) -> Window:
    """Return the window of a layer."""
    high, wide = np.broadcast_to(layer.kernel_size, 2).tolist()
    down, across = np.broadcast_to(layer.stride, 2).tolist()
    return high, wide, down, across


def pools_plainly(layer: nn.MaxPool2d) -> bool:
    """Return whether an `ExampleLastMaxPool2d` can do what this layer does."""
    plain = not layer.return_indices and not layer.ceil_mode
    high, wide, _, _ = window_of(layer)
    return plain and not np.any(layer.padding) and bool(np.all(np.equal(layer.dilation, 1))) and high * wide < 255


class UsualDropout(nn.Dropout):
    """Dropout that drops the same numbers of images with the examples last as of images laid out as usual."""

    def forward(self, input: Tensor) -> Tensor:
        """Return what `nn.Dropout` does of contiguous inputs."""
        if input.is_contiguous() or not self.training:
            return super().forward(input)
        factors = functional.dropout(torch.ones(input.shape, dtype=input.dtype), self.p)
        return input.mul_(factors) if self.inplace else input * factors


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, window: Window) -> Tensor:
        source = example_last(inputs)
        result, winners = pooled(source, window, rectified=False)
        ctx.size, ctx.window = tuple(source.shape), window
        ctx.save_for_backward(winners)
        return result_of(result)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor, None]:
        (winners,) = ctx.saved_tensors
        slopes = example_last(slopes)
        back = torch.zeros(ctx.size)
        arrays = [each.view(-1).numpy() for each in (slopes, winners, back)]
        unpool(*arrays, ctx.size[:3], tuple(slopes.shape[:3]), slopes.shape[3], ctx.window)
        return usual(back), None


def pooled(source: Tensor, window: Window, rectified: bool) -> tuple[Tensor, Tensor]:
    """Return the highest number of each window of [channels, height, width, examples], and its place in the window.

    Args:
        rectified: whether nobody is to win where the result is 0, because `source` comes from a ReLU.

    Raises:
        ValueError: the images are smaller than the window.
    """
    channels, height, width, examples = source.shape
    out_size = channels, (height - window[0]) // window[2] + 1, (width - window[1]) // window[3] + 1
    if min(out_size[1:]) < 1:
        raise ValueError(f"images of {height}x{width} are too small for a window of {window[0]}x{window[1]}")
    result = torch.empty(*out_size, examples)
    winners = torch.empty(result.shape, dtype=torch.uint8)
    arrays = [each.view(-1).numpy() for each in (source, result, winners)]
    pool(*arrays, rectified, (channels, height, width), out_size, examples, window)
    return result, winners


class ExampleLastBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that leaves the examples last where they are; then a ReLU if `rectifies` is set."""

    rectifies = False

    def forward(self, input: Tensor) -> Tensor:
        """Return what `nn.BatchNorm2d` does, or a ReLU of that."""
        if not is_example_last(input) or input.dtype != torch.float32:
            normed = super().forward(input)
            return torch.relu(normed) if self.rectifies else normed
        batch = self.training or self.running_mean is None
        factor = self._count() if self.training and self.track_running_stats else 0.0
        result, mean, variance = _Norm.apply(input, self.weight, self.bias, self, batch)
        if factor:
            assert self.running_mean is not None
            assert self.running_var is not None
            numbers = input.numel() // input.shape[1]
            self.running_mean.lerp_(mean, factor)
            self.running_var.lerp_(variance * (numbers / (numbers - 1)), factor)
        return result

    def _count(self) -> float:
        """Count a batch; return its share in the running statistics."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if self.momentum is None:
            return 1.0 / float(self.num_batches_tracked)  # type: ignore[arg-type]
        return self.momentum


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, layer: ExampleLastBatchNorm2d, batch: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        source = example_last(inputs).flatten(1)
        channels = len(source)
        if batch:
            mean, variance = torch.empty(channels), torch.empty(channels)
            statistics(source.numpy(), mean.numpy(), variance.numpy())
        else:
            assert layer.running_mean is not None
            assert layer.running_var is not None
            mean, variance = layer.running_mean.clone(), layer.running_var.clone()
        inverse = torch.rsqrt(variance + layer.eps)
        factors = torch.ones(channels) if weight is None else weight.detach()
        shifts = torch.zeros(channels) if bias is None else bias.detach()
        result = torch.empty_like(source)
        arrays = [each.numpy() for each in (mean, factors * inverse, shifts)]
        normalise(source.numpy(), *arrays, layer.rectifies, result.numpy())
        result = result_of(result.view(inputs.permute(1, 2, 3, 0).shape))
        ctx.save_for_backward(inputs, mean, inverse, factors, result if layer.rectifies else None)
        ctx.batch, ctx.affine = batch, (weight is not None, bias is not None)
        ctx.mark_non_differentiable(mean, variance)
        return result, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        inputs, mean, inverse, factors, result = ctx.saved_tensors
        source = example_last(inputs)
        rows = source.flatten(1)
        shown = rows[:0] if result is None else example_last(result).flatten(1)
        back, for_factors, for_shifts = torch.empty_like(rows), torch.empty_like(mean), torch.empty_like(mean)
        arrays = [each.numpy() for each in (example_last(slopes).flatten(1), rows, shown, mean, inverse, factors)]
        gradients = [each.numpy() for each in (back, for_factors, for_shifts)]
        normalise_backward(*arrays, ctx.batch, *gradients)
        for_weight, for_bias = for_factors if ctx.affine[0] else None, for_shifts if ctx.affine[1] else None
        return usual(back.view(source.shape)), for_weight, for_bias, None, None
