"""Which signs training flips: the share of kept weights whose sign is another than at the initialisation.

Zhou et al. 2019 ("Deconstructing Lottery Tickets") find that signs are what a ticket's weights carry over, and Gadhikar
& Burkholz 2024 ("Masks, Signs, and Learning Rate Rewinding") that learned sign flips are what learning-rate rewinding
adds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from tombola.analysis.layers import ALL, ROW
from tombola.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from tombola.pruning import Mask
    from tombola.running.results import Results
    from tombola.training.engine import Weights

GROWN = ("set", "rigl")  # rules whose weights grow from 0.0
COLUMNS = [*ROW, "density", "layer", "weights", "flipped", "share"]


def sign_flips(results: Results, arms: Sequence[str] | None = None, trial: int | None = None) -> pd.DataFrame:
    """Return the flipped signs of each run, by layer.

    A sign is flipped if the trained weight has another one than the weight had at the initialisation that the run
    descends from. So the flips of `lr-rewind` add up over its levels, and those of a rewound ticket include the
    iterations before `rewind`. An arm that changes its starting weights, such as `{of: ticket, kept: reshuffle}`, is
    compared with what it starts from.

    Args:
        results: of a study, finished or not; weights are read from its store. Diverged runs are left out.
        arms: those to look at; None for all but `set` and `rigl`. Most of their weights grow from 0.0, without a sign.
        trial: the trial to look at; None for all.

    Returns:
        `study`, `arm`, `trial`, `repeat`, `level`; `density` of the network; `layer`, a name or "all"; `weights`, the
        kept ones that were not 0.0 at the initialisation; `flipped`, how many of those have another sign; `share`,
        from 0 to 1, NaN without weights.

    Raises:
        InputError: the study has no such arm, or its weights grow from 0.0.
    """
    frame = results.frame()
    known = list(dict.fromkeys(row.arm for row in results.plan.rows))
    for arm in arms or ():
        if arm not in known:
            raise InputError(f"the study has no arm {arm!r}{nearest(arm, known)}")
    grown = {arm.label for arm in results.study.arms if arm.rule in GROWN}
    if wrong := [arm for arm in arms or () if arm in grown]:
        raise InputError(f"arm {wrong[0]!r}: most of its weights grow from 0.0, so they have no sign to flip")
    asked = [arm for arm in known if arm not in grown] if arms is None else list(arms)
    wanted = frame["arm"].isin(asked) & (frame["status"] != "diverged")
    if trial is not None:
        wanted &= frame["trial"] == trial
    counted: dict[str, list[dict[str, Any]]] = {}  # by run: arms share their dense one
    for _, of_trial in frame[wanted].groupby("trial"):
        starts: dict[str, Weights] = {}
        for job in of_trial["job"].astype(str).unique():
            counted[job] = _of_run(results, job, starts)
    rows = []
    for row in frame[wanted].to_dict("records"):
        place = {key: row[key] for key in (*ROW, "density")}
        rows += [place | each for each in counted[str(row["job"])]]
    return pd.DataFrame(rows, columns=COLUMNS)


def flips(before: Mapping[str, Tensor], after: Mapping[str, Tensor], mask: Mask) -> list[dict[str, Any]]:
    """Return `layer`, `weights`, `flipped` and `share` of each layer of a mask, and of all.

    Args:
        before, after: weights by name, at the initialisation and after training.
        mask: the kept weights.
    """
    counts: dict[str, tuple[int, int]] = {}
    for name, keep in mask.items():
        old, new = before[name][keep].sign(), after[name][keep].sign()
        there = old != 0
        counts[name] = int(there.sum()), int((there & (old != new)).sum())
    counts[ALL] = sum(total for total, _ in counts.values()), sum(gone for _, gone in counts.values())
    return [
        {"layer": name, "weights": total, "flipped": gone, "share": gone / total if total else math.nan}
        for name, (total, gone) in counts.items()
    ]


def _of_run(results: Results, job: str, starts: dict[str, Weights]) -> list[dict[str, Any]]:
    """Return the flips of a run; `starts` keeps the initialisations of a trial that other runs descend from."""
    found, origin = results.store.load(job), _origin(results, job)
    own = found.snapshots["start"]
    if origin != job and origin not in starts:
        starts[origin] = results.store.load(origin).snapshots["start"]
    first = own if origin == job else starts[origin]
    # A transferred ticket gets a new output layer where the source has another number of outputs.
    before = {name: first[name] if first[name].shape == own[name].shape else own[name] for name in found.mask}
    return flips(before, found.snapshots["final"], found.mask)


def _origin(results: Results, job: str) -> str:
    """Return the run that started from the initialisation that a run's weights descend from."""
    spec = results.store.facts(job)["spec"]
    initial = spec.get("initial") or spec.get("origin") or {}  # of version 0.1: origin
    before = initial.get("run") or initial.get("job")
    return job if before is None or initial.get("redraw") else _origin(results, before)
