"""One call of an ATen operator in an exported program, as the makers of nodes read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx

from tombola.export import graph as g


@dataclass(frozen=True, eq=False)
class Step:
    """One call of an operator.

    Args:
        node: the call.
        layer: qualified name of the module that makes it.
        shape: of its result for one example.
        constants: results that do not depend on the example.
        names: node name of each result that does.
        parameters: name in the state_dict of each parameter and buffer.
    """

    node: fx.Node
    layer: str
    shape: tuple[int, ...]
    constants: Mapping[fx.Node, Any]
    names: Mapping[fx.Node, str]
    parameters: Mapping[fx.Node, str]

    def arguments(self) -> dict[str, Any]:
        """Return the arguments by the names of the operator's schema, defaults included."""
        target: Any = self.node.target
        schema = target._schema.arguments
        given = dict(zip((each.name for each in schema), self.node.args, strict=False)) | self.node.kwargs
        return {each.name: given.get(each.name, each.default_value) for each in schema}

    def source(self) -> fx.Node:
        """Return the first input that depends on the example."""
        return next(each for each in self.node.all_input_nodes if each in self.names)

    def constant(self, argument: Any) -> Any:
        """Return a tensor or number that does not depend on the example.

        Raises:
            Unsupported: it does.
        """
        if not isinstance(argument, fx.Node):
            return argument
        if argument not in self.constants:
            raise self.refuse("with weights that depend on the example")
        return self.constants[argument]

    def name_of(self, argument: Any) -> str:
        """Return the name of a parameter in the state_dict; "" for a computed tensor or None."""
        return self.parameters.get(argument, "") if isinstance(argument, fx.Node) else ""

    def refuse(self, why: str = "", remedy: str = g.REMEDY) -> g.Unsupported:
        """Return the error for a form of an operator that no node stands for."""
        name = str(self.node.target).removeprefix("aten.").split(".")[0]
        return g.Unsupported(self.layer, f"the operator {name!r}{f' {why}' if why else ''}", remedy)

    def base(self, *sources: fx.Node) -> tuple[str, str, tuple[str, ...], tuple[int, ...]]:
        """Return name, layer, inputs and shape of the node to make."""
        inputs = tuple(self.names[each] for each in sources or (self.source(),))
        return self.node.name, self.layer, inputs, self.shape

    def axis(self, number: int, dimensions: int | None = None) -> int:
        """Return an axis of a batch as one of the example; refuse the batch itself."""
        dimensions = rank(self.source()) if dimensions is None else dimensions
        if number % dimensions == 0:
            raise self.refuse("across examples")
        return number % dimensions - 1


def rank(node: fx.Node) -> int:
    return int(node.meta["val"].dim())
