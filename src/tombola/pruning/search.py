"""Finding a mask: a criterion scores the weights, selection takes the lowest away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tombola.errors import InputError
from tombola.networks.axes import Axes
from tombola.pruning.criteria import SkipRound, Snapshots
from tombola.pruning.mask import Mask
from tombola.pruning.patterns import NONE, Pattern, select_in
from tombola.pruning.scoring import scores_of
from tombola.pruning.select import Scope


def find_mask(
    criterion: str,
    snapshots: Snapshots,
    mask: Mask,
    rounds: Sequence[Mapping[str, float]],
    scope: Scope,
    minimum: int = 0,
    pattern: Pattern | None = None,
    axes: Mapping[str, Axes] = NONE,
) -> Mask:
    """Return `mask` without the weights that a criterion scores lowest.

    Args:
        criterion: one of tombola's, or `package.module:function`.
        snapshots: what the criterion may look at.
        mask: what is kept so far.
        rounds, scope, minimum: as in `select`.
        pattern, axes: of the mask, as in `select_in`.

    Raises:
        SkipRound: the criterion can't tell weights apart, or the rounds remove none.
        InputError: the criterion fails, or its scores can't be used.
    """
    scores = scores_of(criterion, snapshots)
    try:
        found = select_in(pattern, scores, mask, rounds, scope, minimum, axes)
    except ValueError as error:
        raise InputError(f"criterion {criterion!r}: {error}") from error
    if found == mask:
        raise SkipRound("too few weights remain, at too low rates, so the round removes none")
    return found
