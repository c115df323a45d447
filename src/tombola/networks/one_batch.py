"""Batches through a network under a trace, after which the network is as it was before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from tombola.errors import InputError
from tombola.networks.products import ProductTrace

EXAMPLES = 2  # in a synthetic batch
RANDOM_EXAMPLES = 256  # at most, in a random batch, which is to reach every expert
RANDOM_NUMBERS = 2**16  # at most, too: 21 images of 3 x 32 x 32 pixels
ID = 32  # numbers that a token id counts for: it becomes a vector, and often scores of all ids

Inputs = Tensor | Sequence[Any] | Mapping[str, Any]  # a batch, or the shape of one example


@dataclass(frozen=True)
class Batch:
    """What a module is called with.

    Args:
        args, options: `module(*args, **options)`.
    """

    args: tuple[Any, ...]
    options: dict[str, Any]

    @classmethod
    def of(cls, inputs: Inputs, module: nn.Module) -> Batch:
        """Return the batch that a user gave, or zeros for the shape of an example."""
        if isinstance(inputs, Tensor):
            return cls((inputs,), {})
        if isinstance(inputs, Mapping):
            return cls((), dict(inputs))
        if _is_shape(inputs):
            return cls((torch.zeros(EXAMPLES, *inputs, device=_device_of(module)),), {})
        return cls(tuple(inputs), {})

    @classmethod
    def random(cls, inputs: Inputs, module: nn.Module) -> Batch:
        """Return Gaussian numbers for the shape of an example, or for those of a user's batch that are no ids."""
        generator = torch.Generator().manual_seed(0)
        if _is_shape(inputs):
            drawn = torch.randn(random_examples([torch.zeros(1, *inputs)]), *inputs, generator=generator)
            return cls((drawn.to(_device_of(module)),), {})

        def like(value: Any) -> Any:
            if not isinstance(value, Tensor) or not value.is_floating_point() or value.layout != torch.strided:
                return value
            return torch.randn(value.shape, generator=generator).to(value)

        given = cls.of(inputs, module)
        return cls(tuple(tree_map(like, given.args)), tree_map(like, given.options))

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors in it."""
        return [each for each in tree_leaves((self.args, self.options)) if isinstance(each, Tensor)]

    def __len__(self) -> int:
        return next((len(tensor) for tensor in self.tensors if tensor.dim()), 1) or 1


def random_examples(inputs: Sequence[Tensor]) -> int:
    """Return how many random examples to look at, given all inputs of a batch [N, ...]."""
    numbers = sum(each[:1].numel() * (1 if each.is_floating_point() else ID) for each in inputs)
    return min(RANDOM_EXAMPLES, max(EXAMPLES, RANDOM_NUMBERS // max(1, numbers)))


def _device_of(module: nn.Module) -> torch.device | None:
    return next((parameter.device for parameter in module.parameters()), None)


def _is_shape(inputs: Inputs) -> bool:
    """Is it the shape of an example, rather than a batch?"""
    return not isinstance(inputs, Tensor | Mapping) and all(isinstance(size, int) for size in inputs)


@dataclass(frozen=True)
class Pass:
    """What a trace saw of a module.

    Args:
        trace: of all batches.
        returned: by the module, for the first batch.
        first, examples: how many there are in the first batch, and in all.
        training: whether the module was in training mode.
    """

    trace: ProductTrace
    returned: Any
    first: int
    examples: int
    training: bool

    @property
    def multiplied(self) -> frozenset[str]:
        """Names of the parameters that products take, as they are or in a tensor computed from them."""
        return frozenset(name for name, use in self.trace.uses.items() if use.multiplied)

    def missed(self, parameters: Mapping[str, Tensor]) -> set[str]:
        """Return the names of the parameters, vectors aside, that the examples did not reach."""
        matrices = {name for name, parameter in parameters.items() if parameter.dim() > 1}
        return matrices - {name for name, use in self.trace.uses.items() if use.reached}


def traced(module: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs) -> Pass:
    """Run a batch in evaluation mode, or in training mode where that fails.

    Raises:
        InputError: both fail.
    """
    batch = Batch.of(inputs, module)
    failure: Exception | None = None
    for training in (False, True):
        try:
            return _pass(module, parameters, [batch], training)
        except Exception as error:
            failure = failure or error
    told = f"inputs of shape {tuple(inputs)}" if _is_shape(inputs) else "the given batch"
    hint = _of_types(module, parameters, batch.tensors) or _of_call(failure)
    raise InputError(f"the network can't be run on {told}: {type(failure).__name__}: {failure}{hint}") from failure


def looked_at(
    module: nn.Module, parameters: Mapping[str, Tensor], inputs: Inputs, random: Inputs | None
) -> tuple[Pass, frozenset[str]]:
    """Run a batch, and look for the parameters that it misses in random examples and in the other mode.

    An expert needs an example that is sent to it, and a second head may be used in training alone.

    Args:
        module: of these parameters.
        parameters: by name.
        inputs: as `Batch.of`.
        random: a random batch; None for `Batch.random`.

    Returns:
        The pass of `traced`, over the random examples too where something was missed; and the names of the parameters
        that products take in the other mode alone.

    Raises:
        InputError: as `traced`.
    """
    seen = traced(module, parameters, inputs)
    if not seen.missed(parameters):
        return seen, frozenset()
    drawn = Batch.random(inputs, module) if random is None else Batch.of(random, module)
    batches = [Batch.of(inputs, module), drawn]
    seen = _as_many(module, parameters, batches, seen.training) or seen
    other = _as_many(module, parameters, batches, not seen.training) if seen.missed(parameters) else None
    return seen, other.multiplied - seen.multiplied if other else frozenset()


def _as_many(
    module: nn.Module, parameters: Mapping[str, Tensor], batches: Sequence[Batch], training: bool
) -> Pass | None:
    """Run as many of the batches as the module takes, from the first on; None where it takes none."""
    for count in range(len(batches), 0, -1):
        try:
            return _pass(module, parameters, batches[:count], training)
        except Exception:  # it takes no such numbers, or does not train on this batch: nothing more is to be seen
            continue
    return None


def _pass(module: nn.Module, parameters: Mapping[str, Tensor], batches: Sequence[Batch], training: bool) -> Pass:
    trace = ProductTrace(parameters, [tensor for batch in batches for tensor in batch.tensors])
    with _as_before(module), torch.no_grad(), torch.random.fork_rng(devices=[]):
        module.train(training)
        with trace.follow():
            returned = [module(*batch.args, **batch.options) for batch in batches]
    return Pass(trace, returned[0], len(batches[0]), sum(map(len, batches)), training)


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
