"""Operators that only move numbers: reshaping, slicing, padding, concatenation."""

from __future__ import annotations

from typing import Any

from torch import fx

from tombola.export import graph as g
from tombola.export.graph_step import Step, rank


def reshape(step: Step) -> g.Node:
    return g.Reshape(*step.base())


def permute(step: Step) -> g.Node:
    axes = [axis % rank(step.source()) for axis in step.arguments()["dims"]]
    if axes[0] != 0:
        raise step.refuse("across examples")
    return g.Permute(*step.base(), tuple(axis - 1 for axis in axes[1:]))


def transpose(step: Step) -> g.Node:
    given = step.arguments()
    axes = list(range(rank(step.source()) - 1))
    one, other = step.axis(given["dim0"]), step.axis(given["dim1"])
    axes[one], axes[other] = axes[other], axes[one]
    return g.Permute(*step.base(), tuple(axes))


def part(step: Step) -> g.Node:
    given = step.arguments()
    size = step.source().meta["val"].shape[given["dim"]]
    start, stop, stride = slice(given["start"], given["end"], given["step"]).indices(size)
    if given["dim"] % rank(step.source()) == 0:
        if (start, stop, stride) == (0, size, 1):
            return g.Reshape(*step.base())  # all examples: the same numbers
        raise step.refuse("across examples")
    return g.Slice(*step.base(), step.axis(given["dim"]), start, stop, stride)


def item(step: Step) -> g.Node | None:
    """Return the part of a split or chunk that is taken."""
    source, number = step.node.args
    assert isinstance(source, fx.Node)
    assert isinstance(number, int)
    if isinstance(source.meta.get("val"), list | tuple) and "max" in str(source.target):
        if number == 0:  # the values; the indices are never a node
            return g.Reshape(*step.base(source))
        if step.node.users:
            raise g.Unsupported(step.layer, "the indices of a maximum")
        return None
    whole = source.all_input_nodes[0]
    parts = [int(part.shape[_split_axis(source)]) for part in source.meta["val"]]
    start = sum(parts[:number])
    axis = step.axis(_split_axis(source), rank(whole))
    name, layer, _, shape = step.base()
    return g.Slice(name, layer, (step.names[whole],), shape, axis, start, start + parts[number], 1)


def _split_axis(source: fx.Node) -> int:
    target: Any = source.target
    names = (each.name for each in target._schema.arguments)
    given: dict[str, Any] = dict(zip(names, source.args, strict=False)) | source.kwargs
    return int(given.get("dim", 0))


def split(step: Step) -> None:
    """Do nothing: the parts are read where they are taken."""


def pad(step: Step) -> g.Node:
    given = step.arguments()
    if given.get("mode", "constant") != "constant":
        raise step.refuse(f"of mode {given['mode']!r}")
    sides, axes = list(given["pad"]), rank(step.source())
    pairs = [(sides[place], sides[place + 1]) for place in range(0, len(sides), 2)]
    pairs += [(0, 0)] * (axes - len(pairs))
    *others, batch = pairs
    if batch != (0, 0) or min(sides) < 0:
        raise step.refuse("across examples" if batch != (0, 0) else "with negative sides")
    return g.Pad(*step.base(), tuple(reversed(others)), float(given.get("value") or 0.0))


def cat(step: Step) -> g.Node:
    given = step.arguments()
    if any(each not in step.names for each in given["tensors"]):
        raise step.refuse("of a constant")
    axis = step.axis(given.get("dim", 0), rank(given["tensors"][0]))
    return g.Concat(*step.base(*given["tensors"]), axis)
