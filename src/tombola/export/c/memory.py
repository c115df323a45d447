"""Where the buffers of a program lie in its one array: results that are no longer needed make room for others."""

from __future__ import annotations

import numpy as np

from tombola.export.c import ops as o
from tombola.export.c.layout import up
from tombola.export.c.program import Program

LINE = 16  # float32 in a cache line


def place(program: Program) -> tuple[np.ndarray, int]:
    """Return where in `work` each buffer begins, and the number of float32 in `work`.

    Buffer 0, the example, lies elsewhere and begins at 0.
    """
    lives = _lives(program)
    begins = np.zeros(len(program.buffers), np.int64)
    placed: list[int] = []
    for number in sorted(lives, key=lambda each: (lives[each][0], -program.buffers[each].size)):
        first, last = lives[number]
        taken = sorted(
            (int(begins[other]), int(begins[other]) + program.buffers[other].size)
            for other in placed
            if lives[other][0] <= last and lives[other][1] >= first
        )
        begins[number] = _lowest(taken, program.buffers[number].size)
        placed.append(number)
    end = max((int(begins[number]) + program.buffers[number].size for number in placed), default=LINE)
    return begins, up(max(end, _reach(program, begins)), LINE)


def _lives(program: Program) -> dict[int, tuple[int, int]]:
    """Return the first and the last step of each buffer that any step uses."""
    lives: dict[int, tuple[int, int]] = {}
    for step, op in enumerate(program.ops):
        for number in op.buffers() - {o.EXAMPLE}:
            lives[number] = lives.get(number, (step, step))[0], step
    for number in np.unique(program.output // o.BUFFER):
        if number != o.EXAMPLE:
            lives[int(number)] = lives[int(number)][0], len(program.ops)
    return lives


def _lowest(taken: list[tuple[int, int]], size: int) -> int:
    """Return the lowest place, at a cache line, where a buffer fits between those that are taken."""
    at = 0
    for begin, end in taken:
        if begin >= at + size:
            break
        at = max(at, up(end, LINE))
    return at


def _reach(program: Program, begins: np.ndarray) -> int:
    """Return how far convolutions read and write: a tile may go beyond the last plane."""
    reach = 0
    for op in program.ops:
        if isinstance(op, o.Conv):
            for positions in op.positions():
                if len(positions):
                    reach = max(reach, int(places(positions, begins).max()) + op.places)
    return reach


def places(positions: np.ndarray, begins: np.ndarray) -> np.ndarray:
    """Return places in `work`, or in the example, of positions; those that are not needed stay -1."""
    live = np.maximum(positions, 0)
    found: np.ndarray = np.where(positions < 0, -1, begins[live // o.BUFFER] + live % o.BUFFER)
    return found
