"""Where a ticket comes from: a ticket's file, or a row of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tombola.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from tombola.data import Splits
    from tombola.export.measure import Examples
    from tombola.running.results import Results
    from tombola.running.ticket import Ticket
    from tombola.tasks import Task


def ticket_of(
    source: str, trial: int | None, level: int | None, arm: str | None, repeat: int | None, data: Path | None = None
) -> Ticket:
    """Return a ticket.

    Args:
        source: a ticket's file or a results folder.
        trial, level, arm, repeat: of a results folder: by default its first trial, the level that `best_level` chooses,
            "ticket" and 0.
        data: folder of data sets.

    Raises:
        InputError: `source` is neither, or has no such ticket.
    """
    from tombola.running.results import Results
    from tombola.running.ticket import Ticket

    if Path(source).is_file():
        if given := [name for name, value in _options(trial, level, arm, repeat).items() if value is not None]:
            raise InputError(f"--{given[0]} needs a results folder, but {source!r} is a file; remove the option")
        return Ticket.load(source)
    if not Path(source).is_dir():
        raise InputError(f"{source!r} does not exist; give a results folder, or a file from Ticket.save")
    results = Results.open(source, data)
    arm = arm or "ticket"
    return results.ticket(trial, best_level(results, arm) if level is None else level, arm, repeat or 0)


def _options(trial: int | None, level: int | None, arm: str | None, repeat: int | None) -> dict[str, object]:
    return {"trial": trial, "level": level, "arm": arm, "repeat": repeat}


def best_level(results: Results, arm: str = "ticket") -> int:
    """Return the sparsest level whose validation metric is at least as good as the dense network's.

    Both are means over the finished trials, at the end of training. Level 0 where none is.

    Raises:
        InputError: nothing of that arm is finished, or no validation metric tells a level.
    """
    curves, metric = results.curves(), results.plan.measures.primary
    mine = curves[curves["arm"] == arm]
    if mine.empty:
        raise InputError(
            f"{str(results.store.root)!r} contains no finished run of arm {arm!r}; resume the study with `tombola run`"
        )
    ends = mine.loc[mine.groupby(["trial", "repeat", "level"])["iteration"].idxmax()]
    means = ends.groupby("level")[f"val_{metric.name}"].mean().dropna()
    if 0 not in means:
        raise InputError(
            f"{str(results.store.root)!r} has no validation {metric.words} of the dense network, so it tells no level; "
            "choose one with --level"
        )
    return int(max(level for level, mean in means.items() if not metric.is_better(means[0], mean)))


def splits_of(results: Results, trial: int, data: Path | None = None) -> Splits:
    """Return the examples that a trial was trained, validated and tested on, as its networks take them.

    Raises:
        InputError: the study has a trainer, which loads its own data.
    """
    from tombola.data import load, split
    from tombola.running.run import data_folder
    from tombola.seeds import Seeds

    study = results.study
    if study.trainer is not None:
        raise InputError(f"study {study.name!r} has its own trainer, so tombola does not have its examples")
    dataset = load(study.data, data_folder(data))
    return split(dataset, study.data.validation, Seeds(study.seed, trial), "cpu", study.data.normalise)


def examples_of(results: Results, trial: int, data: Path | None = None) -> Examples | None:
    """Return the test set of a study with the metric of its task.

    None for a task or trainer of the user's own, which is code, and for a test set that is streamed.
    """
    from tombola.data import Part

    if (task := task_of(results)) is None:
        return None
    test = splits_of(results, trial, data).test
    return scored(test.inputs, test.targets, task) if isinstance(test, Part) else None


def task_of(results: Results) -> Task | None:
    """Return the task of a study; None where it is code of the user's own."""
    from tombola.tasks import TASKS

    study = results.study
    return study.task.make() if study.trainer is None and study.task.name in TASKS else None


def scored(inputs: Tensor, targets: Tensor, task: Task) -> Examples:
    """Return a test set with the deciding metric of a task.

    Args:
        inputs: as the network takes them.
        targets: as in the data set.
        task: one of tombola's.
    """
    import torch

    from tombola.data import Part
    from tombola.export.measure import Examples

    place = [metric.name for metric in task.metrics].index(task.primary.name)

    def metric(outputs: np.ndarray, targets: np.ndarray) -> float:
        batch = Part(inputs, task.prepared(torch.from_numpy(targets)))
        return float(task.scores(task.sums(torch.from_numpy(outputs), batch).tolist())[1 + place])

    return Examples(inputs.numpy(), targets.numpy(), metric, task.primary.name)
