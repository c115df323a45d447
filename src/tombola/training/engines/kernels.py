"""Compiled loops of the sparse engines: their cost follows the number of live weights.

Activations are *feature-major tiles*: row i of a tile holds feature i of `width` examples side by side, so that a live
weight is one multiply-add of two whole rows. A row is one LLVM vector (`Tile`), which LLVM splits into as many
registers as the processor needs; a neuron's sum over its live weights thus never leaves the registers.

All functions are in this one file because Numba's cache notices changes of the file that it compiled, no others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

# What LLVM may assume. Not "nnan" and "ninf": a diverging loss must be seen.
FAST = ("reassoc", "contract", "arcp", "nsz")


def compiled(function: Callable[..., Any]) -> Any:
    """Compile `function` on first use, to machine code that lets other threads run and is kept for next time."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(FAST)}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep it in can be written to: compile in each process
        return njit(**options)(function)


# -- tiles ----------------------------------------------------------------------------------------------------------


class Tile(types.Type):
    """Numba type of one feature's values, `width` float32."""

    def __init__(self, width: int):
        self.width = width
        super().__init__(name=f"Tile({width})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Tile):
        super().__init__(manager, kind, ir.VectorType(ir.FloatType(), kind.width))


LANES = 16
"""Examples for which each element of a `width` argument stands; see `width_of`."""


def width_of(examples: int, widest: int = 4) -> tuple[int, ...]:
    """Return the `width` argument of the kernels: a tuple whose length, times `LANES`, is the width of a tile.

    A tuple because its length is part of its type, for which Numba compiles.
    """
    return (0,) * min(widest, -(-examples // LANES))


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, row: Any, width: int) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    start = builder.mul(row, ir.Constant(row.type, width))
    return builder.bitcast(builder.gep(data, [start]), ir.VectorType(ir.FloatType(), width).as_pointer())


def _splat(builder: Any, value: Any, width: int) -> Any:
    kind = ir.VectorType(ir.FloatType(), width)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(
        single, ir.Constant(kind, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), width), None)
    )


@intrinsic
def load(typing: Any, width: Any, array: Any, row: Any) -> Any:
    """Return row `row` of the tiles in `array` (float32 [rows * width])."""
    tile = Tile(LANES * width.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[1], arguments[1], arguments[2], tile.width)
        return builder.load(pointer, align=4)

    return tile(width, array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, row: Any, tile: Any) -> Any:
    """Write row `row` of the tiles in `array`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _pointer(context, builder, signature.args[0], arguments[0], arguments[1], tile.width)
        builder.store(arguments[2], pointer, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, tile), generate


@intrinsic
def splat(typing: Any, width: Any, value: Any) -> Any:
    """Return a tile that holds `value` everywhere."""
    tile = Tile(LANES * width.count)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[1], tile.width)

    return tile(width, types.float32), generate


@intrinsic
def add_scaled(typing: Any, total: Any, factor: Any, tile: Any) -> Any:
    """Return total + factor * tile."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, factor, row = arguments
        product = builder.fmul(_splat(builder, factor, tile.width), row, flags=FAST)
        return builder.fadd(total, product, flags=FAST)

    return tile(tile, types.float32, tile), generate


@intrinsic
def dot(typing: Any, one: Any, other: Any) -> Any:
    """Return the sum over the examples of one * other."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.fmul(arguments[0], arguments[1], flags=FAST)
        return _sum(builder, product, one.width)

    return types.float32(one, one), generate


@intrinsic
def total(typing: Any, tile: Any) -> Any:
    """Return the sum over the examples."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _sum(builder, arguments[0], tile.width)

    return types.float32(tile), generate


def _sum(builder: Any, value: Any, width: int) -> Any:
    kind = ir.FunctionType(ir.FloatType(), [ir.FloatType(), value.type])
    reduce = builder.module.declare_intrinsic(f"llvm.vector.reduce.fadd.v{width}f32", (), kind)
    return builder.call(reduce, [ir.Constant(ir.FloatType(), 0.0), value], fastmath=FAST)


@intrinsic
def relu(typing: Any, tile: Any) -> Any:
    """Return the tile with 0 for what is below 0; what is not a number stays so."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(arguments[0].type, None)
        return builder.select(builder.fcmp_ordered("<", arguments[0], zero), zero, arguments[0])

    return tile(tile), generate


@intrinsic
def relu_backward(typing: Any, gradient: Any, result: Any) -> Any:
    """Return the gradient with 0 where `result` of the ReLU is 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(arguments[0].type, None)
        return builder.select(builder.fcmp_ordered("<=", arguments[1], zero), zero, arguments[0])

    return gradient(gradient, gradient), generate


