"""GraSP: how much the gradient's norm depends on whether a weight is there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tombola.errors import InputError
from tombola.pruning.at_init.weights import differentiable
from tombola.pruning.criteria import Snapshots

TEMPERATURE = 200.0  # of the softmax, as in the paper's experiments: the loss is then nearly linear in the scores


def grasp(snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Score w * (H g), g and H being gradient and Hessian of the loss (Wang et al. 2020, "GraSP", Section 4.1).

    Removing weight q, that is adding -w_q, changes |g|^2 by -2 w_q (H g)_q to first order. The paper removes where
    -w * (H g) is highest, so what is kept are the weights without which the gradient would shrink most. L is the mean
    loss of `snapshots.examples`, class scores divided by a temperature of 200; a task without class scores has none.

    Raises:
        InputError: the network can't be differentiated twice, or H g is zero everywhere.
    """
    module = snapshots.network()
    weights = differentiable(module, snapshots.start)
    try:
        with sdpa_kernel(SDPBackend.MATH):  # attention's fused kernels have no second derivative
            products = hessian_gradient(weights, lambda: snapshots.loss(module, TEMPERATURE))
    except RuntimeError as error:
        layer = _layer_without(module, snapshots)
        where = f"its layer {layer}" if layer else "one of its operations"
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"grasp needs second derivatives of the network, but {where} has none ({reason}); use snip or synflow "
            "instead"
        ) from error
    if not any(bool(product.any()) for product in products):
        raise InputError(
            "grasp scores all weights equally: the product of Hessian and gradient is zero for each of them at this "
            "initialisation; use snip, synflow or another network.init"
        )
    return {name: weight.detach() * product for (name, weight), product in zip(weights.items(), products, strict=True)}


def hessian_gradient(weights: Mapping[str, Tensor], loss_of: Callable[[], Tensor]) -> tuple[Tensor, ...]:
    """Return the Hessian of the loss times its gradient, both with respect to `weights`, in their order and shapes."""
    with torch.enable_grad():
        loss = loss_of()
        gradients = torch.autograd.grad(
            loss, [*weights.values()], create_graph=True, allow_unused=True, materialize_grads=True
        )
        # d/dw of g(w) . g, in which the second g is held fixed
        flow = sum(((gradient * gradient.detach()).sum() for gradient in gradients), torch.zeros(()))
    for weight in weights.values():
        weight.grad = None
    if flow.requires_grad:
        flow.backward()  # autograd.grad would pass over what has no second derivative, without a word
    return tuple(torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights.values())


def _layer_without(module: nn.Module, snapshots: Snapshots) -> str:
    """Return the innermost layer that can't be differentiated twice, as "name (Class)"; "" where none is found."""
    seen: dict[str, tuple[Any, ...]] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, given, name=name: seen.setdefault(name, given))
        for name, layer in module.named_modules()
        if name
    ]
    with torch.no_grad():
        snapshots.loss(module, 1.0)
    for handle in handles:
        handle.remove()
    guilty = [name for name, given in seen.items() if not _twice(module.get_submodule(name), given)]
    if not guilty:
        return ""
    name = max(guilty, key=lambda each: each.count("."))
    return f"{name!r} ({type(module.get_submodule(name)).__name__})"


def _twice(layer: nn.Module, given: tuple[Any, ...]) -> bool:
    given = tuple(
        each.detach().requires_grad_() if isinstance(each, Tensor) and each.is_floating_point() else each
        for each in given
    )
    sources = [each for each in (*given, *layer.parameters()) if isinstance(each, Tensor) and each.requires_grad]
    try:
        result = layer(*given)
        if not isinstance(result, Tensor) or not result.requires_grad:
            return True
        first = torch.autograd.grad(result.square().sum(), sources, create_graph=True, allow_unused=True)
        flow = [gradient.square().sum() for gradient in first if gradient is not None and gradient.requires_grad]
        if flow:
            torch.stack(flow).sum().backward()
    except RuntimeError:
        return False
    return True
