"""Constant arrays of an exported C file; equal ones are written once."""

from __future__ import annotations

import numpy as np

TYPES = {"float32": "float", "int32": "int32_t", "uint8": "uint8_t", "uint16": "uint16_t", "uint32": "uint32_t"}
WIDTH = 118  # characters in a line


class Tables:
    """Collects arrays, and names them.

    Args:
        prefix: of their names.
    """

    def __init__(self, prefix: str):
        self.prefix = prefix
        self._names: dict[tuple[str, bytes], str] = {}
        self._arrays: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> str:
        """Return the name of an array of these values, in the order in memory.

        Raises:
            ValueError: its type has no name in C.
        """
        if str(values.dtype) not in TYPES:
            raise ValueError(f"no C array of {values.dtype}")
        values = np.ascontiguousarray(values).reshape(-1)
        values = values if len(values) else np.zeros(1, values.dtype)  # C has no empty arrays
        key = str(values.dtype), values.tobytes()
        if key not in self._names:
            self._names[key] = f"{self.prefix}_{'w' if values.dtype == np.float32 else 'n'}{len(self._arrays)}"
            self._arrays.append(values)
        return self._names[key]

    def size(self) -> int:
        """Return the bytes of all arrays."""
        return sum(values.nbytes for values in self._arrays)

    def text(self) -> str:
        """Return the definitions of all arrays."""
        names = dict(zip(self._names.values(), self._arrays, strict=True))
        return "".join(
            f"static const {TYPES[str(values.dtype)]} {name}[{len(values)}] = {{\n{lines(values)}}};\n\n"
            for name, values in names.items()
        )


def lines(values: np.ndarray) -> str:
    """Return the values as C constants, in lines; float32 exactly."""
    if values.dtype == np.float32:
        words = [f"{each:.8e}f" for each in values.tolist()]
    else:
        words = [str(each) for each in values.tolist()]
    per_line = max(1, (WIDTH - 4) // (max(map(len, words)) + 2))
    return "".join(f"    {', '.join(words[at : at + per_line])},\n" for at in range(0, len(words), per_line))


def number(value: float) -> str:
    """Return a float32 constant."""
    if np.isinf(value):
        return "INFINITY" if value > 0 else "-INFINITY"
    return f"{np.float32(value):.8e}f"
