"""The steps that a graph is lowered to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tombola.export.c import ops as o
from tombola.export.c.workspace import Buffer


@dataclass(eq=False)
class Program:
    """The steps of a network.

    Args:
        ops: in order.
        buffers: their sizes; number 0 is the example.
        output: int64, position of each output.
    """

    ops: list[o.Op]
    buffers: list[Buffer]
    output: np.ndarray
