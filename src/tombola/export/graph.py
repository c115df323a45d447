"""A network as a list of typed operations: what the exporters work on.

`tombola.export.graph_trace.trace` makes a `Graph` of a module, `tombola.export.graph_run.run` computes one in PyTorch.
Shapes and axes are those of one example: axis 0 is the channels, and the batch has no axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from tombola.errors import InputError

Shape = tuple[int, ...]

REMEDY = "replace the layer, or export to onnx"


class Unsupported(InputError):
    """A layer or an operator that an export can't hold.

    Args:
        layer: its qualified name in the network, "" for the network's own forward pass.
        operator: what it computes, such as "lstm".
        remedy: what the user can do.
    """

    def __init__(self, layer: str, operator: str, remedy: str = REMEDY):
        super().__init__(f"{f'layer {layer!r}' if layer else 'the network'} uses {operator}: {remedy}")
        self.layer, self.operator = layer, operator


@dataclass(frozen=True, eq=False)
class Node:
    """One operation.

    Args:
        name: unique in its graph.
        layer: qualified name of the module that calls it, such as "stage1.0.conv1"; "" for the network itself.
        inputs: names of the nodes whose results it takes.
        shape: of its result for one example.
    """

    name: str
    layer: str
    inputs: tuple[str, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Input(Node):
    """The example, float32."""


@dataclass(frozen=True, eq=False)
class Linear(Node):
    """weight @ x + bias over the last axis.

    Args:
        weight: [outputs, inputs].
        bias: [outputs] or None.
        weight_name, bias_name: in the module's state_dict; "" where the tensor is computed or missing.
    """

    weight: Tensor
    bias: Tensor | None
    weight_name: str
    bias_name: str


@dataclass(frozen=True, eq=False)
class Conv(Node):
    """A convolution over one, two or three spatial axes, padded with zeros.

    Args:
        weight: [outputs, inputs / groups, *kernel].
        bias: [outputs] or None.
        weight_name, bias_name: in the module's state_dict; "" where the tensor is computed or missing.
        stride, dilation: for each spatial axis.
        padding: (before, after) for each spatial axis.
        groups: number of groups; each sees its own inputs only.
    """

    weight: Tensor
    bias: Tensor | None
    weight_name: str
    bias_name: str
    stride: Shape
    padding: tuple[tuple[int, int], ...]
    dilation: Shape
    groups: int


@dataclass(frozen=True, eq=False)
class Norm(Node):
    """Batch norm in evaluation: scale * x + shift by channel, axis 0.

    Args:
        scale, shift: float64 [channels].
        names: "weight", "bias", "running_mean", "running_var" -> name in the module's state_dict; missing ones are
            left out.
    """

    scale: Tensor
    shift: Tensor
    names: dict[str, str]


@dataclass(frozen=True, eq=False)
class Affine(Node):
    """scale * x + shift with constants that broadcast to the example's shape, float64."""

    scale: Tensor
    shift: Tensor


ActivationKind = Literal[
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "gelu",
    "gelu_tanh",
    "sigmoid",
    "hardsigmoid",
    "tanh",
    "silu",
    "hardswish",
    "hardtanh",
]


@dataclass(frozen=True, eq=False)
class Activation(Node):
    """A function of each number alone.

    Args:
        kind: which.
        parameters: slope of leaky_relu; alpha of elu; lowest and highest of hardtanh; else none.
    """

    kind: ActivationKind
    parameters: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Pool(Node):
    """The maximum or the average of windows over the spatial axes. The result's shape says whether it rounds up.

    Args:
        kind: maximum or average.
        kernel, stride, padding, dilation: for each spatial axis; the padding on both sides. Averages have dilation 1.
        counts: what an average divides by: the window's places inside the "padded" input, those inside the "input"
            itself, or a number.
    """

    kind: Literal["max", "average"]
    kernel: Shape
    stride: Shape
    padding: Shape
    dilation: Shape
    counts: Literal["padded", "input"] | int = "padded"


@dataclass(frozen=True, eq=False)
class AdaptivePool(Node):
    """The maximum or the average of windows that divide each spatial axis evenly.

    Of n windows, number i begins at floor(i * size / n) and ends before ceil((i + 1) * size / n).
    """

    kind: Literal["max", "average"]


@dataclass(frozen=True, eq=False)
class Mean(Node):
    """The mean over some axes; whether they stay with length 1, the result's shape says."""

    axes: Shape


@dataclass(frozen=True, eq=False)
class Reshape(Node):
    """The same numbers in the same order in another shape."""


@dataclass(frozen=True, eq=False)
class Permute(Node):
    """Axes in another order: axis i of the result is axis `axes[i]` of the input."""

    axes: Shape


@dataclass(frozen=True, eq=False)
class Slice(Node):
    """Places start, start + step, ... below stop of one axis."""

    axis: int
    start: int
    stop: int
    step: int


@dataclass(frozen=True, eq=False)
class Pad(Node):
    """A constant around the example: (before, after) for each axis."""

    padding: tuple[tuple[int, int], ...]
    value: float


@dataclass(frozen=True, eq=False)
class Concat(Node):
    """Several inputs one after another along an axis."""

    axis: int


@dataclass(frozen=True, eq=False)
class Binary(Node):
    """Sum, difference or product of two inputs that broadcast to the result's shape, such as a residual sum."""

    operator: Literal["add", "sub", "mul"]


@dataclass(frozen=True, eq=False)
class Softmax(Node):
    """Softmax over one axis, or its logarithm."""

    axis: int
    log: bool


@dataclass(frozen=True, eq=False)
class Graph:
    """A network.

    Args:
        nodes: each after its inputs; the first is the only `Input`.
        output: name of the node whose result the network returns.
    """

    nodes: tuple[Node, ...]
    output: str

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, name: str) -> Node:
        return self.by_name()[name]

    @property
    def input(self) -> Node:
        """The node of the example."""
        return self.nodes[0]

    def by_name(self) -> dict[str, Node]:
        """Return the nodes by name."""
        return {node.name: node for node in self.nodes}

    def users(self) -> dict[str, list[Node]]:
        """Return, by the name of each node, the nodes that take its result; one that takes it twice stands twice."""
        found: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.inputs:
                found[name].append(node)
        return found
