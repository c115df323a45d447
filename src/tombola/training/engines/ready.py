"""Has the kernels compiled once a machine, before any result depends on them.

Code that Numba has just compiled may round differently from the same code loaded from its cache later, and two
processes that compile at once may come to different code. A run on a new machine would then not be repeatable to the
last bit. So one process compiles, and does nothing else; all others load what it left.
"""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType

import llvmlite
import numba
import torch
from filelock import FileLock
from numba.core.dispatcher import Dispatcher
from torch import nn

from tombola.data.parts import Part, Splits
from tombola.pruning.mask import Mask
from tombola.seeds import Seeds
from tombola.training.engine import ReplicaState
from tombola.training.engines import conv_kernels, conv_plan, kernels, norm_kernels
from tombola.training.engines.example_last import ExampleLastBatchNorm2d, ExampleLastMaxPool2d
from tombola.training.engines.mlp import MlpEngine
from tombola.training.engines.sparse import SparseEngine
from tombola.training.engines.sparse_conv import SparseConv2d
from tombola.training.recipe import Recipe

KERNELS = (kernels, conv_kernels, norm_kernels)


@cache
def make_ready() -> None:
    """Wait until the kernels are compiled; do nothing where they can't be kept, and each process compiles its own."""
    marker = _marker()
    if marker is None:
        return
    try:
        if marker.exists():
            return
        marker.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(marker.with_suffix(".lock")):
            if not marker.exists():
                code = "from tombola.training.engines.ready import compile_all; compile_all()"
                subprocess.run([sys.executable, "-c", code], check=True, stdin=subprocess.DEVNULL, capture_output=True)
                marker.touch()
    except (OSError, subprocess.CalledProcessError):
        return  # the first use compiles, then


def is_ready() -> bool:
    """Return whether the kernels lie compiled on this machine."""
    marker = _marker()
    try:
        return marker is not None and marker.exists()
    except OSError:
        return False


def _marker() -> Path | None:
    """Return the file that says that these kernels are compiled for this machine; None where they can't be kept."""
    folder = kernels.train_mlp.stats.cache_path
    if not folder:
        return None
    versions = f"{numba.__version__} {llvmlite.__version__} {platform.python_version()} {platform.processor()}"
    text = versions.encode() + b"".join(Path(str(each.__file__)).read_bytes() for each in KERNELS)
    return Path(folder) / f"tombola-{hashlib.sha256(text).hexdigest()[:16]}.ready"


def compiled_here(modules: Iterable[ModuleType] = KERNELS) -> bool:
    """Return whether this process has compiled a kernel itself; the bits of its results may then be others."""
    kernels_of = (each for module in modules for each in vars(module).values() if isinstance(each, Dispatcher))
    return any(each.stats.cache_misses for each in kernels_of)


def compile_all() -> None:
    """Train and evaluate a tiny network with each engine that has compiled parts."""
    inputs = torch.randn(8, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    part = Part(inputs, torch.arange(8) % 2)
    recipe = Recipe(lr=1e-3, batch_size=4, iterations=2)
    mask = Mask({f"{name}.weight": torch.zeros(size, 16, dtype=torch.bool) for name, size in (("a", 16), ("c", 2))})
    weights = mask.apply(_tiny().state_dict())
    start = ReplicaState(weights, mask, Seeds(0, 0), Splits(part, part, part, (0.0,), (1.0,), 2))
    for engine in (MlpEngine, SparseEngine):
        runner = engine(_tiny, [start], recipe, 2, torch.device("cpu"))
        runner.advance(2)
        runner.evaluate("test")
    _compile_convolutions()


def _compile_convolutions() -> None:
    """Train a convolution with each size of a tile, and with each kind of layer that may follow it."""
    keep = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    for count in conv_plan.TILE_SIZES:
        layer = SparseConv2d(nn.Conv2d(1, 1, 1), keep)
        images = torch.randn(kernels.LINE, 1, 2, count)  # rows of exactly so many vectors
        following = (ExampleLastBatchNorm2d(1), ExampleLastMaxPool2d(1))
        nn.Sequential(layer, *following)(images.requires_grad_()).sum().backward()


def _tiny() -> nn.Module:
    return nn.Sequential(OrderedDict(flatten=nn.Flatten(), a=nn.Linear(16, 16), b=nn.ReLU(), c=nn.Linear(16, 2)))
