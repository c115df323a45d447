"""One batch through a network under a trace, after which the network is as it was before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tombola.errors import InputError
from tombola.networks.products import ProductTrace

EXAMPLES = 2  # in a synthetic batch

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]  # a batch, or the shape of one example


def batch_of(inputs: Inputs, module: nn.Module) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments and options that the module is called with."""
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if _is_shape(inputs):
        device = next((parameter.device for parameter in module.parameters()), None)
        return (torch.zeros(EXAMPLES, *inputs, device=device),), {}
    return tuple(inputs), {}


def _is_shape(inputs: Inputs) -> bool:
    """Is it the shape of an example, rather than a batch?"""
    return not isinstance(inputs, Tensor | Mapping) and all(isinstance(size, int) for size in inputs)


def traced(
    module: nn.Module,
    parameters: Mapping[str, Tensor],
    args: Sequence[Any],
    options: Mapping[str, Any],
    inputs: Inputs,
) -> tuple[ProductTrace, Any]:
    """Run the batch in evaluation mode, or in training mode where that fails, and return the trace and the result."""
    tensors = [each for each in tree_leaves((args, options)) if isinstance(each, Tensor)]
    failure: Exception | None = None
    for training in (False, True):
        trace = ProductTrace(parameters, tensors)
        with _as_before(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
            module.train(training)
            try:
                with trace.follow():
                    return trace, module(*args, **options)
            except Exception as error:
                failure = failure or error
    told = f"inputs of shape {tuple(inputs)}" if _is_shape(inputs) else "the given batch"
    hint = _of_types(module, parameters, tensors) or _of_call(failure)
    raise InputError(f"the network can't be run on {told}: {type(failure).__name__}: {failure}{hint}") from failure


def _of_call(failure: Exception | None) -> str:
    """Return the remedy where the network takes other inputs; "" for another failure."""
    told = str(failure)
    if isinstance(failure, TypeError) and "missing" in told and "positional argument" in told:
        return " (if the network takes several inputs, give a tuple or map of them as the inputs of each part)"
    if isinstance(failure, RuntimeError) and "shape" in told and "multiplied" in told:
        return " (the first layer expects another size; a factory with an argument input_shape learns the size)"
    return ""


def _of_types(module: nn.Module, parameters: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> str:
    """Return what the types of inputs and weights say about a failure, and the remedy; "" for nothing."""
    weights = {parameter.dtype for parameter in parameters.values() if parameter.is_floating_point()}
    given = {tensor.dtype for tensor in inputs}
    looks_up = any(isinstance(layer, nn.Embedding | nn.EmbeddingBag) for layer in module.modules())
    if given == {torch.int64} and weights and not looks_up:
        return " (whole-number inputs are token ids, and the network has no embedding; convert features to float32)"
    if given == {torch.float32} and weights and weights != given:
        kinds = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in weights))
        return (
            f" (the inputs are float32, the weights {kinds}; return a float32 module, and set training.precision: "
            "float64 to compute in float64; for a loop of your own, give a batch as inputs)"
        )
    return ""


@contextmanager
def _as_before(module: nn.Module) -> Iterator[None]:
    """Put modes and buffers of a module back to what they were."""
    modes = [(each, each.training) for each in module.modules()]
    buffers = [
        (each, name, buffer, None if buffer is None or buffer.layout != torch.strided else buffer.clone())
        for each in module.modules()
        for name, buffer in each._buffers.items()
    ]
    try:
        yield
    finally:
        for each, training in modes:
            each.training = training
        for each, name, buffer, before in buffers:
            each._buffers[name] = buffer
            if buffer is not None and before is not None and not torch.equal(buffer, before):
                with torch.no_grad():
                    buffer.copy_(before)
