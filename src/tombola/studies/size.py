"""The number of runs of a study, counted before the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tombola.errors import InputError

if TYPE_CHECKING:
    from tombola.studies.study import Study

MAX_RUNS = 100_000  # of a plan, unless more are allowed


def runs_of(study: Study) -> int:
    """Return the approximate number of runs and interpolations of a study; shared ones count once per arm."""
    rewinds = len(study.rewind) if isinstance(study.rewind, tuple) else 1
    each = 1 + sum(arm.per_trial * study.pruning.rounds * rewinds for arm in study.arms)
    if study.connectivity is not None:
        own = study.connectivity.rewind
        starts = rewinds if own is None else len(own) if isinstance(own, tuple) else 1
        copies = study.connectivity.copies
        each += starts * len(study.connectivity.levels) * (copies + copies * (copies - 1) // 2)
    return study.trials * each


def check_size(runs: int, limit: int = MAX_RUNS) -> None:
    """Refuse a plan of more than `limit` runs.

    Raises:
        InputError: the message gives the number of runs, and how to allow them.
    """
    if runs > limit:
        raise InputError(
            f"the study needs about {runs:,} runs, but at most {limit:,} are allowed; lower trials, per_trial, "
            f"pruning.rounds, rewind or connectivity.copies, or allow more with --max-runs {runs}"
        )
