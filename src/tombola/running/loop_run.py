"""The runs that a loop over `tombola.rounds` gets, in one process or in the several of a DDP training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from tombola.errors import InputError, StoreError
from tombola.pruning import Mask
from tombola.running.results import Results
from tombola.running.store import Store
from tombola.running.user_run import UserRun
from tombola.studies.own import Make
from tombola.studies.plan import Plan
from tombola.training.engine import Weights
from tombola.work import Item

T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """What the leading process tells the others of a run: its identity, mask and weights, and whether it resumes."""

    item: str
    keep: dict[str, Tensor]
    start: Weights
    resumed: bool


class LoopRun(UserRun):
    """The run of a loop over `rounds`, which also knows the results so far."""

    see: Callable[[], Results]  # set by the loop

    @property
    def results(self) -> Results:
        """The results of all runs that have ended."""
        return self.see()

    def _taken_over(self) -> Exception:
        return _taken_over(self._item)

    def for_others(self) -> Turn:
        """Return what another process needs to train this run too."""
        return Turn(self._item.id, dict(self.mask), self._start, self._resumed)


def require_held(item: Item, store: Store) -> None:
    """Check that no other process has taken an item over: asks the file system.

    Raises:
        StoreError: one has.
    """
    if not store.leases.may_write(item.id):
        raise _taken_over(item)


def _taken_over(item: Item) -> StoreError:
    return StoreError(f"another machine has taken over run {item.label}; start the script again")


class FollowingRun(LoopRun):
    """The same run in another process of a DDP training: it has the leader's weights and mask, and writes nothing.

    Args:
        turn: what the leader's `LoopRun.for_others` gave.
        item, store: of the loop.
        make: builds the model from a seed.
    """

    def __init__(self, turn: Turn, item: Item, store: Store, make: Make):
        self._turn = turn
        super().__init__(item, store, make)

    def _initial(self, make: Make) -> tuple[Mask, Weights, dict[str, Any]]:
        return Mask(self._turn.keep), self._turn.start, {}

    def _resume(self) -> bool:
        return self._turn.resumed

    def _saved_snapshots(self) -> dict[str, Weights]:
        return {}

    def _reports(self) -> Path | None:
        return None

    def _keep(self, name: str, weights: Weights) -> None:
        """Leave the file to the leader."""


class Team:
    """The processes that train each run together: one, or those of torch.distributed's process group.

    Process 0 leads: it chooses the runs, and alone reads and writes the results folder.
    """

    def __init__(self) -> None:
        distributed = torch.distributed
        self.several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        self.leads = not self.several or distributed.get_rank() == 0

    def share(self, value: T) -> T:
        """Return the leader's value in every process; each must call this."""
        if not self.several:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0)
        return box[0]

    def check(self, plan: Plan) -> None:
        """Refuse processes that planned other runs.

        Raises:
            InputError: they did; in every process.
        """
        if not self.several:
            return
        digest = hashlib.sha256("".join(plan.work).encode()).hexdigest()
        found: list[Any] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(found, digest)
        for rank, other in enumerate(found):
            if other != found[0]:
                raise InputError(
                    f"process {rank} planned other runs than process 0; call tombola.rounds with the same make_model "
                    "and arguments in every process"
                )
