"""Coverage: which parameters of a network are prunable, which are not and why, and what each of them costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tombola.errors import InputError, nearest
from tombola.formatting import first_of
from tombola.networks.axes import PLAIN, Axes
from tombola.networks.initialise import drawn_weights, require_sizes
from tombola.networks.one_batch import EXAMPLES, Inputs, looked_at
from tombola.networks.owners import Kind, kind_of, layer_weights, places_of
from tombola.networks.products import ProductTrace, Use, is_vector


@dataclass(frozen=True)
class Layer:
    """A prunable parameter: it has two dimensions or more, and a product takes it as it is.

    Args:
        name: of the parameter, such as "fc1.weight".
        kind: one of `tombola.networks.KINDS`. "conv" is any convolution, "parameter" one that stands in none of
            PyTorch's layers.
        shape: of the parameter.
        uses: how often each weight is used for one example, on average: 1 in a linear layer, positions in a
            convolution, tokens in attention.
        axes: which axes are the inputs and outputs of the products that take it; None where they are not known. The
            default is for plans that were stored before tombola recorded them.
        drawn: whether a scheme of `network.init` draws it; otherwise it keeps its constructor's weights.
    """

    name: str
    kind: Kind
    shape: tuple[int, ...]
    uses: float
    axes: Axes | None = PLAIN
    drawn: bool = True

    @property
    def size(self) -> int:
        """Number of weights."""
        return torch.Size(self.shape).numel()

    @property
    def multiply_adds(self) -> float:
        """Multiply-adds of one example."""
        return self.size * self.uses


@dataclass(frozen=True)
class Unpruned:
    """A parameter of two dimensions or more that can't be pruned.

    Args:
        name: of the parameter.
        shape: of the parameter.
        why: the reason, as text.
        multiply_adds: of one example, in the products that take a tensor computed from it.
    """

    name: str
    shape: tuple[int, ...]
    why: str
    multiply_adds: float = 0

    @property
    def size(self) -> int:
        """Number of weights."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True)
