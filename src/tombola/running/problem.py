"""What work is done on: the data of its trial on a device, and the network that its spec names."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

import tombola.data as data
from tombola import __version__
from tombola.errors import InputError
from tombola.networks import network_for
from tombola.running.commit import commit
from tombola.running.heartbeat import check_wanted
from tombola.running.machine import machine
from tombola.running.options import RunOptions
from tombola.seeds import Seeds
from tombola.tasks import TaskSettings
from tombola.training.engines import state_of_kernels
from tombola.work import Item, OnData


def splits_of(item: Item, options: RunOptions, device: str | None = None) -> data.Splits:
    """Return an item's data on the device.

    Raises:
        InputError: the data, or the code of the network, have changed since the study was planned.
    """
    spec = item.spec
    assert isinstance(spec, OnData)
    root = Path(options.root) if options.root else None
    settings = spec.data.model_copy(update={"path": item.data_file, "stream_workers": item.readers})
    if spec.data_code and spec.data_code != data.fingerprint(settings, root):
        raise InputError(
            f"{item.data_file or settings.source} has changed since the study was planned; run the command again, and "
            "if it says so again, sort what a function makes of sets and folders"
        )
    if not spec.network.is_code(spec.network_code):
        raise InputError(f"the code of {spec.network.name} has changed since the study was planned; start again")
    if spec.task_code != spec.task.code():
        raise InputError(f"the code of {spec.task.name} has changed since the study was planned; start again")
    place = torch.device(device or options.device)
    task = json.dumps(spec.task.model_dump(mode="json"))
    key = (settings.model_dump_json(), Seeds(spec.seed, spec.trial), options, place, spec.data_code, task)
    found = _KEPT.pop(key, None) or prepared(*key)
    _KEPT[key] = found
    while len(_KEPT) > 1 and sum(map(bytes_of, _KEPT.values())) > memory_for_splits(place):
        del _KEPT[next(iter(_KEPT))]
    return found


SPLITS_SHARE = 0.1  # of a GPU's memory, for the data of several trials
_KEPT: dict[tuple[Any, ...], data.Splits] = {}  # those used last are the last


def forget_splits() -> None:
    """Keep no trial's data."""
    _KEPT.clear()


def memory_for_splits(device: torch.device) -> float:
    """Return how many bytes the data of several trials may take, beyond which only the last trial's are kept.

    A worker on the CPU runs much work of one trial, and data of a second one would double its memory. On a GPU it
    trains runs of all trials together, and making the data again for each stack takes longer than training it.
    """
    return SPLITS_SHARE * torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0.0


def bytes_of(splits: data.Splits) -> int:
    """Return the bytes that the data of a trial take on the device; 0 where they are streamed."""
    parts = [part for part in (splits.train, splits.validation, splits.test) if isinstance(part, data.Part)]
    tensors = [each for part in parts for each in tree_leaves((part.inputs, part.targets))]
    return sum(each.nbytes for each in tensors if isinstance(each, torch.Tensor))


def prepared(
    about: str, seeds: Seeds, options: RunOptions, device: torch.device, content: str, task: str
) -> data.Splits:
    """Return a trial's data on the device, with targets as the task takes them.

    Args:
        about: the `data` section as JSON.
        seeds, device: as in `tombola.data`.
        options: of the run, which may be asked to stop while streamed data are measured.
        content: the data's fingerprint.
        task: settings of the task as JSON.
    """
    settings = data.DataSettings.model_validate_json(about)
    dataset = data.load(settings, Path(options.root) if options.root else None)
    check = partial(check_wanted, options)
    splits = data.split(dataset, settings.validation, seeds, device, settings.normalise, settings.stream_workers, check)
    data.forget_copies(dataset)
    made, source = TaskSettings.model_validate_json(task).make(), settings.source
    return splits.with_targets(lambda targets: made.checked(targets, source))


def build_of(item: Item, splits: data.Splits) -> Callable[[], nn.Module]:
    """Return a function that builds the network of an item."""
    spec = item.spec
    assert isinstance(spec, OnData)
    return network_for(spec.network, splits.description, spec.task.make())


def engine_facts(options: RunOptions, engine: str) -> dict[str, Any]:
    """Return what, beside the spec, decides the last bits of a result.

    "kernels" is there for engines with compiled parts: "cached" where they were loaded, "compiled here" where nothing
    could be kept, as in a read-only installation without a cache. "tf32" is there where products are rounded so.
    """
    facts = {"name": engine, "threads": options.threads, "device": options.device, "torch": torch.__version__}
    kernels = state_of_kernels(engine)
    return facts | ({"kernels": kernels} if kernels else {}) | ({"tf32": True} if options.tf32 else {})


def versions(options: RunOptions) -> dict[str, str | None]:
    """Return what a result was made with."""
    return {
        "tombola": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": machine(options.device),
    }
