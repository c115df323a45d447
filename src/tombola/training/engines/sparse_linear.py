"""A linear layer whose cost follows its live weights, and its place in a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from tombola.training.engines.kernels import LINE, WIDTH, Wiring, linear_backward, linear_forward
from tombola.training.engines.mlp_trace import LinearLayer, Mlp
from tombola.training.engines.mlp_wiring import Layout
from tombola.training.engines.sparse_layer import SparseLayer


class SparseLinear(SparseLayer):
    """Does what a masked `nn.Linear` does.

    Args:
        weight: float32 [outputs, inputs].
        bias: float32 [outputs] or None.
        keep: bool [outputs, inputs], the live weights.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, keep: Tensor):
        super().__init__()
        self.out_features, self.in_features = weight.shape
        layer = LinearLayer("weight", None if bias is None else "bias", self.in_features, self.out_features)
        self.layout = Layout(Mlp((layer,), flattens=False), {"weight": keep})
        self.slots = self.layout.slots
        self.live = nn.Parameter(self.pack({"weight": weight} if bias is None else {"weight": weight, "bias": bias}))

    def forward(self, input: Tensor) -> Tensor:
        """Return float32 [..., outputs] of [..., inputs]."""
        rows = input.reshape(-1, self.in_features).float()
        results: Tensor = _Product.apply(rows, self.live, self.layout.wiring)
        return results.view(*input.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        weights = len(self.layout.wiring.sources)
        return f"in_features={self.in_features}, out_features={self.out_features}, live={weights}"


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, live: Tensor, wiring: Wiring) -> Tensor:
        ctx.features = inputs.shape[1]
        # Features of images with the examples last lie side by side already, as the kernels want them.
        ctx.by_feature = inputs.t().is_contiguous() and min(inputs.shape) >= LINE
        inputs = inputs.t() if ctx.by_feature else _columns(inputs, max(LINE, inputs.shape[1]))
        ctx.save_for_backward(inputs, live)
        ctx.wiring = wiring
        count = inputs.shape[1 if ctx.by_feature else 0]
        results = torch.empty(_up(count, WIDTH), _up(wiring.outputs, LINE))
        linear_forward(wiring, live.numpy(), inputs.numpy(), ctx.by_feature, results.numpy())
        return results[:count, : wiring.outputs].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, Tensor, None]:
        inputs, live = ctx.saved_tensors
        wiring, by_feature, count = ctx.wiring, ctx.by_feature, len(slopes)
        gradients = torch.zeros_like(live)
        slopes = _columns(slopes, _up(wiring.outputs, LINE))
        goes_back = ctx.needs_input_grad[0]
        shape = tuple(inputs.shape) if by_feature else (_up(count, WIDTH), inputs.shape[1])
        back = torch.zeros(shape if goes_back else (0, inputs.shape[1]))
        wiring = wiring._replace(first=0 if goes_back else wiring.outputs)
        arrays = [each.numpy() for each in (slopes, gradients, back)]
        linear_backward(wiring, live.numpy(), inputs.numpy(), by_feature, *arrays)
        if not goes_back:
            return None, gradients, None
        return back.t() if by_feature else back[:count, : ctx.features], gradients, None


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _columns(matrix: Tensor, count: int) -> Tensor:
    """Return a contiguous matrix with 0.0 in the columns that it has too few."""
    return nn.functional.pad(matrix, (0, count - matrix.shape[1])).contiguous()
