"""Check that the processes of a distributed module hold one mask."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tombola.errors import InputError


def require_same_on_all_ranks(keep: Mapping[str, Tensor], module: DistributedDataParallel) -> None:
    """Compare this process's mask with those of the other processes of `module`, which must all call this.

    Raises:
        InputError: on every process, where one mask differs.
    """
    digest = hashlib.sha256()
    for name in sorted(keep):
        digest.update(f"{name} {tuple(keep[name].shape)} ".encode())
        digest.update(keep[name].contiguous().cpu().numpy().tobytes())
    group = module.process_group
    found: list[str] = [""] * torch.distributed.get_world_size(group)
    torch.distributed.all_gather_object(found, digest.hexdigest(), group=group)
    other = [rank for rank, one in enumerate(found) if one != found[0]]
    if other:
        raise InputError(
            f"rank {other[0]} has a different mask from rank 0: load one file on all ranks, or broadcast rank 0's mask"
        )
