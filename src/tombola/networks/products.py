"""Which parameters a forward pass multiplies by: every matrix product and convolution, whoever calls it.

The trace sees the operations of PyTorch below its modules and functions, so a layer, `x @ W`, an einsum and an LSTM
cell look alike: as `mm`, `bmm`, `convolution`. It follows each parameter through views and copies to the product.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tombola.networks.axes import Axes, Base, axes_in, copied_base
from tombola.networks.operands import CONVOLUTION, PRODUCTS

LOOK_UPS = {"aten::embedding", "aten::_embedding_bag", "aten::_embedding_bag_forward_only"}
# These copy numbers and change none: what is multiplied afterwards is still the parameter. Views need no entry.
COPIES = frozenset(
    f"aten::{name}"
    for name in (
        *("clone", "copy_", "copy", "contiguous", "_to_copy", "_unsafe_view", "_reshape_copy", "alias", "detach"),
        *("cat", "stack", "repeat", "flip", "roll", "index", "index_select", "gather", "constant_pad_nd", "lift"),
        *("lift_fresh", "lift_fresh_copy", "unsafe_split", "unsafe_split_with_sizes", "split_copy", "unbind_copy"),
        *("view_copy", "t_copy", "transpose_copy", "permute_copy", "expand_copy", "slice_copy", "select_copy"),
        *("squeeze_copy", "unsqueeze_copy"),
    )
)


@dataclass(frozen=True)
class Origin:
    """Where the numbers of a tensor come from.

    Args:
        data: from the examples, or from an unknown place.
        names: of the parameters that the numbers are, or are computed from.
        computed: the operation that changed the parameters' numbers; "" where they are the parameters' own.
        bases: how each parameter lies in the tensor's memory, where that is known.
    """

    data: bool = False
    names: tuple[str, ...] = ()
    computed: str = ""
    bases: Mapping[str, Base] = field(default_factory=dict)


CONSTANT, DATA = Origin(), Origin(data=True)


@dataclass
class Use:
    """What a forward pass did with one parameter.

    Args:
        multiply_adds: of the products that take the parameter itself, for the whole batch.
        convolved: one of those products is a convolution.
        computed: multiply-adds of the products that take a tensor computed from the parameter. Where that takes
            several parameters, vectors such as the lengths of weight norm have no share.
        how: where there are such products, the operation and the parameters by which that tensor is computed.
        looked_up: rows of it are looked up, as an embedding's are.
        others: the operations that mix it with the data without being products.
        seen: its axes in each of those products; None for a product in which they are not known.
    """

    multiply_adds: float = 0
    convolved: bool = False
    computed: float = 0
    how: tuple[str, tuple[str, ...]] | None = None
    looked_up: bool = False
    others: list[str] = field(default_factory=list)
    seen: set[Axes | None] = field(default_factory=set)

    @property
    def multiplied(self) -> bool:
        """Whether a product takes the parameter or a tensor computed from it, be it with no example."""
        return bool(self.seen) or self.how is not None

    @property
    def reached(self) -> bool:
        """Whether the data of an example meet it."""
        return bool(self.multiply_adds or self.computed or self.looked_up or self.others)

    @property
    def axes(self) -> Axes | None:
        """The parameter's axes, which are known only where all products agree on them."""
        return next(iter(self.seen)) if len(self.seen) == 1 else None


