"""One parameter whose pruned weights stay at exactly 0.0."""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tombola.errors import InputError

# Integers as wide as a weight: `weight & 0` is exactly 0.0, also of infinities and NaN. On a CPU this is nine times as
# fast as `masked_fill_`.
_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

# The held weight of a parameter, by `id(parameter)`: an optimiser knows its parameters and nothing of their modules.
_HELD: weakref.WeakValueDictionary[int, HeldWeight] = weakref.WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class Owner:
    """Who holds some weights: it may let go, and messages speak of it.

    Args:
        where: begins a message, such as "run lenet.trial-0.dense: ".
        since: when the mask was put on the weights.
        on_change: what to do where a held parameter or module was replaced.
        on_state: what to do where an optimiser has state from before.
    """

    where: str = ""
    since: str = "after hold_"
    on_change: str = (
        "release the mask before you change the module (`tombola.pruning.release(module)`), then hold it again"
    )
    on_state: str = "create the optimiser after hold_, or call mask.hold_(module, optimizer, reset_state=True)"


NOBODY = Owner()


class HeldWeight:
    """A parameter and its mask.

    The module's hooks own it, and it owns the parameter. Nothing points back, so a held model is freed as soon as it
    is out of use. A copy of it (by `copy.deepcopy`, pickle or another process) holds the copied parameter.

    Args:
        name: the parameter's name in the mask, for messages.
        parameter: of any shape.
        keep: bool, of the parameter's shape: True where the weight is kept.
    """

    newest = 0  # how many were made or changed so far: an optimiser's state is checked against newer ones only

    def __init__(self, name: str, parameter: nn.Parameter, keep: Tensor):
        self.parameter = parameter
        self.owner = NOBODY  # of a copy: no `Hold` may let go
        self._gradient_hook: RemovableHandle | None = None
        self.change(name, keep)
        _HELD[id(parameter)] = self

    def change(self, name: str, keep: Tensor) -> None:
        """Hold another mask from now on."""
        self.name = name
        self.keep = keep
        self.released = False
        self._bits: Tensor | None = None  # the mask as integers: all ones where a weight is kept, else zero
        self._has_pruned = not bool(keep.all())
        self._pruned_for_use = False  # whether a forward pruned the weights since the last gradient
        HeldWeight.newest += 1
        self.number = HeldWeight.newest
        self._attach()
        if self.parameter.grad is not None:
            self.parameter.grad = self.masked_gradient(self.parameter.grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> HeldWeight:
        copied = HeldWeight(self.name, copy.deepcopy(self.parameter, memo), self.keep)  # nobody changes a mask: shared
        memo[id(self)] = copied
        copied._bits = self._bits
        if self.released:
            copied.release()
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self.name, "parameter": self.parameter, "keep": self.keep, "released": self.released}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["name"], state["parameter"], state["keep"])  # type: ignore[misc]
        if state["released"]:
            self.release()

    def release(self) -> None:
        """Let go of the parameter."""
        self.released = True
        if self._gradient_hook is not None:
            self._gradient_hook.remove()
            self._gradient_hook = None
        if _HELD.get(id(self.parameter)) is self:
            del _HELD[id(self.parameter)]

    def refresh(self) -> None:
        """Prune the weights, because a forward will use them.

        Nothing tells whether they changed: `parameter.data.add_(...)` leaves the parameter's version and address alone.
        """
        # The graph of torch.jit.trace is to have the network's operations only.
        tracing = torch._C._get_tracing_state()
        torch._C._set_tracing_state(None)  # type: ignore[attr-defined]
        try:
            self.prune()
        finally:
            torch._C._set_tracing_state(tracing)  # type: ignore[attr-defined]
        self._pruned_for_use = True

    def count_revived(self) -> int:
        """Return how many pruned weights are not 0.0 now."""
        if self.released or not self._has_pruned:
            return 0
        return count_revived(self.parameter.data, self.keep)

    def prune(self) -> None:
        """Set the pruned weights to exactly 0.0."""
        if self.released:
            return
        self._attach()
        weights = self.parameter.data  # not the parameter: a new version would spoil a graph that waits for `backward`
        if weights.shape != self.keep.shape:
            raise InputError(
                f"{self.name!r} has shape {tuple(weights.shape)} now, but its mask has {tuple(self.keep.shape)}: "
                "release the mask before you change the module, then hold a mask that fits"
            )
        self.prune_(weights)

    def prune_(self, values: Tensor) -> None:
        """Set the entries of `values` at pruned places to exactly 0.0, in place.

        Args:
            values: of the parameter's shape: weights, a gradient, or an optimiser's state.
        """
        if not self._has_pruned or not values.numel():
            return
        integer = integer_like(values)
        if integer is None or values.layout != torch.strided:
            values.masked_fill_(~self.keep.to(values.device), 0.0)
        else:
            values.view(integer).bitwise_and_(self._bits_like(values, integer))

    def _attach(self) -> None:
        """Mask the gradient from now on; a frozen weight has none until it is unfrozen."""
        if self._gradient_hook is None and self._has_pruned and self.parameter.requires_grad:
            # A hook on the tensor runs before the gradient is added to `parameter.grad`: sums over micro-batches, norms
            # for clipping, DDP's averages and GradScaler's search for infinities see the masked gradient, and
            # `torch.autograd.grad` gives it too.
            self._gradient_hook = self.parameter.register_hook(_GradientHook(self))

    def gradient_came(self, gradient: Tensor) -> Tensor:
        """Return the gradient with zeros at pruned places.

        Raises:
            InputError: the module's call did not prune the weights for this pass, as in a compiled module, and pruned
                ones are not 0.0.
        """
        if not self._pruned_for_use and (count := self.count_revived()):
            raise InputError(
                f"{self.owner.where}{count:,} pruned weights of {self.name!r} changed, and the loss used them: the "
                "mask could not see the module's call, and no torch.optim.Optimizer made the change; after each "
                "change, call `apply()` on the result of `hold_`"
            )
        self._pruned_for_use = False
        return self.masked_gradient(gradient)

    def masked_gradient(self, gradient: Tensor) -> Tensor:
        """Return a copy of `gradient` with zeros at pruned places: others may own the tensor that came."""
        if gradient.is_sparse:  # of an embedding: only the rows that the batch used
            gradient = gradient.coalesce()
            kept = self.keep.to(gradient.device)[tuple(gradient.indices())]
            values = gradient.values().masked_fill(~kept, 0.0)
            return torch.sparse_coo_tensor(
                gradient.indices(), values, gradient.shape, is_coalesced=True, check_invariants=False
            )
        integer = integer_like(gradient)
        if integer is None or gradient.requires_grad:  # of a second backward pass: `&` has no derivative
            return gradient.masked_fill(~self.keep.to(gradient.device), 0.0)
        return gradient.view(integer).bitwise_and(self._bits_like(gradient, integer)).view(gradient.dtype)

    def _bits_like(self, values: Tensor, integer: torch.dtype) -> Tensor:
        if self._bits is None or self._bits.dtype != integer or self._bits.device != values.device:
            # Laid out in memory as the weights are (channels_last, say), which makes `&` several times faster.
            self._bits = torch.empty_like(self.parameter.data, dtype=integer, device=values.device)
            self._bits.copy_(self.keep).neg_()  # -1 is all ones
        return self._bits


class _GradientHook:
    """Mask a parameter's gradient. Holds the weight weakly, or parameter and hook would keep each other alive."""

    __torch_unserializable__ = True  # nothing is lost where a parameter alone is pickled, so PyTorch need not warn

    def __init__(self, held: HeldWeight):
        self._held = weakref.ref(held)

    def __call__(self, gradient: Tensor) -> Tensor | None:
        held = self._held()
        return None if held is None or held.released else held.gradient_came(gradient)


def held_weight(parameter: Tensor) -> HeldWeight | None:
    """Return the held weight of a parameter, or None where no mask holds it."""
    return _HELD.get(id(parameter))


def count_revived(values: Tensor, keep: Tensor) -> int:
    """Return how many pruned places of `values` are not 0.0: NaN is not."""
    return int(values.masked_fill(keep.to(values.device), 0).count_nonzero())


def integer_like(values: Tensor) -> torch.dtype | None:
    """Return the integer type as wide as a number of `values`; None where there is none."""
    return None if values.is_complex() else _INTEGERS.get(values.dtype.itemsize)
