"""What a held mask asks of optimisers: fresh state, and zeros again after each step."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from tombola.errors import InputError
from tombola.pruning.held_weight import NOBODY, HeldWeight, Owner, count_revived, held_weight

# The newest held weight against which each optimiser's state was checked.
_CHECKED: weakref.WeakKeyDictionary[Optimizer, int] = weakref.WeakKeyDictionary()
_watched = False

# Of Rprop and Adagrad: never zero, and they only scale a gradient, which is zero.
_FACTORS = {"step_size", "sum"}
# They only scale the momentum. Some optimisers add epsilon to them at each step (AdaBelief), so they are never zero.
_VARIANCES = {"exp_avg_var", "exp_avg_sq", "max_exp_avg_var", "max_exp_avg_sq"}


def watch_optimizers() -> None:
    """Prune held weights after each step of each optimiser of this process, made before or after this call.

    A gradient of zero is not enough: Muon and Shampoo mix the entries of a matrix, and momentum or weights of their own
    from before can move a pruned weight. PyTorch runs these hooks for every subclass of `Optimizer`.
    """
    global _watched
    if not _watched:
        register_optimizer_step_pre_hook(_before_step)
        register_optimizer_step_post_hook(_after_step)
        _watched = True


def check_optimizer(
    optimizer: Optimizer | None, parameters: Mapping[str, nn.Parameter], keep: Mapping[str, Tensor], reset_state: bool
) -> None:
    """Check that an optimiser trains these parameters and has no state at pruned places, or clear that state.

    Args:
        optimizer: None checks nothing.
        parameters: the parameters to be held.
        keep: the mask of each, bool.
        reset_state: clear the state instead of refusing it. State of another shape (factors, histories) belongs to no
            single weight, so all state of that parameter goes.

    Raises:
        InputError: it trains other weights, or has state and `reset_state` is false.
    """
    if optimizer is None:
        if reset_state:
            raise InputError(
                "reset_state=True needs the optimiser: call mask.hold_(module, optimizer, reset_state=True)"
            )
        return
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"optimizer is a {type(optimizer).__name__}: give a torch.optim.Optimizer, or omit it")
    trained = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    mine = {name: parameter for name, parameter in parameters.items() if id(parameter) in trained}
    if parameters and not mine:
        raise InputError(
            f"{type(optimizer).__name__} trains no masked weight of this module: create it from this module's "
            "parameters"
        )
    for name, parameter in mine.items():
        if reset_state:
            _reset(optimizer, parameter, keep[name])
        else:
            _require_clean(optimizer, name, parameter, keep[name], NOBODY, strict=True)


def _reset(optimizer: Optimizer, parameter: nn.Parameter, keep: Tensor) -> None:
    state = optimizer.state.get(parameter, {})
    if any(tensor.shape != keep.shape for tensor in _tensors(state)):
        del optimizer.state[parameter]
    for tensor in _tensors(state):
        if tensor.shape == keep.shape:
            tensor.masked_fill_(~keep.to(tensor.device), 0.0)


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    """Check an optimiser's state once for each mask.

    State of other shapes (Shampoo's factors) passes: a resumed run has it too, and the weights stay at zero anyway.
    """
    seen = _CHECKED.get(optimizer, -1)
    if seen == HeldWeight.newest:
        return
    for weight in _held_by(optimizer):
        if weight.number > seen:
            _require_clean(optimizer, weight.name, weight.parameter, weight.keep, weight.owner, strict=False)
    if optimizer not in _CHECKED:
        optimizer.register_load_state_dict_post_hook(_forget)
    _CHECKED[optimizer] = HeldWeight.newest


def _forget(optimizer: Optimizer) -> None:
    """Check the state again before the next step: another one was loaded."""
    _CHECKED[optimizer] = -1


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for weight in _held_by(optimizer):
        weight.prune()


def _held_by(optimizer: Optimizer) -> Iterator[HeldWeight]:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            weight = held_weight(parameter)
            if weight is not None:
                yield weight


def _require_clean(
    optimizer: Optimizer, name: str, parameter: nn.Parameter, keep: Tensor, owner: Owner, strict: bool
) -> None:
    state = optimizer.state.get(parameter, {})
    if _is_fresh(state) or bool(keep.all()):
        return
    for key, value in state.items():
        if key in _FACTORS or (key in _VARIANCES and _has_clean_momentum(state, keep)):
            continue
        for tensor in _tensors(value):
            count = count_revived(tensor, keep) if tensor.shape == keep.shape else 0
            if count or (strict and tensor.shape != keep.shape):
                where = f"at {count:,} pruned weights" if count else f"of shape {tuple(tensor.shape)}"
                raise InputError(
                    f"{owner.where}{type(optimizer).__name__} has {key!r} of {name!r} {where}, from before hold_: "
                    f"{owner.on_state}"
                )


def _has_clean_momentum(state: dict[str, Any], keep: Tensor) -> bool:
    momentum = state.get("exp_avg")
    return isinstance(momentum, Tensor) and momentum.shape == keep.shape and not count_revived(momentum, keep)


def _is_fresh(state: dict[str, Any]) -> bool:
    """Return whether no step was made yet: Adagrad fills its sums before the first."""
    steps = state.get("step")
    return not state or (steps is not None and not bool(torch.as_tensor(steps).any()))


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of an optimiser's state, however deep; numbers such as a step count are omitted."""
    if isinstance(value, Tensor):
        if value.numel() > 1:
            yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
