"""Compiled loops of the sparse engines: their cost follows the number of live weights.

Activations are *feature-major*: a row holds one feature of `WIDTH` examples side by side, so that a live weight is one
multiply-add of two whole rows. Inside the loops a row is one LLVM vector, a `Tile`, which LLVM splits into as many
registers as the processor needs; a neuron's sum over its live weights thus never leaves the registers.

All compiled functions are in this one file because Numba's cache notices changes of the file of a function, no others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

WIDTH = 64
"""Examples that are computed side by side: four registers of AVX-512, eight of AVX2."""

LINE = 16
"""float32 in a cache line."""

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

FLOAT, INDEX = ir.FloatType(), ir.IntType(32)


class Tile(types.Type):
    """Numba type of one feature of `WIDTH` examples, float32."""

    def __init__(self) -> None:
        super().__init__(name="Tile")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Tile):
        super().__init__(manager, kind, ir.VectorType(FLOAT, WIDTH))


TILE = Tile()


def _at(context: Any, builder: Any, kind: Any, array: Any, index: Any, count: int) -> Any:
    """Return a pointer to `count` float32 that begin at array[index]."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), ir.VectorType(FLOAT, count).as_pointer())


def _row(context: Any, builder: Any, kind: Any, array: Any, row: Any) -> Any:
    return _at(context, builder, kind, array, builder.mul(row, ir.Constant(row.type, WIDTH)), WIDTH)


