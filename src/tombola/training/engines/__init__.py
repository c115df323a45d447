"""Engines: the same training by different means."""

from __future__ import annotations

from typing import Any

import torch

from tombola.data import Tensors
from tombola.errors import InputError, nearest
from tombola.pruning.mask import Mask
from tombola.tasks import CLASSIFICATION, Task
from tombola.training.engine import NetworkFactory
from tombola.training.engines.chain import ChainEngine
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.ready import make_ready
from tombola.training.engines.sparse import SparseEngine
from tombola.training.engines.stacked import StackedEngine
from tombola.training.recipe import Recipe

NAMES = ("auto", "dense", "sparse", "stacked")  # what a user may ask for


def check_engine(name: str) -> None:
    """Check that there is an engine of that name.

    Raises:
        InputError: there is none.
    """
    if name not in NAMES:
        raise InputError(f"unknown engine {name!r}{nearest(name, NAMES)}")


def choose_engine(
    name: str,
    build: NetworkFactory,
    mask: Mask,
    recipe: Recipe,
    example: Tensors,
    many: bool = False,
    task: Task = CLASSIFICATION,
) -> Any:
    """Return an engine's class: called with (build, starts, recipe, budget, device) it gives an `Engine`.

    "auto" takes the fastest that serves this network at this density: on a GPU many jobs stacked, on the CPU a sparse
    engine where that pays, else the dense one. "sparse" is the compiled loop for plain chains, and sparse layers inside
    autograd for all else. Where the engine that is asked for can't serve the network or the task, the dense one does.
    It alone computes other losses than mean cross-entropy, and takes several inputs.

    Args:
        name: one of NAMES.
        build: builds the network.
        mask: which of its weights live.
        recipe: how it is to be trained.
        example: a batch of one, on the device to train on.
        many: whether several jobs could be trained together.
        task: what is learned.
    """
    check_engine(name)
    if not (task.plain_cross_entropy and isinstance(example, torch.Tensor) and example.is_floating_point()):
        return DenseEngine
    on_cpu = example.device.type == "cpu"
    if name == "stacked" or (name == "auto" and many and not on_cpu):
        return StackedEngine if StackedEngine.fits(build, example) else DenseEngine
    if name == "dense" or not on_cpu or recipe.precision != "float32":
        return DenseEngine
    with torch.random.fork_rng(devices=[]):
        module = build()
    chosen: Any = DenseEngine
    plain = not recipe.augment  # the compiled loop reads its inputs as they are
    if name == "sparse":
        chosen = ChainEngine if plain and ChainEngine.chain(module, mask) else SparseEngine
    elif plain and ChainEngine.pays(module, mask, recipe.batch_size):
        chosen = ChainEngine
    elif SparseEngine.pays(module, mask):
        chosen = SparseEngine
    if chosen is not DenseEngine:
        make_ready()
    return chosen
