"""When the mask of a baseline moves: an arm's `moves`, and its defaults."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from tombola.errors import InputError
from tombola.section import MOST_ITERATIONS, Section
from tombola.training.moving import Method, Moving


def _point(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    fits = number and (0 <= value <= MOST_ITERATIONS if isinstance(value, int) else 0 <= value < 1)
    if value is not None and not fits:
        raise ValueError(
            "must be an iteration, such as 500, or a share of the budget from 0.0 to below 1, such as 0.75"
        )
    return value


Point = Annotated[int | float, BeforeValidator(_point)]


class Moves(Section):
    """The schedule of a mask that moves within a run; see `tombola.training.moving.Moving`.

    Args:
        begin, end: iterations, or shares of the budget.
        every: iterations between two moves; of `ac-dc`, the length of a phase.
        fraction: of `set` and `rigl`, the share of kept weights that moves.
    """

    begin: Point | None = None
    end: Point | None = None
    every: Annotated[int, Field(ge=1, le=MOST_ITERATIONS)] | None = None
    fraction: float | None = Field(default=None, gt=0, le=1)


# Method -> begin and end as shares of the budget, and how many times the mask may move in between. Those of `ac-dc` are
# the authors' for ResNet-50: 10 of 100 epochs dense, phases of 5, the last dense one from 75 to 85.
DEFAULTS: dict[Method, tuple[float, float, int]] = {
    "gradual": (0.0, 0.75, 0),
    "set": (0.0, 0.75, 0),
    "rigl": (0.0, 0.75, 0),
    "ac-dc": (0.1, 0.85, 15),
}
EVERY = 100  # iterations between two moves (Evci et al. 2020, Section 4), and a twentieth of shorter budgets


def moving(method: Method, moves: Moves | None, counts: dict[str, int], budget: int, draw: int, arm: str) -> Moving:
    """Return the rule of a mask that moves, with defaults filled in.

    Args:
        method: which rule.
        moves: what the arm says.
        counts: how many weights each layer keeps in the end.
        budget: iterations of the run.
        draw: numbers the random places.
        arm: its name, for messages.

    Raises:
        InputError: the schedule does not fit the budget, or a field does not belong to the method.
    """
    asked, (first, last, times) = moves or Moves(), DEFAULTS[method]
    if asked.fraction is not None and method not in ("set", "rigl"):
        raise InputError(f"arm {arm!r}: moves.fraction={asked.fraction} belongs to set and rigl, not to {method}")
    begin = _iteration(first if asked.begin is None else asked.begin, budget)
    end = _iteration(last if asked.end is None else asked.end, budget)
    if not begin < end < budget:
        raise InputError(
            f"arm {arm!r}: its mask moves from iteration moves.begin={begin} to moves.end={end}; begin must lie below "
            f"end, and end below the budget of {budget} iterations"
        )
    every = asked.every
    if every is None:
        every = max(1, (end - begin) // times) if times else min(EVERY, max(1, budget // 20))
    if every > end - begin:
        raise InputError(
            f"arm {arm!r}: moves.every={every} is longer than the {end - begin} iterations from moves.begin to "
            f"moves.end; give at most {end - begin}"
        )
    if method == "ac-dc" and 2 * every > end - begin:
        raise InputError(
            f"arm {arm!r}: moves.every={every} leaves no dense phase in the {end - begin} iterations from moves.begin "
            f"to moves.end; give at most {(end - begin) // 2}, or more iterations"
        )
    fraction = {} if asked.fraction is None else {"fraction": asked.fraction}
    rule = Moving(method=method, counts=counts, begin=begin, end=end, every=every, draw=draw, **fraction)
    if not any(rule.moves_at(iteration) for iteration in range(begin, end + 1)):
        raise InputError(
            f"arm {arm!r}: its mask never moves: moves.every={every} has no multiple from moves.begin={begin} to "
            f"{end - 1}, the last iteration before moves.end; lower moves.every"
        )
    return rule


def _iteration(point: int | float, budget: int) -> int:
    return round(point * budget) if isinstance(point, float) else point
