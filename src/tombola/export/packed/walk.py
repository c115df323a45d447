"""Context-modelled binary arithmetic coding of sparse matrices, with the standard library alone.

One function walks over a matrix in both directions, so encoder and decoder can't disagree. All arithmetic is on
integers, so every machine decodes the same bits. The functions are plain Python; `fast.py` compiles the same source.

The coder halves an interval of 32-bit integers at each decision, in proportion to the probability of a 1 (Witten,
Neal & Cleary 1987, "Arithmetic coding for data compression"). The probability is a logistic mixture of several
estimates - of the row, the column, their neighbours - whose weights are learned along the way (Mahoney 2005,
"Adaptive weighing of context models for lossless data compression").
"""

from __future__ import annotations

import math
from collections.abc import MutableSequence, Sequence

ONE = 1 << 16  # probability 1
NAT = 256  # one unit of log odds
LIMIT = 8 * NAT - 1  # log odds are cut off here, at a probability of 1 in 2,979
LEAST = 22  # that probability, out of ONE

PLACE_INPUTS = 7  # estimates of whether a weight is kept
VALUE_INPUTS = 5  # estimates of a bit of its value
SETS = 8  # of the mixture's weights
LEARNING, SHIFT = 4, 18  # the mixture's learning rate is LEARNING / 2^SHIFT
PRIOR = 2  # examples that a row's or column's share starts with
STEADY = 1000  # observations after which an estimate adapts no slower
CONTEXTS = 1 << 12
FLAG_CONTEXTS = CONTEXTS - 8  # the last of the contexts of places
MOST_PHASES = 900
UNSEEN_PLACE, UNSEEN_VALUE = 170_000 << 10 | 3, 1 << 31  # 4 % and a half, with as many observations as the low bits say

Ints = MutableSequence[int]
Memory = tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints]


def squash_table() -> list[int]:
    """Return the probability, out of ONE, of each log odds from -LIMIT - 1 to LIMIT, in units of 1 / NAT."""
    every = range(-LIMIT - 1, LIMIT + 1)
    return [min(max(round(ONE / (1 + math.exp(-odds / NAT))), LEAST), ONE - LEAST) for odds in every]


def stretch_table(squash: Sequence[int]) -> list[int]:
    """Return the log odds of each probability out of 4096, by inverting `squash_table`."""
    table, odds = [], -LIMIT
    for part in range(4096):
        while odds < LIMIT and squash[odds + LIMIT + 1] < part * 16 + 8:
            odds += 1
        table.append(odds)
    return table


SQUASH = squash_table()
STRETCH = stretch_table(SQUASH)


def fresh_memory(columns: int) -> tuple[list[int], ...]:
    """Return what a walk over a matrix of so many columns learns in: see `code_matrix`."""
    places = [26_214, 13_107, 39_321, 9_830, 9_830, 6_553, 0]  # of 65,536: the columns' share, their neighbours', ...
    values = [19_661, 19_661, 19_661, 19_661, 0]
    return (
        [UNSEEN_PLACE] * FLAG_CONTEXTS + [UNSEEN_VALUE] * (CONTEXTS - FLAG_CONTEXTS),
        [UNSEEN_VALUE] * CONTEXTS,
        places * SETS,
        values * SETS,
        [0] * columns,
        [0] * columns,
        [0] * max(PLACE_INPUTS, VALUE_INPUTS),
    )


def code_bit(coder: Ints, data: Ints, chance: int, bit: int, encoding: int) -> int:
    """Code one decision and return it.

    Args:
        coder: low and high end of the interval, the 32 bits being read, the number of bytes read or written.
        data: bytes; written where `encoding` is 1, read where it is 0.
        chance: of a 1, out of ONE, neither 0 nor ONE.
        bit: to encode.
    """
    low, high = coder[0], coder[1]
    middle = low + (((high - low) * chance) >> 16)
    if not encoding:
        bit = 1 if coder[2] <= middle else 0
    if bit:
        high = middle
    else:
        low = middle + 1
    while (low ^ high) & 0xFF000000 == 0:
        if encoding:
            data[coder[3]] = high >> 24
        else:
            coder[2] = (coder[2] << 8) & 0xFFFFFFFF | (data[coder[3]] if coder[3] < len(data) else 0)
        coder[3] += 1
        low = (low << 8) & 0xFFFFFFFF
        high = (high << 8) & 0xFFFFFFFF | 255
    coder[0], coder[1] = low, high
    return bit


def learn(chances: Ints, place: int, bit: int) -> None:
    """Move an estimate towards what came, the less the more often it was asked.

    The low 10 bits of an estimate count how often that was; the others are the chance out of 2^22.
    """
    asked = chances[place] & 1023
    chance = chances[place] >> 10
    chance += ((bit << 22) - chance) * 2 // (2 * asked + 3)
    chances[place] = min(max(chance, 1), (1 << 22) - 1) << 10 | (asked + 1 if asked < STEADY else asked)


def code_mixed(
    coder: Ints,
    data: Ints,
    odds: Ints,
    weights: Ints,
    first: int,
    inputs: int,
    squash: Sequence[int],
    bit: int,
    encoding: int,
) -> int:
    """Code one decision by the weighted sum of several log odds, then move the weights towards what came.

    Args:
        odds: the estimates, in units of 1 / NAT.
        weights: of all sets, in units of 1 / 65,536; `inputs` of them from `first` on are used.
        squash: `SQUASH`.
    """
    total = 0
    for number in range(inputs):
        total += weights[first + number] * odds[number]
    total = min(max(total >> 16, -LIMIT), LIMIT)
    chance = squash[total + LIMIT + 1]
    bit = code_bit(coder, data, chance, bit, encoding)
    error = ((bit << 16) - chance) * LEARNING
    for number in range(inputs):
        weights[first + number] += (odds[number] * error) >> SHIFT
    return bit


