"""The coder of sparse matrices: what goes in comes out, and takes few bytes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tombola.export.packed import walk
from tombola.export.packed.decode import PLAIN_PYTHON, Entry, Reader
from tombola.export.packed.encode import Writer
from tombola.export.packed.fast import compiled


def coded(entry: Entry, symbols: np.ndarray, walkers=None) -> bytes:
    writer = Writer(walkers or compiled())
    writer.matrix(entry, symbols)
    return writer.finish()


@st.composite
def matrices(draw):
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(1, 30))
    bits = draw(st.integers(0, 8))
    density = draw(st.sampled_from([0.0, 0.02, 0.3, 1.0]))
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    symbols = generator.integers(1, 2**bits + 1, rows * columns) * (generator.random(rows * columns) < density)
    width, period = draw(st.integers(0, columns)), draw(st.integers(1, 10))
    shape = (rows, columns) if rows > 1 else (columns,)
    return Entry("w", "book", shape, 2**bits if symbols.any() else 0, True, width, period), symbols


@given(matrices())
@settings(max_examples=40, deadline=None)
def test_what_goes_in_comes_out_of_plain_and_compiled_code(matrix):
    entry, symbols = matrix
    stream = coded(entry, symbols)
    assert stream == coded(entry, symbols, PLAIN_PYTHON)
    for walkers in (PLAIN_PYTHON, compiled()):
        assert np.array_equal(Reader(stream, walkers).matrix(entry), symbols)


def test_several_matrices_share_a_stream():
    generator = np.random.default_rng(0)
    entries = [Entry(str(rows), "book", (rows, 9), 4, True, 0, 1) for rows in (2, 5, 3)]
    all_symbols = [generator.integers(0, 5, entry.size) for entry in entries]
    writer = Writer(compiled())
    for entry, symbols in zip(entries, all_symbols, strict=True):
        writer.matrix(entry, symbols)
    reader = Reader(writer.finish())
    for entry, symbols in zip(entries, all_symbols, strict=True):
        assert np.array_equal(reader.matrix(entry), symbols)


@pytest.mark.parametrize("density", [0.02, 0.1, 0.5])
def test_random_places_take_little_more_than_their_entropy(density):
    generator = np.random.default_rng(1)
    symbols = (generator.random(200 * 300) < density).astype(np.int64)
    share = symbols.mean()
    entropy = -(share * math.log2(share) + (1 - share) * math.log2(1 - share)) * symbols.size / 8
    assert len(coded(Entry("w", "bits", (200, 300), 1, True), symbols)) < 1.04 * entropy + 60


def test_places_that_follow_rows_and_columns_take_much_less_than_their_entropy():
    generator = np.random.default_rng(1)
    chances = np.outer(generator.random(200) ** 3, generator.random(300) ** 3)
    symbols = (generator.random((200, 300)) < chances).astype(np.int64).reshape(-1)
    share = symbols.mean()
    entropy = -(share * math.log2(share) + (1 - share) * math.log2(1 - share)) * symbols.size / 8
    assert len(coded(Entry("w", "bits", (200, 300), 1, True), symbols)) < 0.8 * entropy


def test_the_table_of_probabilities_is_the_same_on_every_machine():
    """No entry lies so near a half that another exponential function could round it to another number."""
    for odds in range(-walk.LIMIT - 1, walk.LIMIT + 1):
        exact = walk.ONE / (1 + math.exp(-odds / walk.NAT))
        assert abs(exact % 1 - 0.5) > 1e-6
    assert sorted(walk.SQUASH) == walk.SQUASH
    assert sorted(walk.STRETCH) == walk.STRETCH
    assert min(walk.SQUASH) == walk.LEAST
    assert len(walk.SQUASH) == 2 * walk.LIMIT + 2