# -- chains ---------------------------------------------------------------------------------------------------------


class Wiring(NamedTuple):
    """The live connections of a chain. Neurons and inputs that cannot act on the output are not in it.

    *Nodes* are numbered from the used inputs over the first hidden layer's neurons to the outputs, so that a node's
    sources come before it, and layers need not be told apart.

    Args:
        pixels: int32 [inputs], the features of an example that are used.
        starts: int32 [neurons + 1], where each neuron's live weights start in `sources`.
        sources: int32 [weights], the node from which each live weight comes.
        biases: int32 [neurons], where in the values each neuron's bias is; -1 where it has none.
        first: number of neurons of the first layer, whose sources are inputs.
        outputs: number of neurons of the last layer, which have no ReLU.
    """

    pixels: np.ndarray
    starts: np.ndarray
    sources: np.ndarray
    biases: np.ndarray
    first: int
    outputs: int


@compiled
def gather(width, inputs, examples, pixels, nodes):  # type: ignore[no-untyped-def]
    """Fill the first rows of `nodes` with the used pixels of the examples."""
    lanes = LANES * len(width)
    for i in range(len(pixels)):
        pixel = pixels[i]
        for b in range(len(examples)):
            nodes[i * lanes + b] = inputs[examples[b], pixel]


@compiled
def forward(width, wiring, values, nodes):  # type: ignore[no-untyped-def]
    """Fill the rows of `nodes` after the inputs: each neuron's output."""
    inputs = len(wiring.pixels)
    neurons = len(wiring.biases)
    for neuron in range(neurons):
        bias = wiring.biases[neuron]
        row = splat(width, values[bias] if bias >= 0 else np.float32(0.0))
        for k in range(wiring.starts[neuron], wiring.starts[neuron + 1]):
            row = add_scaled(row, values[k], load(width, nodes, wiring.sources[k]))
        if neuron < neurons - wiring.outputs:
            row = relu(row)
        store(nodes, inputs + neuron, row)


@compiled
def backward(width, wiring, values, gradients, nodes, slopes):  # type: ignore[no-untyped-def]
    """Add to `gradients` those of the live weights.

    `slopes` has a row for each neuron: the gradient of the loss with respect to its output. The outputs' are given;
    the others are scratch.
    """
    inputs = len(wiring.pixels)
    neurons = len(wiring.biases)
    hidden = neurons - wiring.outputs
    slopes[: hidden * LANES * len(width)] = 0.0
    for neuron in range(neurons - 1, -1, -1):
        slope = load(width, slopes, neuron)
        if neuron < hidden:
            slope = relu_backward(slope, load(width, nodes, inputs + neuron))
        bias = wiring.biases[neuron]
        if bias >= 0:
            gradients[bias] += total(slope)
        begin, end = wiring.starts[neuron], wiring.starts[neuron + 1]
        for k in range(begin, end):
            gradients[k] += dot(slope, load(width, nodes, wiring.sources[k]))
        if neuron >= wiring.first:
            for k in range(begin, end):
                source = wiring.sources[k] - inputs
                store(slopes, source, add_scaled(load(width, slopes, source), values[k], slope))


@compiled
def cross_entropy(width, outputs, slopes, targets, weight):  # type: ignore[no-untyped-def]
    """Return the sum over examples of -log softmax(outputs)[target]; fill `slopes` with `weight` times its gradient.

    `outputs` and `slopes` have a row for each class. Rows of `slopes` are 0 beyond the last example.
    """
    lanes = LANES * len(width)
    classes = len(outputs) // lanes
    loss = 0.0
    slopes[:] = 0.0
    for b in range(len(targets)):
        top = outputs[b]
        for c in range(1, classes):
            top = max(top, outputs[c * lanes + b])
        summed = np.float32(0.0)
        for c in range(classes):
            power = np.exp(outputs[c * lanes + b] - top)
            slopes[c * lanes + b] = power
            summed += power
        factor = weight / summed
        for c in range(classes):
            slopes[c * lanes + b] *= factor
        target = targets[b]
        slopes[target * lanes + b] -= weight
        loss += np.log(summed) + top - outputs[target * lanes + b]
    return loss