class Coverage:
    """Which parameters of a network are prunable, and which share of the network they are.

    Args:
        layers: the prunable parameters, in the order in which the forward pass comes to them.
        output: name of the output layer's weight.
        skipped: weights of layers that can't be pruned: a product takes a tensor computed from them, or the examples
            never reach their layer. They count as matrix weights, and stay dense.
        unmultiplied: parameters of two dimensions or more that no product takes, such as position embeddings.
        parameters: number of all weights, biases and the like included.
        multiply_adds: of one example, in the products that take a prunable parameter.
        all_multiply_adds: of one example, in all products; those of two activations (attention) included.
        examples: in the batch that the network was run with.
        output_shape: shape of what the network returned for it: of a tensor, or of the `logits` among others.
        returned: type of what the network returned, such as "Tensor".
        others: shape of every other tensor of the state_dict, by name; empty for plans stored before tombola recorded
            them.
    """

    layers: tuple[Layer, ...]
    output: str
    skipped: tuple[Unpruned, ...] = ()
    unmultiplied: tuple[Unpruned, ...] = ()
    parameters: int = 0
    multiply_adds: float = 0
    all_multiply_adds: float = 0
    examples: int = EXAMPLES
    output_shape: tuple[int, ...] | None = None
    returned: str = "Tensor"
    others: Mapping[str, tuple[int, ...]] = field(default_factory=dict, hash=False)

    @property
    def classes(self) -> int | None:
        """Number of scores per example; None where the network returns something else."""
        shape = self.output_shape
        if self.returned != "Tensor" or shape is None or len(shape) != 2 or shape[0] != self.examples:
            return None
        return shape[1]

    @property
    def prunable(self) -> int:
        """Number of prunable weights."""
        return sum(layer.size for layer in self.layers)

    @property
    def matrix_weights(self) -> int:
        """Number of weights in the parameters behind a product, prunable or not: what density is a share of."""
        return self.prunable + sum(each.size for each in self.skipped)

    def density(self, kept: int) -> float:
        """Return the share of all matrix weights that remains where `kept` prunable weights do."""
        return (kept + self.matrix_weights - self.prunable) / self.matrix_weights

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each prunable parameter by name."""
        return {layer.name: layer.shape for layer in self.layers}

    def sizes(self) -> dict[str, int]:
        """Return the number of weights of each prunable parameter by name."""
        return {layer.name: layer.size for layer in self.layers}

    def axes(self) -> dict[str, Axes]:
        """Return the axes of the prunable parameters that are not stored as [outputs, inputs, window], by name."""
        return {layer.name: layer.axes for layer in self.layers if layer.axes not in (None, PLAIN)}

    def select(self, name: str, what: str) -> str:
        """Return the parameter name for a layer given as "fc1" or "fc1.weight".

        Raises:
            InputError: no prunable layer has that name; `what` is the field that named it.
        """
        for candidate in (name, f"{name}.weight"):
            if candidate in self.shapes():
                return candidate
        for other in (*self.skipped, *self.unmultiplied):
            if other.name in (name, f"{name}.weight"):
                raise InputError(f"{what}: {other.name!r} is not prunable: {other.why}")
        known = [layer.name.removesuffix(".weight") for layer in self.layers]
        raise InputError(f"{what}: the network has no prunable layer {name!r}{nearest(name, known)}")

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per parameter of two dimensions or more, the prunable ones first.

        Returns:
            `name`, `kind` ("" for a parameter that is not prunable), `shape`, `weights`, `multiply_adds` of one
            example, and `why` the parameter is not prunable ("" for a prunable one).
        """
        prunable = [
            {"name": each.name, "kind": each.kind, "shape": each.shape, "weights": each.size}
            | {"multiply_adds": each.multiply_adds, "why": ""}
            for each in self.layers
        ]
        others = [
            {"name": each.name, "kind": "", "shape": each.shape, "weights": each.size}
            | {"multiply_adds": each.multiply_adds, "why": each.why}
            for each in (*self.skipped, *self.unmultiplied)
        ]
        return prunable + others

    def summary(self) -> str:
        """Return the totals in one line."""
        line = f"{self.prunable:,} of {self.matrix_weights:,} matrix weights are prunable"
        shares = []
        if self.parameters:
            shares.append(f"{_percent(self.prunable, self.parameters)} of all {self.parameters:,} parameters")
        if self.all_multiply_adds:
            shares.append(f"{_percent(self.multiply_adds, self.all_multiply_adds)} of multiply-adds")
        return f"{line} ({', '.join(shares)})" if shares else line

    def never_pruned(self) -> str:
        """Return in one line the share of matrix weights that can't be pruned, and why; "" where all can be."""
        if not self.skipped:
            return ""
        every = self.matrix_weights
        weights = every - self.prunable
        skipped = first_of([f"{each.name} ({each.why})" for each in self.skipped], 1)
        return (
            f"{weights:,} of {every:,} matrix weights ({_percent(weights, every)}) are never pruned, and count as "
            f"remaining: {skipped}"
        )

    def uncounted(self) -> str:
        """Return in one line the share of parameters that no density counts although they are matrices; "" for none."""
        if not self.unmultiplied or not self.parameters:
            return ""
        weights = sum(each.size for each in self.unmultiplied)
        names = first_of([f"{each.name} ({each.why})" for each in self.unmultiplied], 1)
        return (
            f"{weights:,} of {self.parameters:,} parameters ({_percent(weights, self.parameters)}) are never pruned, "
            f"and no density counts them: {names}"
        )

    def text(self) -> str:
        """Return the coverage as a table for a terminal: a line per parameter, then the totals."""
        head = ("parameter", "kind", "shape", "weights", "multiply-adds")
        body = [
            (
                row["name"],
                row["kind"] or "-",
                "x".join(map(str, row["shape"])),
                f"{row['weights']:,}",
                f"{row['multiply_adds']:,.0f}",
                f"not prunable: {row['why']}" if row["why"] else "",
            )
            for row in self.rows()
        ]
        widths = [max(len(line[column]) for line in (head, *body)) for column in range(len(head))]
        lines = []
        for name, kind, shape, weights, count, *why in ((*head, ""), *body):
            left = f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}"
            lines.append(f"{left}  {weights:>{widths[3]}}  {count:>{widths[4]}}  {why[0]}".rstrip())
        return "\n".join([*lines, self.summary()])


def check_scores(coverage: Coverage) -> int:
    """Return the number of class scores that the network gives per example.

    Raises:
        InputError: it returns something else than one row of scores per example.
    """
    if coverage.classes is None:
        got = coverage.output_shape if coverage.returned == "Tensor" else coverage.returned
        raise InputError(
            f"the network must return one row of class scores per example; for {coverage.examples} examples it "
            f"returned {got}; change what forward returns"
        )
    return coverage.classes


