"""Writes a program as one C99 file and its header."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from math import prod
from typing import Any, Literal

import numpy as np

from tombola.export.c import ops as o
from tombola.export.c.encode import conv_layout, linear_layout
from tombola.export.c.kernels import conv_kernel
from tombola.export.c.layout import LANES
from tombola.export.c.memory import place, places
from tombola.export.c.program import Program
from tombola.export.c.snippets import FORMULAS, PRODUCTS
from tombola.export.c.tables import Tables, number

Favour = Literal["size", "speed"]

MANY = 32
"""Examples that linear layers compute side by side."""


@dataclass(frozen=True)
class Sources:
    """An exported network as text.

    Args:
        name: prefix of all names in it.
        code, header: of NAME.c and NAME.h.
        work: float32 of working memory for one example.
        batch_work: float32 of working memory for batches.
        tables: bytes of weights, indices and other constants.
        steps: what it computes, one line each.
    """

    name: str
    code: str
    header: str
    work: int
    batch_work: int
    tables: int
    steps: tuple[str, ...]


def emit(
    program: Program, name: str, input_shape: tuple[int, ...], about: str = "", favour: Favour = "size"
) -> Sources:
    """Return the C file and the header of a program.

    Args:
        program: what to compute.
        name: of the files and the prefix of all functions, a C identifier.
        input_shape: of one example.
        about: lines for the comment at the top.
        favour: "size" stores indices of 8 bits where they need few more steps, "speed" those of 16 bits.
    """
    return _Writer(program, name, input_shape, about, favour == "size").sources()


class _Writer:
    def __init__(self, program: Program, name: str, input_shape: tuple[int, ...], about: str, small: bool):
        self.program, self.name, self.input_shape, self.about = program, name, input_shape, about
        self.small = small
        self.begins, self.work = place(program)
        self.is_linear = all(isinstance(op, o.Linear) and len(op.repeats) == 1 for op in program.ops)
        self.tables = Tables(name)
        self.pieces: dict[str, str] = {}  # of the C runtime, in the order of their use
        self.structs: list[str] = []
        self.products: list[tuple[str, str]] = []  # name and kind of each linear layer's tables
        self.steps: list[str] = []

    def sources(self) -> Sources:
        steps = [self._step(op) for op in self.program.ops]
        outputs = len(self.program.output)
        finish = self._finish()
        many = self._many()
        text = piece("head", NAME=self.name, HEADER=f"{self.name}.h")
        text += "".join(self.pieces.values()) + self.tables.text() + "".join(self.structs)
        values = {
            "NAME": self.name,
            "INPUTS": str(prod(self.input_shape)),
            "SHAPE": " x ".join(map(str, self.input_shape)),
            "OUTPUTS": str(outputs),
            "WORK": str(self.work),
            **many,
            "ABOUT": "".join(f" * {line}\n" for line in self.about.splitlines()),
            "STEPS": "".join(f"    {step}\n" for step in [*steps, finish]),
        }
        code = text + piece("run", **values)
        header, batch_work = piece("header", **values), int(many["MANYWORK"])
        return Sources(self.name, code, header, self.work, batch_work, self.tables.size(), tuple(self.steps))

    def _many(self) -> dict[str, str]:
        """Return the texts of the functions for batches: of linear layers alone there is a faster one."""
        ops = [op for op in self.program.ops if isinstance(op, o.Linear)]
        inputs = prod(self.input_shape)
        if not self.is_linear:
            return {"MANY": "", "BATCH": "", "MANYWORK": str(self.work)}
        used = [self._at(op.sources[op.sources >= 0]) for op in ops if self._base(op.sources) == "in"]
        read = np.unique(np.concatenate([*used, np.zeros(0, np.int64)]))
        lines = []
        for step, op in enumerate(ops):
            base = "x" if self._base(op.sources) == "in" else "y"
            name, kind = self.products[step]
            target = f"y + {MANY * int(self._at(op.target)[0])}"
            lines.append(f"    {self.name}_{kind}_many({base}, {target}, &{name});\n")
        self.pieces["many"] = piece("transpose", NAME=self.name)
        values = {
            "NAME": self.name,
            "READ": self.tables.add(read.astype(np.int32)),
            "COUNT": str(len(read)),
            "WRITTEN": self._table(self.program.output),
            "STEPS": "".join(lines),
        }
        batch = (
            f"    for (int n = {MANY}; count > {MANY // 4}; count -= n, in += n * {self.name}_INPUTS, "
            f"out += n * {self.name}_OUTPUTS) {{\n        n = count < {MANY} ? count : {MANY};\n"
            f"        {self.name}_many(work, in, out, n);\n    }}\n"
        )
        return {"MANY": piece("run_many", **values), "BATCH": batch, "MANYWORK": str(MANY * (inputs + self.work))}

    # -- parts of steps ---------------------------------------------------------------------------------------------

    def _use(self, which: str, **values: str) -> str:
        """Have a piece of the runtime in the file; return the prefix of its functions."""
        key = which + "".join(values.values())
        if key not in self.pieces:
            self.pieces[key] = piece(which, NAME=self.name, **values)
        return self.name

    def _at(self, positions: np.ndarray) -> np.ndarray:
        return places(positions, self.begins)

    def _table(self, positions: np.ndarray) -> str:
        return self.tables.add(self._at(positions).astype(np.int32))

    @staticmethod
    def _base(positions: np.ndarray) -> str:
        """Return the array that positions are in."""
        live = positions[positions >= 0]
        return "in" if len(live) and live[0] < o.BUFFER else "work"

    def _source(self, planes: o.Planes) -> str:
        """Return array, places and row of planes."""
        return f"{self._base(planes.starts)}, {self._table(planes.starts)}, {planes.row}"

    def _size(self, planes: o.Planes) -> str:
        return f"{planes.height}, {planes.width}"

    def _step(self, op: o.Op) -> str:
        self.steps.append(f"{op.layer or '(network)'}: {type(op).__name__.lower()}")
        return WRITE[type(op)](self, op)

    def _finish(self) -> str:
        """Return the line that copies the results to the caller."""
        output = self.program.output
        if (np.diff(output) == 1).all():
            return f"memcpy(out, {self._base(output)} + {int(self._at(output)[0])}, {len(output)} * sizeof *out);"
        self._use("gather")
        return f"{self.name}_gather({self._base(output)}, {self._table(output)}, out, {len(output)});"

    # -- steps ------------------------------------------------------------------------------------------------------

    def copy(self, op: o.Copy) -> str:
        target = op.target
        return (
            f"{self._use('copy')}_copy({self._source(op.source)}, {self._size(op.source)}, {self._source(target)}, "
            f"{self._size(target)}, {len(target.starts)}, {op.top}, {op.left}, {op.stride[0]}, {op.stride[1]}, "
            f"{number(op.fill)});"
        )

    def gather(self, op: o.Gather) -> str:
        return (
            f"{self._use('gather')}_gather({self._base(op.source)}, {self._table(op.source)}, "
            f"work + {int(self._at(op.target)[0])}, {len(op.target)});"
        )

    def clear(self, op: o.Clear) -> str:
        planes = op.planes
        return (
            f"{self._use('clear')}_clear(work, {self._table(planes.starts)}, {len(planes.starts)}, {planes.row}, "
            f"{self._size(planes)}, {op.head}, {op.tail});"
        )

    def conv(self, op: o.Conv) -> str:
        layout = conv_layout(op, self._at(op.sources), self._at(op.planes))
        kind = "uint16_t" if layout.offsets.dtype == np.uint16 else "uint32_t"
        suffix = "" if kind == "uint16_t" else "_wide"
        name = f"{self.name}_c{len(self.structs)}"
        self._use("clamp")
        self._use("conv_struct", OFFSET=kind, SUFFIX=suffix)
        self._use("conv_plain", OFFSET=kind, SUFFIX=suffix)
        key = f"conv {op.tile}{suffix}"
        self.pieces[key] = conv_kernel(self.name, op.tile // LANES, suffix, kind)
        tables = [self.tables.add(each) for each in (layout.weights, layout.offsets, layout.counts, layout.bases)]
        tables += [self.tables.add(op.bias.astype(np.float32)), self._table(op.target.starts)]
        tables += [self._table(op.around.starts) if op.around else "0"]
        numbers = [len(layout.bases), len(op.bias), op.places]
        self._struct("convolution" + suffix, name, [*tables, *map(str, numbers), number(op.low), number(op.high)])
        return f"{self.name}_conv{op.tile}{suffix}(work, &{name});"

    def linear(self, op: o.Linear) -> str:
        layout = linear_layout(op, self._at(op.sources), self.small)
        name = f"{self.name}_p{len(self.structs)}"
        self._use("clamp")
        self._use("linear_struct")
        kind = layout.kind
        if kind == "shared":
            self._use("shared")
        else:
            self._use("linear", KIND=kind, **PRODUCTS[kind])
        if self.is_linear:
            self._use("many", KIND=kind, **PRODUCTS[kind])
        self.products.append((name, kind))
        tables = [layout.weights, layout.index, layout.steps, layout.bases, layout.bias]
        starts = self.tables.add(layout.starts) if len(layout.starts) else "0"
        numbers = [str(len(layout.bases)), str(len(layout.bias) // LANES), number(op.low), number(op.high)]
        self._struct("product", name, [*map(self.tables.add, tables), starts, *numbers])
        base, begin, width = self._base(op.sources), int(self._at(op.target)[0]), len(layout.bias)
        call = f"{self.name}_{kind}({base}{{}}, work + {begin}{{}}, &{name});"
        if len(op.repeats) == 1:
            return call.format("", "")
        table = self.tables.add(op.repeats.astype(np.int32))
        return f"for (int32_t r = 0; r < {len(op.repeats)}; r++) " + call.format(f" + {table}[r]", f" + r * {width}")

    def _struct(self, kind: str, name: str, values: list[str]) -> None:
        text = f"static const struct {self.name}_{kind} {name} = {{"
        self.structs.append(f"{text}\n    {', '.join(values)}}};\n\n")

    def pool(self, op: o.Pool) -> str:
        source, target = op.source, op.target
        pairs = (op.kernel, op.stride, op.padding, op.dilation)
        count = len(target.starts)
        fits = source.height >= 2 * target.height and source.width >= 2 * target.width
        if not op.average and pairs == ((2, 2), (2, 2), (0, 0), (1, 1)) and fits:
            return (
                f"{self._use('pool2')}_pool2({self._source(source)}, {self._source(target)}, {self._size(target)}, "
                f"{count});"
            )
        window = self.tables.add(np.array(pairs, np.int32))
        return (
            f"{self._use('pool')}_pool({self._source(source)}, {self._size(source)}, {self._source(target)}, "
            f"{self._size(target)}, {count}, {window}, {op.counts if op.average else -2});"
        )

    def adaptive(self, op: o.AdaptivePool) -> str:
        return (
            f"{self._use('adaptive')}_adaptive({self._source(op.source)}, {self._size(op.source)}, "
            f"{self._source(op.target)}, {self._size(op.target)}, {len(op.target.starts)}, {int(op.average)});"
        )

    def scale(self, op: o.Scale) -> str:
        tables = [self.tables.add(each.astype(np.float32)) for each in (op.scale, op.shift)]
        return (
            f"{self._use('scale')}_scale({self._source(op.source)}, {self._source(op.target)}, "
            f"{self._size(op.target)}, {len(op.target.starts)}, {', '.join(tables)}, {int(op.scale.ndim > 1)});"
        )

    def binary(self, op: o.Binary) -> str:
        parts = []
        for planes in (op.one, op.other):
            down = planes.row if planes.height == op.target.height else 0
            right = 1 if planes.width == op.target.width else 0
            parts.append(f"{self._base(planes.starts)}, {self._table(planes.starts)}, {down}, {right}")
        sign = {"add": "+", "sub": "-", "mul": "*"}[op.operator]
        return (
            f"{self._use('binary')}_binary('{sign}', {', '.join(parts)}, {self._source(op.target)}, "
            f"{self._size(op.target)}, {len(op.target.starts)});"
        )

    def activate(self, op: o.Activate) -> str:
        self._use("activate", KIND=op.kind, FORMULA=FORMULAS[op.kind])
        low, high = (*op.parameters, 0.0, 0.0)[:2]
        return (
            f"{self.name}_activate_{op.kind}({self._source(op.planes)}, {self._size(op.planes)}, "
            f"{len(op.planes.starts)}, {number(low)}, {number(high)});"
        )

    def rows(self, op: o.Rows) -> str:
        kind = {"mean": "m", "softmax": "s", "log_softmax": "l"}[op.kind]
        begin, to = int(self._at(op.source)[0]), int(self._at(op.target)[0])
        return (
            f"{self._use('rows')}_rows('{kind}', work + {begin}, work + {to}, {len(op.source) // op.length}, "
            f"{op.length});"
        )


WRITE: dict[type[o.Op], Callable[[_Writer, Any], str]] = {
    o.Copy: _Writer.copy,
    o.Gather: _Writer.gather,
    o.Clear: _Writer.clear,
    o.Conv: _Writer.conv,
    o.Linear: _Writer.linear,
    o.Pool: _Writer.pool,
    o.AdaptivePool: _Writer.adaptive,
    o.Scale: _Writer.scale,
    o.Binary: _Writer.binary,
    o.Activate: _Writer.activate,
    o.Rows: _Writer.rows,
}


def piece(which: str, **values: str) -> str:
    """Return a piece of the C runtime with its places filled."""
    text = (resources.files("tombola.export.c") / "runtime" / f"{which}.c").read_text()
    for _ in range(2):  # a value may hold places itself
        text = re.sub("@([A-Z]+)@", lambda match: values[match[1]], text)
    return text
