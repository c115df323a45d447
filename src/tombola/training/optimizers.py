"""Optimisers: ours by name, any other by `package.module:function`, and the state of each as named tensors.

A user's function is called as `function(named_parameters, lr=..., **optimizer_options)` and returns a
`torch.optim.Optimizer`. `named_parameters` is a list of (name, parameter), which optimisers of PyTorch take as it is:
`torch.optim:NAdam` works.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tombola.errors import InputError
from tombola.registry import resolve

if TYPE_CHECKING:
    from tombola.training.recipe import Recipe

Named = Sequence[tuple[str, nn.Parameter]]
JSON = "json:"  # before the name of a slot whose value is not a tensor
GROUP = "group:"  # before the number of a parameter group
_PROBE_SEED = 0
# Steps of the trial of a user's optimiser, and after which it resumes: a prime, as some do more at each fifth or tenth.
_PROBE, _SHORT_PROBE = (64, 31), (12, 7)
_LARGE = 2**20  # parameters of a network whose trial is short: gradients are drawn for all


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for weights with two dimensions (Jordan et al. 2024), AdamW for all others, under one learning rate.

    Updates of Muon are scaled to the size of AdamW's (Liu et al. 2025), so that one rate serves both.

    Args:
        named: all parameters.
        lr, weight_decay: of both.
        options: of `torch.optim.Muon`.
    """

    def __init__(self, named: Named, lr: float, weight_decay: float, options: Mapping[str, Any]):
        matrices = [(name, parameter) for name, parameter in named if parameter.dim() == 2]
        others = [(name, parameter) for name, parameter in named if parameter.dim() != 2]
        options = {"adjust_lr_fn": "match_rms_adamw", **options}
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(torch.optim.Muon(_values(matrices), lr=lr, weight_decay=weight_decay, **options))
        if others:
            self._parts.append(torch.optim.AdamW(_values(others), lr=lr, weight_decay=weight_decay, fused=True))
        super().__init__([{"params": _values(part)} for part in (matrices, others) if part], {"lr": lr})
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Make a step of both; their state lies in this optimiser's own."""
        for part in self._parts:
            part.state = self.state
            part.step()


def _values(named: Named) -> list[nn.Parameter]:
    return [parameter for _, parameter in named]


def make_optimizer(recipe: Recipe, named: Named) -> torch.optim.Optimizer:
    """Return the recipe's optimiser; ours are fused where PyTorch can: one pass over all parameters.

    Raises:
        InputError: this version of PyTorch does not have it, or a user's function does not give an optimiser.
    """
    parameters, lr, decay = _values(named), recipe.lr, recipe.weight_decay
    options = as_arguments(recipe.optimizer_options)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=lr, weight_decay=decay, fused=True, **options)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=lr, weight_decay=decay, fused=True, **options)
    if recipe.optimizer == "sgd":
        sgd = torch.optim.SGD(parameters, lr=lr, momentum=recipe.momentum, weight_decay=decay, fused=True, **options)
        if recipe.momentum:
            sgd.register_step_pre_hook(_begin_late_momentum)
        return sgd
    if recipe.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=lr, momentum=recipe.momentum, weight_decay=decay, **options)
    if recipe.optimizer == "muon":
        check_muon()
        return MuonAndAdamW(named, lr, decay, options)
    return _own_optimizer(recipe, named, options)


def _begin_late_momentum(sgd: torch.optim.Optimizer, args: object, options: object) -> None:
    """Give parameters whose first gradient comes late a momentum from which the step makes that gradient.

    PyTorch's fused step fails where some parameters have a momentum and others have none, as with stochastic depth.
    """
    for group in sgd.param_groups:
        if not group["momentum"]:
            continue
        moved = [parameter for parameter in group["params"] if parameter.grad is not None]
        late = [parameter for parameter in moved if sgd.state[parameter].get("momentum_buffer") is None]
        if len(late) < len(moved):
            for parameter in late:
                sgd.state[parameter]["momentum_buffer"] = _before_first(parameter, group)


def _before_first(parameter: nn.Parameter, group: Mapping[str, Any]) -> Tensor:
    """Return b with momentum * b + (1 - dampening) * g = g, where g is the first gradient with its weight decay."""
    if not group["dampening"]:
        return torch.zeros_like(parameter)
    assert parameter.grad is not None
    return (parameter.grad + group["weight_decay"] * parameter.detach()) * (group["dampening"] / group["momentum"])