def code_flags(flags: Ints, width: int, chances: Ints, coder: Ints, data: Ints, encoding: int) -> None:
    """Code which rows or columns have anything, each after the one before it and the one `width` before."""
    for place in range(len(flags)):
        context = FLAG_CONTEXTS + (flags[place - 1] if place else 1)
        context += 2 * flags[place - width] if width and place >= width else 4
        chance = min(max(chances[context] >> 16, LEAST), ONE - LEAST)
        flags[place] = code_bit(coder, data, chance, flags[place], encoding)
        learn(chances, context, flags[place])


def code_matrix(
    columns: int,
    width: int,
    period: int,
    bits: int,
    live_rows: Sequence[int],
    live_columns: Sequence[int],
    symbols: Ints,
    squash: Sequence[int],
    stretch: Sequence[int],
    memory: Memory,
    coder: Ints,
    data: Ints,
    encoding: int,
) -> None:
    """Code where a matrix is not zero, and which shared value stands there.

    Args:
        columns: of the matrix: all inputs of a unit.
        width: distance of columns that are neighbours, beside those next to each other, such as the width of a
            picture; 0 for none.
        period: columns that lie this far apart play the same part, such as one place in a convolution's kernel.
        bits: of a symbol, 0 to 8.
        live_rows, live_columns: 1 where a row or column has anything; the others are not coded.
        symbols: [rows * columns] 0 where the matrix is zero, else 1 + the number of the shared value, which rises with
            the value; filled in where `encoding` is 0.
        squash, stretch: SQUASH and STRETCH.
        memory: as returned by `fresh_memory`: estimates of places and of values, the mixtures' weights of both, how
            many
            weights each column has so far, how many more positive ones than others, and room for estimates.
    """
    places, values, place_weights, value_weights, counts, signs, odds = memory
    half = (1 << bits) >> 1
    seen, total, passed, rows_left = 0, 4, 64, sum(live_rows)
    for row in range(len(live_rows)):
        if not live_rows[row]:
            continue
        rows_left -= 1
        base, found, expected, sign_of_row = row * columns, 0, 0, 0
        for column in range(columns):
            if not live_columns[column]:
                continue
            here = base + column
            left = symbols[here - 1] if column else 0
            left2 = symbols[here - 2] if column > 1 else 0
            above = aslant = ahead = 0
            count = counts[column]
            near = (counts[column - 1] if column else 0) + (counts[column + 1] if column + 1 < columns else 0)
            if width and column >= width:
                above = symbols[here - width]
                aslant = symbols[here - width - 1] if column > width else 0
                ahead = symbols[here - width + 1] if width > 1 else 0
                near += counts[column - width]
            if width and column + width < columns:
                near += counts[column + width]
            symbol, live = symbols[here], 1
            if rows_left or count:  # else the column's only weight must be here
                density = (total << 16) // passed
                mine = ((count << 16) + PRIOR * density) // (seen + PRIOR)
                beside = ((near << 16) + PRIOR * density) // ((4 if width else 2) * seen + PRIOR)
                ratio = ((found << 16) + ONE) * ONE // ((found << 16) + expected + 2 * ONE)
                around = (left > 0) + (left2 > 0) + (above > 0) + (aslant > 0) + (ahead > 0)
                first = (left > 0) + 2 * (left2 > 0) + 4 * (above > 0) + 8 * (aslant > 0) + 16 * (ahead > 0)
                second = 32 + min(count, 15) * 16 + min(found, 15)
                third = 288 + min(column % period, MOST_PHASES) * 4 + min(around, 3)
                odds[0] = stretch[min(mine, 65_535) >> 4]
                odds[1] = stretch[min(beside, 65_535) >> 4]
                odds[2] = stretch[min(ratio, 65_535) >> 4]
                odds[3] = stretch[places[first] >> 20]
                odds[4] = stretch[places[second] >> 20]
                odds[5] = stretch[places[third] >> 20]
                odds[6] = NAT
                used = PLACE_INPUTS * around
                live = 1 if symbol else 0
                live = code_mixed(coder, data, odds, place_weights, used, PLACE_INPUTS, squash, live, encoding)
                learn(places, first, live)
                learn(places, second, live)
                learn(places, third, live)
                passed += 1
                expected += mine
                if not live:
                    continue
            total += 1
            found += 1
            counts[column] += 1
            neighbour = left or above or aslant or ahead or left2
            beside = 0 if not neighbour else 1 if neighbour <= half else 2
            of_column = 1 if signs[column] == 0 else 0 if signs[column] < 0 else 2
            of_row = 2 + (sign_of_row > 1) + (sign_of_row > 5) - (sign_of_row < -1) - (sign_of_row < -5)
            node, want = 1, symbol - 1
            for place in range(bits - 1, -1, -1):
                first = (1 + beside) * 256 + node
                second = (4 + of_column) * 256 + node
                third = (7 + of_row) * 256 + node
                odds[0] = stretch[values[node] >> 20]
                odds[1] = stretch[values[first] >> 20]
                odds[2] = stretch[values[second] >> 20]
                odds[3] = stretch[values[third] >> 20]
                odds[4] = NAT if node == 1 else 0
                used, bit = VALUE_INPUTS * (bits - 1 - place), (want >> place) & 1
                bit = code_mixed(coder, data, odds, value_weights, used, VALUE_INPUTS, squash, bit, encoding)
                learn(values, node, bit)
                learn(values, first, bit)
                learn(values, second, bit)
                learn(values, third, bit)
                node = 2 * node + bit
            symbols[here] = node - (1 << bits) + 1
            positive = 1 if symbols[here] > half else -1
            signs[column] += positive
            sign_of_row += positive
        seen += 1
