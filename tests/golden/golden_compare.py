"""The differences between frozen and found numbers: to the last bit, or as close as another processor comes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from golden_numbers import SAMPLE, Numbers

MASK_BITS = 5  # of SAMPLE: weights at the threshold, whose order depends on rounding
SPARSITY = 1e-3

# Whatever follows from the last bits alone.
NOT_COMPARED = {"mask", "start", "trained", "early_stop_iteration", "settled"}


@dataclass(frozen=True)
class Tolerance:
    """How far another processor's numbers may be: losses relative, accuracies and errors absolute."""

    loss: float
    accuracy: float


CLOSE = Tolerance(loss=1e-3, accuracy=0.1)
SENSITIVE = Tolerance(loss=0.1, accuracy=0.2)


def differences(frozen: Numbers, found: Numbers, tolerance: Tolerance | None = None) -> Iterator[str]:
    """Yield a line for each number that differs.

    Args:
        frozen: what it must be.
        found: what it is.
        tolerance: None asks for every bit. With one, densities, counts and iterations are compared exactly, losses and
            accuracies within the tolerance, and masks of level 1 but for a few weights at the threshold.
    """
    for key in frozen.keys() ^ found.keys():
        yield f"{key}: only among the {'frozen' if key in frozen else 'new'} numbers"
    for key in frozen.keys() & found.keys():
        for name in frozen[key].keys() | found[key].keys():
            before, now = frozen[key].get(name), found[key].get(name)
            if not (_close(name, before, now, tolerance) if tolerance else _equal(before, now)):
                yield f"{key}: {name} was {_short(before)}, is {_short(now)}"


def _equal(frozen: Any, found: Any) -> bool:
    return type(frozen) is type(found) and frozen == found


def _close(name: str, frozen: Any, found: Any, tolerance: Tolerance) -> bool:
    if name in NOT_COMPARED:
        return True
    if name == "mask sample":
        return sum(a != b for a, b in zip(frozen, found, strict=True)) <= MASK_BITS
    if isinstance(frozen, list):
        pairs = zip(frozen, found, strict=False)
        return len(frozen) == len(found) and all(_close(name, *pair, tolerance) for pair in pairs)
    if isinstance(frozen, str) or isinstance(found, str):
        return frozen == found
    if name.endswith("loss"):
        return abs(frozen - found) <= tolerance.loss * abs(frozen)
    if name.endswith(("accuracy", "error")):
        return abs(frozen - found) <= tolerance.accuracy
    bounds = {"sparsity": SPARSITY, "distance": MASK_BITS / SAMPLE}
    return abs(frozen - found) <= bounds.get(name, 0.0)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:80]} ... {text[-70:]}"


def tolerance_of(same_machine: bool, sensitive: bool) -> Tolerance | None:
    """Return how close a case must come: to the last bit on a machine like the one that froze it."""
    if same_machine:
        return None
    return SENSITIVE if sensitive else CLOSE
