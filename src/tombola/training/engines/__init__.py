"""Engines: the same training by different means.

Numba compiles the sparse engines, and the extra `tombola[fast]` installs it; they are imported where they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tombola.data import Tensors
from tombola.errors import InputError, nearest
from tombola.extras import install, installed, need
from tombola.pruning.mask import Mask
from tombola.registry import names, resolve
from tombola.tasks import CLASSIFICATION, Task
from tombola.training.engine import NetworkFactory
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.stacked import StackedEngine
from tombola.training.recipe import Recipe


@dataclass(frozen=True)
class Case:
    """What an engine would have to train.

    Args:
        build: builds the network.
        mask: which of its weights live.
        recipe: how it is trained.
        example: a batch of one, on the device to train on.
        many: whether several runs could be trained together.
        task: the task to learn.
        streams: whether examples are read when they are needed, instead of lying on the device.
        frozen: pruned weights are held at values other than 0.0.
        built: the network, if it is built already; it is only looked at.
    """

    build: NetworkFactory
    mask: Mask
    recipe: Recipe
    example: Tensors
    many: bool = False
    task: Task = CLASSIFICATION
    streams: bool = False
    frozen: bool = False
    built: nn.Module | None = None

    @cached_property
    def module(self) -> nn.Module:
        """The network, to be looked at."""
        if self.built is not None:
            return self.built
        with torch.random.fork_rng(devices=[]):
            return self.build()

    @property
    def on_cpu(self) -> bool:
        """Whether it is trained on the CPU."""
        return all(tensor.device.type == "cpu" for tensor in tree_leaves(self.example))


@dataclass(frozen=True)
class EngineKind:
    """One engine, as the choice between engines knows it.

    Args:
        name: as a user asks for it, and as results record it.
        load: returns the engine's class, which is called with (build, starts, recipe, budget, device).
        why_not: returns why the engine can't train a case; "" where it can.
        pays: returns whether `auto` takes it for a case, if it can train that.
        freezes: whether it can hold pruned weights at values other than 0.0.
    """

    name: str
    load: Callable[[], Any]
    why_not: Callable[[Case], str]
    pays: Callable[[Case], bool]
    freezes: bool = False

    def reason_against(self, case: Case) -> str:
        """Return why the engine can't train a case; "" where it can."""
        if case.frozen and not self.freezes:
            return "it takes pruned weights for 0.0, and here they are frozen at their starting values"
        return self.why_not(case)


def _load_mlp() -> Any:
    from tombola.training.engines.mlp import MlpEngine
    from tombola.training.engines.ready import make_ready

    make_ready()
    return MlpEngine


def _load_sparse() -> Any:
    from tombola.training.engines.ready import make_ready
    from tombola.training.engines.sparse import SparseEngine

    make_ready()
    return SparseEngine


def _why_not_streamed(case: Case) -> str:
    return "it needs its data in memory, and data.stream is set" if case.streams else ""


def _why_not_stacked(case: Case) -> str:
    if reason := _why_not_streamed(case) or why_dense_alone(case.task, case.example, case.recipe):
        return reason
    if reason := StackedEngine.why_not(case.recipe):
        return reason
    assert isinstance(case.example, torch.Tensor)
    return StackedEngine.why_not_network(case.build, case.example, case.recipe.precision, case.recipe.batch_size)


def _why_not_compiled(case: Case) -> str:
    """Return why no engine that Numba compiles can train a case."""
    if reason := why_dense_alone(case.task, case.example, case.recipe):
        return reason
    if not case.on_cpu:
        return "it runs only on the CPU"
    if case.recipe.precision != "float32":
        return f"it computes only in float32, but training.precision is {case.recipe.precision}"
    return "" if installed("numba") else f"Numba is not installed: {install('numba')}"


def _why_not_mlp(case: Case) -> str:
    if reason := _why_not_streamed(case) or _why_not_compiled(case):
        return reason
    from tombola.training.engines.mlp import MlpEngine

    if reason := MlpEngine.why_not_recipe(case.recipe):
        return reason
    return "" if MlpEngine.mlp(case.module, case.mask) else "it is not a plain stack of linear layers and ReLUs"


