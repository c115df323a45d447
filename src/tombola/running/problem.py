"""What work is done on: the data of its trial on a device, and the network that its spec names."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

import tombola.data as data
from tombola import __version__
from tombola.errors import InputError
from tombola.networks import NetworkSettings, network_for
from tombola.running.commit import commit
from tombola.running.machine import machine
from tombola.running.options import RunOptions
from tombola.seeds import Seeds
from tombola.tasks import TaskSettings
from tombola.work import Item


class OnData(Protocol):
    """A spec that names a network, data and a task."""

    network: NetworkSettings
    data: data.DataSettings
    seed: int
    trial: int
    task: TaskSettings
    network_code: str
    data_code: str
    task_code: str


def splits_of(item: Item, options: RunOptions, device: str | None = None) -> data.Splits:
    """Return an item's data on the device.

    Raises:
        InputError: the data, or the code of the network, have changed since the study was planned.
    """
    spec: OnData = item.spec  # type: ignore[assignment]
    root = Path(options.root) if options.root else None
    settings = spec.data.model_copy(update={"path": item.data_file})
    if spec.data_code and spec.data_code != data.fingerprint(settings, root):
        raise InputError(f"{item.data_file} has changed since the study was planned; run the command again")
    if spec.network_code != spec.network.code():
        raise InputError(f"the code of {spec.network.name} has changed since the study was planned; start again")
    if spec.task_code != spec.task.code():
        raise InputError(f"the code of {spec.task.name} has changed since the study was planned; start again")
    place = torch.device(device or options.device)
    task = json.dumps(spec.task.model_dump(mode="json"))
    return prepared(settings, Seeds(spec.seed, spec.trial), options.root, place, spec.data_code, task)


@lru_cache(maxsize=1)  # a worker runs much work of one trial; a second split would double its memory
def prepared(
    settings: data.DataSettings, seeds: Seeds, root: str | None, device: torch.device, content: str, task: str
) -> data.Splits:
    """Return a trial's data on the device, with targets as the task takes them.

    Args:
        settings, seeds, root, device: as in `tombola.data`.
        content: the data's fingerprint.
        task: settings of the task as JSON.
    """
    dataset = data.load(settings, Path(root) if root else None)
    splits = data.split(dataset, settings.validation, seeds, device, settings.normalise)
    return splits.with_targets(TaskSettings.model_validate_json(task).make().prepared)


def build_of(item: Item, splits: data.Splits) -> Callable[[], nn.Module]:
    """Return a function that builds the network of an item."""
    spec: OnData = item.spec  # type: ignore[assignment]
    return network_for(spec.network, splits.description, spec.task.make())


def engine_facts(options: RunOptions, engine: str) -> dict[str, Any]:
    """Return what, beside the spec, decides the last bits of a result."""
    return {"name": engine, "threads": options.threads, "device": options.device, "torch": torch.__version__}


def versions(options: RunOptions) -> dict[str, str | None]:
    """Return what a result was made with."""
    return {
        "tombola": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": machine(options.device),
    }
