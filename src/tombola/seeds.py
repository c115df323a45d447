"""Randomness as a pure function of (study seed, trial, purpose, counter).

No generator lives longer than the call that needs it. Resuming therefore has no generator state to restore, and
changing how one purpose draws (the data order, say) can't disturb another (the initialisation).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

PURPOSES = ("init", "split", "order", "augment", "mask", "dropout", "criterion", "examples", "scores", "redraw")
NOISE = ("order", "augment", "dropout")  # what a run of the same network on the same data may have again


@dataclass(frozen=True)
class Seeds:
    """The seeds of one trial.

    Args:
        study: the study's seed.
        trial: the trial's number.
        noise: which draw of the trial's data order, augmentation and dropout; "" is the study's own.

    >>> Seeds(study=0, trial=1).value("order", 3) == Seeds(study=0, trial=1).value("order", 3)
    True
    """

    study: int
    trial: int
    noise: str = ""

    def value(self, purpose: str, counter: int | str = 0) -> int:
        """Return a 63-bit seed; `counter` tells independent draws of one purpose apart (an epoch, a repeat)."""
        if purpose not in PURPOSES:
            raise ValueError(f"unknown purpose {purpose!r}: one of {', '.join(PURPOSES)}")
        text = f"{self.study}/{self.trial}/{purpose}/{counter}"
        if self.noise and purpose in NOISE:
            text += f"/{self.noise}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

    def generator(self, purpose: str, counter: int | str = 0) -> torch.Generator:
        """Return a fresh CPU generator for that purpose and counter."""
        import torch

        return torch.Generator().manual_seed(self.value(purpose, counter))


@contextmanager
def own_draws(device: torch.device | None = None) -> Iterator[None]:
    """Leave the global generators of PyTorch, NumPy and Python as they were: modules and tasks draw from them.

    Args:
        device: a GPU that draws too.
    """
    import numpy as np
    import torch

    plain, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device is not None and device.type == "cuda" else []):
            yield
    finally:
        random.setstate(plain)
        np.random.set_state(numpy)


def seed_torch(seed: int, device: torch.device | None = None) -> None:
    """Seed the global generators of PyTorch: that of the CPU, and that of a GPU."""
    import torch

    if device is not None and device.type == "cuda":
        torch.cuda.manual_seed(seed)
    torch.default_generator.manual_seed(seed)


def seed_draws(seed: int, device: torch.device | None = None) -> None:
    """Seed the global generators of PyTorch, NumPy and Python."""
    import numpy as np

    seed_torch(seed, device)
    random.seed(seed)
    np.random.seed(seed % 2**32)  # it takes no more


def draw_states() -> tuple[Any, ...]:
    """Return the states of the global generators on the CPU; equal ones have drawn nothing in between."""
    import numpy as np
    import torch

    name, keys, *rest = np.random.get_state(legacy=True)
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), name, np.asarray(keys).tobytes(), rest
