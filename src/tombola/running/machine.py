"""What machine a result was made on, as a reproducibility sheet wants to know it (Raff 2019)."""

from __future__ import annotations

import contextlib
import os
import platform
from functools import lru_cache
from pathlib import Path

import torch

from tombola.formatting import counted


@lru_cache(maxsize=8)
def machine(device: str) -> str:
    """Return processor, cores and memory, and the GPU where `device` is one: "AMD EPYC (x86_64), 2 cores, 24 GiB"."""
    parts = [f"{_processor()} ({platform.machine()})", counted(os.cpu_count() or 1, "core")]
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not on every system
        parts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB")
    if device.startswith("cuda"):
        parts.append(torch.cuda.get_device_name(device))
    return ", ".join(parts)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "processor"
