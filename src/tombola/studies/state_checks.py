"""Checks, before training, that a network computes what its state_dict says: runs resume and tickets start from it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Container, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tombola.data import Description
from tombola.errors import InputError
from tombola.memory import shared_memory
from tombola.networks.one_batch import Batch, Inputs
from tombola.seeds import own_draws, seed_draws
from tombola.tasks import Task

EXAMPLES = 4  # of the synthetic batch
LARGE = 100.0  # times: weights that a network keeps within bounds go beyond them
ROUNDING, ROUNDING_GPU = 1e-5, 1e-3  # relative differences that are none; sums on a GPU come in any order
PLAIN = (bool, int, float, str, type(None), Tensor)

Look = Callable[[nn.Module], Any]  # what a module computes: tensors in any structure


def check_state_of_study(
    make: Callable[[int], nn.Module], task: Task, data: Description, prunable: Container[str], what: str
) -> None:
    """Check a network that tombola trains: output, loss and gradients follow from its state_dict.

    Raises:
        InputError: they do not, two networks share memory, or the network changes its inputs.
    """
    batch = task.made_up(data, EXAMPLES)
    before = [each.clone() for each in _tensors(batch)]

    def evaluated(module: nn.Module) -> Any:
        with torch.no_grad():
            return task.forward(module.eval(), batch)

    def trained(module: nn.Module) -> Any:
        loss = task.loss(task.forward(module.train(), batch), batch)
        weights = [each for each in module.parameters() if each.requires_grad]
        return [loss.detach(), *torch.autograd.grad(loss, weights, allow_unused=True)]

    module, other = make(0), make(1)
    require_tensors(module, what)
    _check_memory(module, other, lambda: _seen(trained, make(0)), prunable, what)
    _check_weights(module, (trained,), 1.0, prunable, what)  # counters count, averages move, caches fill
    _check_weights(make(0), (evaluated,), 1.0, prunable, what)
    _check_weights(make(0), (evaluated, trained), LARGE, prunable, what)
    if not all(map(_is_same, _tensors(batch), before)):
        raise InputError(
            f"{what} changes its inputs in place, so it would change the data of later evaluations; let its forward "
            "work on a copy, such as x = x * 0.5"
        )
    _compare(module, other, (evaluated, trained), what)


def _check_weights(
    module: nn.Module, looks: tuple[Look, ...], scale: float, prunable: Container[str], what: str
) -> None:
    """Look at a network, and check that this changes no weights: a mask would not hold them, and engines would differ.

    Embeddings may: `max_norm` scales rows, in which zeros stay zeros.

    Args:
        module: to look at.
        looks: what to do with it.
        scale: what its weights are multiplied by, first.
        prunable: names of the parameters that a mask may change.
        what: names the network in messages.

    Raises:
        InputError: a weight changes.
    """
    tables = [each for each in module.modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag)]
    scaled = {id(each.weight) for each in tables if each.max_norm is not None}
    weights = {name: each for name, each in module.named_parameters() if name in prunable and id(each) not in scaled}
    with torch.no_grad():
        for weight in weights.values():
            weight.mul_(scale)
    before = {name: weight.detach().clone() for name, weight in weights.items()}
    for look in looks:
        _seen(look, module)
    after = dict(module.named_parameters())
    for name, weight in weights.items():
        if after.get(name) is not weight or not _is_same(weight.detach(), before[name]):
            raise InputError(
                f"{what} changes its weight {name!r} in forward, so pruned weights would come back, or the change "
                "would be lost; compute with a copy, such as weight = self.weight.clamp(-1, 1), or use "
                "torch.nn.utils.parametrize"
            )


def require_tensors(module: nn.Module, what: str) -> None:
    """Refuse a state_dict that holds more than tensors.

    Raises:
        InputError: it does.
    """
    for name, value in module.state_dict().items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"{what} keeps {name!r} in its state_dict, a {type(value).__name__}; tombola stores tensors alone: let "
                "get_extra_state return one, or use a buffer"
            )


def check_state_of_loop(make: Callable[[int], nn.Module], inputs: Inputs, prunable: Container[str], what: str) -> None:
    """Check a network that a user's loop trains: its output in evaluation follows from its state_dict.

    An attribute that training changes is the loop's affair, which may reset it, as it does the state between two
    sequences. A buffer is not.

    Raises:
        InputError: it does not.
    """

    def called(module: nn.Module) -> Any:
        with torch.no_grad():
            try:
                batch = Batch.random(inputs, module)  # zeros would hide what they are multiplied by
                return module(*batch.args, **batch.options)
            except Exception:
                batch = Batch.of(inputs, module)
                return module(*batch.args, **batch.options)

    def evaluated(module: nn.Module) -> Any:
        return called(module.eval())

    module, other = make(0), make(1)
    _check_memory(module, other, lambda: _seen(lambda each: called(each.train()), make(0)), prunable, what)
    has_buffers = any(each._non_persistent_buffers_set for each in module.modules())
    _compare(module, other, (evaluated,), what)
    if not has_buffers:
        return
    trained, module = make(0), make(0)
    _seen(lambda module: called(module.train()), trained)
    _load(module, trained, what)
    for mine, theirs in zip(module.modules(), trained.modules(), strict=False):
        mine._buffers.update({name: theirs._buffers[name] for name in theirs._non_persistent_buffers_set})
    _compare(module, make(1), (evaluated,), what)


def _check_memory(
    one: nn.Module, other: nn.Module, train: Callable[[], Any], prunable: Container[str], what: str
) -> None:
    """Check that training one network leaves the next one as its factory builds it.

    A factory may take a tensor of its own into each network: a table of pretrained vectors, or a backbone. What neither
    training nor a mask changes may lie in one memory: most buffers, and frozen tables.

    Args:
        one, other: networks of the factory.
        train: trains a third one, in a step.
        prunable: names of the parameters that a mask may change.
        what: names the factory in messages.

    Raises:
        InputError: two networks share what training or a mask changes.
    """
    names = shared_memory(one, other)
    if not names:
        return
    frozen = {name: weight.detach() for name, weight in other.named_parameters() if not weight.requires_grad}
    constant = dict(other.named_buffers()) | {name: each for name, each in frozen.items() if name not in prunable}
    before = {name: constant[name].clone() for name in names if name in constant}
    train()
    for name in names:
        if name not in before or not _is_same(before[name], constant[name]):
            raise InputError(
                f"{what} puts the same memory into {name!r} of every model, so one run would change the weights of "
                "another; clone() the tensor, or build a new module in each call"
            )


def _compare(one: nn.Module, other: nn.Module, looks: tuple[Look, ...], what: str) -> None:
    """Load the state_dict of a network into a new one of another seed, and compare what the two compute.

    Attributes are only named, not compared: a counter that nothing reads, or a table of positions that is computed
    when it is needed, does no harm.
    """
    _load(other, one, what)
    names = _outside(one, other)
    for look in looks:
        if _agree(_seen(look, one), _seen(look, other)):
            continue
        if names:
            shown = ", ".join(map(repr, names[:3]))
            raise InputError(
                f"{what} computes with {shown}, which its state_dict does not hold; a resumed run or a ticket would "
                "give other outputs; keep such values in persistent buffers (self.register_buffer)"
            )
        raise InputError(
            f"{what} gives other outputs after its state_dict is loaded into a new module; keep all that they depend "
            "on in parameters and persistent buffers (self.register_buffer), and draw from the global generators only"
        )


def _load(module: nn.Module, other: nn.Module, what: str) -> None:
    try:
        module.load_state_dict(other.state_dict())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{what} builds other parameters or buffers from another seed, or in training ({reason}); build all of "
            "them in the constructor, from its arguments alone"
        ) from error


def _seen(look: Look, module: nn.Module) -> list[Tensor]:
    """Return the tensors that a module computes; none where it fails, which training itself will report."""
    device = next((each.device for each in module.parameters()), None)
    # Compiled code would be compiled here for nothing.
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    with own_draws(device), eager:
        seed_draws(0, device)
        try:
            found = look(module)
        except Exception:
            return []
    return [each.detach() for each in _tensors(found)]


def _is_same(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors have the same numbers to the last bit, or NaN in the same places."""
    return one.shape == other.shape and bool(((one == other) | (one.isnan() & other.isnan())).all())