def _mlp_pays(case: Case) -> bool:
    if not installed("numba"):
        return False
    from tombola.training.engines.mlp import MlpEngine

    return MlpEngine.pays(case.module, case.mask, case.recipe.batch_size)


def _why_not_sparse(case: Case) -> str:
    if reason := _why_not_compiled(case):
        return reason
    from tombola.training.engines.sparse import SparseEngine

    return SparseEngine.why_not(case.module, case.mask, case.recipe)


def _sparse_pays(case: Case) -> bool:
    if not installed("numba"):
        return False
    from tombola.training.engines.sparse import SparseEngine

    return SparseEngine.pays(case.module, case.mask)


ENGINES: dict[str, EngineKind] = {
    kind.name: kind
    for kind in (
        EngineKind("stacked", lambda: StackedEngine, _why_not_stacked, lambda case: case.many and not case.on_cpu),
        EngineKind("mlp", _load_mlp, _why_not_mlp, _mlp_pays),
        EngineKind("sparse", _load_sparse, _why_not_sparse, _sparse_pays),
        EngineKind("dense", lambda: DenseEngine, lambda case: "", lambda case: True, freezes=True),
    )
}
"""The engines, the one that `auto` asks first at the head."""

COMPILED = ("mlp", "sparse")  # engines whose inner loops Numba compiles
NAMES = ("auto", "dense", "sparse", "stacked")  # what a user may ask for, besides engines of other packages


def check_engine(name: str) -> None:
    """Check that an engine of that name exists and can run here.

    Raises:
        InputError: it does not exist, or needs Numba, which is not installed.
    """
    if name in COMPILED:
        need("numba", f"--engine {name}")
    if name != "auto":
        engine_named(name)


def engine_named(name: str) -> EngineKind:
    """Return the record of an engine; another package's is named by its entry point, a function that returns it.

    Raises:
        InputError: it does not exist.
    """
    if name in ENGINES:
        return ENGINES[name]
    if ":" not in name and name not in names(ENGINES, "engine"):
        raise InputError(f"unknown engine {name!r}{nearest(name, NAMES)}")
    found = resolve(name, {}, "engine")()
    if not isinstance(found, EngineKind):
        raise InputError(f"engine {name!r} returned a {type(found).__name__}; it must return an EngineKind")
    return found


def state_of_kernels(name: str) -> str:
    """Return how this process came to an engine's compiled parts: "cached" or "compiled here"; "" where it has none."""
    if name not in COMPILED:
        return ""
    from tombola.training.engines.ready import compiled_here

    return "compiled here" if compiled_here() else "cached"


def slower_than_possible(name: str, device: str) -> str:
    """Return in one line that sparse networks could train faster here; "" where they could not.

    Args:
        name: the engine that a user asks for, one of NAMES.
        device: "cpu" or "cuda".
    """
    if name != "auto" or device != "cpu" or installed("numba"):
        return ""
    return (
        "note: numba is not installed, so sparse linear layers train as slowly as dense ones; "
        f"{install('numba')} makes them several times as fast"
    )


