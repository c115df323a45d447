"""The differences between frozen and found numbers: to the last bit, or as close as another processor comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from golden_numbers import SAMPLE, Numbers

LOSS = 1e-3  # relative
ACCURACY = 0.06  # 3 of 60 examples
MASK_BITS = 5  # of SAMPLE: weights at the threshold, whose order depends on rounding

# Whatever follows from the last bits alone.
NOT_COMPARED = {"mask", "start", "trained", "early_stop_iteration", "settled"}


def differences(frozen: Numbers, found: Numbers, exact: bool = True) -> Iterator[str]:
    """Yield a line for each number that differs.

    Args:
        frozen: what it must be.
        found: what it is.
        exact: to the last bit; else as `_close` says.
    """
    for key in frozen.keys() | found.keys():
        if key not in found or key not in frozen:
            yield f"{key}: only among the {'frozen' if key in frozen else 'new'} numbers"
    same = _equal if exact else _close
    for key in frozen.keys() & found.keys():
        for name in frozen[key].keys() | found[key].keys():
            before, now = frozen[key].get(name), found[key].get(name)
            if not same(name, before, now):
                yield f"{key}: {name} was {_short(before)}, is {_short(now)}"


def _equal(name: str, frozen: Any, found: Any) -> bool:
    return type(frozen) is type(found) and frozen == found


def _close(name: str, frozen: Any, found: Any) -> bool:
    """Return whether a number is the same but for another processor's rounding.

    Densities, counts and iterations are the same exactly; losses to 0.1 %; accuracies and errors to three examples;
    masks of level 1 but for a few weights at the threshold.
    """
    if name in NOT_COMPARED:
        return True
    if name == "mask sample":
        return sum(a != b for a, b in zip(frozen, found, strict=True)) <= MASK_BITS
    if isinstance(frozen, list):
        return len(frozen) == len(found) and all(_close(name, *pair) for pair in zip(frozen, found, strict=True))
    bound = _bound(name)
    if bound is None or isinstance(frozen, str) or isinstance(found, str):
        return frozen == found
    return abs(frozen - found) <= bound(frozen)


def _bound(name: str) -> Callable[[float], float] | None:
    if name.endswith("loss"):
        return lambda loss: LOSS * abs(loss)
    if name.endswith(("accuracy", "error")):
        return lambda _: ACCURACY
    if name in ("sparsity", "distance"):
        return lambda _: 1e-3 if name == "sparsity" else MASK_BITS / SAMPLE
    return None


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:80]} ... {text[-70:]}"