def _tensors(found: Any) -> list[Tensor]:
    leaves = tree_leaves(found if isinstance(found, Tensor | tuple | list | Mapping) else vars(found))
    return [each for each in leaves if isinstance(each, Tensor)]


def _agree(one: list[Tensor], other: list[Tensor]) -> bool:
    """Return whether two modules computed the same, but for rounding."""
    if not one or not other:  # one failed, as the first of its kind may not
        return True
    return len(one) == len(other) and all(map(_equal, one, other))


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.layout != torch.strided or not one.is_floating_point() or not one.numel():
        return one.layout != torch.strided or torch.equal(one, other)
    largest = float(one.where(one.isfinite(), 0).abs().max())  # outputs may mask classes by -inf
    limit = (ROUNDING if one.device.type == "cpu" else ROUNDING_GPU) * largest
    return torch.allclose(one, other, rtol=0, atol=limit, equal_nan=True)


def _outside(one: nn.Module, other: nn.Module) -> list[str]:
    """Return the names of the attributes and non-persistent buffers that differ between two modules, tensors first."""
    found: dict[str, bool] = {}
    for (name, mine), theirs in zip(one.named_modules(), other.modules(), strict=False):
        for local, value in _kept_outside(mine).items():
            if not _same(value, _kept_outside(theirs).get(local)):
                found[f"{name}.{local}".lstrip(".")] = isinstance(value, Tensor)
    return sorted(found, key=lambda name: not found[name])


def _kept_outside(module: nn.Module) -> dict[str, Any]:
    """Return what a module keeps outside its state_dict."""
    attributes = {name: value for name, value in vars(module).items() if name not in _ITS_OWN}
    return attributes | {name: module._buffers[name] for name in module._non_persistent_buffers_set}


_ITS_OWN = frozenset(vars(nn.Module()))  # what PyTorch keeps in every module


def _same(one: Any, other: Any) -> bool:
    """Return whether two values are equal; what is no tensor and no plain value counts as equal."""
    ours, theirs = ([each for each in tree_leaves(value) if isinstance(each, PLAIN)] for value in (one, other))
    if len(ours) != len(theirs):
        return False
    return all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else type(a) is type(b) and a == b
        for a, b in zip(ours, theirs, strict=True)
    )
