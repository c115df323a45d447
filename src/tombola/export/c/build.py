"""Compiles exported C with the machine's compiler, and calls it from Python."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tombola.errors import InputError
from tombola.export.c.emit import Sources

FLAGS = ("-std=c99", "-O3", "-march=native", "-ffp-contract=fast")
COMPILERS = ("cc", "gcc", "clang")
ALIGNMENT = 64


def compiler() -> str | None:
    """Return the C compiler: what $CC names, else cc, gcc or clang; None for none."""
    wanted = os.environ.get("CC")
    return next((found for each in ([wanted] if wanted else COMPILERS) if (found := shutil.which(each))), None)


def require_compiler(purpose: str) -> str:
    """Return the C compiler.

    Raises:
        InputError: there is none; `purpose` says what needs it.
    """
    found = compiler()
    if found is None:
        named = os.environ.get("CC")
        raise InputError(
            f"{purpose} needs a C compiler, and {f'$CC names {named!r}, which' if named else 'none'} was "
            f"{'not ' if named else ''}found: install gcc or clang, or set CC to your compiler"
        )
    return found


class _Memory(threading.local):
    """Working memory that begins on a cache line: each thread has its own, because C runs without Python's lock.

    Args:
        size: float32 in it.

    Attributes:
        numbers: float32 [size].
        address: of the first.
    """

    def __init__(self, size: int):
        memory = np.zeros(size + ALIGNMENT // 4, np.float32)
        begin = (-memory.ctypes.data % ALIGNMENT) // 4
        self.numbers = memory[begin : begin + size]
        self.address = self.numbers.ctypes.data


class Compiled:
    """An exported network that runs in this process.

    Args:
        sources: what `tombola.export.c.sources_of` returned.
        inputs, outputs: shapes of one example and of its result.
        flags: of the compiler, besides those that make a shared library.

    Raises:
        InputError: there is no C compiler, or it fails.
    """

    def __init__(
        self,
        sources: Sources,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        flags: tuple[str, ...] = FLAGS,
    ):
        self.inputs, self.outputs, self.work = inputs, outputs, sources.batch_work
        self._folder = tempfile.mkdtemp(prefix="tombola-")
        self._finalizer = weakref.finalize(self, shutil.rmtree, self._folder, True)
        path = compile_library(sources, Path(self._folder), flags)
        self.library_bytes = path.stat().st_size
        library = ctypes.CDLL(str(path))
        pointer = ctypes.c_void_p
        self._run = getattr(library, f"{sources.name}_run_in")
        self._run.argtypes, self._run.restype = (pointer, pointer, pointer), None
        self._batch = getattr(library, f"{sources.name}_batch_in")
        self._batch.argtypes, self._batch.restype = (pointer, pointer, pointer, ctypes.c_int), None
        self._memory = _Memory(self.work)
        self._pool: tuple[int, ThreadPoolExecutor] | None = None

    def __deepcopy__(self, memo: object) -> Compiled:
        return self  # nothing in it changes but working memory

    def __reduce__(self) -> Any:
        raise TypeError(
            "compiled code can't be pickled: save the ticket, or export it to pytorch, and load the saved file"
        )

    def __call__(self, examples: np.ndarray, threads: int = 1) -> np.ndarray:
        """Return float32 [N, ...] of examples [N, ...].

        Args:
            examples: of the shape that the network takes; anything but float32 in C order is converted.
            threads: how many share the examples.

        Raises:
            InputError: the examples have another shape.
        """
        self.check(examples.shape)
        examples = np.ascontiguousarray(examples, np.float32)
        results = np.empty((len(examples), *self.outputs), np.float32)
        self.fill(examples.ctypes.data, results.ctypes.data, len(examples), threads)
        return results

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise if examples of this shape do not fit.

        Raises:
            InputError: they do not.
        """
        if shape[1:] != self.inputs:
            wanted = ", ".join(map(str, self.inputs))
            raise InputError(f"examples have shape {shape}, but the network takes (N, {wanted})")

    def fill(self, examples: int, results: int, count: int, threads: int = 1) -> None:
        """Compute so many examples at one address and write the results at another; both float32 in C order.

        Several threads may call at the same time.
        """
        if threads < 2 or count < 2:
            self._batch(self._memory.address, examples, results, count)
            return
        bounds = np.linspace(0, count, min(threads, count) + 1).astype(int).tolist()
        if self._pool is None or self._pool[0] < len(bounds) - 1:
            self._pool = len(bounds) - 1, ThreadPoolExecutor(len(bounds) - 1, "tombola")
        inputs, outputs = 4 * prod(self.inputs), 4 * prod(self.outputs)

        def part(begin: int, end: int) -> None:
            address = self._memory.address  # of the pool's thread
            self._batch(address, examples + begin * inputs, results + begin * outputs, end - begin)

        list(self._pool[1].map(part, bounds[:-1], bounds[1:]))

    def caller(self, example: np.ndarray, result: np.ndarray) -> Callable[[], Any]:
        """Return a function without arguments that computes one example into `result`: what a C program would call."""
        memory = _Memory(self.work)
        call: Any = partial(self._run, memory.address, example.ctypes.data, result.ctypes.data)
        # The memory behind those addresses must live as long as the function.
        call.keeps = self, example, result, memory.numbers
        return call


def compile_library(sources: Sources, folder: Path, flags: tuple[str, ...] = FLAGS) -> Path:
    """Write the sources into a folder and compile them there to a shared library; return its path.

    Raises:
        InputError: there is no C compiler, or it fails.
    """
    code = folder / f"{sources.name}.c"
    code.write_text(sources.code)
    (folder / f"{sources.name}.h").write_text(sources.header)
    library = folder / f"{sources.name}.so"
    run_compiler([*flags, "-shared", "-fPIC", str(code), "-o", str(library), "-lm"])
    return library


def run_compiler(arguments: list[str]) -> str:
    """Call the C compiler and return what it says.

    Raises:
        InputError: there is none, or it fails.
    """
    called = require_compiler("compiling an exported network")
    done = subprocess.run([called, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"{called} fails on the exported C: {' '.join(done.stderr.split())[:300]}; set CC to another compiler"
        )
    return done.stderr


def object_bytes(sources: Sources, flags: tuple[str, ...] = ("-std=c99", "-O2")) -> tuple[int, int]:
    """Return the bytes of code and constant data, and those of working memory, of the compiled file.

    Raises:
        InputError: there is no C compiler or no `size`, or one of them fails.
    """
    size = shutil.which("size")
    if size is None:
        raise InputError("measuring object code needs the program `size` of binutils: install binutils")
    with tempfile.TemporaryDirectory() as folder:
        code = Path(folder) / f"{sources.name}.c"
        code.write_text(sources.code)
        (Path(folder) / f"{sources.name}.h").write_text(sources.header)
        made = Path(folder) / "made.o"
        run_compiler([*flags, "-c", str(code), "-o", str(made)])
        shown = subprocess.run([size, str(made)], capture_output=True, text=True, check=True).stdout
    text, data, bss = (int(each) for each in shown.splitlines()[1].split()[:3])
    return text + data, bss
