"""Executing work from its items and the store's address: all that a worker needs to know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from tombola.running import preemption
from tombola.running.heartbeat import check_wanted
from tombola.running.options import RunOptions
from tombola.running.store import Store
from tombola.training.loop import Interrupted
from tombola.work import Item, item_from_json, kind_named


def execute(
    items: Sequence[dict[str, Any]], address: str, options: RunOptions, expired: Mapping[str, str] | None = None
) -> list[str]:
    """Execute items of one kind and store each one's result.

    Args:
        items: as returned by `Item.as_json`.
        address: of the store, where the results that they need are.
        options: how to execute them.
        expired: marks of leases that the caller has given up: see `tombola.running.leases`.

    Returns:
        For each item "done"; "diverged", also stored; "busy" where another process has it; "stopped" where it was
        interrupted, after a checkpoint where its kind has any; or "preempted" where the node wanted the worker to go.

    Raises:
        TombolaError: the work can't be done; the message says why.
    """
    wanted, store = [item_from_json(values) for values in items], Store(address, options.lease)
    kind = kind_named(wanted[0].kind)
    with contextlib.ExitStack() as held:
        marks = expired or {}
        busy = {item.id for item in wanted if not held.enter_context(store.claim(item.id, marks.get(item.id)))}
        # Another process may have finished some meanwhile.
        mine = [item for item in wanted if item.id not in busy and not store.has(item)]
        with _settings(options), contextlib.suppress(Interrupted):
            if mine:
                check_wanted(options)  # it may have waited long for a worker
                kind.executor()([store.with_observations(item) for item in mine], store, options)
        return ["busy" if item.id in busy else _outcome(item, store) for item in wanted]


def _outcome(item: Item, store: Store) -> str:
    if store.has(item):
        return store.outcome(item.id)
    if not store.leases.may_write(item.id):
        return "busy"  # another process has taken it over
    return "preempted" if preemption.asked() else "stopped"


@contextlib.contextmanager
def _settings(options: RunOptions) -> Iterator[None]:
    """Compute with the options' threads and precision, and leave the caller's settings as they were."""
    threads, matmul, cudnn = torch.get_num_threads(), torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    torch.set_num_threads(options.threads)
    matmul.allow_tf32 = cudnn.allow_tf32 = options.tf32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        matmul.allow_tf32, cudnn.allow_tf32 = before
