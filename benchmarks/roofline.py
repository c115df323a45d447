"""What this machine's core can do at most: multiply-adds, loads from the first-level cache, reads from memory.

And what an exported network needs at least: together they say how far it is from the best possible.
"""

from __future__ import annotations

import ctypes
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tombola.export import graph as g
from tombola.export.c import ops as o
from tombola.export.c.build import FLAGS, run_compiler
from tombola.export.c.encode import linear_layout
from tombola.export.c.fold import fold
from tombola.export.c.layout import LANES
from tombola.export.c.lower import lower
from tombola.export.c.memory import place, places

PROBES = """
#include <time.h>
typedef float V __attribute__((vector_size(32), aligned(4), may_alias));
static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + 1e-9 * t.tv_nsec; }
static float memory[1 << 22] __attribute__((aligned(64)));
#define TWELVE(x) x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11)
#define DECLARE(j) V a##j = {0};
#define KEEP(j) __asm__ volatile("" : "+x"(a##j));
#define SUM(j) total += a##j[0];
/* Vector multiply-adds a second, from registers. */
double multiply_adds(int rounds)
{
    V f = {1, 1, 1, 1, 1, 1, 1, 1}; float total = 0; double best = 1e9;
    TWELVE(DECLARE)
    for (int r = 0; r < rounds; r++) {
        double t = now();
        for (int k = 0; k < 2000; k++) {
#define STEP(j) a##j = a##j * f + f;
            TWELVE(STEP) TWELVE(KEEP)
        }
        t = now() - t; if (t < best) best = t;
    }
    TWELVE(SUM) memory[0] = total * 0;
    return 12 * 2000 / best;
}
/* Vector multiply-adds a second, each with a load from the first-level cache that is not aligned. */
double loads(int rounds)
{
    V f = {1, 1, 1, 1, 1, 1, 1, 1}; float total = 0; double best = 1e9;
    TWELVE(DECLARE)
    for (int r = 0; r < rounds; r++) {
        double t = now();
        for (int k = 0; k < 2000; k++) {
            const float *p = memory + (k * 33 & 2047) + 1;
#define LOAD(j) a##j += f * *(const V *)(p + 8 * j);
            TWELVE(LOAD) TWELVE(KEEP)
        }
        t = now() - t; if (t < best) best = t;
    }
    TWELVE(SUM) memory[0] = total * 0;
    return 12 * 2000 / best;
}
/* Bytes a second read one after another, of so many. */
double reads(int bytes, int rounds)
{
    float total = 0; double best = 1e9;
    TWELVE(DECLARE)
    for (int r = 0; r < rounds; r++) {
        double t = now();
        for (int k = 0; k + 96 <= bytes / 4; k += 96) {
            const float *p = memory + k;
#define READ(j) a##j += *(const V *)(p + 8 * j);
            TWELVE(READ) TWELVE(KEEP)
        }
        t = now() - t; if (t < best) best = t;
    }
    TWELVE(SUM) memory[0] = total * 0;
    return bytes / best;
}
"""


@dataclass(frozen=True)
class Core:
    """What one core does at most.

    Args:
        multiply_adds: vectors of eight a second, from registers.
        loads: the same, each with a load that is not aligned, from the first-level cache.
        reads: bytes a second, by how many are read again and again.
    """

    multiply_adds: float
    loads: float
    reads: dict[int, float]

    def read(self, size: int) -> float:
        """Return the bytes a second at which so many are read."""
        return next((rate for most, rate in sorted(self.reads.items()) if size <= most), min(self.reads.values()))


def probe(rounds: int = 400) -> Core:
    """Measure this machine.

    Raises:
        InputError: there is no C compiler.
    """
    with tempfile.TemporaryDirectory() as folder:
        code, library = Path(folder) / "probe.c", Path(folder) / "probe.so"
        code.write_text(PROBES)
        run_compiler(["-std=gnu99", *FLAGS[1:], "-shared", "-fPIC", str(code), "-o", str(library)])
        probes = ctypes.CDLL(str(library))
        for name in ("multiply_adds", "loads", "reads"):
            getattr(probes, name).restype = ctypes.c_double
        sizes = (1 << 14, 1 << 19, 1 << 21, 1 << 24)
        reads = {size: probes.reads(size, max(10, rounds * 2000 // size)) for size in sizes}
        return Core(probes.multiply_adds(rounds), probes.loads(rounds), reads)


@dataclass(frozen=True)
class Needs:
    """What an exported network needs for one example.

    Args:
        multiply_adds: of live weights.
        vectors: multiply-adds of vectors of eight in convolutions, each with a load.
        lookups: weights of linear layers, each with a load of its own input.
        bytes: weights and indices, each read once.
    """

    multiply_adds: int
    vectors: int
    lookups: int
    bytes: int


def needs(graph: g.Graph, tables: int) -> Needs:
    """Return what a network needs; `tables` are the bytes of its constants."""
    program = lower(fold(graph))
    begins, _ = place(program)
    adds = vectors = lookups = 0
    for op in program.ops:
        if isinstance(op, o.Conv):
            adds += len(op.weights) * op.target.height * op.target.width
            vectors += len(op.weights) * op.places // LANES
        elif isinstance(op, o.Linear):
            adds += int((op.matrix != 0).sum()) * len(op.repeats)
            layout = linear_layout(op, places(op.sources, begins))
            if layout.kind == "shared":
                vectors += len(layout.weights) // LANES
            else:
                lookups += len(layout.weights)
    return Needs(adds, vectors, lookups, tables)


def bounds(need: Needs, core: Core) -> dict[str, float]:
    """Return the seconds that each resource takes at least; a lookup takes half a vector's load."""
    return {
        "multiply-adds": (need.vectors + need.lookups / LANES) / core.multiply_adds,
        "loads": (need.vectors + need.lookups / 2) / core.loads,
        "reading weights": need.bytes / core.read(need.bytes),
    }
