"""Compiled loops of sparse convolutions and of the layers between them: their cost follows the live weights.

Activations lie channel by channel, row by row, position by position, with the examples side by side: float32
[channels, height, width, examples]. So a row of an image is one stretch of width x examples numbers, a neighbouring
position is an offset into it, and a live weight is one multiply-add of two stretches. A *tile* is a stretch that stays
in registers while all live weights of an output channel are added to it.

Every convolution is a list of *taps*: result[output, y, x] = sum over taps of weight * source[channel, y + dy, x + dx],
with zeros outside the source. Strided ones have one source channel for each channel and phase (see `conv_plan`).

These functions are in one file because Numba's cache notices changes of the file of a function, no others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from tombola.training.engines.kernels import FAST, FLOAT, INDEX, LINE, compiled

VECTOR = ir.VectorType(FLOAT, LINE)

NOBODY = np.uint8(255)
"""The winner of a window whose result has no gradient."""


class Tile(types.Type):
    """Numba type of `count` vectors of `LINE` float32, held in registers."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__(name=f"Tile({count})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Tile):
        super().__init__(manager, kind, ir.ArrayType(VECTOR, kind.count))


def _at(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Return a pointer to the vector that begins at array[index]."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), VECTOR.as_pointer())


def _load(builder: Any, pointer: Any, number: int) -> Any:
    return builder.load(builder.gep(pointer, [ir.Constant(INDEX, number)]), align=4)


def _splat(builder: Any, value: Any) -> Any:
    nothing = ir.Constant(VECTOR, ir.Undefined)
    single = builder.insert_element(nothing, value, ir.Constant(INDEX, 0))
    return builder.shuffle_vector(single, nothing, ir.Constant(ir.VectorType(INDEX, LINE), None))


def _gathered(builder: Any, vectors: list[Any]) -> Any:
    tile = ir.Constant(ir.ArrayType(VECTOR, len(vectors)), ir.Undefined)
    for number, vector in enumerate(vectors):
        tile = builder.insert_value(tile, vector, number)
    return tile


@intrinsic
def splat(typing: Any, size: Any, value: Any) -> Any:
    """Return a tile that holds `value` everywhere; `size` is a tuple of as many numbers as the tile has vectors."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _gathered(builder, [_splat(builder, arguments[1])] * signature.return_type.count)

    return Tile(size.count)(size, types.float32), generate


@intrinsic
def load(typing: Any, size: Any, array: Any, index: Any) -> Any:
    """Return the tile that begins at array[index]; `size` as in `splat`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _at(context, builder, signature.args[1], *arguments[1:])
        return _gathered(builder, [_load(builder, pointer, t) for t in range(signature.return_type.count)])

    return Tile(size.count)(size, array, types.intp), generate


@intrinsic
def store(typing: Any, array: Any, index: Any, tile: Any) -> Any:
    """Write the tile to array[index], ..."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _at(context, builder, signature.args[0], *arguments[:2])
        for t in range(signature.args[2].count):
            target = builder.gep(pointer, [ir.Constant(INDEX, t)])
            builder.store(builder.extract_value(arguments[2], t), target, align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, tile), generate


@intrinsic
def add_scaled(typing: Any, tile: Any, factor: Any, array: Any, index: Any) -> Any:
    """Return tile + factor * the tile that begins at array[index]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        tile, factor, *place = arguments
        pointer, factor = _at(context, builder, signature.args[2], *place), _splat(builder, factor)
        vectors = []
        for t in range(signature.args[0].count):
            product = builder.fmul(factor, _load(builder, pointer, t), flags=FAST)
            vectors.append(builder.fadd(builder.extract_value(tile, t), product, flags=FAST))
        return _gathered(builder, vectors)

    return tile(tile, types.float32, array, types.intp), generate


@intrinsic
def dot(typing: Any, tile: Any, array: Any, index: Any) -> Any:
    """Return the sum of tile * the tile that begins at array[index]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = _at(context, builder, signature.args[1], *arguments[1:])
        sums: list[Any] = []  # two, so that one addition need not wait for the one before it
        for t in range(signature.args[0].count):
            product = builder.fmul(builder.extract_value(arguments[0], t), _load(builder, pointer, t), flags=FAST)
            if t < 2:
                sums.append(product)
            else:
                sums[t % 2] = builder.fadd(sums[t % 2], product, flags=FAST)
        vector = builder.fadd(*sums, flags=FAST) if len(sums) == 2 else sums[0]
        kind = ir.FunctionType(FLOAT, [FLOAT, VECTOR])
        reduce = builder.module.declare_intrinsic(f"llvm.vector.reduce.fadd.v{LINE}f32", (), kind)
        return builder.call(reduce, [ir.Constant(FLOAT, 0.0), vector], fastmath=FAST)

    return types.float32(tile, array, types.intp), generate


@intrinsic
def relu(typing: Any, tile: Any) -> Any:
    """Return the tile with 0 for what is below 0; what is not a number stays so."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        zero = ir.Constant(VECTOR, None)
        vectors = [builder.extract_value(arguments[0], t) for t in range(signature.args[0].count)]
        return _gathered(builder, [builder.select(builder.fcmp_ordered("<", v, zero), zero, v) for v in vectors])

    return tile(tile), generate


@intrinsic
def copy_vector(typing: Any, target: Any, to: Any, source: Any, begin: Any) -> Any:
    """Copy `LINE` numbers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_at(context, builder, signature.args[2], *arguments[2:]), align=4)
        builder.store(value, _at(context, builder, signature.args[0], *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), generate


@compiled
def copy(target, to, source, begin, count):  # type: ignore[no-untyped-def]
    """Copy `count` numbers from source[begin] on to target[to] on."""
    whole = count // LINE * LINE
    for j in range(0, whole, LINE):
        copy_vector(target, to + j, source, begin + j)
    for j in range(whole, count):
        target[to + j] = source[begin + j]


class Taps(NamedTuple):
    """What a pass of a sparse convolution adds up, for images of one shape and batches of one size.

    Taps are sorted by group of source channels, then by output channel: the rows of a group fit the first-level cache.

    Args:
        starts: int32 [groups * outputs + 1], where the taps of each group and output begin.
        offsets: int32 [rows, taps], where in the strip each tap's stretch begins; one row for each value of y % rows.
        channels, height, length: of the source; `length` is width * examples.
        outputs, out_height, out_length: of the result.
        first: the lowest dy of all taps.
        rows: how many dy there are from the lowest to the highest.
        left: numbers of a strip's row that lie before the tile.
        pitch: numbers in a strip's row.
    """

    starts: np.ndarray
    offsets: np.ndarray
    channels: int
    height: int
    length: int
    outputs: int
    out_height: int
    out_length: int
    first: int
    rows: int
    left: int
    pitch: int


class Source(NamedTuple):
    """Numbers that a pass reads: an image, or gradients that still have to go back through a ReLU or a pooling.

    Args:
        values: float32 [channels * rows * length], of the image, or of the pooled image where there was a pooling.
        results: float32, as `values`; where these are not above 0 the values count as 0. Empty: nowhere.
        winners: uint8, as `values`; each value belongs where the winner was in its window, see `pool`. Empty: there
            was not a pooling.
        window: (height, width) of the pooling's window, which is its stride too.
        height, length: rows, and width * examples, of `values`.
        examples: how many there are.
    """

    values: np.ndarray
    results: np.ndarray
    winners: np.ndarray
    window: tuple[int, int]
    height: int
    length: int
    examples: int


@compiled
def copy_row(source, channel, row, begin, target, to, count):  # type: ignore[no-untyped-def]
    """Copy `count` numbers of a row of the image, from `begin`, to target[to] on."""
    if len(source.winners) > 0:
        unpool_row(source, channel, row, begin, target, to, count)
        return
    place = (channel * source.height + row) * source.length + begin
    if len(source.results) > 0:
        there, values, results = target[to : to + count], source.values[place:], source.results[place:]
        for j in range(count):
            there[j] = values[j] if results[j] > np.float32(0.0) else np.float32(0.0)
    else:
        copy(target, to, source.values, place, count)


@compiled
def unpool_row(source, channel, row, begin, target, to, count):  # type: ignore[no-untyped-def]
    """Do what `copy_row` does where there was a pooling."""
    high, wide = source.window
    examples, pooled = source.examples, row // high
    j = 0
    while j < count:  # a position of the image, or the part of it that is asked for
        x, example = divmod(begin + j, examples)
        number = min(count - j, examples - example)
        there = target[to + j : to + j + number]
        if pooled >= source.height or (x // wide + 1) * examples > source.length:
            there[:] = 0.0  # beyond the last window
        else:
            place = (channel * source.height + pooled) * source.length + x // wide * examples + example
            values, winners = source.values[place : place + number], source.winners[place : place + number]
            winner = np.uint8(row % high * wide + x % wide)
            for n in range(number):
                there[n] = values[n] if winners[n] == winner else np.float32(0.0)
        j += number


@compiled
def fill_strip(taps, source, strip, column, y, lowest):  # type: ignore[no-untyped-def]
    """Copy into the strip what the tile at `column` of row `y` needs and the strip does not hold: dy from `lowest`.

    The strip holds `rows` rows of each source channel, row r in place r % rows, with zeros where the image ends.
    """
    begin = column - taps.left
    front = min(taps.pitch, max(0, -begin))
    end = max(front, min(taps.pitch, taps.length - begin))
    for dy in range(lowest, taps.first + taps.rows):
        row = y + dy
        slot = (row - taps.first) % taps.rows
        for channel in range(taps.channels):
            to = (channel * taps.rows + slot) * taps.pitch
            if row < 0 or row >= taps.height:
                strip[to : to + taps.pitch] = 0.0
            else:
                strip[to : to + front] = 0.0
                copy_row(source, channel, row, begin + front, strip, to + front, end - front)
                strip[to + end : to + taps.pitch] = 0.0


@compiled
def strip_of(taps):  # type: ignore[no-untyped-def]
    """Return memory for the strip."""
    return np.empty(taps.channels * taps.rows * taps.pitch, np.float32)


@compiled
def convolve(taps, size, weights, bias, rectify, source, result):  # type: ignore[no-untyped-def]
    """Fill `result` with the sums over the taps.

    Args:
        taps: see there.
        size: a tuple of as many numbers as a tile has vectors.
        weights: float32 [taps].
        bias: float32 [outputs].
        rectify: whether a ReLU follows.
        source: see there.
        result: float32 [outputs * height * length].
    """
    step = LINE * len(size)
    strip = strip_of(taps)
    groups = (len(taps.starts) - 1) // taps.outputs
    sums = np.empty(taps.outputs * step, np.float32)
    for here in range(0, taps.out_length, step):
        column = max(0, min(here, taps.out_length - step))  # the last tile overlaps the one before it
        for y in range(taps.out_height):
            fill_strip(taps, source, strip, column, y, taps.first + taps.rows - 1 if y else taps.first)
            offsets = taps.offsets[y % taps.rows]
            for group in range(groups):
                for output in range(taps.outputs):
                    tile = splat(size, bias[output]) if group == 0 else load(size, sums, output * step)
                    part = group * taps.outputs + output
                    for k in range(taps.starts[part], taps.starts[part + 1]):
                        tile = add_scaled(tile, weights[k], strip, offsets[k])
                    if group < groups - 1:
                        store(sums, output * step, tile)
                    else:
                        if rectify:
                            tile = relu(tile)
                        place = (output * taps.out_height + y) * taps.out_length + column
                        if taps.out_length >= step:
                            store(result, place, tile)
                        else:
                            store(sums, output * step, tile)
                            copy(result, place, sums, output * step, taps.out_length)


@compiled
def weight_gradients(taps, size, source, slopes, gradients):  # type: ignore[no-untyped-def]
    """Add to `gradients`, float32 [taps], the sums over examples and positions of slope times source.

    Args:
        taps, size, source: as in `convolve`.
        slopes: a `Source`, the loss's gradient with respect to the result of `convolve`.
    """
    step = LINE * len(size)
    strip = strip_of(taps)
    groups = (len(taps.starts) - 1) // taps.outputs
    rows = np.zeros(taps.outputs * step, np.float32)
    for here in range(0, taps.out_length, step):
        column = max(0, min(here, taps.out_length - step))
        seen = here - column  # numbers that the tile before this one has counted
        for y in range(taps.out_height):
            fill_strip(taps, source, strip, column, y, taps.first + taps.rows - 1 if y else taps.first)
            for output in range(taps.outputs):
                rows[output * step : output * step + seen] = 0.0
                begin = output * step + seen
                copy_row(slopes, output, y, column + seen, rows, begin, min(step, taps.out_length) - seen)
            offsets = taps.offsets[y % taps.rows]
            for group in range(groups):
                for output in range(taps.outputs):
                    part = group * taps.outputs + output
                    begin, end = taps.starts[part], taps.starts[part + 1]
                    if begin == end:
                        continue
                    tile = load(size, rows, output * step)
                    for k in range(begin, end):
                        gradients[k] += dot(tile, strip, offsets[k])


@compiled
def sum_channels(source, sums):  # type: ignore[no-untyped-def]
    """Fill `sums`, float32 [channels], with the sum of all that each channel of a `Source` holds."""
    rows = len(source.values) // source.length
    sums[:] = 0.0
    for row in range(rows):
        channel = row // (rows // len(sums))
        begin, end = row * source.length, (row + 1) * source.length
        values, total = source.values[begin:end], np.float32(0.0)
        if len(source.winners) > 0:
            winners = source.winners[begin:end]
            for j in range(len(values)):
                total += values[j] if winners[j] != NOBODY else np.float32(0.0)
        elif len(source.results) > 0:
            results = source.results[begin:end]
            for j in range(len(values)):
                total += values[j] if results[j] > np.float32(0.0) else np.float32(0.0)
        else:
            for j in range(len(values)):
                total += values[j]
        sums[channel] += total


@compiled
def pool(source, result, winners, rectified, size, out_size, examples, window):  # type: ignore[no-untyped-def]
    """Fill `result` with the highest number of each window, and `winners` with that number's place in the window.

    Args:
        source: float32 [channels * height * width * examples].
        result: float32 [channels * out height * out width * examples].
        winners: uint8, as `result`.
        rectified: whether `source` comes from a ReLU whose gradient is to be 0 where a result is 0: nobody wins there.
        size, out_size: (channels, height, width) of source and result.
        window: (height, width, vertical stride, horizontal stride) of the pooling, without padding.
    """
    high, wide, down, across = window
    for channel in range(size[0]):
        for y in range(out_size[1]):
            for x in range(out_size[2]):
                to = ((channel * out_size[1] + y) * out_size[2] + x) * examples
                best, winner = result[to : to + examples], winners[to : to + examples]
                for place in range(high * wide):
                    row, column = y * down + place // wide, x * across + place % wide
                    begin = ((channel * size[1] + row) * size[2] + column) * examples
                    values = source[begin : begin + examples]
                    if place == 0:
                        for n in range(examples):
                            best[n] = values[n]
                            winner[n] = 0
                        continue
                    for n in range(examples):
                        # What is not a number wins, as it does in PyTorch.
                        wins = not (values[n] <= best[n] or best[n] != best[n])
                        best[n] = values[n] if wins else best[n]
                        winner[n] = np.uint8(place) if wins else winner[n]
                if rectified:
                    for n in range(examples):
                        winner[n] = NOBODY if best[n] <= np.float32(0.0) else winner[n]


@compiled
def unpool(slopes, winners, back, size, out_size, examples, window):  # type: ignore[no-untyped-def]
    """Add to `back`, float32 as `source` of `pool`, the slopes of the results that each number won."""
    high, wide, down, across = window
    for channel in range(size[0]):
        for y in range(out_size[1]):
            for x in range(out_size[2]):
                to = ((channel * out_size[1] + y) * out_size[2] + x) * examples
                slope, winner = slopes[to : to + examples], winners[to : to + examples]
                for place in range(high * wide):
                    row, column = y * down + place // wide, x * across + place % wide
                    begin = ((channel * size[1] + row) * size[2] + column) * examples
                    values = back[begin : begin + examples]
                    for n in range(examples):
                        values[n] += slope[n] if winner[n] == np.uint8(place) else np.float32(0.0)
