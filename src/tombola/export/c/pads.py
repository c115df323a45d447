"""How much room for padding each result needs around its planes, so that convolutions need no copy."""

from __future__ import annotations

from dataclasses import dataclass

from tombola.export import graph as g


@dataclass(frozen=True)
class Pads:
    """Zeros around a plane.

    Args:
        top, bottom: rows of them.
        left, right: before the first and after the last row.
        gap: between the rows; of use on the left and on the right.
    """

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0
    gap: int = 0

    @property
    def nothing(self) -> bool:
        """Whether no zeros are needed."""
        return not (self.top or self.bottom or self.left or self.right)

    def __or__(self, other: Pads) -> Pads:
        return Pads(
            max(self.top, other.top),
            max(self.bottom, other.bottom),
            max(self.left, other.left),
            max(self.right, other.right),
            max(self.gap, other.gap),
        )

    @classmethod
    def of(cls, node: g.Conv, result: Pads, inputs: g.Shape) -> Pads:
        """Return what a convolution of stride 1 needs around its input, whose rows lie as those of its result."""
        (top, bottom), (left, right) = node.padding if len(node.padding) == 2 else ((0, 0), node.padding[0])
        gap = max(left, right, node.shape[-1] + result.gap - inputs[-1], 0)
        return cls(top, bottom, left, right, gap)


def pads(graph: g.Graph) -> dict[str, Pads]:
    """Return, by node, the room for padding that its users need around its result."""
    found = {node.name: Pads() for node in graph}
    for node in reversed(graph.nodes):
        mine = found[node.name]
        if isinstance(node, g.Conv) and len(node.stride) < 3 and set(node.stride) == {1}:
            wanted = Pads.of(node, mine, graph[node.inputs[0]].shape)
        elif isinstance(node, g.Activation | g.Binary) or (
            isinstance(node, g.Concat | g.Slice) and node.axis == 0 and len(node.shape) > 1
        ):
            wanted = mine  # the same planes, or planes that are added to others
        else:
            continue
        for name in node.inputs:
            if graph[name].shape[1:] == node.shape[1:] or isinstance(node, g.Conv):
                found[name] = found[name] | wanted
    return found
