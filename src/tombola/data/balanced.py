"""A few examples of each class, for methods that look at data once."""

from __future__ import annotations

import torch
from torch import Tensor

from tombola.errors import InputError


def balanced(targets: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """Return int64 [N]: the places of `per_class` examples of each class that exists, in random order.

    Args:
        targets: int64 [examples], class numbers, on any device.
        per_class: number of examples.
        generator: draws them.

    Raises:
        InputError: a class has fewer.
    """
    targets = targets.cpu()
    found = []
    for label in targets.unique().tolist():
        places = (targets == label).nonzero().squeeze(1)
        if len(places) < per_class:
            raise InputError(
                f"pruning.init_examples={per_class}: class {label} has {len(places)} training examples in this trial; "
                "lower pruning.init_examples"
            )
        found.append(places[torch.randperm(len(places), generator=generator)[:per_class]])
    chosen = torch.cat(found)
    return chosen[torch.randperm(len(chosen), generator=generator)]
