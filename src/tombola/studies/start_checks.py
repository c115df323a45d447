"""The check of a first batch on the data themselves: before training, and in planning where the data are at hand."""

from __future__ import annotations

from pathlib import Path

from tombola.data import AnyDataset, load, split
from tombola.errors import DataError
from tombola.networks import initialised, network_for
from tombola.seeds import Seeds
from tombola.studies.plan import Plan
from tombola.studies.task_checks import check_start


def check_first_batch(plan: Plan, dataset: AnyDataset) -> None:
    """Try the task's loss and metrics on a few examples, with the untrained network.

    Raises:
        InputError: the loss is not a finite scalar, it differs from that of `scores`, the metrics depend on the batch
            size, or targets are impossible.
    """
    study, task = plan.study, plan.study.task.make()
    if task.plain_cross_entropy:
        return
    splits = split(dataset, study.data.validation, Seeds(study.seed, 0), normalise=study.data.normalise)
    splits = splits.with_targets(lambda targets: task.checked(targets, study.data.source))
    module = initialised(network_for(study.network, plan.data, task), study.network.init, 0)
    batch = splits.train.select(slice(study.training.batch_size))
    measured = splits.validation if len(splits.validation) else splits.test
    check_start(task, module, batch, measured, study.data.source)


def check_data_at_hand(plan: Plan, root: Path | None = None) -> None:
    """Make the check of the first batch where it needs no download and no reading of a whole stream.

    Args:
        plan: of the study.
        root: folder of data sets.

    Raises:
        InputError: as `check_first_batch`.
    """
    study = plan.study
    if study.trainer is not None or study.data.stream or study.task.make().plain_cross_entropy:
        return
    try:
        dataset = load(study.data, root, download=False)
    except DataError:
        return  # `tombola run` fetches the data, or says what is wrong with them
    check_first_batch(plan, dataset)
