"""The axes of a weight: which of them are a product's inputs, which its outputs, which the places of a window.

The layout of a weight does not follow from its shape: `nn.Linear` stores [outputs, inputs], `x @ W` and transformers'
Conv1D take [inputs, outputs], a transposed convolution [inputs, outputs / groups, window]. The product that takes the
weight decides: an input axis is summed over, an output axis stays in the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from tombola.networks.operands import INPUT, OUTPUT, Operand
from tombola.section import Section


class Axes(Section):
    """Which axes of a weight are outputs and inputs; all others are places of a convolution's window.

    Args:
        outputs: the axes that stay in the product's result. Each matrix of a batch has outputs of its own, so the axis
            of the batch is one of them.
        inputs: the axes that the product sums over.
        groups: of a transposed convolution: its first axis holds the inputs of all groups, one group after another,
            and each group has outputs of its own.
    """

    outputs: tuple[int, ...] = (0,)
    inputs: tuple[int, ...] = (1,)
    groups: int = 1

    def arranged(self, weight: Tensor) -> Tensor:
        """Return a weight, or a tensor of its shape, as [outputs, inputs, window]; a copy where no view can be."""
        outputs, inputs = list(self.outputs), list(self.inputs)
        if self.groups > 1:
            weight = weight.unflatten(0, (self.groups, -1))
            outputs, inputs = [0, *(each + 1 for each in outputs)], [each + 1 for each in inputs]
        window = [each for each in range(weight.dim()) if each not in (*outputs, *inputs)]
        sizes = [prod(weight.shape[each] for each in axes) for axes in (outputs, inputs, window)]
        return weight.permute(*outputs, *inputs, *window).reshape(sizes)

    def places(self, shape: Sequence[int]) -> Tensor:
        """Return int64 [outputs, inputs, window]: where each weight lies in the flat tensor of a shape."""
        return self.arranged(torch.arange(prod(shape)).reshape(tuple(shape)))


PLAIN = Axes()
"""[outputs, inputs, window], as linear layers, convolutions, recurrent layers and attention store their weights."""


@dataclass(frozen=True)
class Base:
    """How a parameter lies in memory that views look into: its own memory, or that of a copy.

    Args:
        shape, strides, offset: of the tensor that filled the memory.
        axes: of each of its dimensions, the parameter's axes along it.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    itemsize: int
    axes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, tensor: Tensor, axes: Sequence[tuple[int, ...]] | None = None) -> Base:
        """Return the base that a tensor is: a parameter, or a copy with the parameter's axes in each dimension."""
        each = tuple((axis,) for axis in range(tensor.dim())) if axes is None else tuple(axes)
        return cls(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), tensor.element_size(), each)

    def seen(self, view: Tensor) -> tuple[tuple[int, ...], ...] | None:
        """Return the parameter's axes along each dimension of a view; None where that is not known.

        A step along a dimension of the view is a number of elements in memory. It changes those dimensions of the base
        whose places it crosses.
        """
        dimensions = zip(self.shape, self.strides, self.axes, strict=True)
        sides = [(stride, each) for size, stride, each in dimensions if size > 1]
        sides.sort(key=lambda side: -side[0])
        if view.element_size() != self.itemsize or any(not stride for stride, _ in sides):
            return None
        limits = [0, *(stride for stride, _ in sides)]  # the slowest has no limit
        start = int(view.storage_offset()) - self.offset
        last = sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))
        found = []
        for size, step in zip(view.shape, view.stride(), strict=True):
            end = start + (size - 1) * step
            if size and not 0 <= start <= end <= last:
                return None
            along: list[int] = []
            for (stride, axes), limit in zip(sides, limits, strict=False):
                wraps = bool(limit) and step % limit == 0
                if size > 1 and step and not wraps and start // stride != end // stride:
                    along += axes
            found.append(tuple(along))
        return tuple(found)


def copied_base(op: str, args: Sequence[Any], source: Tensor, base: Base, made: Tensor) -> Base | None:
    """Return how a parameter lies in a copy of it; None where that is not known.

    Args:
        op: name of the operation that copies, without its namespace.
        args: of the operation.
        source: the argument that holds the parameter.
        base: of the memory that `source` looks into.
        made: the copy.
    """
    axes = base.seen(source)
    rule = COPIED.get(op)
    if axes is None or rule is None:
        return None
    mine = rule(axes, args, made)
    return Base.of(made, mine) if mine is not None and len(mine) == made.dim() else None


Along = tuple[tuple[int, ...], ...]


def _same(axes: Along, args: Sequence[Any], made: Tensor) -> Along:
    return axes


def _rolled(axes: Along, args: Sequence[Any], made: Tensor) -> Along | None:
    return axes if len(args) > 2 and args[2] else None  # without dimensions it rolls the flat tensor


def _stacked(axes: Along, args: Sequence[Any], made: Tensor) -> Along:
    place = (args[1] if len(args) > 1 else 0) % made.dim()
    return (*axes[:place], (), *axes[place:])


def _repeated(axes: Along, args: Sequence[Any], made: Tensor) -> Along:
    return ((),) * (made.dim() - len(axes)) + axes


def _indexed(axes: Along, args: Sequence[Any], made: Tensor) -> Along | None:
    given = [each for each in args[1] if each is not None]
    return axes if len(given) == 1 and given[0].dim() == 1 and given[0].dtype != torch.bool else None


COPIED: Mapping[str, Any] = {
    **dict.fromkeys(
        ("clone", "copy_", "copy", "contiguous", "_to_copy", "alias", "detach", "flip", "index_select"), _same
    ),
    **dict.fromkeys(("cat", "constant_pad_nd", "lift", "lift_fresh", "lift_fresh_copy", "unsafe_split"), _same),
    **dict.fromkeys(("unsafe_split_with_sizes", "split_copy", "slice_copy"), _same),
    "roll": _rolled,
    "stack": _stacked,
    "repeat": _repeated,
    "index": _indexed,
}


def axes_in(operand: Operand, base: Base | None, shape: Sequence[int]) -> Axes | None:
    """Return the axes of a parameter in a product; None where they are not known.

    Args:
        operand: that holds the parameter's numbers.
        base: of the memory that the operand looks into; None where it is not known.
        shape: of the parameter.
    """
    along = None if base is None else base.seen(operand.tensor)
    if along is None or len(along) != len(operand.roles):
        return None
    roles: dict[int, str] = {}
    for axes, role in zip(along, operand.roles, strict=True):
        for axis in axes:
            if roles.setdefault(axis, role) != role:
                return None
    outputs, inputs = ([axis for axis, each in roles.items() if each == role] for role in (OUTPUT, INPUT))
    left = [axis for axis in range(len(shape)) if axis not in roles]
    if sliced := [axis for axis in left if shape[axis] > 1]:
        short = {role for axes, role in zip(along, operand.roles, strict=True) if not axes}  # slices of one place
        if len(short) > 1:
            return None
        # Without such a dimension the product takes one matrix of several: each has outputs of its own.
        (inputs if short == {INPUT} else outputs).extend(sliced)
    for axis in left:
        if shape[axis] == 1 and not (outputs and inputs):  # an axis of size 1 shows in no step
            (inputs if outputs else outputs).append(axis)
    if operand.groups > 1 and inputs != [0]:
        return None
    # In the weight's own order: that of the product is PyTorch's affair in an einsum.
    return Axes(outputs=tuple(sorted(outputs)), inputs=tuple(sorted(inputs)), groups=operand.groups)