def choose_kind(
    name: str,
    build: NetworkFactory,
    mask: Mask,
    recipe: Recipe,
    example: Tensors,
    many: bool = False,
    task: Task = CLASSIFICATION,
    streams: bool = False,
    frozen: bool = False,
    built: nn.Module | None = None,
) -> EngineKind:
    """Choose an engine, without loading it.

    "auto" takes the first of `ENGINES` that can train the case and pays: on a GPU many runs stacked, on the CPU a
    sparse engine where that pays, else the dense one. "sparse" takes the compiled loop for multilayer perceptrons
    where it can. A case that "stacked" can't train, and a precision or device that "sparse" does not serve, get the
    dense engine.

    Args:
        name: "auto" or an engine.
        build, mask, recipe, example, many, task, streams, frozen, built: as in `Case`.

    Raises:
        InputError: the engine does not exist, or it can't train the study or a layer of its network.
    """
    check_engine(name)
    case = Case(build, mask, recipe, example, many, task, streams, frozen, built)
    if name == "auto":
        # What pays is asked first: to find out whether a network can be stacked takes a training step.
        return next(kind for kind in ENGINES.values() if kind.pays(case) and not kind.reason_against(case))
    if name == "sparse" and not ENGINES["mlp"].reason_against(case):
        name = "mlp"
    kind = engine_named(name)
    reason = kind.reason_against(case)
    if not reason:
        return kind
    if name == "stacked" or (name == "sparse" and (not case.on_cpu or recipe.precision == "bfloat16")):
        return ENGINES["dense"]
    what = "study" if why_dense_alone(task, example, recipe) else "network"
    raise InputError(f"engine {name!r} can't train this {what} ({reason}); use --engine auto or dense")


def choose_engine(*case: Any, **more: Any) -> Any:
    """Return an engine's class: called with (build, starts, recipe, budget, device) it gives an `Engine`.

    Args:
        case, more: as in `choose_kind`.

    Raises:
        InputError: as there.
    """
    return choose_kind(*case, **more).load()


def must_compile(kind: EngineKind) -> bool:
    """Return whether an engine's first use on this machine has yet to compile it, which takes half a minute or so."""
    if kind.name not in COMPILED:
        return False
    from tombola.training.engines.ready import is_ready

    return not is_ready()


def why_dense_alone(task: Task, example: Tensors, recipe: Recipe) -> str:
    """Return why only the dense engine can train this task on such inputs so; "" where others can."""
    if not recipe.each_alone:
        return f"only the dense engine trains with optimizer {recipe.optimizer}"
    if recipe.precision == "float64":
        return "only the dense engine computes in float64"
    if not task.plain_cross_entropy:
        return "other engines compute only mean cross-entropy of classes, without weights or smoothing"
    if not isinstance(example, torch.Tensor):
        return "other engines take a single input"
    return "" if example.is_floating_point() else "other engines take no token ids"


def why_not_stacked(
    build: NetworkFactory, mask: Mask, recipe: Recipe, example: Tensors, task: Task, streams: bool
) -> str:
    """Return why runs can't be trained in stacks, naming the layer where it is one; "" where they can.

    Args:
        build, mask, recipe, example, task, streams: as in `Case`.
    """
    return ENGINES["stacked"].reason_against(Case(build, mask, recipe, example, True, task, streams))


def reasons_against(
    build: NetworkFactory, mask: Mask, recipe: Recipe, streams: bool = False, batch: Tensor | None = None
) -> dict[str, str]:
    """Return what keeps the sparse engines from training on the CPU, for `tombola plan -v`; nothing where one pays.

    Keys are "mlp" for the engine of that name, and the names of layers that stay dense in the sparse engine.

    Args:
        build, mask, recipe, streams: as in `Case`.
        batch: two examples, with which the network is tried where its convolutions would be sparse.
    """
    if not installed("numba"):
        return {"sparse": f"Numba is not installed: {install('numba')}"}
    from tombola.training.engines.mlp import MlpEngine
    from tombola.training.engines.replacing import why_dense
    from tombola.training.engines.sparse import SparseEngine, may_convolve_sparsely

    case = Case(build, mask, recipe, torch.zeros(1), streams=streams)
    module = case.module
    against = _why_not_streamed(case) or MlpEngine.why_not(module, mask, recipe)
    if not against:
        return {}
    whole = SparseEngine.why_not(module, mask, recipe)
    dense = {name: reason for name, reason in why_dense(module, mask).items() if reason}
    if not whole and batch is not None and not may_convolve_sparsely(build, mask, batch):
        dense["convolutions"] = "the network draws at random, or uses `view`, by how dense convolutions lie in memory"
    return {"mlp": against} | ({"sparse": whole} if whole else dense)
