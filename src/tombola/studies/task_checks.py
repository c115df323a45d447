"""Checks, before training, that a study's network fits its task and its data."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tombola.data import Description, Examples, Part
from tombola.errors import InputError
from tombola.tasks import CLASSIFICATION, Metric, Task

if TYPE_CHECKING:
    from tombola.studies.study import Study

EXAMPLES = 4  # of the synthetic batch that shapes are checked with
LIMIT = 256  # examples of the data themselves that the loss and the metrics are tried on
BY_VALIDATION = ("stability",)  # criteria that look at the weights at the lowest validation loss
AGREE = 1e-4  # relative difference of sums in another order; float32 products differ by block size


def check_outputs(task: Task, module: nn.Module, data: Description, source: str) -> None:
    """Check the output of a network for a synthetic batch.

    Raises:
        InputError: it does not fit the task or the data.
    """
    batch = task.made_up(data, EXAMPLES)
    module.eval()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        output = _tried("forward", task, lambda: task.forward(module, batch))
        task.check_output(output, batch, data, source)
        task.check_network(module, batch)


def check_margins(study: Study, task: Task, data: Description) -> None:
    """Check the margins of a study, which are differences of the task's metric.

    Raises:
        InputError: a margin is impossible, or the chance level is unknown.
    """
    pruning, metric = study.pruning, task.primary
    margins = {"pruning.stop_margin": pruning.stop_margin}
    margins |= {"pruning.back_off.margin": pruning.back_off.margin if pruning.back_off else None}
    for field, margin in margins.items():
        if margin is not None and metric.unit == "%" and margin >= 1:
            raise InputError(
                f"{field}={margin:g}: must be less than 1; it is a difference of {metric.words}, 0.01 for 1 percentage "
                "point"
            )
    if pruning.stop_margin is not None and task.chance(data) is None:
        raise InputError(
            f"pruning.stop_margin={pruning.stop_margin:g}: the {metric.words} of a guess is unknown for task: "
            f"{study.task.name}; remove stop_margin, and set pruning.rounds to the last level that you need"
        )


def fine_margin(margin: float, metric: Metric, data: Description) -> str:
    """Return in one line that one test example counts for more than the margin; "" where it does not."""
    if metric.unit != "%" or data.output_shape != () or data.test < 1 or 1 / data.test <= margin:
        return ""
    wanted = math.ceil(1000 / data.test) / 1000
    return (
        f"note: the margin of {100 * margin:g} points is less than one of {data.test:,} test examples, "
        f"{100 / data.test:.2g} points, so few verdicts can be decided; choose a larger one before you run, such as "
        f"margin={wanted:g}"
    )


def check_validation(study: Study) -> None:
    """Check that a study without validation examples asks for nothing that is judged by them.

    Raises:
        InputError: it does.
    """
    if study.data.validation != 0:
        return
    recipes = {"training": study.training, "retraining": study.recipe(1)}
    recipes |= {f"arms: training of {arm.label!r}": study.recipe(1).changed(arm.training) for arm in study.arms}
    found = [f"{where}: patience" for where, recipe in recipes.items() if recipe.patience]
    found += [f"pruning.{name}" for name in ("back_off", "stop_margin") if getattr(study.pruning, name) is not None]
    criteria = {"pruning.criterion": study.pruning.criterion}
    criteria |= {f"arms: criterion of {arm.label!r}": arm.criterion for arm in study.arms if arm.criterion}
    found += [f"{where}={name}" for where, name in criteria.items() if name in BY_VALIDATION]
    if found:
        raise InputError(
            f"{found[0]} needs validation examples, and data.validation is 0; set examples aside, or remove it"
        )


def check_start(task: Task, module: nn.Module, train: Part, validation: Examples, source: str) -> None:
    """Try loss and metrics on the data themselves, with the untrained network on the CPU.

    It skips plain classification, whose loss and accuracy are known to be correct.

    Args:
        task: the task to learn.
        module: the untrained network.
        train: a batch of training examples.
        validation: validation examples.
        source: the data's name, for messages.

    Raises:
        InputError: the loss is not a finite scalar that can be differentiated, `scores` return another loss, or loss
            or metrics depend on how many examples are evaluated at a time.
    """
    if task.plain_cross_entropy and task.metrics == CLASSIFICATION.metrics:
        return
    module.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loss = _tried("loss", task, lambda: task.tempered_loss(module, train))
        _check_loss(loss)
        with torch.no_grad():
            torch.manual_seed(0)
            _check_same_loss(loss.item(), _scores(task, module, train, len(train))[0], len(train))
            every = validation.select(slice(LIMIT))
            whole, parts = (_scores(task, module, every, step) for step in (len(every), max(1, len(every) // 3)))
    names = ("loss", *(metric.name for metric in task.metrics))
    if not math.isfinite(whole[0]):
        raise InputError(
            f"the task's loss of the untrained network on {len(every)} validation examples of {source} is {whole[0]}; "
            "look for NaN or infinity in the data, or scale the targets"
        )
    for name, one, other in zip(names, whole, parts, strict=True):
        same = math.isclose(one, other, rel_tol=AGREE, abs_tol=1e-6) or (math.isnan(one) and math.isnan(other))
        if not same:
            raise InputError(
                f"the task's {name} depends on the batch size: {one:.6g} with {len(every)} examples at a time, "
                f"{other:.6g} with {max(1, len(every) // 3)}; `sums` must add up over blocks of examples, and `scores` "
                "must follow from the sums alone; the network's output for an example must not depend on the others"
            )


def _check_loss(loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.dim():
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise InputError(f"the task's loss is {got}; it must be a scalar tensor: take the mean over the batch")
    if not bool(loss.isfinite()):
        raise InputError(
            f"the task's loss is {loss.item()} at the start of training, before any step; look for NaN or infinity in "
            "the data, or for targets that the loss does not accept"
        )
    if not loss.requires_grad:
        raise InputError(
            "the task's loss does not depend on any parameter of the network, so training can change nothing; do not "
            "detach the output, and keep the parameters trainable"
        )


def _check_same_loss(loss: float, scored: float, examples: int) -> None:
    """Check that `loss` and the first of `scores` are one: one trains, the other stops early and fills the tables."""
    if not math.isnan(scored) and not math.isclose(loss, scored, rel_tol=AGREE, abs_tol=1e-6):
        raise InputError(
            f"the task's `loss` is {loss:.6g} on the first {examples} training examples, but the loss that `scores` "
            f"returns for them is {scored:.6g}, in evaluation mode both; early stopping uses the second, so make them "
            "equal"
        )


def _scores(task: Task, module: nn.Module, part: Part, step: int) -> tuple[float, ...]:
    """Return loss and metrics of a part, computed `step` examples at a time."""
    total: Tensor | None = None
    for first in range(0, len(part), step):
        batch = part.select(slice(first, first + step))
        sums = _tried("sums", task, partial(_sums, task, module, batch))
        if not isinstance(sums, Tensor) or sums.dim() != 1 or sums.dtype != torch.float64:
            got = f"{sums.dtype} {list(sums.shape)}" if isinstance(sums, Tensor) else type(sums).__name__
            raise InputError(f"the task's sums are {got}; they must be a float64 tensor of one dimension")
        if total is not None and sums.shape != total.shape:
            raise InputError(
                f"the task's sums depend on the batch size: {len(total)} numbers for one block of examples, "
                f"{len(sums)} for another"
            )
        total = sums if total is None else total + sums
    assert total is not None
    values = total.tolist()
    found = _tried("scores", task, lambda: tuple(map(float, task.scores(values))))
    if len(found) != 1 + len(task.metrics):
        raise InputError(
            f"the task's scores are {len(found)} numbers; they must be the loss and the {len(task.metrics)} metrics"
        )
    return found


def _sums(task: Task, module: nn.Module, batch: Part) -> Any:
    return task.sums(task.forward(module, batch), batch)


def _tried(what: str, task: Task, function: Callable[[], Any]) -> Any:
    """Return the result of a task's method; a failure becomes an error that names the method."""
    try:
        return function()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"`{what}` of task {type(task).__name__} failed: {type(error).__name__}: {error}") from error
