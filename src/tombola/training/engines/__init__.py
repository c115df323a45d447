"""Engines: the same training by different means.

Numba compiles the sparse engines, and the extra `tombola[fast]` installs it; they are imported where they are used.
"""

from __future__ import annotations

from typing import Any

import torch

from tombola.data import Tensors
from tombola.errors import InputError, nearest
from tombola.extras import install, installed, need
from tombola.pruning.mask import Mask
from tombola.tasks import CLASSIFICATION, Task
from tombola.training.engine import NetworkFactory
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.stacked import StackedEngine
from tombola.training.recipe import Recipe

NAMES = ("auto", "dense", "sparse", "stacked")  # what a user may ask for


def check_engine(name: str) -> None:
    """Check that an engine of that name exists and can run here.

    Raises:
        InputError: it does not exist, or needs Numba, which is not installed.
    """
    if name not in NAMES:
        raise InputError(f"unknown engine {name!r}{nearest(name, NAMES)}")
    if name == "sparse":
        need("numba", "--engine sparse")


def slower_than_possible(name: str, device: str) -> str:
    """Return in one line that sparse networks could train faster here; "" where they could not.

    Args:
        name: the engine that a user asks for, one of NAMES.
        device: "cpu" or "cuda".
    """
    if name != "auto" or device != "cpu" or installed("numba"):
        return ""
    return (
        "note: numba is not installed, so sparse linear layers train at the speed of dense ones; "
        f"{install('numba')} makes them several times as fast"
    )


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
    engine where that pays, else the dense one. "sparse" is the compiled loop for multilayer perceptrons, and sparse
    layers inside autograd for all else. A precision or device that no sparse engine serves gets the dense one.

    Args:
        name: one of NAMES.
        build: builds the network.
        mask: which of its weights live.
        recipe: how it is to be trained.
        example: a batch of one, on the device to train on.
        many: whether several jobs could be trained together.
        task: what is learned.

    Raises:
        InputError: there is no such engine, or "sparse" is asked for a task that it does not serve, or for a network
            of which no layer can be sparse.
    """
    check_engine(name)
    if reason := why_dense_alone(task, example):
        if name == "sparse":
            raise InputError(f"engine 'sparse' can't train this study ({reason}); take engine auto or dense")
        return DenseEngine
    on_cpu = example.device.type == "cpu"
    if name == "stacked" or (name == "auto" and many and not on_cpu):
        return StackedEngine if StackedEngine.fits(build, example) else DenseEngine
    if name == "dense" or not on_cpu or recipe.precision != "float32" or not installed("numba"):
        return DenseEngine
    from tombola.training.engines.mlp import MlpEngine
    from tombola.training.engines.ready import make_ready
    from tombola.training.engines.sparse import SparseEngine

    with torch.random.fork_rng(devices=[]):
        module = build()
    chosen: Any = DenseEngine
    plain = not recipe.augment  # the compiled loop reads its inputs as they are
    if name == "sparse":
        chosen = MlpEngine if plain and MlpEngine.mlp(module, mask) else SparseEngine
        if chosen is SparseEngine and (reason := SparseEngine.why_not(module, mask, recipe)):
            raise InputError(f"engine 'sparse' can't train this network ({reason}); take engine auto or dense")
    elif plain and MlpEngine.pays(module, mask, recipe.batch_size):
        chosen = MlpEngine
    elif SparseEngine.pays(module, mask):
        chosen = SparseEngine
    if chosen is not DenseEngine:
        make_ready()
    return chosen


def why_dense_alone(task: Task, example: Tensors) -> str:
    """Return why only the dense engine can train this task on such inputs; "" where others can."""
    if not task.plain_cross_entropy:
        return "other engines compute mean cross-entropy of classes alone, without weights or smoothing"
    if not isinstance(example, torch.Tensor):
        return "other engines take a single input"
    return "" if example.is_floating_point() else "other engines take no token ids"


def reasons_against(build: NetworkFactory, mask: Mask, recipe: Recipe) -> dict[str, str]:
    """Return what keeps the sparse engines from training on the CPU, for `tombola plan -v`; nothing where one pays.

    Keys are "mlp" for the engine of that name, and the names of layers that stay dense in the sparse engine.
    """
    if not installed("numba"):
        return {"sparse": f"Numba is not installed: {install('numba')}"}
    from tombola.training.engines.mlp import MlpEngine
    from tombola.training.engines.replacing import why_dense
    from tombola.training.engines.sparse import SparseEngine

    with torch.random.fork_rng(devices=[]):
        module = build()
    against = MlpEngine.why_not(module, mask, recipe)
    if not against:
        return {}
    whole = SparseEngine.why_not(module, mask, recipe)
    layers = (
        {"sparse": whole} if whole else {name: reason for name, reason in why_dense(module, mask).items() if reason}
    )
    return {"mlp": against} | layers
