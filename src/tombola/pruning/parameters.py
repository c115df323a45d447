"""Find the parameters that a mask names, or say why a module does not have them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.nn.parameter import is_lazy

from tombola.errors import InputError, nearest

WRAPPERS = ("module.", "_orig_mod.")  # begin the names in a state_dict of DDP or DataParallel, and of torch.compile


def matching_parameters(keep: Mapping[str, Tensor], module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameter of each layer of a mask. A tied parameter is found under each of its names.

    Raises:
        InputError: the module has no such parameter, or has one that the mask can't be applied to.
    """
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name, pattern in keep.items():
        problem = _problem(name, tuple(pattern.shape), parameters)
        if problem:
            raise InputError(f"the mask has {name!r} of shape {tuple(pattern.shape)}, but this module {problem}")
    return {name: parameters[name] for name in keep}


def unwrapped(keep: Mapping[str, Tensor], module: nn.Module) -> nn.Module:
    """Return the module that the mask's names belong to: `module`, or the one that torch.compile or DDP wraps."""
    while not keep.keys() <= {name for name, _ in module.named_parameters(remove_duplicate=False)}:
        inner = module._modules.get("_orig_mod")  # torch.compile's wrapper; its class takes seconds to import
        if inner is None and isinstance(module, (DataParallel, DistributedDataParallel)):
            inner = module.module
        if inner is None:
            break
        module = inner
    return module


def _problem(name: str, shape: tuple[int, ...], parameters: Mapping[str, nn.Parameter]) -> str:
    """Return why the mask of `name` can't be applied, or nothing."""
    if name not in parameters:
        return "no parameter of that name" + _reason(name, parameters)
    parameter = parameters[name]
    if is_lazy(parameter):
        return "has not created that parameter yet (a lazy layer): run one batch through the module first"
    if type(parameter.data) is not Tensor:
        kind = type(parameter.data).__name__
        return f"keeps it as a {kind}: apply the mask before you shard or quantise the module"
    if tuple(parameter.shape) != shape:
        return str(tuple(parameter.shape))
    if parameter.is_inference():
        return "was created under torch.inference_mode: create the module outside of it"
    return ""


def _reason(name: str, parameters: Mapping[str, nn.Parameter]) -> str:
    """Return why the module has no parameter `name`, and what to do, as far as its other names tell."""
    path, _, local = name.rpartition(".")
    prefix = f"{path}." if path else ""
    if any(other.startswith(f"{prefix}parametrizations.{local}.") for other in parameters):
        return (
            f": it is under a parametrization; first call "
            f"torch.nn.utils.parametrize.remove_parametrizations(module, {local!r}) on {path or 'the module'}"
        )
    if f"{name}_orig" in parameters:
        return (
            ": torch.nn.utils.prune or torch.nn.utils.spectral_norm holds it; first call "
            "torch.nn.utils.prune.remove or torch.nn.utils.remove_spectral_norm"
        )
    if f"{name}_v" in parameters:
        return ": torch.nn.utils.weight_norm computes it; first call torch.nn.utils.remove_weight_norm"
    inner = name
    while inner.startswith(WRAPPERS):
        inner = inner.partition(".")[2]
    if inner != name and inner in parameters:
        return (
            f": it is of a wrapped module (DDP, DataParallel or torch.compile); remove {name.removesuffix(inner)!r} "
            "from the names of its state_dict before you make the mask"
        )
    return nearest(name, parameters)