def examine(
    module: nn.Module,
    inputs: Inputs,
    output: str | None = None,
    embeddings: bool = False,
    random: Inputs | None = None,
) -> Coverage:
    """Run one batch through `module` and find the parameters that its products take.

    Every parameter of two dimensions or more that a product takes is prunable, wherever it stands: in a layer, in
    attention, in an LSTM, or alone. Views, copies and casts of a parameter count as the parameter. A tensor that is
    computed from parameters (weight norm) does not: those parameters are `skipped`. A tied weight counts once, under
    its first name; an embedding that is also an output layer takes part in a product, and so is prunable.

    Where the batch does not reach a parameter, random examples look for it: an expert needs an example that is sent to
    it. What they miss too, and what products take only in training mode, is `skipped` where it is the weight of a layer
    that multiplies. It counts, because it is stored and trained with the network. It is not prunable: criteria,
    evaluation and export would not see it.

    The module's mode, buffers and the global generator are as before afterwards.

    Args:
        module: to be run in evaluation mode, or in training mode where it fails there.
        inputs: a batch: a tensor, a tuple of tensors (`module(*inputs)`) or a dict (`module(**inputs)`), whose first
            dimension counts examples. Or the shape of one example, for a batch of float32 zeros.
        output: the output layer, where the last product of the forward pass is not it.
        embeddings: makes embedding tables prunable, and counts their weights among those in matrices.
        random: a batch of random examples; by default as `inputs`, with Gaussian numbers for floating-point ones.

    Raises:
        InputError: a lazy layer has no size yet, the forward pass fails, nothing is prunable, or there is no
            such output layer.
    """
    require_sizes(module)
    parameters = dict(module.named_parameters())
    seen, elsewhere = looked_at(module, parameters, inputs, random)
    trace, places, drawn = seen.trace, places_of(module), drawn_weights(module)
    multiplied = seen.multiplied | elsewhere
    counted = {name for name in multiplied if not is_vector(parameters[name])}
    counted |= layer_weights(parameters, places, multiplied, seen.missed(parameters), embeddings)

    layers, skipped, unmultiplied = [], [], []
    for name in dict.fromkeys((*trace.uses, *parameters)):
        parameter, use = parameters[name], trace.uses.get(name, Use())
        why = _why_not(name, parameter, use, trace, embeddings)
        if name in elsewhere:
            why = f"only the forward pass in {'evaluation' if seen.training else 'training'} mode multiplies by it"
        shape = tuple(parameter.shape)
        if parameter.dim() < 2:
            if use.multiplied:
                unmultiplied.append(Unpruned(name, shape, "it has one dimension"))
        elif not why:
            uses = use.multiply_adds / (seen.examples * max(1, parameter.numel()))
            uses = int(uses) if uses.is_integer() else uses
            kind = kind_of(use, places[id(parameter)])
            layers.append(Layer(name, kind, shape, uses, use.axes, id(parameter) in drawn))
        elif name in counted and name not in trace.shared:
            skipped.append(Unpruned(name, shape, why, use.computed / seen.examples))
        else:
            unmultiplied.append(Unpruned(name, shape, why))
    if not layers:
        reasons = "".join(f"; {each.name!r}: {each.why}" for each in (*skipped, *unmultiplied)[:3])
        raise InputError(
            f"the network has no prunable layer: no product takes a parameter of two dimensions or more{reasons}"
        )
    products = [layer.name for layer in layers if layer.uses] or [layers[-1].name]
    prunable = {layer.name for layer in layers}
    coverage = Coverage(
        layers=tuple(layers),
        output=products[-1],
        skipped=tuple(skipped),
        unmultiplied=tuple(unmultiplied),
        parameters=sum(parameter.numel() for parameter in parameters.values()),
        multiply_adds=sum(count for count, taken in trace.products if taken & prunable) / seen.examples,
        all_multiply_adds=sum(count for count, _ in trace.products) / seen.examples,
        examples=seen.first,
        output_shape=_shape_of(seen.returned),
        returned="Tensor" if isinstance(seen.returned, Tensor) else type(seen.returned).__name__,
        others={
            name: tuple(tensor.shape)
            for name, tensor in module.state_dict().items()
            if name not in prunable and isinstance(tensor, Tensor)
        },
    )
    return coverage if output is None else replace(coverage, output=coverage.select(output, "network.output"))


def _why_not(name: str, parameter: Tensor, use: Use, trace: ProductTrace, embeddings: bool) -> str:
    """Return why a parameter is not prunable; "" where it is."""
    if name in trace.shared:
        return f"it lies in the memory of {trace.shared[name]!r}; make both the same nn.Parameter"
    if name in trace.unseen:
        return f"it is a {type(parameter).__name__}, which can't be traced through the forward pass"
    if use.how is not None:
        operation, names = use.how
        others = [other for other in names if other != name]
        together = f" together with {', '.join(others)}" if others else ""
        if is_vector(parameter) and others:
            return f"it scales {', '.join(others)} ({operation}), and is not a matrix"
        return f"products take a tensor computed from it{together} ({operation}), not the parameter itself"
    if use.multiplied:
        return ""
    if use.looked_up:
        return "" if embeddings else "an embedding table: looked up, not multiplied; prunable on request"
    if use.others:
        return f"no product takes it; the forward pass uses it in: {', '.join(dict.fromkeys(use.others))}"
    return "the forward pass never reaches it"


def _shape_of(returned: Any) -> tuple[int, ...] | None:
    """Return the shape of a tensor, or of the `logits` among other things."""
    if isinstance(returned, Mapping):
        returned = returned.get("logits")
    elif not isinstance(returned, Tensor):
        returned = getattr(returned, "logits", None)
    return tuple(returned.shape) if isinstance(returned, Tensor) else None


def _percent(part: float, whole: float) -> str:
    """Return a share, such as "99.3 %"; only what is all of it is 100 %."""
    share = 100 * part / whole
    text = f"{share:.1f}"
    return f"{'100' if part == whole else '99.9' if text == '100.0' else text} %"
