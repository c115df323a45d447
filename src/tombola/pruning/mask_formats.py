"""Masks of other tools: `torch.nn.utils.prune`, OpenLTH, and plain state_dicts with zeros."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from tombola.errors import InputError, StoreError, nearest
from tombola.memory import layout
from tombola.pruning.holding import held
from tombola.pruning.parameters import matching_parameters, unwrapped

STEP = re.compile(r"model_ep(\d{1,9})_it(\d{1,9})\.pth")
Keep = Mapping[str, Tensor]  # bool tensors by parameter name: True where the weight is kept


def from_weights(weights: Mapping[str, Tensor], names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return where the tensors of a state_dict are not 0.0.

    Raises:
        InputError: `weights` has no such name.
    """
    _require_state(weights)
    chosen = list(names) if names is not None else _matrices(weights)
    for name in chosen:
        if name not in weights:
            raise InputError(f"the weights have no {name!r}{nearest(name, weights)}")
    if not chosen:
        raise InputError("the weights have no matrix, so they have no mask; give a network's state_dict")
    return {name: weights[name] != 0 for name in chosen}


def _matrices(weights: Mapping[str, Tensor]) -> list[str]:
    """Return the names of matrices; of a tied weight its first name, as `named_parameters` gives it."""
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in weights.items():
        if _is_matrix(tensor):
            first.setdefault(layout(tensor), name)
    return list(first.values())


