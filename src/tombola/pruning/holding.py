"""Hold a mask on a module: pruned weights stay exactly 0.0, whatever trains it.

Five hooks work together. Each covers cases that the others can't see:

1. on each parameter, a **gradient hook**: zeros for pruned weights before gradients are summed, clipped, averaged over
   processes, scaled or searched for infinities. Optimisers that move each weight by its own gradient need no more, and
   SAM perturbs no pruned weight. NaN is replaced, not multiplied.
2. on each optimiser, **after its step**: Muon, Shampoo, or weights of its own can move a weight whose gradient is zero.
   Evaluation, saving and averaging that follow the step see zeros.
3. on each module, **before its forward**: other code than a `torch.optim.Optimizer` may make the step, and weights may
   change between two steps (LBFGS evaluates the loss within its step). A change by `parameter.data.add_()` leaves no
   trace, so each forward prunes. The hook also notices a replaced parameter or module.
4. on each module with held weights, **after load_state_dict**: zeros again, and a hold on the new parameters where
   `assign=True` replaced them.
5. on each optimiser, **before its first step**: its state at pruned places must be zero, or it dates from before the
   hold.

Hooks 3 and 4 are attributes of the module, so deepcopy and pickle copy them, and the copied `HeldWeight` inside puts
hook 1 on the copied parameter. torch.compile leaves hook 3 out of its graphs (it would break them). There hook 1 checks
the weights in each backward pass, and raises if pruned weights changed unseen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from tombola.errors import InputError
from tombola.pruning.held_weight import HeldWeight, Owner, held_weight
from tombola.pruning.optimizer_hooks import check_optimizer, watch_optimizers
from tombola.pruning.parameters import matching_parameters, unwrapped
from tombola.pruning.ranks import require_same_on_all_ranks


class Hold:
    """The handle that `hold` returns; it releases the parameters."""

    def __init__(self, module: nn.Module, owner: Owner | None = None):
        self._module = module
        self._owner = owner or Owner()  # the weights carry it instead of this handle, which would keep the module alive

    def _weights(self) -> list[HeldWeight]:
        """Return the weights that this handle still holds, without those that a later `hold` took over."""
        return [weight for weight in _held_weights(self._module).values() if weight.owner is self._owner]

    def release(self) -> None:
        """Let the pruned weights train again. A second call does nothing."""
        for weight in self._weights():
            weight.release()
        _remove_idle_hooks(self._module)

    def apply(self) -> None:
        """Set the pruned weights to exactly 0.0 now. Call it after a step that PyTorch's hooks don't see."""
        for weight in self._weights():
            weight.prune()

    def revived(self) -> dict[str, int]:
        """Return how many pruned weights are not 0.0 now, by parameter name; without the parameters that have none."""
        return {weight.name: count for weight in self._weights() if (count := weight.count_revived())}


def hold(
    keep: Mapping[str, Tensor],
    module: nn.Module,
    optimizer: Optimizer | None = None,
    reset_state: bool = False,
    owner: Owner | None = None,
) -> Hold:
    """Prune `module` in place, and keep it pruned under any optimiser and any loop.

    It replaces an earlier mask of the same parameters.

    Args:
        keep: bool tensors by parameter name: True for kept weights. Do not change them.
        module: the network, also inside the wrapper of torch.compile or DistributedDataParallel.
        optimizer: the optimiser to check now. Without it, `hold` checks each optimiser before its first step.
        reset_state: clear the optimiser's state at pruned places instead of refusing it.
        owner: whom messages speak of; no other hold may have it.

    Raises:
        InputError: the mask is of another network, a parameter can't be held, the optimiser has state at pruned places
            or trains other weights, or the processes of a DDP module have different masks.
    """
    root = unwrapped(keep, module)
    parameters = matching_parameters(keep, root)
    _require_same_where_tied(keep, parameters)
    if isinstance(module, DistributedDataParallel):
        require_same_on_all_ranks(keep, module)
    check_optimizer(optimizer, parameters, keep, reset_state)
    handle = Hold(root, owner)
    weights = {name: _hold_parameter(name, parameter, keep[name]) for name, parameter in parameters.items()}
    _hook_modules(root, weights)
    for weight in weights.values():
        weight.owner = handle._owner
        weight.prune()
    watch_optimizers()
    return handle


def held(module: nn.Module) -> dict[str, Tensor]:
    """Return the mask on a module, by parameter name; empty without a mask."""
    return {name: weight.keep for name, weight in _held_weights(module).items()}


def release(module: nn.Module) -> None:
    """Release all masks on a module, for example on a copy, which has no `Hold`."""
    for weight in _held_weights(module).values():
        weight.release()
    _remove_idle_hooks(module)


class _HeldModule:
    """The held weights that a module owns itself, by the attribute name. Called before the module's forward."""

    def __init__(self) -> None:
        self.weights: dict[str, HeldWeight] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        watch_optimizers()  # unpickled in another process, perhaps

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling() or getattr(
            module, "_is_replica", False
        ):  # replicas of nn.DataParallel own none
            return
        for local, weight in self.weights.items():
            if not weight.released:
                if module._parameters.get(local) is not weight.parameter:
                    owner = weight.owner
                    raise InputError(
                        f"{owner.where}{weight.name!r} was replaced by another object {owner.since}: {owner.on_change}"
                    )
                weight.refresh()

    def after_load(self, module: nn.Module) -> None:
        """Prune the weights that load_state_dict wrote; with assign=True it created new parameters."""
        for local, weight in self.weights.items():
            parameter = module._parameters.get(local)
            if parameter is not None and parameter is not weight.parameter and not weight.released:
                self.weights[local] = held_weight(parameter) or HeldWeight(weight.name, parameter, weight.keep)
                self.weights[local].owner = weight.owner
                weight.release()
            self.weights[local].prune()


