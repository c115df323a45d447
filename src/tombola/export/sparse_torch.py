"""Export for PyTorch programs: a module that computes with live weights only.

In evaluation a `SparseModule` runs the exported C, compiled for this machine, if there is a C compiler; without one it
runs the linear layers of the sparse training engine (extra `tombola[fast]`). It can be trained on: wherever gradients
are asked for, or the network is no longer what the C was made of, it uses those layers too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils._pytree import tree_leaves

from tombola.data import Shape, is_one_shape, shape_from_json
from tombola.errors import InputError
from tombola.export.c import sources_of
from tombola.export.c.build import Compiled, compiler
from tombola.export.check import EXAMPLES, check_same, outputs_of
from tombola.export.graph_trace import trace
from tombola.export.snapshot import Snapshot
from tombola.export.write import write
from tombola.extras import installed
from tombola.pruning.mask import Mask
from tombola.running.files import Damaged, pack_tensors, under, unpack_tensors

if TYPE_CHECKING:
    from tombola.running.ticket import Ticket

DENSE: Mapping[type[nn.Module], float] = {nn.Linear: 0.5}
"""Linear layers denser than this stay as they are: PyTorch's dense product is faster."""

FORMAT = "tombola sparse module 1"


class SparseModule(nn.Module):
    """A network under a mask that computes with live weights only, on the CPU in float32.

    Its parameters start frozen and in evaluation mode. To train on, call `.train().requires_grad_(True)`: gradients
    reach live weights alone. The C code answers only while layers, hooks, modes and weights are those that it was made
    of; else `network` answers. Changes in place through `parameter.data` or NumPy are not noticed: change parameters
    themselves. Several threads may call it.

    Args:
        module: the network; it becomes `network`, and its sparse linear layers are replaced.
        mask: which weights are kept.
        input_shape: of one example; of several inputs, by name or in order.
        compiled: run the exported C in evaluation: True, False, or None for "if there is a compiler".

    Attributes:
        backend: what computes: "c", "numba", or "pytorch" where neither C nor Numba is there.
        reason: why it is not "c"; "" where it is.
        threads: how many share a batch, with the backend "c".

    Raises:
        InputError: the mask is of another network, or `compiled` is True and the network can't be held in C.
    """

    def __init__(self, module: nn.Module, mask: Mask, input_shape: Shape, compiled: bool | None = None):
        super().__init__()
        mask.apply_(module)
        self.input_shape: Any = shape_from_json(input_shape)
        self.threads = 1
        self.network = module.eval()
        self._compiled, self._reason = _compile(module, self.input_shape, compiled)
        self._sparse = installed("numba")
        if self._sparse:
            from tombola.training.engines.replacing import sparsify

            sparsify(module, mask, DENSE)
        self._kept = [(each, mask[name].to(each)) for name, each in module.named_parameters() if name in mask]
        self._hold_gradients()
        super().train(False).requires_grad_(False)
        self._known: Snapshot | None = None if self._compiled is None else Snapshot(module)

    def __setstate__(self, state: Any) -> None:
        """Become a copy of another module: `copy.deepcopy` leaves the hooks of parameters out."""
        super().__setstate__(state)
        self._hold_gradients()

    def _hold_gradients(self) -> None:
        """Let no gradient reach a pruned weight."""
        for parameter, keep in self._kept:
            asked = parameter.requires_grad
            parameter.requires_grad_(True).register_hook(partial(torch.mul, keep))
            parameter.requires_grad_(asked)

    @property
    def backend(self) -> str:
        if not self.reason:
            return "c"
        return "numba" if self._sparse else "pytorch"

    @property
    def reason(self) -> str:
        if self._compiled is None or (self._known is not None and self._known.unchanged()):
            return self._reason
        return "a layer, its mode, its hooks or a weight is no longer what the C code was made of"

    def forward(self, inputs: Any) -> Any:
        """Return the network's outputs for examples [N, ...].

        Raises:
            InputError: the examples are not on the CPU, or have another shape.
        """
        compiled = self._answering(inputs)
        if compiled is None:
            for each in tree_leaves(inputs):
                if isinstance(each, Tensor) and not each.is_cpu:
                    raise InputError(
                        f"examples are on {each.device}: a sparse module computes on the CPU; use inputs.cpu()"
                    )
            return self.network(inputs)
        shape = tuple(inputs.shape)
        compiled.check(shape)
        if inputs.dtype != torch.float32 or not inputs.is_contiguous():
            inputs = inputs.detach().float().contiguous()
        results = torch.empty(shape[0], *compiled.outputs)
        compiled.fill(inputs.data_ptr(), results.data_ptr(), shape[0], self.threads)
        return results

    def _answering(self, inputs: Any) -> Compiled | None:
        """Return the C code if it may answer: it knows numbers alone, and the network that it was made of."""
        known = self._known
        if self.training or known is None or type(inputs) not in (Tensor, nn.Parameter) or not inputs.is_cpu:
            return None
        if _followed() or not known.unchanged():
            return None
        if torch.is_grad_enabled() and (inputs.requires_grad or known.requires_grad()):
            return None
        return self._compiled

    def _apply(self, *arguments: Any, **options: Any) -> Any:
        """Move or convert the weights, as `Module.to` does; the C code is then no longer theirs."""
        self._compiled, self._known, self._reason = None, None, "the module was moved or converted"
        return super()._apply(*arguments, **options)

    def extra_repr(self) -> str:
        return f"backend={self.backend!r}" + (f", reason={self.reason!r}" if self.reason else "")


