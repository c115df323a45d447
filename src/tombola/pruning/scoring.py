"""Asking a criterion, ours or a user's own, and saying clearly what is wrong with its answer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tombola.errors import InputError, TombolaError
from tombola.named import resolve
from tombola.pruning.criteria import CRITERIA, SkipRound, Snapshots
from tombola.pruning.mask import Mask
from tombola.pruning.select import select


def scores_of(name: str, snapshots: Snapshots) -> Mapping[str, Tensor]:
    """Return the scores that the criterion of that name gives.

    Raises:
        SkipRound: it has nothing to tell weights apart by.
        InputError: there is no such criterion, or a user's own fails or answers with something else than tensors.
    """
    criterion = resolve(name, CRITERIA, "criterion")
    try:
        scores = criterion(snapshots)
    except (SkipRound, TombolaError):
        raise
    except Exception as error:
        if name in CRITERIA:
            raise
        raise InputError(f"criterion {name!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(scores, Mapping) or not all(isinstance(score, Tensor) for score in scores.values()):
        raise InputError(f"criterion {name!r} gave {_kinds(scores)}; it must return a dict of layer name -> tensor")
    return scores


def try_criterion(name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Ask a user's own criterion about made-up weights, so that a fault shows before hours of training.

    Raises:
        InputError: as in `scores_of`, or the scores are not of the weights' names and shapes.
    """
    if name in CRITERIA:
        return
    generator = torch.Generator().manual_seed(0)

    def weights() -> dict[str, Tensor]:
        return {layer: torch.randn(shape, generator=generator) for layer, shape in shapes.items()}

    snapshots = Snapshots(weights(), weights(), weights(), weights(), weights, generator)
    try:
        select(scores_of(name, snapshots), Mask.full(dict(shapes)), dict.fromkeys(shapes, 0.5))
    except SkipRound:
        return
    except ValueError as error:
        raise InputError(f"criterion {name!r}: {error}") from error


def _kinds(scores: object) -> str:
    if not isinstance(scores, Mapping):
        return f"a {type(scores).__name__}"
    return "a dict of " + " and ".join(sorted({type(score).__name__ for score in scores.values()}))
