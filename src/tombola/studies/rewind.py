"""The rewind step: an iteration of the dense run, in any of its notations."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from tombola.errors import InputError
from tombola.section import MOST_ITERATIONS, MOST_REWINDS

EPOCHS = re.compile(r"(\d+(?:\.\d+)?) epochs?")
SNAPSHOT = re.compile(r"[a-z][a-z0-9_]*-(\d{1,12})")  # the name of one that a user's own trainer takes


def _rewind_step(value: Any) -> Any:
    """Return a validated rewind step: an iteration, a fraction of the budget, epochs, or a snapshot's name."""
    text = " ".join(str(value).split())
    if isinstance(value, str) and len(text) < 40 and (EPOCHS.fullmatch(text) or SNAPSHOT.fullmatch(text)):
        return text
    try:
        number = float("nan") if isinstance(value, bool) else float(text)
    except (ValueError, OverflowError):
        number = float("nan")
    if 0 < number < 1:
        return number
    if isinstance(value, float) and number == 1:
        raise ValueError("a fraction of the budget must be below 1; write iteration 1 as 1")
    if 0 <= number <= MOST_ITERATIONS and number == int(number):
        return int(number)
    raise ValueError(
        "must be an iteration (500), a fraction of the budget (0.1) or epochs ('2 epochs'); with a loop or trainer of "
        "your own, a snapshot (step-500)"
    )


def rewind_steps(value: Any) -> Any:
    """Return one or several validated rewind steps; ValueError if one is invalid."""
    if isinstance(value, list | tuple) and len(value) > MOST_REWINDS:
        raise ValueError(f"lists {len(value):,} iterations; at most {MOST_REWINDS} are allowed")
    return [_rewind_step(each) for each in value] if isinstance(value, list | tuple) else _rewind_step(value)


RewindStep = int | float | str
Rewind = Annotated[RewindStep | tuple[RewindStep, ...], BeforeValidator(rewind_steps)]


def iterations(
    rewind: RewindStep | tuple[RewindStep, ...], epoch_length: int, budget: int, field: str = "rewind"
) -> tuple[int, ...]:
    """Return the iterations of the dense run that `rewind` names, in its order.

    Args:
        rewind: one rewind step or several.
        epoch_length: iterations in an epoch.
        budget: iterations of the shortest run among the rewound ones and the dense one.
        field: its name, for messages.

    Raises:
        InputError: one lies at the budget or beyond it, two are the same, or none is given.
    """
    several = rewind if isinstance(rewind, tuple) else (rewind,)
    if not several:
        raise InputError(f"{field}=[]: name at least one iteration")
    found: list[int] = []
    for step in several:
        if isinstance(step, str):
            match = EPOCHS.fullmatch(step)
            if match is None:
                raise InputError(
                    f"{field}={step} names a snapshot, which only a user's own trainer takes; without a trainer, give "
                    "an iteration (500), a fraction of the budget (0.1) or epochs ('2 epochs')"
                )
            iteration = round(float(match[1]) * epoch_length)
        else:
            iteration = round(step * budget) if isinstance(step, float) else step
        if iteration >= budget:
            place = "" if isinstance(step, int) else f"is iteration {iteration}, and "
            raise InputError(f"{field}={step} {place}must be below the budget of {budget} iterations")
        if iteration in found:
            raise InputError(f"{field} names iteration {iteration:,} twice")
        found.append(iteration)
    return tuple(found)