@compiled
def adam(values, gradients, first, second, decay, size, root):  # type: ignore[no-untyped-def]
    """Do one step of Adam on all values; set the gradients back to 0.

    `size` is the learning rate / (1 - beta1^t), and `root` the square root of 1 - beta2^t.
    """
    for k in range(len(values)):
        gradient = gradients[k] + decay * values[k]
        gradients[k] = 0.0
        first[k] += np.float32(0.1) * (gradient - first[k])
        second[k] = np.float32(0.999) * second[k] + np.float32(0.001) * gradient * gradient
        values[k] -= size * first[k] / (np.sqrt(second[k]) / root + np.float32(1e-8))


@compiled
def sgd(values, gradients, velocity, decay, rate, momentum):  # type: ignore[no-untyped-def]
    """Do one step of SGD with momentum on all values; set the gradients back to 0."""
    for k in range(len(values)):
        velocity[k] = momentum * velocity[k] + gradients[k] + decay * values[k]
        gradients[k] = 0.0
        values[k] -= rate * velocity[k]


@compiled
def train_chain(width, wiring, values, moments, optimizer, rates, roots, inputs, targets, batches):  # type: ignore[no-untyped-def]
    """Train for `len(batches)` iterations and return the mean loss of the last batch.

    Args:
        width: of the tiles; see `width_of`.
        wiring: the network.
        values: float32 [values], weights and biases; changed.
        moments: float32 [2, values], the optimiser's state; changed.
        optimizer: (whether it is Adam, momentum of SGD, weight decay).
        rates: float32 [iterations], step sizes. Of Adam, corrected for the bias of its mean.
        roots: float32 [iterations], correction of Adam's root mean square.
        inputs: float32 [examples, features].
        targets: int64 [examples].
        batches: int64 [iterations, batch size], numbers of examples.
    """
    is_adam, momentum, decay = optimizer
    lanes = LANES * len(width)
    size = batches.shape[1]
    neurons = len(wiring.biases)
    outputs = len(wiring.pixels) + neurons - wiring.outputs
    nodes = tiles(width, len(wiring.pixels) + neurons)
    slopes = tiles(width, neurons)
    gradients = np.zeros_like(values)
    loss = 0.0
    for i in range(len(batches)):
        loss = 0.0
        for begin in range(0, size, lanes):
            examples = batches[i, begin : min(begin + lanes, size)]
            gather(width, inputs, examples, wiring.pixels, nodes)
            forward(width, wiring, values, nodes)
            loss += cross_entropy(
                width,
                nodes[outputs * lanes :],
                slopes[(neurons - wiring.outputs) * lanes :],
                targets[examples],
                np.float32(1.0 / size),
            )
            backward(width, wiring, values, gradients, nodes, slopes)
        if is_adam:
            adam(values, gradients, moments[0], moments[1], decay, rates[i], roots[i])
        else:
            sgd(values, gradients, moments[0], decay, rates[i], momentum)
    return loss / size


@compiled
def tiles(width, rows):  # type: ignore[no-untyped-def]
    """Return zeros, float32 [rows * width], that start on a cache line: a load that crosses one costs two."""
    memory = np.zeros(rows * LANES * len(width) + 16, np.float32)
    offset = (-memory.ctypes.data // 4) % 16
    return memory[offset : offset + rows * LANES * len(width)]


@compiled
def score_chain(width, wiring, values, inputs, targets):  # type: ignore[no-untyped-def]
    """Return the summed loss and the number of examples whose highest output is that of their target."""
    lanes = LANES * len(width)
    neurons = len(wiring.biases)
    outputs = len(wiring.pixels) + neurons - wiring.outputs
    nodes = tiles(width, len(wiring.pixels) + neurons)
    slopes = tiles(width, wiring.outputs)
    loss, right = 0.0, 0
    for begin in range(0, len(targets), lanes):
        end = min(begin + lanes, len(targets))
        examples = np.arange(begin, end)
        gather(width, inputs, examples, wiring.pixels, nodes)
        forward(width, wiring, values, nodes)
        logits = nodes[outputs * lanes :]
        loss += cross_entropy(width, logits, slopes, targets[begin:end], np.float32(1.0))
        for b in range(end - begin):
            best = 0
            for c in range(1, wiring.outputs):
                if logits[c * lanes + b] > logits[best * lanes + b]:
                    best = c
            right += best == targets[begin + b]
    return loss, right