def _splat(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(ir.VectorType(FLOAT, WIDTH), ir.Undefined)
    single = builder.insert_element(nothing, value, ir.Constant(INDEX, 0))
    return builder.shuffle_vector(single, nothing, ir.Constant(ir.VectorType(INDEX, WIDTH), None))


def _sum(builder: Any, value: Any) -> Any:
    kind = ir.FunctionType(FLOAT, [FLOAT, value.type])
    reduce = builder.module.declare_intrinsic(f"llvm.vector.reduce.fadd.v{WIDTH}f32", (), kind)
    return builder.call(reduce, [ir.Constant(FLOAT, 0.0), value], fastmath=FAST)


@intrinsic
def load(typing: Any, array: Any, row: Any) -> Any:
    """Return a row of float32 [rows * WIDTH]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_row(context, builder, signature.args[0], *arguments), align=4)

    return TILE(array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, row: Any, tile: Any) -> Any:
    """Write a row of float32 [rows * WIDTH]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _row(context, builder, signature.args[0], *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, TILE), generate


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """Return a tile that holds `value` everywhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0])

    return TILE(types.float32), generate


@intrinsic
def add_scaled(typing: Any, total: Any, factor: Any, tile: Any) -> Any:
    """Return total + factor * tile."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total, factor, tile = arguments
        return builder.fadd(total, builder.fmul(_splat(builder, factor), tile, flags=FAST), flags=FAST)

    return TILE(TILE, types.float32, TILE), generate


@intrinsic
def dot(typing: Any, one: Any, other: Any) -> Any:
    """Return the sum over the examples of one * other."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _sum(builder, builder.fmul(*arguments, flags=FAST))

    return types.float32(TILE, TILE), generate


@intrinsic
def total(typing: Any, tile: Any) -> Any:
    """Return the sum over the examples."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _sum(builder, *arguments)

    return types.float32(TILE), generate


@intrinsic
def relu(typing: Any, tile: Any) -> Any:
    """Return the tile with 0 for what is below 0; what is not a number stays so."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(arguments[0].type, None)
        return builder.select(builder.fcmp_ordered("<", arguments[0], zero), zero, arguments[0])

    return TILE(TILE), generate


@intrinsic
def relu_backward(typing: Any, slope: Any, result: Any) -> Any:
    """Return the slope with 0 where `result` of the ReLU is 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(arguments[0].type, None)
        return builder.select(builder.fcmp_ordered("<=", arguments[1], zero), zero, arguments[0])

    return TILE(TILE, TILE), generate


def _transposed(builder: Any, square: list[Any]) -> list[Any]:
    """Return the columns of 16 rows of 16 float32."""
    square = list(square)
    kind = ir.VectorType(INDEX, LINE)
    for size in (1, 2, 4, 8):  # swap the off-diagonal blocks of that size
        upper = ir.Constant(kind, [j + LINE - size if j & size else j for j in range(LINE)])
        lower = ir.Constant(kind, [j + LINE if j & size else j + size for j in range(LINE)])
        for i in range(LINE):
            if not i & size:
                pair = square[i], square[i + size]
                square[i] = builder.shuffle_vector(*pair, upper)
                square[i + size] = builder.shuffle_vector(*pair, lower)
    return square


def _example(context: Any, builder: Any, kind: Any, matrix: Any, example: Any, column: Any, count: int) -> Any:
    """Return a pointer to `count` features of an example, from `column`, in float32 [examples, features], C order."""
    features = builder.extract_value(context.make_array(kind)(context, builder, matrix).shape, 1)
    return _at(context, builder, kind, matrix, builder.add(builder.mul(example, features), column), count)


def _square(context: Any, builder: Any, kind: Any, rows: Any, row: Any, first: Any) -> list[Any]:
    """Return pointers to 16 examples, from `first`, of each of 16 rows, from `row`."""
    pointers = []
    for j in range(LINE):
        start = builder.mul(builder.add(row, ir.Constant(row.type, j)), ir.Constant(row.type, WIDTH))
        pointers.append(_at(context, builder, kind, rows, builder.add(start, first), LINE))
    return pointers


@intrinsic
def take_square(typing: Any, matrix: Any, examples: Any, first: Any, column: Any, rows: Any, row: Any) -> Any:
    """Copy 16 features of 16 examples: rows[row + j, first + i] = matrix[examples[first + i], column + j].

    Args:
        matrix: float32 [examples, features] in C order.
        examples: int64 [WIDTH].
        rows: float32 [rows * WIDTH].
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrix, examples, first, column, rows, row = arguments
        numbers = context.make_array(signature.args[1])(context, builder, examples).data
        square = []
        for i in range(LINE):
            number = builder.load(builder.gep(numbers, [builder.add(first, ir.Constant(first.type, i))]))
            pointer = _example(context, builder, signature.args[0], matrix, number, column, LINE)
            square.append(builder.load(pointer, align=4))
        pointers = _square(context, builder, signature.args[4], rows, row, first)
        for value, pointer in zip(_transposed(builder, square), pointers, strict=True):
            builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    place = types.intp
    return types.void(matrix, examples, place, place, rows, place), generate


@intrinsic
def put_square(typing: Any, matrix: Any, begin: Any, first: Any, column: Any, rows: Any, row: Any) -> Any:
    """Copy 16 features of 16 examples: matrix[begin + first + i, column + j] = rows[row + j, first + i]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        matrix, begin, first, column, rows, row = arguments
        pointers = _square(context, builder, signature.args[4], rows, row, first)
        square = [builder.load(pointer, align=4) for pointer in pointers]
        for i, value in enumerate(_transposed(builder, square)):
            example = builder.add(builder.add(begin, first), ir.Constant(first.type, i))
            pointer = _example(context, builder, signature.args[0], matrix, example, column, LINE)
            builder.store(value, pointer, align=4)
        return context.get_dummy_value()

    place = types.intp
    return types.void(matrix, place, place, place, rows, place), generate


@intrinsic
def prefetch(typing: Any, inputs: Any, example: Any, column: Any) -> Any:
    """Ask the processor to bring inputs[example, column] (float32, C order) nearer; continue without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        inputs, example, column = arguments
        pointer = _example(context, builder, signature.args[0], inputs, example, column, 1)
        pointer = builder.bitcast(pointer, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, INDEX, INDEX, INDEX])
        function = builder.module.declare_intrinsic("llvm.prefetch", (pointer.type,), kind)
        # To be read; into the second-level cache; data, not code.
        builder.call(function, [pointer, *(ir.Constant(INDEX, each) for each in (0, 2, 1))])
        return context.get_dummy_value()

    return types.void(inputs, types.intp, types.intp), generate


@compiled
def rows_of(count):  # type: ignore[no-untyped-def]
    """Return zeros, float32 [count * WIDTH], that start on a cache line: a load that crosses one costs two."""
    memory = np.zeros(count * WIDTH + LINE, np.float32)
    offset = (-memory.ctypes.data // 4) % LINE
    return memory[offset : offset + count * WIDTH]


# -- multilayer perceptrons -----------------------------------------------------------------------------------------


class Wiring(NamedTuple):
    """The live connections of an MLP. Neurons and inputs that cannot act on the output are not in it.

    *Nodes* are numbered from the used inputs over the first hidden layer's neurons to the outputs, so that a node's
    sources come before it, and layers need not be told apart.

    Args:
        lines: int32, the first of each 16 features of which some is used; the inputs are those of all lines.
        starts: int32 [neurons + 1], where each neuron's live weights start in `sources`.
        sources: int32 [weights], the node from which each live weight comes.
        biases: int32 [neurons], where in the values each neuron's bias is; -1 where it has none.
        first: number of neurons to whose sources no gradient goes back: those of the first layer, if inputs have none.
        outputs: number of neurons of the last layer, which have no ReLU.
    """

    lines: np.ndarray
    starts: np.ndarray
    sources: np.ndarray
    biases: np.ndarray
    first: int
    outputs: int


@compiled
def gather(inputs, examples, upcoming, lines, nodes):  # type: ignore[no-untyped-def]
    """Fill the first rows of `nodes` with the used lines of the examples; prefetch those of the upcoming examples.

    Examples lie scattered over memory: waiting for them would take most of a step of a very sparse network.
    `examples` and `upcoming` are int64 [WIDTH].
    """
    for i in range(len(lines)):
        for b in range(WIDTH):
            prefetch(inputs, upcoming[b], lines[i])
        for b in range(0, WIDTH, LINE):
            take_square(inputs, examples, b, lines[i], nodes, i * LINE)


@compiled
def fill(examples, batch, begin):  # type: ignore[no-untyped-def]
    """Fill int64 [WIDTH] with the batch's examples from `begin`; beyond its end the last one stands in."""
    for b in range(WIDTH):
        examples[b] = batch[min(begin + b, len(batch) - 1)]


@compiled
def forward(wiring, values, nodes):  # type: ignore[no-untyped-def]
    """Fill the rows of `nodes` after the inputs: each neuron's output."""
    inputs = LINE * len(wiring.lines)
    neurons = len(wiring.biases)
    for neuron in range(neurons):
        bias = wiring.biases[neuron]
        row = splat(values[bias] if bias >= 0 else np.float32(0.0))
        for k in range(wiring.starts[neuron], wiring.starts[neuron + 1]):
            row = add_scaled(row, values[k], load(nodes, wiring.sources[k]))
        if neuron < neurons - wiring.outputs:
            row = relu(row)
        store(nodes, inputs + neuron, row)


@compiled
def backward(wiring, values, gradients, nodes, slopes):  # type: ignore[no-untyped-def]
    """Add to `gradients` those of the live weights.

    `slopes` has a row for each node: the gradient of the loss with respect to it. The outputs' are given, those of
    the other neurons are computed, those of the inputs only if `wiring.first` is 0.
    """
    inputs = LINE * len(wiring.lines)
    neurons = len(wiring.biases)
    hidden = neurons - wiring.outputs
    slopes[(inputs if wiring.first else 0) * WIDTH : (inputs + hidden) * WIDTH] = 0.0
    for neuron in range(neurons - 1, -1, -1):
        slope = load(slopes, inputs + neuron)
        if neuron < hidden:
            slope = relu_backward(slope, load(nodes, inputs + neuron))
        bias = wiring.biases[neuron]
        if bias >= 0:
            gradients[bias] += total(slope)
        begin, end = wiring.starts[neuron], wiring.starts[neuron + 1]
        for k in range(begin, end):
            gradients[k] += dot(slope, load(nodes, wiring.sources[k]))
        if neuron >= wiring.first:
            for k in range(begin, end):
                source = wiring.sources[k]
                store(slopes, source, add_scaled(load(slopes, source), values[k], slope))


@compiled
def cross_entropy(outputs, slopes, targets, weight):  # type: ignore[no-untyped-def]
    """Return the sum over examples of -log softmax(outputs)[target]; fill `slopes` with `weight` times its gradient.

    `outputs` and `slopes` have a row for each class. Rows of `slopes` are 0 beyond the last example.
    """
    classes = len(outputs) // WIDTH
    loss = 0.0
    slopes[:] = 0.0
    for b in range(len(targets)):
        top = outputs[b]
        for c in range(1, classes):
            top = max(top, outputs[c * WIDTH + b])
        summed = np.float32(0.0)
        for c in range(classes):
            power = np.exp(outputs[c * WIDTH + b] - top)
            slopes[c * WIDTH + b] = power
            summed += power
        factor = weight / summed
        for c in range(classes):
            slopes[c * WIDTH + b] *= factor
        target = targets[b]
        slopes[target * WIDTH + b] -= weight
        loss += np.log(summed) + top - outputs[target * WIDTH + b]
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
def train_mlp(wiring, values, moments, optimizer, rates, roots, inputs, targets, batches):  # type: ignore[no-untyped-def]
    """Train for `len(batches)` iterations and return the mean loss of the last batch.

    Args:
        wiring: the network.
        values: float32 [values], weights and biases; changed.
        moments: float32 [2, values], the optimiser's state; changed.
        optimizer: (whether it is Adam, momentum of SGD, weight decay).
        rates: float32 [iterations], step sizes. Of Adam, corrected for the bias of its mean.
        roots: float32 [iterations], correction of Adam's root mean square.
        inputs: float32 [examples, features], in C order, at least `LINE` features.
        targets: int64 [examples].
        batches: int64 [iterations, batch size], numbers of examples.
    """
    is_adam, momentum, decay = optimizer
    size = batches.shape[1]
    neurons = len(wiring.biases)
    outputs = LINE * len(wiring.lines) + neurons - wiring.outputs
    nodes = rows_of(LINE * len(wiring.lines) + neurons)
    slopes = rows_of(LINE * len(wiring.lines) + neurons)
    gradients = np.zeros_like(values)
    examples, upcoming = np.empty(WIDTH, np.int64), np.empty(WIDTH, np.int64)
    fill(upcoming, batches[0], 0)
    loss = 0.0
    for i in range(len(batches)):
        loss = 0.0
        for begin in range(0, size, WIDTH):
            examples, upcoming = upcoming, examples
            if begin + WIDTH < size:
                fill(upcoming, batches[i], begin + WIDTH)
            else:
                fill(upcoming, batches[min(i + 1, len(batches) - 1)], 0)
            gather(inputs, examples, upcoming, wiring.lines, nodes)
            forward(wiring, values, nodes)
            loss += cross_entropy(
                nodes[outputs * WIDTH :],
                slopes[outputs * WIDTH :],
                targets[examples[: min(WIDTH, size - begin)]],
                np.float32(1.0 / size),
            )
            backward(wiring, values, gradients, nodes, slopes)
        if is_adam:
            adam(values, gradients, moments[0], moments[1], decay, rates[i], roots[i])
        else:
            sgd(values, gradients, moments[0], decay, rates[i], momentum)
    return loss / size


@compiled
def score_mlp(wiring, values, inputs, targets):  # type: ignore[no-untyped-def]
    """Return the summed loss and the number of examples whose highest output is that of their target."""
    neurons = len(wiring.biases)
    outputs = LINE * len(wiring.lines) + neurons - wiring.outputs
    nodes = rows_of(LINE * len(wiring.lines) + neurons)
    slopes = rows_of(wiring.outputs)
    order = np.arange(len(targets))
    examples, upcoming = np.empty(WIDTH, np.int64), np.empty(WIDTH, np.int64)
    loss, right = 0.0, 0
    for begin in range(0, len(targets), WIDTH):
        fill(examples, order, begin)
        fill(upcoming, order, begin + WIDTH)
        gather(inputs, examples, upcoming, wiring.lines, nodes)
        forward(wiring, values, nodes)
        logits = nodes[outputs * WIDTH :]
        here = targets[begin : begin + WIDTH]
        loss += cross_entropy(logits, slopes, here, np.float32(1.0))
        for b in range(len(here)):
            best = 0
            for c in range(1, wiring.outputs):
                if logits[c * WIDTH + b] > logits[best * WIDTH + b]:
                    best = c
            right += best == here[b]
    return loss, right


# -- single layers --------------------------------------------------------------------------------------------------


@compiled
def spread(rows, lines, begin, matrix):  # type: ignore[no-untyped-def]
    """Do the opposite of `gather`: write the rows into examples `begin`, ..., of float32 [examples, features]."""
    # Backwards, because the last line may overlap the one before it, and what both hold belongs to that one.
    for i in range(len(lines) - 1, -1, -1):
        for b in range(0, WIDTH, LINE):
            put_square(matrix, begin, b, lines[i], rows, i * LINE)


@compiled
def gather_features(matrix, begin, lines, nodes):  # type: ignore[no-untyped-def]
    """Do what `gather` does for examples `begin`, ... of float32 [features, examples]; 0 beyond the last example."""
    count = min(WIDTH, matrix.shape[1] - begin)
    for i in range(len(lines)):
        for j in range(LINE):
            to = (i * LINE + j) * WIDTH
            nodes[to : to + count] = matrix[lines[i] + j, begin : begin + count]
            nodes[to + count : to + WIDTH] = 0.0


@compiled
def spread_features(rows, lines, begin, matrix):  # type: ignore[no-untyped-def]
    """Do what `spread` does for float32 [features, examples]."""
    count = min(WIDTH, matrix.shape[1] - begin)
    for i in range(len(lines) - 1, -1, -1):
        for j in range(LINE):
            place = (i * LINE + j) * WIDTH
            matrix[lines[i] + j, begin : begin + count] = rows[place : place + count]


@compiled
def linear_forward(wiring, values, inputs, by_feature, results):  # type: ignore[no-untyped-def]
    """Fill `results` with those of one linear layer.

    Args:
        wiring: an MLP of one layer.
        values: float32, its live weights and biases.
        inputs: float32 [examples, features], at least `LINE` features.
        by_feature: whether `inputs` are [features, examples] instead.
        results: float32 [examples, features], both up to a multiple, of `WIDTH` and of `LINE`. What lies beyond those
            of the layer means nothing.
    """
    sources = LINE * len(wiring.lines)
    lines = np.arange(0, results.shape[1], LINE)
    nodes = rows_of(sources + results.shape[1])
    count = inputs.shape[1] if by_feature else inputs.shape[0]
    order = np.arange(count)
    examples, upcoming = np.empty(WIDTH, np.int64), np.empty(WIDTH, np.int64)
    for begin in range(0, count, WIDTH):
        if by_feature:
            gather_features(inputs, begin, wiring.lines, nodes)
        else:
            fill(examples, order, begin)
            fill(upcoming, order, begin + WIDTH)
            gather(inputs, examples, upcoming, wiring.lines, nodes)
        forward(wiring, values, nodes)
        spread(nodes[sources * WIDTH :], lines, begin, results)


@compiled
def linear_backward(wiring, values, inputs, by_feature, slopes, gradients, back):  # type: ignore[no-untyped-def]
    """Add to `gradients` those of the live weights and biases; fill `back` with those of the inputs.

    Args:
        wiring, values, inputs, by_feature: as in `linear_forward`. If `wiring.first` is 0, `back` is filled, else left
            alone.
        slopes: float32 [examples, features up to a multiple of `LINE`], gradients with respect to the results.
        gradients: float32, as `values`.
        back: float32 of the shape of `inputs`; without `by_feature`, with the number of examples up to a multiple of
            `WIDTH`. Features that no weight uses are left alone.
    """
    sources = LINE * len(wiring.lines)
    lines = np.arange(0, slopes.shape[1], LINE)
    nodes, rows = rows_of(sources + slopes.shape[1]), rows_of(sources + slopes.shape[1])
    count = inputs.shape[1] if by_feature else inputs.shape[0]
    order = np.arange(count)
    examples, upcoming = np.empty(WIDTH, np.int64), np.empty(WIDTH, np.int64)
    for begin in range(0, count, WIDTH):
        fill(examples, order, begin)
        fill(upcoming, order, begin + WIDTH)
        if by_feature:
            gather_features(inputs, begin, wiring.lines, nodes)
        else:
            gather(inputs, examples, upcoming, wiring.lines, nodes)
        ends = rows[sources * WIDTH :]
        gather(slopes, examples, upcoming, lines, ends)
        for i in range(len(ends) // WIDTH):  # the last example's stand-ins have no part in the gradient
            ends[i * WIDTH + min(WIDTH, count - begin) : (i + 1) * WIDTH] = 0.0
        backward(wiring, values, gradients, nodes, rows)
        if wiring.first == 0 and by_feature:
            spread_features(rows, wiring.lines, begin, back)
        elif wiring.first == 0:
            spread(rows, wiring.lines, begin, back)