def check_muon() -> None:
    """Check that PyTorch has Muon.

    Raises:
        InputError: it is too old.
    """
    if not hasattr(torch.optim, "Muon"):
        raise InputError(
            f"training.optimizer=muon needs PyTorch 2.9 or later, but this is {torch.__version__}; update PyTorch, or "
            "name an implementation as package.module:function"
        )


def _own_optimizer(recipe: Recipe, named: Named, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    where = f"training.optimizer={recipe.optimizer!r}"
    function = resolve(recipe.optimizer, {}, "optimizer")
    try:
        made = function(list(named), lr=recipe.lr, **options)
    except Exception as error:
        raise InputError(
            f"{where} failed: {type(error).__name__}: {error}; tombola calls it as function(named_parameters, lr=..., "
            "**optimizer_options)"
        ) from error
    if not isinstance(made, torch.optim.Optimizer):
        raise InputError(f"{where} returned a {type(made).__name__}; it must return a torch.optim.Optimizer")
    closure = inspect.signature(made.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise InputError(
            f"{where} is {type(made).__name__}, whose steps need a closure; training evaluates the loss once per "
            "step: choose an optimiser without a closure, such as adamw"
        )
    if isinstance(made, torch.optim.SGD) and any(group["fused"] for group in made.param_groups):
        made.register_step_pre_hook(_begin_late_momentum)
    return made


def as_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options as a constructor takes them: tuples for lists."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}


def rate_shares(optimizer: torch.optim.Optimizer, recipe: Recipe) -> list[float]:
    """Return the learning rate of each parameter group of a new optimiser, as a share of the recipe's."""
    rates = [group.get("lr") for group in optimizer.param_groups]
    return [1.0 if rate is None else float(rate) / recipe.lr for rate in rates]


def set_rate(optimizer: torch.optim.Optimizer, shares: Sequence[float], rate: float) -> None:
    """Set the learning rate of each parameter group to its share of a rate of the schedule."""
    for group, share in zip(optimizer.param_groups, shares, strict=True):
        group["lr"] = share * rate


def read_rate_from(optimizer: torch.optim.Optimizer, rate: Tensor) -> None:
    """Let an optimiser of ours read its learning rate from a tensor; on a GPU a CUDA graph can then hold its steps.

    Args:
        optimizer: as `make_optimizer` gives it, but not Muon.
        rate: of one number; float32 on a GPU, where the fused steps read that.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
        if rate.is_cuda and "capturable" in group:  # SGD needs no leave
            group["capturable"] = optimizer.defaults["capturable"] = True


def state_of(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return all state as independent tensors on the CPU, by "slot/parameter", such as "exp_avg/fc1.weight".

    A value that is not a tensor becomes the bytes of its JSON text, under "json:slot/parameter". Settings of parameter
    groups that change from step to step stand under "json:group:0/key".

    Raises:
        InputError: a value is neither a tensor nor JSON.
    """
    found: dict[str, Tensor] = {}
    for name, parameter in named.items():
        for slot, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                _put(found, slot, name, value, optimizer)
    for number, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key in ("params", "param_names", "lr", "initial_lr"):
                continue
            if isinstance(value, Tensor) or value != optimizer.defaults.get(key):
                _put(found, f"{GROUP}{number}", key, value, optimizer)
    return found


def _put(found: dict[str, Tensor], slot: str, name: str, value: Any, optimizer: torch.optim.Optimizer) -> None:
    if isinstance(value, Tensor):
        found[f"{slot}/{name}"] = value.detach().to("cpu", copy=True).contiguous()
        return
    try:
        text = json.dumps(value)
        if as_arguments({"": json.loads(text)}) != as_arguments({"": value}):
            raise TypeError("it does not survive JSON")
    except (TypeError, ValueError) as error:
        raise InputError(
            f"training.optimizer: {type(optimizer).__name__} keeps {slot!r}, a {type(value).__name__}, in its state, "
            f"which can't be saved ({error}); keep only tensors, numbers and texts"
        ) from error
    found[f"{JSON}{slot}/{name}"] = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)


def restore_state(
    optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]
) -> None:
    """Give an optimiser the state that `state_of` returned."""
    for key, tensor in state.items():
        slot, _, name = key.partition("/")
        value: Any = tensor
        if slot.startswith(JSON):
            slot, value = slot.removeprefix(JSON), json.loads(bytes(tensor.numpy()).decode())
        if slot.startswith(GROUP):
            group = optimizer.param_groups[int(slot.removeprefix(GROUP))]
            group[name] = tuple(value) if isinstance(value, list) else _copied(value, group.get(name))
            continue
        parameter = named[name]
        mine = optimizer.state[parameter]
        if not isinstance(value, Tensor):
            mine[slot] = tuple(value) if isinstance(value, list) else value
        elif slot == "step":  # fused optimisers want it where the parameter is, the others on the CPU
            mine[slot] = value.to(parameter.device if _is_fused(optimizer, parameter) else "cpu", copy=True)
        elif value.shape == parameter.shape and value.is_floating_point():
            # In the parameter's memory format: a fused optimiser takes them to be laid out alike.
            mine[slot] = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        else:
            mine[slot] = value.to(parameter.device, copy=True)


