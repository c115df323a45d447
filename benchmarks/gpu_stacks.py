"""What stacks gain on a GPU: steps per second against one eager run, and against a loop written by hand.

The file is written after each measurement, so that nothing is lost where the time is over.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import workload
from benchmarks.plain import pace, plain_loop
from tombola.networks import NETWORKS, initialised
from tombola.training.engines.dense import DenseEngine
from tombola.training.engines.stacked import StackedEngine

LENET = "lenet-300-100"
STACKS = {LENET: (1, 4, 16, 64, 256), "conv-2": (1, 4, 16, 64), "resnet-20": (1, 4, 16, 64)}
PRECISIONS = {LENET: ("float32",), "conv-2": ("float32", "bfloat16"), "resnet-20": ("float32", "bfloat16")}
Found = dict[str, Any]


def measure(
    file: Path, device: torch.device, stacks: dict[str, Sequence[int]] | None = None, seconds: float = 2.0
) -> None:
    """Write the steps per second of each network, and how its steps were made.

    Args:
        file: to write.
        device: a GPU, or the CPU.
        stacks: sizes of stacks, by network.
        seconds: for each measurement.
    """
    about: Found = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU",
        "torch": torch.__version__,
        "large float32 products, operations per second": product_rate(device, seconds / 4),
        "steps per second, all runs together": {},
    }
    paces = about["steps per second, all runs together"]
    for network, sizes in (stacks or STACKS).items():
        for name, found in _paces(network, sizes, device, seconds):
            paces.setdefault(network, {})[name] = found
            file.write_text(json.dumps(about, indent=1) + "\n")
            print(network, name, json.dumps(found), flush=True)


def _paces(network: str, sizes: Sequence[int], device: torch.device, seconds: float) -> Iterator[tuple[str, Found]]:
    """Yield one measurement after the other; one that fails says so, and the others follow."""
    tasks: list[tuple[str, Callable[[], Found]]] = [
        ("a loop by hand", lambda: {"steps": _by_hand(network, device, seconds)})
    ]
    for precision in PRECISIONS[network]:
        tasks.append((f"one eager run, {precision}", lambda each=precision: eager(each)))  # type: ignore[misc]
        for size in sizes:
            name = f"stack of {size}, {precision}"
            tasks.append((name, lambda size=size, each=precision: stack(size, each)))  # type: ignore[misc]

    def eager(precision: str) -> Found:
        return workload.stack_pace(DenseEngine, 1, device, seconds, network, precision)

    def stack(size: int, precision: str) -> Found:
        return workload.stack_pace(StackedEngine, size, device, seconds, network, precision)

    for name, task in tasks:
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            found = task()
        except Exception as error:
            yield name, {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
            continue
        if device.type == "cuda":
            found["peak memory, MB"] = round(torch.cuda.max_memory_reserved(device) / 1e6)
        yield name, found


def _by_hand(network: str, device: torch.device, seconds: float) -> float:
    data = workload.on_device(workload.made_up(network, 1_500), device).train
    masks = {name: bits.to(device) for name, bits in workload.mask_at(network, 0.2).items()}
    module = initialised(lambda: NETWORKS[network](workload.SHAPES[network], 10), "glorot-normal", 0).to(device)
    loop = plain_loop(module, masks, data.inputs, data.targets, 1.2e-3, workload.BATCH)

    def synchronised(count: int) -> None:
        loop(count)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return 1 / pace(synchronised, workload.AT_A_TIME, seconds)


def product_rate(device: torch.device, seconds: float) -> float:
    """Return floating-point operations per second of a large float32 matrix product, as tombola computes it."""
    size = 8192 if device.type == "cuda" else 512
    left, right = torch.randn(size, size, device=device), torch.randn(size, size, device=device)

    def products(count: int) -> None:
        for _ in range(count):
            left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return 2 * size**3 / pace(products, 4, seconds)