def from_prune(source: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the masks of `X_orig` and `X_mask` pairs, under the names X.

    Raises:
        InputError: no such pair, or one that is not a mask.
    """
    state = source.state_dict() if isinstance(source, nn.Module) else source
    _require_state(state)
    names = [key.removesuffix("_orig") for key in state if key.endswith("_orig") and _mask_key(key) in state]
    if not names:
        raise InputError(
            "torch.nn.utils.prune did not prune this module (it has no `X_orig` with its `X_mask`); if its zeros are "
            "the mask, use Mask.from_weights"
        )
    for name in names:
        _require_shape(name, state[f"{name}_mask"], state[f"{name}_orig"])
    return {name: _as_bool(name, state[f"{name}_mask"]) for name in names}


def to_prune_(keep: Keep, module: nn.Module) -> None:
    """Prune `module` by `torch.nn.utils.prune`, a tied parameter under each of its names.

    Raises:
        InputError: the mask is of another network, or a mask holds the module.
    """
    module = unwrapped(keep, module)
    parameters = matching_parameters(keep, module)
    if held(module):
        raise InputError(
            "a mask holds this module, but torch.nn.utils.prune replaces its parameters: first call `release()` on "
            "the result of `hold_`, or tombola.pruning.release(module)"
        )
    pattern = {id(parameter): keep[name] for name, parameter in parameters.items()}
    for part in list(module.modules()):
        for local, parameter in list(part._parameters.items()):
            if id(parameter) in pattern:
                prune.custom_from_mask(part, local, pattern[id(parameter)].to(parameter.device))  # type: ignore[union-attr]


def to_prune_state(keep: Keep, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a copy of `weights` with `X_orig` and `X_mask` instead of each X of the mask.

    Raises:
        InputError: no such layer, or of another shape.
    """
    for name, pattern in keep.items():
        if name not in weights:
            raise InputError(f"the weights have no {name!r}{nearest(name, weights)}")
        _require_shape(name, pattern, weights[name])
    state = {f"{name}_orig" if name in keep else name: tensor.detach().clone() for name, tensor in weights.items()}
    return state | {f"{name}_mask": pattern.to(weights[name]) for name, pattern in keep.items()}


def from_openlth(path: Path) -> dict[str, Tensor]:
    """Read a `mask.pth`: a dict of name -> tensor of 0 and 1.

    Raises:
        InputError: the file is missing, damaged, or not a mask.
    """
    file = path / "mask.pth" if path.is_dir() else path
    return {name: _as_bool(name, tensor, f" of {file}") for name, tensor in _tensors_of(file, "mask").items()}


def weights_from_openlth(path: str | Path) -> dict[str, Tensor]:
    """Return the state_dict of OpenLTH's `model.pth`, or of the last `model_ep<epoch>_it<iteration>.pth` of a folder.

    A model that OpenLTH pruned has its weights behind `model.` and its masks in `mask_...`; both are undone. No code in
    the file is run.

    Args:
        path: the file, or the folder of a level that has it.

    Raises:
        InputError: the file is missing, damaged, or holds no tensors by name.
    """
    found = _tensors_of(_model_file(Path(path)), "model")
    weights = {name: tensor for name, tensor in found.items() if not name.startswith("mask_")}
    if len(weights) < len(found):
        weights = {name.removeprefix("model."): tensor for name, tensor in weights.items()}
    return weights


def _model_file(path: Path) -> Path:
    if not path.is_dir() or (path / "model.pth").is_file():
        return path / "model.pth" if path.is_dir() else path
    steps = {
        (int(match[1]), int(match[2])): file
        for file in path.glob("model_ep*_it*.pth")
        if (match := STEP.fullmatch(file.name))
    }
    return steps[max(steps)] if steps else path / "model.pth"


def _tensors_of(file: Path, what: str) -> dict[str, Tensor]:
    """Read a dict of tensors by name.

    Raises:
        InputError: the file is missing, damaged, or something else.
    """
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{file} does not exist: give OpenLTH's {what}.pth, or its folder") from error
    except pickle.UnpicklingError as error:  # PyTorch's own words advise to run the code
        raise InputError(
            f"{file} can't be read as OpenLTH's {what}: it is damaged, or has more than tensors, and loading could run "
            "code; save its tensors alone"
        ) from error
    except (OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise InputError(f"{file} can't be read as OpenLTH's {what}: {_first_line(error)}") from error
    if (
        not isinstance(found, dict)
        or not found
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items())
    ):
        raise InputError(f"{file} is not OpenLTH's {what}: it contains no dict of tensors by name")
    return dict(found)


def to_openlth(keep: Keep, folder: Path, weights: Mapping[str, Tensor] | None = None) -> None:
    """Write `mask.pth` and `sparsity_report.json`, and of `weights` a `model.pth`.

    Raises:
        StoreError: they can't be written.
    """
    report = {
        "total": float(sum(pattern.numel() for pattern in keep.values())),
        "unpruned": float(sum(int(pattern.sum()) for pattern in keep.values())),
    }
    contents: dict[str, Mapping[str, Tensor]] = {"mask.pth": {name: pattern.int() for name, pattern in keep.items()}}
    if weights is not None:
        contents["model.pth"] = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with (folder / name).open("wb") as file:
                torch.save(content, file)
        (folder / "sparsity_report.json").write_text(json.dumps(report, indent=4))
    except OSError as error:
        raise StoreError(f"can't write {folder}: {error.strerror or error}; name a folder with free space") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "").partition(". ")[0] or type(error).__name__


def _require_state(weights: Any) -> None:
    if not isinstance(weights, Mapping):
        raise InputError(f"a {type(weights).__name__} has no tensors by name; give a module's state_dict()")


def _mask_key(key: str) -> str:
    return key.removesuffix("_orig") + "_mask"


def _is_matrix(tensor: Any) -> bool:
    """Return whether an entry of a state_dict is a matrix of weights; a module's extra state may be any object."""
    return isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dim() > 1


def _require_shape(name: str, pattern: Tensor, weights: Tensor) -> None:
    if pattern.shape != weights.shape:
        raise InputError(
            f"the mask of {name!r} has shape {tuple(pattern.shape)}, but the weights have {tuple(weights.shape)}: "
            "give the mask and the weights of one network"
        )


def _as_bool(name: str, values: Tensor, where: str = "") -> Tensor:
    """Return a mask of any type as bool."""
    other = values[(values != 0) & (values != 1)]
    if other.numel():
        raise InputError(
            f"{name!r}{where} has {other[0].item()!r} among its values, but a mask has only 0 and 1; if these are "
            "weights whose zeros are the mask, use Mask.from_weights"
        )
    return values != 0
