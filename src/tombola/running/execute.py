"""Executing work from its items and the store's address: all that a worker needs to know."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from tombola.running.options import RunOptions
from tombola.running.store import Store
from tombola.training.loop import Interrupted
from tombola.work import Item, item_from_json, kind_named


def execute(items: Sequence[dict[str, Any]], address: str, options: RunOptions) -> list[str]:
    """Execute items of one kind and store each one's result.

    Args:
        items: as returned by `Item.as_json`.
        address: of the store, where the results that they need are.
        options: how to execute them.

    Returns:
        For each item "done"; "diverged", also stored; "busy" where another process has it; or "stopped" where it was
        interrupted, after a checkpoint where its kind has any.

    Raises:
        TombolaError: the work can't be done; the message says why.
    """
    wanted, store = [item_from_json(values) for values in items], Store(address)
    kind = kind_named(wanted[0].kind)
    with contextlib.ExitStack() as held:
        busy = {item.id for item in wanted if not held.enter_context(store.claim(item.id))}
        # Another process may have finished some meanwhile.
        mine = [item for item in wanted if item.id not in busy and not store.has(item)]
        with _settings(options), contextlib.suppress(Interrupted):
            if mine:
                kind.executor()([store.with_observations(item) for item in mine], store, options)
        return ["busy" if item.id in busy else _outcome(item, store) for item in wanted]


def _outcome(item: Item, store: Store) -> str:
    return store.outcome(item.id) if store.has(item) else "stopped"


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
