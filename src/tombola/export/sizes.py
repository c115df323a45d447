"""Counts what a network holds: a tied or aliased weight has several names, and its memory counts once."""

from __future__ import annotations

from torch import Tensor, nn

from tombola.memory import extent
from tombola.pruning.mask import Mask


def held_bytes(module: nn.Module) -> int:
    """Return the bytes of a network's tensors, as `torch.save` of its state_dict writes them.

    >>> one = nn.Linear(3, 2, bias=False)
    >>> held_bytes(nn.ModuleList([one, one]))
    24
    """
    memories = [each.untyped_storage() for each in module.state_dict().values()]
    return sum({each.data_ptr(): each.nbytes() for each in memories}.values())


def distinct(module: nn.Module) -> list[Tensor]:
    """Return the floating-point tensors of a network, one of those in the same memory, as views are."""
    return list({extent(each): each for each in module.state_dict().values() if each.is_floating_point()}.values())


def pruned(module: nn.Module, mask: Mask) -> int:
    """Return how many numbers of a network its mask prunes."""
    state = module.state_dict()
    return sum({extent(state[name]): int((~keep).sum()) for name, keep in mask.items()}.values())