def _copied(value: Any, like: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return value.to(like.device if isinstance(like, Tensor) else "cpu", copy=True)


def _is_fused(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> bool:
    for group in optimizer.param_groups:
        if any(parameter is each for each in group["params"]):
            return bool(group.get("fused") or group.get("capturable"))
    return False


def check_optimizer(recipe: Recipe, module: nn.Module) -> None:
    """Try a user's optimiser on a network: it must train, and continue bit by bit from its saved state.

    Raises:
        InputError: it does not.
    """
    if recipe.optimizer == "muon":
        check_muon()
    if recipe.knows_optimizer:
        return
    where = f"training.optimizer={recipe.optimizer!r}"
    last, cut = _PROBE if sum(each.numel() for each in module.parameters()) <= _LARGE else _SHORT_PROBE
    trial = _Trial(recipe, module)
    try:
        trial.step(0, cut)
        resumed = _Trial(recipe, trial.module, trial.state)
        trial.step(cut, last)
        resumed.step(cut, last)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{where} fails in its first steps: {type(error).__name__}: {error}") from error
    pairs = zip(trial.module.named_parameters(), resumed.module.parameters(), strict=True)
    for (name, one), other in pairs:
        if not torch.equal(one, other):
            kept = ", ".join(map(repr, _outside(trial.optimizer)))
            raise InputError(
                f"{where} can't be resumed: after its state was saved and restored, {name!r} differs; keep all state "
                f"in `optimizer.state`{f', also that of {kept},' if kept else ','} and draw nothing at random"
            )


class _Trial:
    """A copy of a module, and an optimiser that makes steps with synthetic gradients.

    Args:
        recipe: the training recipe.
        module: copied.
        state: of the optimiser, as `state_of` gave it.
    """

    def __init__(self, recipe: Recipe, module: nn.Module, state: Mapping[str, Tensor] | None = None):
        self._recipe, self.module = recipe, deepcopy(module)
        self._named = {name: each for name, each in self.module.named_parameters() if each.requires_grad}
        self.optimizer = make_optimizer(recipe, list(self._named.items()))
        self._shares = rate_shares(self.optimizer, recipe)
        restore_state(self.optimizer, self._named, state or {})

    @property
    def state(self) -> dict[str, Tensor]:
        """The optimiser's state, to be restored."""
        return state_of(self.optimizer, self._named)

    def step(self, first: int, last: int) -> None:
        """Make the steps from one number to another."""
        for step in range(first, last):
            generator = torch.Generator().manual_seed(_PROBE_SEED + step)
            set_rate(self.optimizer, self._shares, self._recipe.lr / (step + 1))
            for parameter in self._named.values():
                parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
            self.optimizer.step()
            self.optimizer.zero_grad()


def _outside(optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the attributes in which an optimiser keeps tensors outside its state."""
    known = ("state", "param_groups", "defaults")
    return [
        name
        for name, value in vars(optimizer).items()
        if name not in known and any(isinstance(each, Tensor | torch.optim.Optimizer) for each in tree_leaves(value))
    ]