class _AfterLoad:
    """Call `after_load` when the module's state_dict was loaded."""

    def __init__(self, held_module: _HeldModule):
        self.held_module = held_module

    def __call__(self, module: nn.Module, incompatible_keys: Any) -> None:
        self.held_module.after_load(module)


class _Below:
    """Called before the forward of a module that may read its parts' weights without a call of the parts.

    The module that `hold` received may: a tied decoder reads those of the embedding. nn.MultiheadAttention reads those
    of its `out_proj`, wherever it stands, and a loop may call it without the module around it.
    """

    def __init__(self) -> None:
        self.parts: dict[tuple[str, ...], tuple[nn.Module, _HeldModule]] = {}

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling() or getattr(module, "_is_replica", False):
            return
        for path, (part, held_module) in self.parts.items():
            found: nn.Module | None = module
            for step in path:
                found = found._modules.get(step) if found is not None else None
            held_weights = [weight for weight in held_module.weights.values() if not weight.released]
            if found is not part and held_weights:
                owner = held_weights[0].owner
                raise InputError(
                    f"{owner.where}{'.'.join(path)!r} was replaced by another module {owner.since}: {owner.on_change}"
                )
            held_module(part, inputs)


def _hold_parameter(name: str, parameter: nn.Parameter, keep: Tensor) -> HeldWeight:
    weight = held_weight(parameter)
    if weight is None:
        return HeldWeight(name, parameter, keep)
    weight.change(name, keep)  # the same object, so other modules that share the parameter follow
    return weight


def _hook_modules(root: nn.Module, weights: Mapping[str, HeldWeight]) -> None:
    """Put the hooks on each module that owns a held parameter, under any name, and on `root`."""
    by_parameter = {id(weight.parameter): weight for weight in weights.values()}
    mine: dict[str, tuple[nn.Module, _HeldModule]] = {}
    for path, part in root.named_modules(remove_duplicate=False):
        own = {
            local: by_parameter[id(parameter)]
            for local, parameter in part._parameters.items()
            if parameter is not None and id(parameter) in by_parameter
        }
        if own:
            held_module = _held_module(part) or _hook_module(part)
            held_module.weights |= own
            mine[path] = part, held_module
    for path, reader in root.named_modules():
        if not path or isinstance(reader, nn.MultiheadAttention):
            start = f"{path}." if path else ""
            _hook_reader(
                reader, {name.removeprefix(start): part for name, part in mine.items() if name.startswith(start)}
            )


def _hook_reader(reader: nn.Module, parts: Mapping[str, tuple[nn.Module, _HeldModule]]) -> None:
    below = next((hook for hook in reader._forward_pre_hooks.values() if isinstance(hook, _Below)), _Below())
    below.parts |= {tuple(path.split(".")): part for path, part in parts.items() if path}
    if below.parts and below not in reader._forward_pre_hooks.values():
        reader.register_forward_pre_hook(below, prepend=True)


def _hook_module(module: nn.Module) -> _HeldModule:
    held_module = _HeldModule()
    module.register_forward_pre_hook(held_module, prepend=True)  # before anyone's own hook reads the weights
    module.register_load_state_dict_post_hook(_AfterLoad(held_module))
    return held_module


def _held_module(module: nn.Module) -> _HeldModule | None:
    return next((hook for hook in module._forward_pre_hooks.values() if isinstance(hook, _HeldModule)), None)


def _held_weights(module: nn.Module) -> dict[str, HeldWeight]:
    """Return the held weights of a module by their names in it; a tied one under its first name."""
    found: dict[str, HeldWeight] = {}
    for path, part in module.named_modules():
        held_module = _held_module(part)
        for local, weight in held_module.weights.items() if held_module else ():
            if not weight.released and weight not in found.values():
                found[f"{path}.{local}" if path else local] = weight
    return found


def _remove_idle_hooks(module: nn.Module) -> None:
    """Remove the hooks without held weights. A copy of a module has no handles of its hooks, so search for them."""
    for part in module.modules():
        for hooks in (part._forward_pre_hooks, part._load_state_dict_post_hooks):
            for number, hook in list(hooks.items()):
                if isinstance(hook, (_HeldModule, _AfterLoad, _Below)) and not any(map(_is_held, _weights_of(hook))):
                    del hooks[number]


def _weights_of(hook: _HeldModule | _AfterLoad | _Below) -> Iterator[HeldWeight]:
    if isinstance(hook, _Below):
        for _, held_module in hook.parts.values():
            yield from held_module.weights.values()
    else:
        yield from (hook.held_module if isinstance(hook, _AfterLoad) else hook).weights.values()


def _is_held(weight: HeldWeight) -> bool:
    return not weight.released


def _require_same_where_tied(keep: Mapping[str, Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    first: dict[int, str] = {}
    for name, parameter in parameters.items():
        other = first.setdefault(id(parameter), name)
        if not torch.equal(keep[other], keep[name]):
            raise InputError(f"{other!r} and {name!r} are one parameter, but the mask keeps different weights of each")