class ProductTrace(TorchDispatchMode):
    """Follows parameters through a forward pass that runs inside `with trace.follow():`.

    Attributes:
        uses: by parameter name, those that a product takes as they are in the order of their last product.
        products: of each product and convolution, those of two activations included: its multiply-adds, and the
            parameters that it takes as they are.
        shared: name -> the earlier parameter in whose memory it lies.
        unseen: parameters of a kind of tensor without memory of its own.
    """

    supports_higher_order_operators = True  # such as flex_attention: what they do inside stays unseen

    def __init__(self, parameters: Mapping[str, Tensor], examples: Iterable[Tensor]):
        super().__init__()
        self.uses: dict[str, Use] = {}
        self.products: list[tuple[int, frozenset[str]]] = []
        self.shared: dict[str, str] = {}
        self.unseen: set[str] = set()
        self._shapes = {name: parameter.shape for name, parameter in parameters.items()}
        self._sizes = {name: parameter.numel() for name, parameter in parameters.items()}
        self._vectors = {name for name, parameter in parameters.items() if is_vector(parameter)}
        self._ranges: dict[int, list[tuple[str, int, int]]] = {}  # bytes of a storage -> the parameter there
        self._bases: dict[str, Base] = {}
        # A weak reference keeps the key from being used again, and frees the memory of the numbers.
        self._origins: dict[int, tuple[StorageWeakRef, Origin]] = {}
        for name, parameter in parameters.items():
            self._register(name, parameter)
        for tensor in examples:
            self._set(tensor, DATA)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: hiding this class from the compiler would import the compiler, which takes a second."""
        return False

    @contextmanager
    def follow(self) -> Iterator[None]:
        """Trace what runs inside; fused attention and compiled code, which hide their products, are turned off."""
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
            # Where the compiler's package was never imported, nothing is compiled.
            loaded = "torch._dynamo" in sys.modules
            with plain, torch.compiler.set_stance("force_eager") if loaded else nullcontext(), self:
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        given = [each for each in tree_leaves((args, options)) if isinstance(each, Tensor)]
        origins = [self._origin(tensor) for tensor in given]
        result = func(*args, **options)
        name = func._schema.name if hasattr(func, "_schema") else str(func)
        if name in PRODUCTS:
            made = self._product(name, args, given, origins)
        elif name in LOOK_UPS:
            for parameter in origins[0].names:
                self._use(parameter).looked_up = True
            made = DATA
        else:
            made = self._other(name, origins)
        keys = {_key(tensor) for tensor in given}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and _key(tensor) not in keys:  # a view keeps the origin of what it views
                self._set(tensor, _with_bases(made, name, args, given, origins, tensor))
        for tensor in _written(func, args, options):
            self._set(tensor, _with_bases(made, name, args, given, origins, tensor))
        return result

    def _product(self, op: str, args: Sequence[Any], given: Sequence[Tensor], origins: Sequence[Origin]) -> Origin:
        operands, count = PRODUCTS[op](args)
        multiplied = {id(each.tensor) for each in operands}
        taken: set[str] = set()
        for operand in operands:
            origin = self._origin(operand.tensor)
            matrices = [name for name in origin.names if name not in self._vectors] or origin.names
            whole = max(1, sum(self._sizes[name] for name in matrices))
            for name in origin.names:
                share = operand.multiply_adds * self._sizes[name] / whole if name in matrices else 0
                use = self._use(name)
                if origin.computed:
                    use.computed += share
                    use.how = (origin.computed, origin.names)
                    continue
                taken.add(name)
                use.multiply_adds += share
                use.seen.add(axes_in(operand, origin.bases.get(name), self._shapes[name]))
                use.convolved |= op == CONVOLUTION
                self.uses[name] = self.uses.pop(name)  # the last product decides the order
        self.products.append((count, frozenset(taken)))
        for tensor, origin in zip(given, origins, strict=True):
            if id(tensor) not in multiplied:
                self._mixed("aten::add", origin)
        # The product of a parameter and a constant is an activation that no example had a part in.
        return DATA if any(origin.data for origin in origins) else CONSTANT

    def _other(self, op: str, origins: Sequence[Origin]) -> Origin:
        names = tuple(dict.fromkeys(name for origin in origins for name in origin.names))
        if any(origin.data for origin in origins):
            for origin in origins:
                self._mixed(op, origin)
            return DATA
        computed = next((origin.computed for origin in origins if origin.computed), "")
        return Origin(names=names, computed=computed or ("" if op in COPIES or not names else _short(op)))

    def _mixed(self, op: str, origin: Origin) -> None:
        for name in origin.names:
            self._use(name).others.append(_short(op))

    def _use(self, name: str) -> Use:
        return self.uses.setdefault(name, Use())

    def _register(self, name: str, parameter: Tensor) -> None:
        key = _key(parameter)
        if key is None:
            self.unseen.add(name)
            return
        first, last = _bytes(parameter)
        for other, start, end in self._ranges.setdefault(key, []):
            if first < end and start < last:
                self.shared[name] = other
                return
        self._ranges[key].append((name, first, last))
        self._bases[name] = Base.of(parameter)

    def _origin(self, tensor: Tensor) -> Origin:
        key = _key(tensor)
        if key is None:
            return DATA
        if key in self._ranges:
            first, last = _bytes(tensor)
            names = tuple(name for name, start, end in self._ranges[key] if first < end and start < last)
            return Origin(names=names, bases={name: self._bases[name] for name in names})
        return self._origins[key][1] if key in self._origins else CONSTANT

    def _set(self, tensor: Tensor, origin: Origin) -> None:
        key = _key(tensor)
        if key is not None and key not in self._ranges:
            self._origins[key] = (StorageWeakRef(tensor.untyped_storage()), origin)


def _with_bases(
    made: Origin, op: str, args: Sequence[Any], given: Sequence[Tensor], origins: Sequence[Origin], tensor: Tensor
) -> Origin:
    """Return the origin of a result, with how the parameters lie in it where the operation copied them."""
    if made.data or made.computed or not made.names:
        return made
    bases: dict[str, Base | None] = {}
    for source, origin in zip(given, origins, strict=True):
        for name, base in origin.bases.items():
            copy = copied_base(_plain(op), args, source, base, tensor)
            if name in bases and bases[name] != copy:
                copy = None
            bases[name] = copy
    return replace(made, bases={name: base for name, base in bases.items() if base is not None})


def is_vector(parameter: Tensor) -> bool:
    """Is it a vector, whatever its number of dimensions? Such are the lengths of weight norm, [outputs, 1]."""
    return sum(size > 1 for size in parameter.shape) < 2


def _key(tensor: Tensor) -> int | None:
    """Return what tells a tensor's memory from others', None for one without, such as a sparse tensor."""
    try:
        return tensor.untyped_storage()._cdata
    except (NotImplementedError, RuntimeError):
        return None


def _bytes(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte that a tensor takes of its memory, and the first one behind it."""
    if not tensor.numel():
        return 0, 0
    span = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    start = int(tensor.storage_offset()) * tensor.element_size()
    return start, start + int(span) * tensor.element_size()


def _written(func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> Iterator[Tensor]:
    """Return the tensors that an operation writes into."""
    for place, argument in enumerate(getattr(getattr(func, "_schema", None), "arguments", ())):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = options.get(argument.name, args[place] if place < len(args) else None)
            yield from (each for each in tree_leaves(value) if isinstance(each, Tensor))


def _plain(op: str) -> str:
    return op.partition("::")[2]


def _short(op: str) -> str:
    return _plain(op).strip("_") or op
