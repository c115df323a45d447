"""What this machine offers for computing: devices, cores, and how runs share them."""

from __future__ import annotations

import os

from tombola.errors import InputError
from tombola.studies.plan import Plan

VISIBLE = "CUDA_VISIBLE_DEVICES"
LARGE_STEP = 1e9  # floating-point operations: some ten milliseconds of a core


def choose_device(device: str) -> str:
    """Return the device to train on.

    Raises:
        InputError: it is missing.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return device
    if device.partition(":")[0] != "cuda":
        raise InputError(f"device={device!r}: choose auto, cpu, cuda, all, or a list such as cuda:0,cuda:1")
    if not torch.cuda.is_available():
        raise InputError(f"device={device!r}: PyTorch finds no GPU here; use --device cpu")
    number = device.partition(":")[2] or "0"
    if not number.isdigit() or int(number) >= torch.cuda.device_count():
        raise InputError(f"device={device!r}: PyTorch finds {torch.cuda.device_count()} GPUs, counted from cuda:0")
    return device


def several_gpus(device: str) -> tuple[str, ...]:
    """Return the GPUs that "all" or a list such as "cuda:0,cuda:1" names; none for the name of one device.

    Raises:
        InputError: one of them is missing, or named twice.
    """
    import torch

    if device == "all":
        choose_device("cuda")
        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    if "," not in device:
        return ()
    gpus = tuple(name.strip() for name in device.split(","))
    for name in gpus:
        if not name.startswith("cuda:"):
            raise InputError(f"device={device!r}: {name!r} is not a GPU; a list names GPUs, such as cuda:0,cuda:1")
        choose_device(name)
        if gpus.count(name) > 1:
            raise InputError(f"device={device!r} names {name} twice; name each GPU once")
    return gpus


def only(gpu: str) -> dict[str, str]:
    """Return the environment in which a process sees one GPU alone, such as "cuda:1" here, and calls it "cuda"."""
    number = int(gpu.partition(":")[2])
    visible = [each for each in os.environ.get(VISIBLE, "").split(",") if each.strip()]
    return {VISIBLE: visible[number].strip() if visible else str(number)}


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(device: str, items: int) -> int:
    """Return how many runs to compute at a time: one per core, as small networks gain little from a second thread."""
    return 1 if device != "cpu" else max(1, min(cores(), items))


def threads_each(plan: Plan, workers: int) -> int:
    """Return how many threads compute a run: its share of the cores, or one where a dense training step is small.

    Threads of a small step gain nothing, and wait for each other wherever another program needs a core.
    """
    if plan.study.trainer is not None:  # the cost of its steps is unknown
        return max(1, cores() // max(1, workers))
    step = 3 * 2 * plan.multiply_adds * plan.study.training.batch_size  # forward; backward for weights and for inputs
    return max(1, cores() // max(1, workers)) if step >= LARGE_STEP else 1