def _followed() -> bool:
    """Return whether PyTorch records or transforms what is computed, which it can't do with C."""
    return torch.jit.is_tracing() or torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _compile(module: nn.Module, shape: Any, wanted: bool | None) -> tuple[Compiled | None, str]:
    """Return the compiled network, or None and the reason."""
    if wanted is False:
        return None, "compiled=False"
    if wanted is None and compiler() is None:
        return None, "found no C compiler: install gcc or clang, or set CC"
    if not is_one_shape(shape):
        if wanted:
            raise InputError("the network takes several inputs, but compiled code takes one: leave `compiled` out")
        return None, "the network takes several inputs"
    parameters = {name: each.requires_grad for name, each in module.named_parameters()}
    try:
        graph = trace(module, shape)
        compiled = Compiled(sources_of(graph, "sparse"), shape, graph[graph.output].shape)
        examples = torch.randn(EXAMPLES, *shape, generator=torch.Generator().manual_seed(0))
        found = torch.from_numpy(compiled(examples.numpy()))
        check_same(outputs_of(module, examples), found, "the compiled C", remedy="report this fault of tombola")
        return compiled, ""
    except InputError as error:
        if wanted:
            raise
        return None, str(error)
    finally:
        for name, each in module.named_parameters():
            each.requires_grad = parameters[name]


def sparse_module(ticket: Ticket, weights: str = "trained", compiled: bool | None = None) -> SparseModule:
    """Return a ticket's network as a module that computes with live weights only.

    Args:
        ticket: mask and weights.
        weights: "trained", or "start" for the starting weights.
        compiled: as in `SparseModule`.

    Raises:
        InputError: the network's code has changed, or `weights` is neither.
    """
    if weights not in ("trained", "start"):
        raise InputError(f"weights {weights!r}: choose trained or start")
    module = ticket.build(weights == "trained")
    return SparseModule(module, ticket.mask, ticket.origin["input_shape"], compiled)


def export_pytorch(ticket: Ticket, path: Path, weights: str = "trained") -> None:
    """Write a ticket's live weights as one safetensors file for `load`; no pickle is in it.

    Args:
        ticket: what to write.
        path: of the file.
        weights: "trained", or "start" for the starting weights.

    Raises:
        InputError: `weights` is neither.
        StoreError: the file can't be written.
    """
    if weights not in ("trained", "start"):
        raise InputError(f"weights {weights!r}: choose trained or start")
    values = ticket.trained if weights == "trained" else ticket.weights
    tensors = {f"mask/{name}": bits for name, bits in ticket.mask.pack().items()}
    for name, tensor in values.items():
        tensors[f"value/{name}"] = tensor[ticket.mask[name]] if name in ticket.mask else tensor
    about = {
        "format": FORMAT,
        "origin": ticket.origin,
        "normalisation": ticket.normalisation,
        "mask": ticket.mask.shapes(),
    }
    write(Path(path), pack_tensors(tensors, about))


def load(
    path: str | Path,
    compiled: bool | None = None,
    trust: bool = False,
    factory: Callable[[], nn.Module] | None = None,
) -> SparseModule:
    """Read what `export_pytorch` wrote.

    Args:
        path: of the file.
        compiled: as in `SparseModule`.
        trust: import the user's network that the file names, and call it. A file from a stranger may name any function:
            trust only what you have made, or read.
        factory: builds the untrained network, in the place of the function that the file names.

    Raises:
        InputError: the file is missing, damaged, or none of `export_pytorch`; the network's code has changed; or it is
            a user's own, without `trust` and `factory`.
    """
    from tombola.running.ticket import Ticket

    if not Path(path).is_file():
        raise InputError(f"{str(path)!r} is not a file; create one with: tombola export --to pytorch")
    try:
        tensors, about = unpack_tensors(Path(path))
    except Damaged as error:
        raise InputError(str(error)) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{path} is not a sparse module; create one with: tombola export --to pytorch")
    mask = Mask.unpack(under("mask", tensors), {name: tuple(shape) for name, shape in about["mask"].items()})
    weights: dict[str, Any] = under("value", tensors)
    for name, keep in mask.items():
        weights[name] = torch.zeros(keep.shape, dtype=weights[name].dtype).masked_scatter_(keep, weights[name])
    ticket = Ticket(mask, weights, weights, about["normalisation"], about["origin"])
    return sparse_module(ticket.trusted(factory) if factory or trust else ticket, "trained", compiled)
